"""The saved state of an optimizer, and what it must fit."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_largebatch.optimizers import tensors

Array = np.ndarray[Any, Any]


def restore(
    optimizer: str, variables: Sequence[keras.Variable], saved: Sequence[Array], count: int
) -> None:
    """Writes saved arrays into the variables of an optimizer of `count` tensors.

    Raises:
        ValueError: number or shapes differ.
    """
    saved = list(saved)
    expected = [tuple(variable.shape) for variable in variables]
    place = _first_difference(expected, saved)
    # Version 0.1 could keep a table of norms behind the slots, which nothing reads any more.
    if len(saved) == len(expected) + 1 and saved[place].shape == (count, 4):
        del saved[place]
        place = _first_difference(expected, saved)
    if len(saved) != len(expected) or place < len(expected):
        received = f"{len(saved)} saved arrays for {len(expected)} variables"
        if len(saved) == len(expected):
            shape = saved[place].shape
            received = f"saved array {place} of shape {shape} for a variable of {expected[place]}"
        raise ValueError(
            f"The state of optimizer '{optimizer}' must fit its variables. Received: {received}. "
            "Build the model and optimizer as they were when saved, or compile after loading to "
            "start with fresh state."
        )
    with _outside_graphs():
        for variable, value in zip(variables, saved, strict=True):
            variable.assign(value)


def _first_difference(expected: list[tuple[int, ...]], saved: list[Array]) -> int:
    pairs = enumerate(zip(expected, saved, strict=False))
    different = (i for i, (shape, array) in pairs if shape != array.shape)
    return next(different, min(len(expected), len(saved)))


def _outside_graphs() -> contextlib.AbstractContextManager[Any]:
    if not tensors.on_tensorflow():
        return contextlib.nullcontext()
    import tensorflow as tf

    # `build` can run while a tf.function is traced; the restored values belong to no graph.
    scope: contextlib.AbstractContextManager[Any] = tf.init_scope()
    return scope
