"""Data sets and what is done to their images."""

from dataclasses import dataclass
from typing import Literal

from tf_largebatch.records.checks import check, check_fields, check_known
from tf_largebatch.records.datasets import DATASETS

SMALL_IMAGES = ("cifar10", "fashion_mnist", "mnist")
_MIXING = ("mixup_alpha", "cutmix_alpha")


class _Mixing:
    mixup_alpha: float

    @property
    def mixes(self) -> bool:
        """Whether training images are mixed, so that labels are probabilities."""
        return self.mixup_alpha > 0 or getattr(self, "cutmix_alpha", 0.0) > 0


@dataclass(frozen=True, kw_only=True)
class ImageNetSpec(_Mixing):
    """ImageNet from TFRecord shards, cropped at random for training (in ranges that differ)."""

    name: Literal["imagenet2012"] = "imagenet2012"
    image_size: int = 224  # side of the square the model sees, pixels
    min_area: float = 0.08  # range of the crop's share of the picture's area
    max_area: float = 1.0
    min_aspect: float = 3 / 4  # range of the crop's width / height
    max_aspect: float = 4 / 3
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # of both crops
    # Brightness, contrast and saturation change by up to this share, in random order.
    color_jitter: float = 0.0
    # Deviation of noise along the principal axes of ImageNet's colours (Krizhevsky et al. 2012).
    lighting_std: float = 0.0
    # "short_side" resizes the shorter side to `eval_short_side` and cuts the centre; "square" cuts
    # the central image_size / eval_short_side of the shorter side and resizes that (MLPerf).
    eval_crop: Literal["short_side", "square"] = "short_side"
    eval_image_size: int | None = None  # side of the square at evaluation where it is another one
    eval_short_side: int = 256  # before the central crop at evaluation, pixels
    plain_last_epochs: float = 0.0  # trained on the evaluation crop
    randaugment_magnitude: float = 0.0  # 0 to 10; 0 for none (Cubuk et al. 2019, arXiv:1909.13719)
    mixup_alpha: float = 0.0  # of the Beta distribution (Zhang et al. 2017, arXiv:1710.09412)
    cutmix_alpha: float = 0.0  # the same (Yun et al. 2019, arXiv:1905.04899)

    def __post_init__(self) -> None:
        check(self.image_size >= 32, "data.image_size", "at least 32", self.image_size)
        check(0 < self.min_area <= self.max_area, "data.min_area", "in (0, max]", self.min_area)
        check(self.max_area <= 1, "data.max_area", "at most 1", self.max_area)
        aspect, known = self.min_aspect, ("bilinear", "bicubic")
        in_order = 0 < aspect <= self.max_aspect
        check(in_order, "data.min_aspect", "in (0, data.max_aspect]", aspect)
        check_known(self, "data.", interpolation=known, eval_crop=("short_side", "square"))
        side, short_side, plain = self.eval_side, self.eval_short_side, self.plain_last_epochs
        check(side >= 32, "data.eval_image_size", "at least 32", side)
        rule = f"at least the side of the square at evaluation ({side})"
        check(short_side >= side, "data.eval_short_side", rule, short_side)
        rule = "0 where evaluation has a size of its own"
        fits = self.eval_image_size is None or not plain
        check(fits, "data.plain_last_epochs", rule, plain)
        check(0 <= self.color_jitter <= 1, "data.color_jitter", "in 0..1", self.color_jitter)
        check_fields(self, "data.", "at least 0", "lighting_std", "plain_last_epochs")
        check_fields(self, "data.", "at least 0", "randaugment_magnitude", *_MIXING)

    @property
    def eval_side(self) -> int:
        """Side of the square at evaluation, pixels."""
        return self.image_size if self.eval_image_size is None else self.eval_image_size


@dataclass(frozen=True, kw_only=True)
class DigitsSpec(_Mixing):
    """scikit-learn's handwritten digits: 1797 real images of 8 x 8 that need no download."""

    name: Literal["digits"] = "digits"
    shift: int = 1  # largest shift of a training image along each axis, pixels
    noise: float = 0.3  # deviation of the Gaussian noise on training images, of pixels in 0..1
    plain_last_epochs: float = 0.0  # trained without both
    mixup_alpha: float = 0.0  # of the Beta distribution; 0 for none

    def __post_init__(self) -> None:
        whole = isinstance(self.shift, int) and 0 <= self.shift <= 7
        check(whole, "data.shift", "a whole number in 0..7", self.shift)
        check_fields(self, "data.", "finite", "noise")
        check_fields(self, "data.", "at least 0", "noise", "plain_last_epochs", "mixup_alpha")


@dataclass(frozen=True, kw_only=True)
class SmallImagesSpec(_Mixing):
    """CIFAR-10, Fashion-MNIST or MNIST: from a folder, or downloaded where none is given."""

    name: Literal["cifar10", "fashion_mnist", "mnist"]
    # Largest shift of a training image along each axis, pixels, zeros moving in: the same as
    # padding by so many and cropping at random.
    shift: int = 0
    flip: bool = False  # mirror half of the training images
    plain_last_epochs: float = 0.0  # trained without both
    mixup_alpha: float = 0.0  # of the Beta distribution; 0 for none
    cutmix_alpha: float = 0.0  # the same
    # So many of the last training images take the place of the test images: to choose rates by.
    held_out: int = 0

    def __post_init__(self) -> None:
        check_known(self, "data.", name=SMALL_IMAGES)
        train, held_out = DATASETS[self.name].train_examples, self.held_out
        some = isinstance(held_out, int) and 0 <= held_out < train
        check(some, "data.held_out", f"a whole number in 0..{train - 1}", held_out)
        most = (DATASETS[self.name].image_shape or (1,))[0] - 1
        whole = isinstance(self.shift, int) and 0 <= self.shift <= most
        check(whole, "data.shift", f"a whole number in 0..{most}", self.shift)
        check_fields(self, "data.", "at least 0", "plain_last_epochs", *_MIXING)


DataSpec = ImageNetSpec | DigitsSpec | SmallImagesSpec
# A record of plain data says by this name which it is.
DATA_SPECS: dict[str, type[DataSpec]] = {
    "imagenet2012": ImageNetSpec,
    "digits": DigitsSpec,
    **dict.fromkeys(SMALL_IMAGES, SmallImagesSpec),
}
