"""What the networks share: convolutions, batch normalisation, blocks, input and head.

He et al. 2016, arXiv:1512.03385, with the settings of Goyal et al. 2017, arXiv:1706.02677 §5.1.
Images are channels last.
"""

import math
import random

import keras
from keras import layers

from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
from tf_largebatch.records.datasets import ImageFacts
from tf_largebatch.records.model_spec import ModelSpec

BOTTLENECK_EXPANSION = 4  # arXiv:1512.03385 Table 1: the last 1x1 convolution of a block is 4 wide


class NetworkLayers:
    """Adds layers to a functional network, all with one choice of initialisation and batch norm.

    Convolutions have no bias and start from He's normal distribution, arXiv:1502.01852 Eq. 10:
    mean 0, sd sqrt(2 / fan_in), fan_in = kernel height x kernel width x input channels, *not*
    truncated. Keras' own `he_normal` cuts the tails at two sd and widens the rest to the same
    variance; Caffe2 and Torch draw the whole normal. (fb.resnet.torch takes fan_out, which the
    paper allows too. Batch norm follows every convolution, so the scale of a kernel does not
    change the function, only how far a step of given length turns it.)

    The arguments are those of `network.make_network`.
    """

    def __init__(
        self, spec: ModelSpec, images: ImageFacts, *, seed: int | None, bn_replicas: int | None
    ):
        self.spec, self.images = spec, images
        self._bn_replicas = bn_replicas
        self._seeds = random if seed is None else random.Random(seed)

    def pixels(self):
        """Returns the input and (input - mean) / std, both `[batch, height, width, channels]`."""
        inputs = keras.Input(self.images.shape, dtype="float32", name="pixels")
        # float32 under every policy: bfloat16 holds a resized pixel of 128 to 255 only to half a
        # grey level.
        mean, std = self.images.pixel_mean, self.images.pixel_std
        offset = [-m / s for m, s in zip(mean, std, strict=True)]
        scale = [1.0 / s for s in std]
        normalize = layers.Rescaling(scale, offset, dtype="float32", name="normalize")
        return inputs, normalize(inputs)

    def conv_norm(self, x, filters, kernel, *, name, stride=1, gamma=1.0):
        """Returns batch norm of a convolution of `x`: layers `<name>_conv` and `<name>_bn`."""
        padding = "same"
        if stride > 1:
            # "same" pads a strided convolution of an even side by nothing on the left and more on
            # the right, which shifts the picture by a pixel; Torch and Caffe2 pad both sides.
            padding = "valid"
            if kernel > 1:
                x = layers.ZeroPadding2D((kernel - 1) // 2, name=f"{name}_pad")(x)
        fan_in = kernel * kernel * x.shape[-1]
        x = layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding=padding,
            use_bias=False,
            kernel_initializer=self.normal(math.sqrt(2.0 / fan_in)),
            name=f"{name}_conv",
        )(x)
        return self.batch_norm(f"{name}_bn", gamma)(x)

    def basic_block(self, x, filters, *, stride, name):
        """Returns relu(shortcut + two 3x3 convolutions), the first with the stride."""
        y = self.conv_norm(x, filters, 3, stride=stride, name=f"{name}_a")
        y = layers.ReLU(name=f"{name}_a_relu")(y)
        y = self.conv_norm(y, filters, 3, gamma=self.spec.last_gamma, name=f"{name}_b")
        return self._join(x, y, stride, name)

    def bottleneck_block(self, x, filters, *, stride, name, place="b", mean_shortcut=False):
        """Returns relu(shortcut + 1x1, 3x3, 1x1 convolutions).

        The stride is on the 3x3 ("b", Goyal et al. §5.1: "v1.5") or on the first 1x1 ("a", He et
        al.). A shortcut with a stride takes every other pixel, or their means.
        """
        first, second = (stride, 1) if place == "a" else (1, stride)
        y = self.conv_norm(x, filters, 1, stride=first, name=f"{name}_a")
        y = layers.ReLU(name=f"{name}_a_relu")(y)
        y = self.conv_norm(y, filters, 3, stride=second, name=f"{name}_b")
        y = layers.ReLU(name=f"{name}_b_relu")(y)
        wide = BOTTLENECK_EXPANSION * filters
        y = self.conv_norm(y, wide, 1, gamma=self.spec.last_gamma, name=f"{name}_c")
        if mean_shortcut and stride > 1:
            x = layers.AveragePooling2D(stride, padding="same", name=f"{name}_shortcut_mean")(x)
            stride = 1
        return self._join(x, y, stride, name)

    def head(self, x):
        """Returns float32 logits `[batch, classes]` of the mean over positions."""
        # float32 under every policy: logits feed the loss.
        x = layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
        first = self.normal(self.spec.head_std)
        return layers.Dense(
            self.images.classes, kernel_initializer=first, dtype="float32", name="head"
        )(x)

    def _join(self, x, y, stride, name):
        if stride > 1 or x.shape[-1] != y.shape[-1]:
            x = self.conv_norm(x, y.shape[-1], 1, stride=stride, name=f"{name}_shortcut")
        return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))

    def batch_norm(self, name, gamma=1.0, **settings):
        """Returns the spec's batch norm layer, with gamma starting at `gamma`."""
        settings = {
            "momentum": self.spec.bn_decay,
            "epsilon": self.spec.bn_epsilon,
            "gamma_initializer": keras.initializers.Constant(gamma),
            "name": name,
            **settings,
        }
        if self._bn_replicas != 1:
            return GhostBatchNormalization(replica_group=self._bn_replicas, **settings)
        if self.spec.bn_batch is not None:
            return GhostBatchNormalization(self.spec.bn_batch, **settings)
        return layers.BatchNormalization(**settings)

    def normal(self, stddev):
        """Returns an initialiser of its own: two tensors of one shape and seed would be equal."""
        return keras.initializers.RandomNormal(stddev=stddev, seed=self.next_seed())

    def next_seed(self):
        """Returns the next tensor's or layer's seed."""
        return self._seeds.getrandbits(31)
