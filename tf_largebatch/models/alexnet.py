"""AlexNet: the network of Krizhevsky et al. 2012, with batch norm, and of one column (2014).

Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural
networks"; You, Gitman & Ginsburg 2017, arXiv:1708.03888, train it and a variant with batch norm
("AlexNet-BN"); Krizhevsky 2014, arXiv:1404.5997, trains one of a single column.

Weights and biases start as in the files with which You et al. trained (NVCaffe,
`models/bvlc_alexnet` and `models/alexnet_bn`): kernels from a normal distribution of sd 0.01, those
of the hidden dense layers 0.005, and biases 0.1 where the 2012 paper, §5, has ones: convolutions 2,
4 and 5 and the hidden dense layers. Those sds suit pixels of which a mean is subtracted and nothing
else: `pixel_std=1` is the published network.
"""

import random
from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import layers

from tf_largebatch.models.blocks import ResidualLayers
from tf_largebatch.models.stream_dropout import StreamDropout

HIDDEN = 4096  # 2012 paper, §3.5: both hidden dense layers
CONV_STD = 0.01  # 2012 paper, §5
DENSE_STD = 0.005  # NVCaffe files
BIAS = 0.1  # NVCaffe files; 1 in the 2012 paper, §5


@dataclass(frozen=True)
class _Shape:
    """Convolutions of one of the networks: all with stride 1 but the first, which has stride 4."""

    filters: tuple[int, ...]
    padding: int  # of the first, each side
    groups: tuple[int, ...]

    @property
    def least_side(self) -> int:
        """The smallest image that leaves one position after the last pooling."""
        return 67 - 2 * self.padding


_KERNELS = (11, 5, 3, 3, 3)
_POOLED = (1, 2, 5)  # convolutions followed by overlapping pooling, 3x3 with stride 2
# 2012 paper, §3.5 and Fig. 2: convolutions 2, 4 and 5 see the half of the maps on their own GPU.
_TWO_COLUMNS = _Shape(filters=(96, 256, 384, 384, 256), padding=0, groups=(1, 2, 1, 2, 2))
_ONE_COLUMN = _Shape(filters=(64, 192, 384, 256, 256), padding=2, groups=(1, 1, 1, 1, 1))


