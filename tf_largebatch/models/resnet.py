"""ResNet-50, -101 and -152 as Goyal et al. 2017 train them, arXiv:1706.02677 §5.1.

The network of He et al. 2016, arXiv:1512.03385 Table 1, with the stride on the 3x3 convolutions
(called "v1.5" elsewhere), padding as in fb.resnet.torch, and gamma 0 in the last batch norm of
every block. `keras.applications.ResNet50` is another network: stride on the 1x1, biases in the
convolutions, Glorot initialisation, batch-norm decay 0.99.
"""

import keras
from keras import layers

from tf_largebatch.models.blocks import ResidualLayers

STAGE_FILTERS = (64, 128, 256, 512)  # arXiv:1512.03385 Table 1
STAGE_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # the same table


def make_resnet(
    depth=50,
    *,
    pixel_mean,
    pixel_std,
    image_shape=(224, 224, 3),
    classes=1000,
    last_gamma=0.0,
    bn_decay=0.9,
    bn_epsilon=1e-5,
    bn_batch=None,
    bn_replica_group=1,
    head_std=0.01,
    seed=None,
    name=None,
) -> keras.Model:
    """Returns a bottleneck residual network.

    Input `[batch, *image_shape]`, raw pixels of any real dtype; output float32 logits
    `[batch, classes]`, whatever the precision policy. The four stages have 1/4, 1/8, 1/16 and 1/32
    of the side of the image, rounded up.

    Args:
        depth: 50, 101 or 152.
        pixel_mean: float or one per channel, subtracted from the pixels, in their units.
        pixel_std: float or one per channel, > 0, divides them afterwards.
        image_shape: (height, width, channels), each >= 1; height and width None for any size.
        classes: int >= 2.
        last_gamma: float, first gamma of the last batch norm of every block: 0 (Goyal et al.) or 1.
        bn_decay: float in [0, 1), share of the old moving statistics kept by an update; 0 keeps the
            statistics of the last update alone.
        bn_epsilon: float > 0, added to the variance.
        bn_batch: int >= 1, examples of one replica that share batch statistics, or None for its
            whole batch.
        bn_replica_group: int >= 1, consecutive replicas that share batch statistics, or None for
            all. Other than 1 only with `bn_batch=None`.
        head_std: float >= 0, sd of the first weights of the head.
        seed: int or None. With a number, the same call gives the same weights.
        name: name of the model, `resnet50` and so on by default.

    Raises:
        ValueError: an argument outside its range.
    """
    if depth not in STAGE_BLOCKS:
        raise ValueError(
            f"`depth` must be one of {', '.join(map(str, STAGE_BLOCKS))}. Received: depth={depth}"
        )
    make = ResidualLayers(
        last_gamma=last_gamma,
        bn_decay=bn_decay,
        bn_epsilon=bn_epsilon,
        bn_batch=bn_batch,
        bn_replica_group=bn_replica_group,
        head_std=head_std,
        seed=seed,
    )
    inputs, x = make.pixels(image_shape, pixel_mean, pixel_std)
    x = layers.ReLU(name="stem_relu")(make.conv_norm(x, 64, 7, stride=2, name="stem"))
    # Both sides are padded, as in fb.resnet.torch. Zeros never win against values after a ReLU.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    for stage, (filters, blocks) in enumerate(
        zip(STAGE_FILTERS, STAGE_BLOCKS[depth], strict=True), start=1
    ):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = make.bottleneck_block(x, filters, stride=stride, name=f"stage{stage}_block{block}")
    return keras.Model(inputs, make.head(x, classes), name=name or f"resnet{depth}")
