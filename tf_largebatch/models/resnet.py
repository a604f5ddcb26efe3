"""ResNet-50, -101 and -152 as Goyal et al. 2017 train them, arXiv:1706.02677 §5.1.

The network of He et al. 2016, arXiv:1512.03385 Table 1, with the stride on the 3x3 convolutions
(called "v1.5" elsewhere; "resnet50_v1" has it on the first 1x1, as published), padding as in
fb.resnet.torch, and gamma 0 in the last batch norm of every block. "resnet50_d" begins with three
3x3 convolutions and averages before a shortcut's 1x1 (arXiv:1812.01187 Figure 2).
`keras.applications.ResNet50` is another network: biases in the convolutions, Glorot
initialisation, batch-norm decay 0.99.
"""

import keras
from keras import layers

from tf_largebatch.models.blocks import NetworkLayers

STAGE_FILTERS = (64, 128, 256, 512)  # arXiv:1512.03385 Table 1
STAGE_BLOCKS = {  # the same table
    "resnet50": (3, 4, 6, 3),
    "resnet50_v1": (3, 4, 6, 3),
    "resnet50_d": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


def make_resnet(make: NetworkLayers) -> keras.Model:
    """Returns a bottleneck residual network; `spec.architecture` is one of `STAGE_BLOCKS`.

    The four stages have 1/4, 1/8, 1/16 and 1/32 of the side of the image, rounded up; images may
    have any side.
    """
    inputs, x = make.pixels()
    name = make.spec.architecture
    deep = name == "resnet50_d"
    if deep:
        x = layers.ReLU(name="stem_a_relu")(make.conv_norm(x, 32, 3, stride=2, name="stem_a"))
        x = layers.ReLU(name="stem_b_relu")(make.conv_norm(x, 32, 3, name="stem_b"))
    stem = {"kernel": 3, "stride": 1} if deep else {"kernel": 7, "stride": 2}
    x = layers.ReLU(name="stem_relu")(make.conv_norm(x, 64, **stem, name="stem"))
    # Both sides are padded, as in fb.resnet.torch. Zeros never win against values after a ReLU.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    stages = zip(STAGE_FILTERS, STAGE_BLOCKS[name], strict=True)
    for stage, (filters, blocks) in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            place = "a" if name == "resnet50_v1" else "b"
            block_name = f"stage{stage}_block{block}"
            x = make.bottleneck_block(
                x, filters, stride=stride, place=place, mean_shortcut=deep, name=block_name
            )
    return keras.Model(inputs, make.head(x), name=name)
