"""What an optimizer keeps beside the weights: the norms it shows, and the state it restores."""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np

from tf_largebatch.optimizers import kernels


class TensorNorms(NamedTuple):
    """What the last update did to one tensor.

    Attributes:
        path: the variable's path.
        weight_norm: 2-norm of the weights before the update.
        gradient_norm: 2-norm of the gradient that the update saw: over all replicas, clipped,
            without decay.
        update_norm: 2-norm of the change of the weights.
        trust_ratio: the factor on this tensor's step; 1 where it is not adapted.
    """

    path: str
    weight_norm: float
    gradient_norm: float
    update_norm: float
    trust_ratio: float


def restore(
    optimizer: str, variables: Sequence[keras.Variable], state: Sequence[np.ndarray]
) -> None:
    """Writes saved arrays into the variables of an optimizer.

    Raises:
        ValueError: number or shapes differ.
    """
    expected = [tuple(variable.shape) for variable in variables]
    received = [tuple(value.shape) for value in state]
    if expected != received:
        raise ValueError(
            f"The state of optimizer '{optimizer}' must fit its variables. Received: "
            f"{_first_difference(expected, received)}. Build the model and optimizer as they were "
            "when saved, or compile after loading to start with fresh state."
        )
    with _outside_graphs():
        for variable, value in zip(variables, state, strict=True):
            variable.assign(value)


def _first_difference(expected: list[tuple], received: list[tuple]) -> str:
    if len(expected) != len(received):
        return f"{len(received)} saved arrays for {len(expected)} variables"
    pairs = enumerate(zip(expected, received, strict=True))
    index = next(i for i, (mine, theirs) in pairs if mine != theirs)
    return f"saved array {index} of shape {received[index]} for a variable of {expected[index]}"


def _outside_graphs():
    if not kernels.on_tensorflow():
        return contextlib.nullcontext()
    import tensorflow as tf

    # `build` can run while a tf.function is traced; the restored values belong to no graph.
    return tf.init_scope()
