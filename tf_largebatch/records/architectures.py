"""What is said of a network before it is built: sizes, and the tensors exempt from decay.

Standard library only. The tests hold these numbers against the networks of `models`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The sizes of one network at its default image shape and number of classes.

    Attributes:
        name: as in a recipe's `model`.
        image_shape: (height, width, channels) of the input.
        classes: logits.
        parameters: trainable numbers; these are what an all-reduce carries.
        moving_statistics: numbers of the moving means and variances, not trainable.
        kernel_tensors: trainable tensors of rank 2 or more: convolutions and the head.
        norm_tensors: trainable tensors of batch norms: betas, and gammas where there are any.
        bias_tensors: biases of convolutions and dense layers.
    """

    name: str
    image_shape: tuple[int, int, int]
    classes: int
    parameters: int
    moving_statistics: int
    kernel_tensors: int
    norm_tensors: int
    bias_tensors: int

    @property
    def tensors(self) -> int:
        """Trainable tensors."""
        return self.kernel_tensors + self.rank_le_1_tensors

    @property
    def rank_le_1_tensors(self) -> int:
        """Trainable vectors: what recipes leave out of weight decay and of LARS."""
        return self.norm_tensors + self.bias_tensors


ARCHITECTURES = (
    Architecture(
        name="resnet50",
        image_shape=(224, 224, 3),
        classes=1000,
        parameters=25_557_032,
        moving_statistics=53_120,
        kernel_tensors=54,
        norm_tensors=106,
        bias_tensors=1,
    ),
    Architecture(
        name="resnet101",
        image_shape=(224, 224, 3),
        classes=1000,
        parameters=44_549_160,
        moving_statistics=105_344,
        kernel_tensors=105,
        norm_tensors=208,
        bias_tensors=1,
    ),
    Architecture(
        name="resnet152",
        image_shape=(224, 224, 3),
        classes=1000,
        parameters=60_192_808,
        moving_statistics=151_424,
        kernel_tensors=156,
        norm_tensors=310,
        bias_tensors=1,
    ),
    Architecture(
        name="alexnet",
        image_shape=(227, 227, 3),
        classes=1000,
        parameters=60_965_224,
        moving_statistics=0,
        kernel_tensors=8,
        norm_tensors=0,
        bias_tensors=8,
    ),
    Architecture(
        name="alexnet_bn",
        image_shape=(227, 227, 3),
        classes=1000,
        parameters=60_966_600,
        moving_statistics=2_752,
        kernel_tensors=8,
        norm_tensors=10,
        bias_tensors=3,
    ),
    Architecture(
        name="alexnet_bn_pool5",
        image_shape=(227, 227, 3),
        classes=1000,
        parameters=60_967_112,
        moving_statistics=3_264,
        kernel_tensors=8,
        norm_tensors=12,
        bias_tensors=3,
    ),
    Architecture(
        name="alexnet_owt",
        image_shape=(224, 224, 3),
        classes=1000,
        parameters=61_100_840,
        moving_statistics=0,
        kernel_tensors=8,
        norm_tensors=0,
        bias_tensors=8,
    ),
    Architecture(
        name="inception_resnet_v2",
        image_shape=(299, 299, 3),
        classes=1000,
        parameters=55_813_192,
        moving_statistics=60_544,
        kernel_tensors=245,
        norm_tensors=204,
        bias_tensors=41,
    ),
    Architecture(
        name="digits_resnet",
        image_shape=(8, 8, 1),
        classes=10,
        parameters=77_754,
        moving_statistics=672,
        kernel_tensors=10,
        norm_tensors=18,
        bias_tensors=1,
    ),
)


def get(name: str) -> Architecture:
    """Returns the architecture of this name.

    Raises:
        ValueError: no such name.
    """
    for architecture in ARCHITECTURES:
        if architecture.name == name:
            return architecture
    known = ", ".join(architecture.name for architecture in ARCHITECTURES)
    raise ValueError(f"`name` must be one of {known}. Received: name={name!r}")