@keras.saving.register_keras_serializable("tf_largebatch")
class LocalResponseNormalization(layers.Layer):
    """Divides each map by the energy of its neighbours in the channel axis.

    Krizhevsky et al. 2012, §3.3, with `a_j` the value of map `j` at one position:

        b_i = a_i / (k + alpha * sum of a_j^2 over |j - i| <= size // 2) ** beta

    `alpha` multiplies the sum, as in the paper. Caffe divides it by `size` first and has k = 1 by
    default, so `alpha: 0.0001, local_size: 5` there is `k=1, alpha=2e-5` here. Sums end at the
    first and last map.

    Shapes: input and output `[batch, height, width, channels]`.

    Args:
        size: odd int >= 1, neighbours in the sum, `n` in the paper.
        k: float > 0.
        alpha: float >= 0.
        beta: float > 0.
        **kwargs: of `keras.layers.Layer`. The dtype is float32 unless given.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(self, size=5, *, k=2.0, alpha=1e-4, beta=0.75, **kwargs):
        if size < 1 or size % 2 == 0:
            raise ValueError(f"`size` must be odd and at least 1. Received: size={size}")
        if not k > 0.0:
            raise ValueError(f"`k` must be greater than 0. Received: k={k}")
        if not alpha >= 0.0:
            raise ValueError(f"`alpha` must be 0 or more. Received: alpha={alpha}")
        if not beta > 0.0:
            raise ValueError(f"`beta` must be greater than 0. Received: beta={beta}")
        # A sum of squares of unnormalised activations: float32 under every policy.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.size, self.k, self.alpha, self.beta = size, k, alpha, beta

    def call(self, inputs):
        """Normalises `inputs`."""
        return tf.nn.local_response_normalization(
            inputs, depth_radius=self.size // 2, bias=self.k, alpha=self.alpha, beta=self.beta
        )

    def get_config(self):
        """Returns every argument of the constructor."""
        ours = {"size": self.size, "k": self.k, "alpha": self.alpha, "beta": self.beta}
        return {**super().get_config(), **ours}


def make_alexnet(
    *,
    pixel_mean,
    pixel_std,
    image_shape=(227, 227, 3),
    classes=1000,
    dropout=0.5,
    head_std=0.01,
    seed=None,
    name="alexnet",
) -> keras.Model:
    """Returns AlexNet with local response normalisation, of two columns: 60,965,224 parameters.

    Five convolutions with biases; the first two are normalised, convolutions 1, 2 and 5 pooled; two
    hidden dense layers with dropout. The 2012 paper says 224 pixels; 227 is the side that its 55x55
    first layer needs, and that of the files of You et al.

    Input `[batch, *image_shape]`, raw pixels of any real dtype; output float32 logits
    `[batch, classes]`, whatever the precision policy.

    Args:
        pixel_mean: float or one per channel, subtracted from the pixels, in their units.
        pixel_std: float or one per channel, > 0, divides them afterwards; 1 as published.
        image_shape: (height, width, channels), sides at least 67.
        classes: int >= 2.
        dropout: float in [0, 1), share of the hidden units that are dropped, both layers.
        head_std: float >= 0, sd of the first weights of the head.
        seed: int or None. With a number, the same call gives the same weights and dropout.
        name: name of the model.

    Raises:
        ValueError: an argument outside its range.
    """
    make = _AlexNetLayers(_TWO_COLUMNS, norm="lrn", dropout=dropout, head_std=head_std, seed=seed)
    return make.model(image_shape, pixel_mean, pixel_std, classes, name)


def make_alexnet_owt(
    *,
    pixel_mean,
    pixel_std,
    image_shape=(224, 224, 3),
    classes=1000,
    dropout=0.5,
    head_std=0.01,
    seed=None,
    name="alexnet_owt",
) -> keras.Model:
    """Returns the AlexNet of one column of "One weird trick", arXiv:1404.5997: 61,100,840.

    As `make_alexnet`, but with 64, 192, 384, 256 and 256 filters, none of them in two halves, and
    two pixels of padding before the first: the shapes that other libraries call AlexNet. That it is
    normalised where the network of 2012 is, and starts as that does, is ours.

    Args:
        pixel_mean: float or one per channel, subtracted from the pixels, in their units.
        pixel_std: float or one per channel, > 0, divides them afterwards; 1 as published.
        image_shape: (height, width, channels), sides at least 63.
        classes: int >= 2.
        dropout: float in [0, 1), share of the hidden units that are dropped, both layers.
        head_std: float >= 0, sd of the first weights of the head.
        seed: int or None. With a number, the same call gives the same weights and dropout.
        name: name of the model.

    Raises:
        ValueError: an argument outside its range.
    """
    make = _AlexNetLayers(_ONE_COLUMN, norm="lrn", dropout=dropout, head_std=head_std, seed=seed)
    return make.model(image_shape, pixel_mean, pixel_std, classes, name)


def make_alexnet_bn(
    *,
    pixel_mean,
    pixel_std,
    image_shape=(227, 227, 3),
    classes=1000,
    pool5_norm=False,
    dropout=0.5,
    bn_decay=0.9,
    bn_epsilon=1e-4,
    bn_batch=None,
    bn_replica_group=1,
    head_std=0.01,
    seed=None,
    name="alexnet_bn",
) -> keras.Model:
    """Returns AlexNet with batch norm in place of local response normalisation: 60,966,600.

    As You et al. 2017, arXiv:1708.03888, train it (NVCaffe `models/alexnet_bn/train_val.prototxt`):
    batch norm with gamma and beta between each of the five convolutions and its ReLU, no biases in
    the convolutions, everything else as in `make_alexnet`. (The file has a bias in the fifth, which
    batch norm takes out again.)

    Args:
        pixel_mean: float or one per channel, subtracted from the pixels, in their units.
        pixel_std: float or one per channel, > 0, divides them afterwards; 1 as published.
        image_shape: (height, width, channels), sides at least 67.
        classes: int >= 2.
        pool5_norm: True adds a batch norm after the last pooling, as Jia et al. 2018,
            arXiv:1807.11205, have it.
        dropout: float in [0, 1), share of the hidden units that are dropped, both layers.
        bn_decay: float in [0, 1), share of the old moving statistics kept by an update; 0 keeps the
            statistics of the last update alone.
        bn_epsilon: float > 0, added to the variance.
        bn_batch: int >= 1, examples of one replica that share batch statistics, or None for its
            whole batch.
        bn_replica_group: int >= 1, consecutive replicas that share batch statistics, or None for
            all. Other than 1 only with `bn_batch=None`.
        head_std: float >= 0, sd of the first weights of the head.
        seed: int or None. With a number, the same call gives the same weights and dropout.
        name: name of the model.

    Raises:
        ValueError: an argument outside its range.
    """
    make = _AlexNetLayers(
        _TWO_COLUMNS,
        norm="batch",
        pool5_norm=pool5_norm,
        dropout=dropout,
        head_std=head_std,
        seed=seed,
        bn_decay=bn_decay,
        bn_epsilon=bn_epsilon,
        bn_batch=bn_batch,
        bn_replica_group=bn_replica_group,
    )
    return make.model(image_shape, pixel_mean, pixel_std, classes, name)


class _AlexNetLayers(ResidualLayers):
    """Input, seeds, batch norm and the checks of `ResidualLayers`; convolutions of its own."""

    def __init__(
        self,
        shape,
        *,
        norm,
        dropout,
        head_std,
        seed,
        pool5_norm=False,
        bn_decay=0.9,
        bn_epsilon=1e-4,
        bn_batch=None,
        bn_replica_group=1,
    ):
        super().__init__(
            last_gamma=1.0,
            bn_decay=bn_decay,
            bn_epsilon=bn_epsilon,
            bn_batch=bn_batch,
            bn_replica_group=bn_replica_group,
            head_std=head_std,
            seed=seed,
        )
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}")
        self.shape, self.norm, self.dropout, self.pool5_norm = shape, norm, dropout, pool5_norm

    def model(self, image_shape, pixel_mean, pixel_std, classes, name):
        inputs, x = self.pixels(image_shape, pixel_mean, pixel_std)
        if min(image_shape[:2]) < self.shape.least_side:
            raise ValueError(
                f"`image_shape` must have sides of at least {self.shape.least_side}. "
                f"Received: image_shape={image_shape}"
            )
        if classes < 2:
            raise ValueError(f"`classes` must be at least 2. Received: classes={classes}")
        for number in range(1, 6):
            x = self._convolution(x, number)
        if self.pool5_norm:
            x = self._batch_norm(1.0, "pool5_bn")(x)
        x = layers.Flatten(name="flatten")(x)
        for number in (6, 7):
            x = self._dense(x, HIDDEN, f"fc{number}", std=DENSE_STD, bias=BIAS)
            x = layers.ReLU(name=f"fc{number}_relu")(x)
            x = StreamDropout(self.dropout, seed=self._next_seed(), name=f"fc{number}_drop")(x)
        # float32 under every policy: logits feed the loss.
        logits = self._dense(x, classes, "head", std=self.head_std, bias=0.0, dtype="float32")
        return keras.Model(inputs, logits, name=name)

    def _convolution(self, x, number):
        first, kernel = number == 1, _KERNELS[number - 1]
        if first and self.shape.padding:
            x = layers.ZeroPadding2D(self.shape.padding, name="conv1_pad")(x)
        x = layers.Conv2D(
            self.shape.filters[number - 1],
            kernel,
            strides=4 if first else 1,
            padding="valid" if first else "same",
            groups=self.shape.groups[number - 1],
            use_bias=self.norm == "lrn",
            kernel_initializer=self._normal(CONV_STD),
            bias_initializer=keras.initializers.Constant(BIAS if number in (2, 4, 5) else 0.0),
            name=f"conv{number}",
        )(x)
        if self.norm == "batch":
            x = self._batch_norm(1.0, f"conv{number}_bn")(x)
        x = layers.ReLU(name=f"conv{number}_relu")(x)
        if self.norm == "lrn" and number in (1, 2):
            x = LocalResponseNormalization(name=f"conv{number}_lrn")(x)
        if number in _POOLED:
            x = layers.MaxPooling2D(3, strides=2, name=f"conv{number}_pool")(x)
        return x

    def _dense(self, x, units, name, *, std, bias, dtype=None):
        return layers.Dense(
            units,
            kernel_initializer=self._normal(std),
            bias_initializer=keras.initializers.Constant(bias),
            dtype=dtype,
            name=name,
        )(x)

    def _next_seed(self):
        return (self._seeds or random).getrandbits(31)
