"""A fully connected network, the smallest workload of Shallue et al. 2018, arXiv:1811.03600."""

import itertools

import keras
from keras import layers


def make_fully_connected(
    *, image_shape, classes, hidden, pixel_mean, pixel_std, seed=None, name="fully_connected"
) -> keras.Model:
    """Returns dense layers with ReLU between them; no batch norm, so that no batch is special.

    The paper's has three hidden layers of 1,024 for MNIST. First weights: Glorot uniform, biases 0.

    Input `[batch, *image_shape]`, raw pixels; output float32 logits `[batch, classes]`.

    Args:
        image_shape: (height, width, channels), each >= 1.
        classes: int >= 2.
        hidden: widths of the hidden layers, each >= 1.
        pixel_mean: float or one per channel, subtracted from the pixels.
        pixel_std: float or one per channel, > 0, divides them afterwards.
        seed: int or None. With a number, the same call gives the same weights.
        name: name of the model.

    Raises:
        ValueError: a width below 1.
    """
    if any(width < 1 for width in hidden):
        raise ValueError(f"`hidden` must be widths of at least 1. Received: hidden={hidden}")
    seeds = itertools.count(0 if seed is None else seed)

    def dense(width: int, **options) -> layers.Dense:
        own = keras.initializers.GlorotUniform(None if seed is None else next(seeds))
        return layers.Dense(width, kernel_initializer=own, **options)

    inputs = keras.Input(image_shape)
    variance = [float(s) ** 2 for s in pixel_std]
    x = layers.Normalization(mean=list(pixel_mean), variance=variance, name="pixels")(inputs)
    x = layers.Flatten(name="flatten")(x)
    for number, width in enumerate(hidden, 1):
        x = dense(width, activation="relu", name=f"hidden{number}")(x)
    return keras.Model(inputs, dense(classes, dtype="float32", name="head")(x), name=name)
