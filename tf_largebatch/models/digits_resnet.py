"""The small residual network of the digits miniature: the blocks of ResNet-50 in 8x8 pixels."""

import keras
from keras import layers

from tf_largebatch.models.blocks import ResidualLayers

STAGES = 3


def make_digits_resnet(
    *,
    pixel_mean,
    pixel_std,
    image_shape=(8, 8, 1),
    classes=10,
    width=16,
    last_gamma=0.0,
    bn_decay=0.9,
    bn_epsilon=1e-5,
    bn_batch=None,
    bn_replica_group=1,
    head_std=0.01,
    seed=None,
    name="digits_resnet",
) -> keras.Model:
    """Returns a residual network of three stages, one basic block each.

    Stem 3x3 convolution; stages of `width`, `2 width` and `4 width` filters, each half the side of
    the one before; mean over positions; dense head. Initialisation, zero gammas and batch norm are
    those of `make_resnet`, so that what is switched there is switched here.

    Input `[batch, *image_shape]`, raw pixels of any real dtype; output float32 logits
    `[batch, classes]`. 77,754 trainable parameters with the default shape, classes and width.

    Args:
        pixel_mean: float or one per channel, subtracted from the pixels, in their units.
        pixel_std: float or one per channel, > 0, divides them afterwards.
        image_shape: (height, width, channels), each >= 1.
        classes: int >= 2.
        width: int >= 1, filters of the first stage.
        last_gamma: float, first gamma of the last batch norm of every block; 0 or 1.
        bn_decay: float in [0, 1), share of the old moving statistics kept by an update; 0 keeps the
            statistics of the last update alone.
        bn_epsilon: float > 0, added to the variance.
        bn_batch: int >= 1, examples of one replica that share batch statistics, or None for its
            whole batch.
        bn_replica_group: int >= 1, consecutive replicas that share batch statistics, or None for
            all. Other than 1 only with `bn_batch=None`.
        head_std: float >= 0, sd of the first weights of the head.
        seed: int or None. With a number, the same call gives the same weights.
        name: name of the model.

    Raises:
        ValueError: an argument outside its range.
    """
    if width < 1:
        raise ValueError(f"`width` must be at least 1. Received: width={width}")
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
    x = layers.ReLU(name="stem_relu")(make.conv_norm(x, width, 3, name="stem"))
    for stage in range(STAGES):
        stride = 1 if stage == 0 else 2
        x = make.basic_block(x, width * 2**stage, stride=stride, name=f"stage{stage + 1}_block1")
    return keras.Model(inputs, make.head(x, classes), name=name)
