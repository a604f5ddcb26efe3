"""What the residual networks share: convolutions, batch normalisation, blocks, input and head.

He et al. 2016, arXiv:1512.03385, with the settings of Goyal et al. 2017, arXiv:1706.02677 §5.1.
Images are channels last.
"""

import math
import random

import keras
from keras import layers

from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization

BOTTLENECK_EXPANSION = 4  # arXiv:1512.03385 Table 1: the last 1x1 convolution of a block is 4 wide


class ResidualLayers:
    """Adds layers to a functional network, all with one choice of initialisation and batch norm.

    Convolutions have no bias and start from He's normal distribution, arXiv:1502.01852 Eq. 10:
    mean 0, sd sqrt(2 / fan_in), fan_in = kernel height x kernel width x input channels, *not*
    truncated. Keras' own `he_normal` cuts the tails at two sd and widens the rest to the same
    variance; Caffe2 and Torch draw the whole normal. (fb.resnet.torch takes fan_out, which the
    paper allows too. Batch norm follows every convolution, so the scale of a kernel does not
    change the function, only how far a step of given length turns it.)

    Args:
        last_gamma: float, the first value of gamma in the last batch norm of every block: 0 makes
            each block start as its shortcut (arXiv:1706.02677 §5.1), 1 is the plain network.
        bn_decay: float in [0, 1), share of the old moving statistics kept by an update; 0 keeps the
            statistics of the last update alone.
        bn_epsilon: float > 0.
        bn_batch: int >= 1, examples of one replica that share batch statistics, or None for its
            whole batch.
        bn_replica_group: int >= 1, consecutive replicas that share batch statistics, or None for
            all. Other than 1 only with `bn_batch=None`.
        head_std: float >= 0, sd of the weights of the last dense layer.
        seed: int or None. With a number, the same call gives the same weights.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self, *, last_gamma, bn_decay, bn_epsilon, bn_batch, bn_replica_group, head_std, seed
    ):
        if not math.isfinite(last_gamma):
            raise ValueError(f"`last_gamma` must be finite. Received: last_gamma={last_gamma}")
        if not 0.0 <= bn_decay < 1.0:
            raise ValueError(f"`bn_decay` must be in [0, 1). Received: bn_decay={bn_decay}")
        if not bn_epsilon > 0.0:
            raise ValueError(f"`bn_epsilon` must be greater than 0. Received: {bn_epsilon=}")
        if bn_batch is not None and bn_batch < 1:
            raise ValueError(f"`bn_batch` must be at least 1 or None. Received: {bn_batch=}")
        if bn_replica_group is not None and bn_replica_group < 1:
            raise ValueError(
                f"`bn_replica_group` must be at least 1 or None. Received: {bn_replica_group=}"
            )
        if bn_batch is not None and bn_replica_group != 1:
            raise ValueError(
                "`bn_batch` must be None when replicas share statistics. "
                f"Received: {bn_batch=}, {bn_replica_group=}"
            )
        if not (head_std >= 0.0 and math.isfinite(head_std)):
            raise ValueError(f"`head_std` must be 0 or more. Received: head_std={head_std}")
        self.last_gamma, self.head_std = last_gamma, head_std
        self.bn_decay, self.bn_epsilon = bn_decay, bn_epsilon
        self.bn_batch, self.bn_replica_group = bn_batch, bn_replica_group
        self._seeds = None if seed is None else random.Random(seed)

    def pixels(self, image_shape, mean, std):
        """Returns the input and (input - mean) / std, both `[batch, height, width, channels]`.

        Args:
            image_shape: (height, width, channels), each >= 1; height and width None for any.
            mean: float or one float per channel, in units of the pixels given to the model.
            std: the same, > 0.
        """
        if len(image_shape) != 3 or min(1 if n is None else n for n in image_shape) < 1:
            raise ValueError(
                "`image_shape` must be (height, width, channels), each at least 1. "
                f"Received: image_shape={image_shape}"
            )
        channels = image_shape[-1]
        mean = _per_channel("pixel_mean", mean, channels)
        std = _per_channel("pixel_std", std, channels)
        if min(std) <= 0.0:
            raise ValueError(f"`pixel_std` must be greater than 0. Received: pixel_std={std}")
        inputs = keras.Input(tuple(image_shape), dtype="float32", name="pixels")
        # float32 under every policy: bfloat16 holds a resized pixel of 128 to 255 only to half a
        # grey level.
        normalize = layers.Rescaling(
            scale=[1.0 / s for s in std],
            offset=[-m / s for m, s in zip(mean, std, strict=True)],
            dtype="float32",
            name="normalize",
        )
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
            kernel_initializer=self._normal(math.sqrt(2.0 / fan_in)),
            name=f"{name}_conv",
        )(x)
        return self._batch_norm(gamma, f"{name}_bn")(x)

    def basic_block(self, x, filters, *, stride, name):
        """Returns relu(shortcut + two 3x3 convolutions), the first with the stride."""
        y = self.conv_norm(x, filters, 3, stride=stride, name=f"{name}_a")
        y = layers.ReLU(name=f"{name}_a_relu")(y)
        y = self.conv_norm(y, filters, 3, gamma=self.last_gamma, name=f"{name}_b")
        return self._join(x, y, stride, name)

    def bottleneck_block(self, x, filters, *, stride, name):
        """Returns relu(shortcut + 1x1, 3x3, 1x1 convolutions), the 3x3 with the stride ("v1.5").

        Goyal et al. §5.1 put the stride there; the network of He et al. has it on the first 1x1.
        """
        y = self.conv_norm(x, filters, 1, name=f"{name}_a")
        y = layers.ReLU(name=f"{name}_a_relu")(y)
        y = self.conv_norm(y, filters, 3, stride=stride, name=f"{name}_b")
        y = layers.ReLU(name=f"{name}_b_relu")(y)
        wide = BOTTLENECK_EXPANSION * filters
        y = self.conv_norm(y, wide, 1, gamma=self.last_gamma, name=f"{name}_c")
        return self._join(x, y, stride, name)

    def head(self, x, classes):
        """Returns float32 logits `[batch, classes]` of the mean over positions."""
        if classes < 2:
            raise ValueError(f"`classes` must be at least 2. Received: classes={classes}")
        # float32 under every policy: logits feed the loss.
        x = layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
        return layers.Dense(
            classes,
            kernel_initializer=self._normal(self.head_std),
            dtype="float32",
            name="head",
        )(x)

    def _join(self, x, y, stride, name):
        if stride > 1 or x.shape[-1] != y.shape[-1]:
            x = self.conv_norm(x, y.shape[-1], 1, stride=stride, name=f"{name}_shortcut")
        return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))

    def _batch_norm(self, gamma, name):
        settings = {
            "momentum": self.bn_decay,
            "epsilon": self.bn_epsilon,
            "gamma_initializer": keras.initializers.Constant(gamma),
            "name": name,
        }
        if self.bn_batch is None and self.bn_replica_group == 1:
            return layers.BatchNormalization(**settings)
        return GhostBatchNormalization(
            self.bn_batch, replica_group=self.bn_replica_group, **settings
        )

    def _normal(self, stddev):
        # One seed for each tensor: two tensors of one shape and one seed would be equal.
        seed = None if self._seeds is None else self._seeds.getrandbits(31)
        return keras.initializers.RandomNormal(stddev=stddev, seed=seed)


def _per_channel(name, value, channels):
    values = [float(v) for v in value] if hasattr(value, "__iter__") else [float(value)] * channels
    if len(values) != channels or not all(map(math.isfinite, values)):
        raise ValueError(
            f"`{name}` must be one finite number, or one for each of {channels} channels. "
            f"Received: {name}={value}"
        )
    return values
