"""`python -m tf_largebatch.compare`, the old name of `tf-largebatch compare`."""

from tf_largebatch.review.compare import main

if __name__ == "__main__":
    main()
