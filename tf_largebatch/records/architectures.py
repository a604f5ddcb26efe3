"""What is said of a network before it is built; tests hold it against the networks of `models`."""

import math
from dataclasses import dataclass

from tf_largebatch.records.checks import check


@dataclass(frozen=True)
class Architecture:
    """The sizes of one network at its default image shape and number of classes."""

    name: str  # as in a recipe's `model`
    image_shape: tuple[int, int, int]  # (height, width, channels) of the input
    classes: int  # logits
    parameters: int  # trainable numbers: what an all-reduce carries
    moving_statistics: int  # numbers of the moving means and variances, not trainable
    kernel_tensors: int  # trainable, of rank 2 or more: convolutions and the head
    norm_tensors: int  # of batch norms: betas, and gammas where there are any
    bias_tensors: int  # of convolutions and dense layers
    # Of the first convolution, for each channel of the image; in a network without convolutions, of
    # the first dense layer for each value of the image.
    weights_a_channel: int
    head_inputs: int  # values that the head is given

    @property
    def tensors(self) -> int:
        """Trainable tensors."""
        return self.kernel_tensors + self.rank_le_1_tensors

    @property
    def rank_le_1_tensors(self) -> int:
        """Trainable vectors: what recipes leave out of weight decay and of LARS."""
        return self.norm_tensors + self.bias_tensors

    def parameters_on(self, image_shape: tuple[int, int, int], classes: int) -> int:
        """Returns the trainable numbers for other images and classes; not of an AlexNet."""

        def inputs(shape: tuple[int, int, int]) -> int:
            return math.prod(shape) if self.name.startswith("fully_connected") else shape[2]

        first = self.weights_a_channel * (inputs(image_shape) - inputs(self.image_shape))
        return self.parameters + first + (self.head_inputs + 1) * (classes - self.classes)


# name, image, classes, parameters, moving statistics; tensors: kernels, norms, biases; first, head
ARCHITECTURES = (
    Architecture("resnet50", (224, 224, 3), 1000, 25_557_032, 53_120, 54, 106, 1, 3136, 2048),
    Architecture("resnet50_v1", (224, 224, 3), 1000, 25_557_032, 53_120, 54, 106, 1, 3136, 2048),
    Architecture("resnet50_d", (224, 224, 3), 1000, 25_576_264, 53_248, 56, 110, 1, 288, 2048),
    Architecture("resnet101", (224, 224, 3), 1000, 44_549_160, 105_344, 105, 208, 1, 3136, 2048),
    Architecture("resnet152", (224, 224, 3), 1000, 60_192_808, 151_424, 156, 310, 1, 3136, 2048),
    Architecture("alexnet", (227, 227, 3), 1000, 60_965_224, 0, 8, 0, 8, 11616, 4096),
    Architecture("alexnet_bn", (227, 227, 3), 1000, 60_965_224, 2_240, 8, 0, 8, 11616, 4096),
    Architecture("alexnet_bn_pool5", (227, 227, 3), 1000, 60_967_112, 3_264, 8, 12, 3, 11616, 4096),
    Architecture("alexnet_owt", (224, 224, 3), 1000, 61_100_840, 0, 8, 0, 8, 7744, 4096),
    Architecture("alexnet_owt_bn", (224, 224, 3), 1000, 61_110_184, 18_688, 8, 14, 1, 7744, 4096),
    Architecture(
        "inception_resnet_v2", (299, 299, 3), 1000, 55_813_192, 60_544, 245, 204, 41, 288, 1536
    ),
    Architecture("digits_resnet", (8, 8, 1), 10, 77_754, 672, 10, 18, 1, 144, 64),
    Architecture("resnet20", (32, 32, 3), 10, 272_474, 1_568, 22, 42, 1, 144, 64),
    Architecture("fully_connected", (28, 28, 1), 10, 2_913_290, 0, 4, 0, 4, 1024, 1024),
    Architecture("fully_connected_256", (28, 28, 1), 10, 269_322, 0, 3, 0, 3, 256, 256),
)


def get(name: str) -> Architecture:
    """Returns the architecture of this name, or raises ValueError."""
    known = {architecture.name: architecture for architecture in ARCHITECTURES}
    check(name in known, "name", f"one of {', '.join(known)}", name)
    return known[name]
