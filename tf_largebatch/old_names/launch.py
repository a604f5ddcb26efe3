"""`python -m tf_largebatch.launch`, the old name of `tf-largebatch launch`."""

from tf_largebatch.training.workers.launch.command import main

if __name__ == "__main__":
    main()
