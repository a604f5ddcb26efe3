"""The sizes of the data sets, known without opening them. Standard library only."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """Exact sizes of one data set.

    Attributes:
        title: as a reader knows it.
        train_examples: training images.
        eval_examples: validation (or test) images, each counted once per evaluation.
        classes: number of labels.
        image_shape: (height, width, channels) as a recipe's model sees it; None where the recipe
            chooses the size.
    """

    title: str
    train_examples: int
    eval_examples: int
    classes: int
    image_shape: tuple[int, int, int] | None


DATASETS = {
    "imagenet2012": DatasetFacts(
        title="ImageNet (ILSVRC 2012)",
        train_examples=1_281_167,
        eval_examples=50_000,
        classes=1000,
        image_shape=None,
    ),
    "digits": DatasetFacts(
        title="scikit-learn digits",
        train_examples=1280,  # ours: of 1797, so that 5 batches of 256 are one epoch
        eval_examples=517,
        classes=10,
        image_shape=(8, 8, 1),
    ),
    "cifar10": DatasetFacts(
        title="CIFAR-10",
        train_examples=50_000,
        eval_examples=10_000,
        classes=10,
        image_shape=(32, 32, 3),
    ),
    "fashion_mnist": DatasetFacts(
        title="Fashion-MNIST",
        train_examples=60_000,
        eval_examples=10_000,
        classes=10,
        image_shape=(28, 28, 1),
    ),
    "mnist": DatasetFacts(
        title="MNIST",
        train_examples=60_000,
        eval_examples=10_000,
        classes=10,
        image_shape=(28, 28, 1),
    ),
}
