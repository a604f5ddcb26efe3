"""A network of the caller's in the place of a recipe's: made, checked and described."""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from tf_largebatch.records.architectures import Architecture
from tf_largebatch.records.datasets import ImageFacts
from tf_largebatch.records.errors import InputError

# A function that makes it of the images' facts, or a model that is copied with its weights.
Network: TypeAlias = keras.Model | Callable[[ImageFacts], keras.Model]
_NORMS = (
    keras.layers.BatchNormalization,  # ghost batch norm too
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


def make_own(network: Network, images: ImageFacts, seed: int) -> keras.Model:
    """Returns a new model: raw pixels [n, *images.shape] in, logits [n, images.classes] out.

    InputError: what it makes is something else.
    """
    keras.utils.set_random_seed(seed)
    if isinstance(network, keras.Model):
        model = _copy(network)
    else:
        model = network(images)
    if not isinstance(model, keras.Model) or not model.built:
        raise InputError(
            f"`model` must make a built Keras model. Received: {type(model).__name__}. Begin it "
            f"with keras.Input({images.shape})"
        )
    wanted, there = (None, images.classes), tuple(model.output_shape)
    if there != wanted:
        raise InputError(
            f"`model` must end in logits of the {images.classes} classes, {wanted}. Received: "
            f"{model.name} with {there}. Make its last layer Dense({images.classes})"
        )
    shape = tuple(model.input_shape)[1:]
    known = zip(shape, images.shape, strict=False)
    if len(shape) != 3 or any(a != b for a, b in known if a is not None and b is not None):
        raise InputError(
            f"`model` must take images of {images.shape}. Received: {model.name} for {shape}. "
            "Begin it with such a keras.Input"
        )
    return model


def describe_network(network: Network, images: ImageFacts) -> Architecture:
    """Returns the sizes that a plan shows."""
    model = _example(network, images)
    sizes, kinds = 0, {"kernel": 0, "norm": 0, "bias": 0}
    moving = 0
    for layer in model._flatten_layers():
        norm = isinstance(layer, _NORMS)
        for variable in layer._trainable_variables:
            sizes += math.prod(variable.shape)
            rank = len(variable.shape)
            kinds["kernel" if rank >= 2 else "norm" if norm else "bias"] += 1
        if isinstance(layer, keras.layers.BatchNormalization):
            moving += sum(math.prod(v.shape) for v in layer.non_trainable_variables)
    return Architecture(
        name=model.name,
        image_shape=images.shape,  # type: ignore[arg-type]  # None for any
        classes=images.classes,
        parameters=sizes,
        moving_statistics=moving,
        kernel_tensors=kinds["kernel"],
        norm_tensors=kinds["norm"],
        bias_tensors=kinds["bias"],
        weights_a_channel=0,
        head_inputs=0,
    )


def describe_structure(network: Network, images: ImageFacts) -> list[Any]:
    """Returns as plain data what another network does not have: layers and shapes of weights."""
    layers = _example(network, images)._flatten_layers()
    return [[type(layer).__name__, [list(v.shape) for v in layer.weights]] for layer in layers]


@functools.lru_cache(maxsize=1)
def _example(network: Network, images: ImageFacts) -> keras.Model:
    return make_own(network, images, 0)


def _copy(model: keras.Model) -> keras.Model:
    try:
        copy = keras.models.clone_model(model)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"`model` must be one that Keras can copy. Received: {model.name} ({error}). Give a "
            "function that makes it"
        ) from None
    copy.set_weights(model.get_weights())
    return copy
