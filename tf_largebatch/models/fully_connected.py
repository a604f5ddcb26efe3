"""Fully connected networks: the smallest workload of Shallue et al. 2018, and a smaller one."""

import itertools
from collections.abc import Sequence

import keras
from keras import layers

from tf_largebatch.records.checks import check
from tf_largebatch.records.datasets import ImageFacts

HIDDEN = {
    "fully_connected": (1024, 1024, 1024),  # the paper's (arXiv:1811.03600), for MNIST
    "fully_connected_256": (256, 256),  # ours: a run on Fashion-MNIST takes half a minute
}


def make_fully_connected(
    images: ImageFacts,
    *,
    hidden: Sequence[int] = HIDDEN["fully_connected"],
    name: str = "fully_connected",
    seed: int | None = None,
) -> keras.Model:
    """Returns dense layers with ReLU between them; no batch norm, so that no batch is special.

    First weights: Glorot uniform, biases 0. Input, output and `seed` are as `network.make_network`
    has them; ValueError for a width in `hidden` below 1, or images of more than one size.
    """
    check(all(width >= 1 for width in hidden), "hidden", "widths of at least 1", hidden)
    images.check_least_side(1, "fully_connected")
    seeds = itertools.count(0 if seed is None else seed)

    def dense(width: int, **options) -> layers.Dense:
        own = keras.initializers.GlorotUniform(None if seed is None else next(seeds))
        return layers.Dense(width, kernel_initializer=own, **options)

    inputs = keras.Input(images.shape)
    # float32 under every policy: bfloat16 holds a pixel of 128 to 255 only to half a grey level.
    mean, variance = list(images.pixel_mean), [std**2 for std in images.pixel_std]
    normalize = layers.Normalization(mean=mean, variance=variance, dtype="float32", name="pixels")
    x = layers.Flatten(name="flatten")(normalize(inputs))
    for number, width in enumerate(hidden, 1):
        x = dense(width, activation="relu", name=f"hidden{number}")(x)
    logits = dense(images.classes, dtype="float32", name="head")(x)
    return keras.Model(inputs, logits, name=name)
