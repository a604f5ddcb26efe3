"""`python -m tf_largebatch.diagnose`, the old name of `tf-largebatch diagnose`."""

from tf_largebatch.diagnostics.command import main

if __name__ == "__main__":
    main()
