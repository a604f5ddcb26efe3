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

from dataclasses import dataclass, replace

import keras
import tensorflow as tf
from keras import layers

from tf_largebatch.models.blocks import NetworkLayers
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
    norm: str = "lrn"  # or "batch"
    pool5_norm: bool = False

    @property
    def least_side(self) -> int:
        """The smallest image that leaves one position after the last pooling."""
        return 67 - 2 * self.padding


_KERNELS = (11, 5, 3, 3, 3)
_POOLED = (1, 2, 5)  # convolutions followed by overlapping pooling, 3x3 with stride 2
# 2012 paper, §3.5 and Fig. 2: convolutions 2, 4 and 5 see the half of the maps on their own GPU.
_TWO_COLUMNS = _Shape(filters=(96, 256, 384, 384, 256), padding=0, groups=(1, 2, 1, 2, 2))
_SHAPES = {
    "alexnet": _TWO_COLUMNS,
    "alexnet_owt": _Shape(filters=(64, 192, 384, 256, 256), padding=2, groups=(1, 1, 1, 1, 1)),
    "alexnet_bn": replace(_TWO_COLUMNS, norm="batch"),
    "alexnet_bn_pool5": replace(_TWO_COLUMNS, norm="batch", pool5_norm=True),
}


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


def make_alexnet(make: NetworkLayers) -> keras.Model:
    """Returns one of the AlexNets, by `spec.architecture`.

        alexnet            two columns, local response normalisation: 60,965,224 parameters
        alexnet_owt        one column, that of "One weird trick", arXiv:1404.5997: 61,100,840
        alexnet_bn         two columns, batch norm for local response normalisation: 60,966,600
        alexnet_bn_pool5   the same with one more batch norm after the last pooling (Jia et al.
                           2018, arXiv:1807.11205)

    Five convolutions, of which 1, 2 and 5 are pooled; two hidden dense layers with dropout. The
    2012 paper says 224 pixels; 227 is the side that its 55x55 first layer needs, and that of the
    files of You et al. That the network of one column is normalised where that of 2012 is, and
    starts as that does, is ours; its filters and padding are those that other libraries call
    AlexNet. With batch norm, as NVCaffe's `models/alexnet_bn/train_val.prototxt` has it (You et al.
    2017, arXiv:1708.03888), gamma and beta stand between each convolution and its ReLU, and the
    convolutions have no biases. (The file has one in the fifth, which batch norm takes out again.)

    Raises:
        ValueError: sides below 67, or 63 for one column.
    """
    name, shape = make.spec.architecture, _SHAPES[make.spec.architecture]
    make.images.check_least_side(shape.least_side, name)
    inputs, x = make.pixels()
    for number in range(1, 6):
        x = _convolution(make, shape, x, number)
    if shape.pool5_norm:
        x = make.batch_norm("pool5_bn")(x)
    x = layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        x = _dense(make, x, HIDDEN, f"fc{number}", std=DENSE_STD, bias=BIAS)
        x = layers.ReLU(name=f"fc{number}_relu")(x)
        x = StreamDropout(make.spec.dropout, seed=make.next_seed(), name=f"fc{number}_drop")(x)
    # float32 under every policy: logits feed the loss.
    classes, std = make.images.classes, make.spec.head_std
    logits = _dense(make, x, classes, "head", std=std, bias=0.0, dtype="float32")
    return keras.Model(inputs, logits, name=name)


def _convolution(make, shape, x, number):
    first, kernel = number == 1, _KERNELS[number - 1]
    if first and shape.padding:
        x = layers.ZeroPadding2D(shape.padding, name="conv1_pad")(x)
    x = layers.Conv2D(
        shape.filters[number - 1],
        kernel,
        strides=4 if first else 1,
        padding="valid" if first else "same",
        groups=shape.groups[number - 1],
        use_bias=shape.norm == "lrn",
        kernel_initializer=make.normal(CONV_STD),
        bias_initializer=keras.initializers.Constant(BIAS if number in (2, 4, 5) else 0.0),
        name=f"conv{number}",
    )(x)
    if shape.norm == "batch":
        x = make.batch_norm(f"conv{number}_bn")(x)
    x = layers.ReLU(name=f"conv{number}_relu")(x)
    if shape.norm == "lrn" and number in (1, 2):
        x = LocalResponseNormalization(name=f"conv{number}_lrn")(x)
    if number in _POOLED:
        x = layers.MaxPooling2D(3, strides=2, name=f"conv{number}_pool")(x)
    return x


def _dense(make, x, units, name, *, std, bias, dtype=None):
    return layers.Dense(
        units,
        kernel_initializer=make.normal(std),
        bias_initializer=keras.initializers.Constant(bias),
        dtype=dtype,
        name=name,
    )(x)
