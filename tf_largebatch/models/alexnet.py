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
from tf_largebatch.records.checks import check

HIDDEN = 4096  # 2012 paper, §3.5: both hidden dense layers
CONV_STD = 0.01  # 2012 paper, §5
DENSE_STD = 0.005  # NVCaffe files
BIAS = 0.1  # NVCaffe files; 1 in the 2012 paper, §5


@dataclass(frozen=True, kw_only=True)
class _Network:
    """One of the networks; convolutions have stride 1 but the first, which has stride 4."""

    filters: tuple[int, ...] = (96, 256, 384, 384, 256)
    padding: int = 0  # of the first, each side
    # 2012 paper, §3.5, Fig. 2: convolutions 2, 4 and 5 see the half of the maps on their own GPU.
    groups: tuple[int, ...] = (1, 2, 1, 2, 2)
    after: tuple[str, ...]  # what follows each convolution, in this order
    biases: tuple[float, ...] | None  # the convolutions' first biases; None for none
    head_bias: float = 0.0
    scaled: bool = True  # gamma and beta in the batch norms
    dense_norm: bool = False  # batch norm in place of the hidden dense layers' biases
    torch_start: bool = False  # PyTorch's first kernels: U(-1, 1) / sqrt(fan_in)


_KERNELS = (11, 5, 3, 3, 3)
_LRN = ("relu lrn pool", "relu lrn pool", "relu", "relu", "relu pool")
_BIASES = (0.0, BIAS, 0.0, BIAS, BIAS)
_NORM = ("norm relu pool", "norm relu pool", "norm relu", "norm relu", "norm relu pool pool5")
_TWO_COLUMNS = _Network(after=_LRN, biases=_BIASES)
_ONE_COLUMN = replace(
    _TWO_COLUMNS, filters=(64, 192, 384, 256, 256), padding=2, groups=(1, 1, 1, 1, 1)
)
_NETWORKS = {
    "alexnet": _TWO_COLUMNS,
    "alexnet_owt": _ONE_COLUMN,
    "alexnet_bn": replace(
        _TWO_COLUMNS,
        after=("relu pool norm", "relu pool norm", "relu norm", "relu norm", "relu pool"),
        biases=(0.01,) * 5,
        head_bias=0.01,
        scaled=False,
    ),
    "alexnet_bn_pool5": replace(_TWO_COLUMNS, after=_NORM, biases=None),
    "alexnet_owt_bn": replace(
        _ONE_COLUMN,
        after=("pool norm relu", "pool relu norm", "relu norm", "relu norm", "pool relu norm"),
        biases=None,
        dense_norm=True,
        torch_start=True,
    ),
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
        check(size >= 1 and size % 2 == 1, "size", "odd and at least 1", size)
        check(k > 0.0, "k", "greater than 0", k)
        check(alpha >= 0.0, "alpha", "0 or more", alpha)
        check(beta > 0.0, "beta", "greater than 0", beta)
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
        alexnet_bn         two columns, batch norm for local response normalisation: 60,965,224
        alexnet_bn_pool5   batch norm between every convolution and its ReLU, and one after the last
                           pooling (Jia et al. 2018, arXiv:1807.11205): 60,967,112
        alexnet_owt_bn     one column, batch norm everywhere (Hoffer et al. 2017): 61,110,184

    Five convolutions, of which 1, 2 and 5 are pooled; two hidden dense layers with dropout. The
    2012 paper says 224 pixels; 227 is the side that its 55x55 first layer needs, and that of the
    files of You et al. That the network of one column is normalised where that of 2012 is, and
    starts as that does, is ours; its filters and padding are those that other libraries call
    AlexNet. alexnet_bn is NVCaffe's `models/alexnet_bn/train_val2.prototxt`, which You et al.'s
    solvers train: batch norm without gamma and beta before convolutions 2 to 5, biases of 0.01,
    pixels over 256. alexnet_owt_bn is eladhoffer/bigBatch's `models/alexnet.py`.

    ValueError for sides below 67, or 63 for one column.
    """
    name, network = make.spec.architecture, _NETWORKS[make.spec.architecture]
    # The smallest image that leaves one position after the last pooling.
    make.images.check_least_side(67 - 2 * network.padding, name)
    inputs, x = make.pixels()
    for number in range(1, 6):
        x = _convolution(make, network, x, number)
    x = layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        kernel = _kernel(make, network, DENSE_STD)
        x = _dense(x, HIDDEN, f"fc{number}", kernel, None if network.dense_norm else BIAS)
        if network.dense_norm:
            x = make.batch_norm(f"fc{number}_bn")(x)
        x = layers.ReLU(name=f"fc{number}_relu")(x)
        x = StreamDropout(make.spec.dropout, seed=make.next_seed(), name=f"fc{number}_drop")(x)
    # float32 under every policy: logits feed the loss.
    kernel = make.normal(make.spec.head_std)
    logits = _dense(x, make.images.classes, "head", kernel, network.head_bias, dtype="float32")
    return keras.Model(inputs, logits, name=name)


def _convolution(make, network, x, number):
    first, name = number == 1, f"conv{number}"
    if first and network.padding:
        x = layers.ZeroPadding2D(network.padding, name="conv1_pad")(x)
    x = layers.Conv2D(
        network.filters[number - 1],
        _KERNELS[number - 1],
        strides=4 if first else 1,
        padding="valid" if first else "same",
        groups=network.groups[number - 1],
        kernel_initializer=_kernel(make, network, CONV_STD),
        **_bias(network.biases and network.biases[number - 1]),
        name=name,
    )(x)
    for what in network.after[number - 1].split():
        match what:
            case "relu":
                x = layers.ReLU(name=f"{name}_relu")(x)
            case "lrn":
                x = LocalResponseNormalization(name=f"{name}_lrn")(x)
            case "pool":  # overlapping
                x = layers.MaxPooling2D(3, strides=2, name=f"{name}_pool")(x)
            case _:
                norm = f"{name}_bn" if what == "norm" else "pool5_bn"
                x = make.batch_norm(norm, scale=network.scaled, center=network.scaled)(x)
    return x


def _dense(x, units, name, kernel, bias, **settings):
    return layers.Dense(units, kernel_initializer=kernel, **_bias(bias), name=name, **settings)(x)


def _kernel(make, network, std):
    if not network.torch_start:
        return make.normal(std)
    seed = make.next_seed()
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)


def _bias(first):
    """The arguments of a layer whose biases start there; None for no biases."""
    if first is None:
        return {"use_bias": False}
    return {"bias_initializer": keras.initializers.Constant(first)}
