"""The sizes of the data sets, known without opening them; what a network must know of images."""

import math
from dataclasses import dataclass

from tf_largebatch.records.checks import check


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What a network must know of the images that it is given: it computes (pixel - mean) / std.

    Raises:
        ValueError: a value outside its range.
    """

    shape: tuple[int | None, int | None, int]  # height, width, channels; None for any
    classes: int  # at least 2
    pixel_mean: tuple[float, ...]  # one a channel, in the units of the pixels
    pixel_std: tuple[float, ...]  # the same, above 0

    def __post_init__(self) -> None:
        sizes = len(self.shape) == 3 and all(n is None or n >= 1 for n in self.shape)
        check(sizes, "shape", "(height, width, channels), each at least 1", self.shape)
        check(self.classes >= 2, "classes", "at least 2", self.classes)
        rule = f"one finite number for each of {self.shape[2]} channels"
        for name in ("pixel_mean", "pixel_std"):
            value = getattr(self, name)
            whole = len(value) == self.shape[2] and all(map(math.isfinite, value))
            check(whole, name, rule, value)
        check(min(self.pixel_std) > 0, "pixel_std", "above 0", self.pixel_std)

    def check_least_side(self, least: int, network: str) -> None:
        """Raises ValueError unless both sides are known and `network` can take them."""
        if any(side is None or side < least for side in self.shape[:2]):
            rule = f"images of one size with sides of at least {least}"
            raise ValueError(f"{network} needs {rule}. Received: {self.shape}")


@dataclass(frozen=True)
class DatasetFacts:
    """Exact sizes of one data set; `image_shape` is None where the recipe chooses the size."""

    title: str
    train_examples: int
    eval_examples: int
    classes: int
    image_shape: tuple[int, int, int] | None


DATASETS = {
    "imagenet2012": DatasetFacts("ImageNet (ILSVRC 2012)", 1_281_167, 50_000, 1000, None),
    # ours: 1280 of 1797 digits, so that 5 batches of 256 are one epoch
    "digits": DatasetFacts("scikit-learn digits", 1280, 517, 10, (8, 8, 1)),
    "cifar10": DatasetFacts("CIFAR-10", 50_000, 10_000, 10, (32, 32, 3)),
    "fashion_mnist": DatasetFacts("Fashion-MNIST", 60_000, 10_000, 10, (28, 28, 1)),
    "mnist": DatasetFacts("MNIST", 60_000, 10_000, 10, (28, 28, 1)),
}
