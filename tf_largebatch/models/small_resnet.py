"""Residual networks for images of 8 to 32 pixels: digits, MNIST, Fashion-MNIST, CIFAR-10.

Three stages of the blocks of ResNet-50's kind, as He et al. 2016, arXiv:1512.03385 §4.2, have them
for CIFAR-10; ours project the shortcut where the shape changes, theirs pads it with zeros.
"""

import keras
from keras import layers

from tf_largebatch.models.blocks import NetworkLayers

BLOCKS = {"digits_resnet": 1, "resnet20": 3}  # of each of the three stages
WIDTH = 16  # §4.2: filters of the first stage; each later stage has twice as many


def make_small_resnet(make: NetworkLayers, width: int = WIDTH) -> keras.Model:
    """Returns a residual network of three stages; `spec.architecture` is one of `BLOCKS`.

    Stem 3x3 convolution; stages of `width`, `2 width` and `4 width` filters, each half the side of
    the one before; mean over positions; dense head. Initialisation, zero gammas and batch norm are
    those of ResNet-50, so that what is switched there is switched here. `digits_resnet` has 77,754
    trainable parameters on grey images of 10 classes, `resnet20` 273,778 on CIFAR-10.
    """
    inputs, x = make.pixels()
    x = layers.ReLU(name="stem_relu")(make.conv_norm(x, width, 3, name="stem"))
    name = make.spec.architecture
    for stage in range(3):
        for block in range(1, BLOCKS[name] + 1):
            stride = 2 if stage > 0 and block == 1 else 1
            x = make.basic_block(
                x, width * 2**stage, stride=stride, name=f"stage{stage + 1}_block{block}"
            )
    return keras.Model(inputs, make.head(x), name=name)
