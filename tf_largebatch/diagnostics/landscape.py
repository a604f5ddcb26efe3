"""The loss along lines and planes through a solution, and between two solutions.

Li et al. 2018, arXiv:1712.09913. Directions are filter-normalised, since a network with batch norm
computes the same with its filters scaled: without that, a solution of large weights looks flat.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TINY = 1e-10  # keeps a filter of zeros from dividing by 0, as in the authors' code
RANGE, POINTS = 1.0, 51  # of a plot's axis: -1 to 1, 51 points


def random_direction(weights: Sequence[np.ndarray], *, seed: int) -> list[np.ndarray]:
    """Returns a random direction in units of the filters.

        d_ij <- d_ij |w_ij| / (|d_ij| + 1e-10)    for filter j of tensor i, d_ij standard normal

    A filter is what makes one output: in Keras, an index of the last axis of a kernel. Tensors of
    rank 0 and 1 (biases, gammas, betas) get 0: they do not move.
    """
    random = np.random.default_rng(seed)
    direction = []
    for tensor in weights:
        drawn = random.standard_normal(tensor.shape)
        if tensor.ndim < 2:
            direction.append(np.zeros_like(drawn))
            continue
        axes = tuple(range(tensor.ndim - 1))
        norm, own = (np.sqrt(np.sum(t * t, axis=axes, keepdims=True)) for t in (tensor, drawn))
        direction.append(drawn * norm / (own + TINY))
    return direction


def line(
    value: Callable[[np.ndarray], float], weights: np.ndarray, direction: np.ndarray, places
) -> np.ndarray:
    """Returns the loss at `weights + x direction` for every x: NaN where it is not finite."""
    return np.array([_finite(value(weights + x * direction)) for x in places])


def plane(
    value: Callable[[np.ndarray], float],
    weights: np.ndarray,
    directions: tuple[np.ndarray, np.ndarray],
    x_places: np.ndarray,
    y_places: np.ndarray,
) -> np.ndarray:
    """Returns the loss at `weights + x d_0 + y d_1`, [y, x]: NaN where it is not finite."""
    first, second = directions
    return np.array([line(value, weights + y * second, first, x_places) for y in y_places])


def between(
    value: Callable[[np.ndarray, Any], float],
    start: tuple[np.ndarray, Sequence[np.ndarray]],
    end: tuple[np.ndarray, Sequence[np.ndarray]],
    places: np.ndarray,
    *,
    recompute: Callable[[np.ndarray], Sequence] | None = None,
) -> np.ndarray:
    """Returns the loss on the line between two solutions: NaN where it is not finite.

    Weights are (1 - x) start + x end, without filter normalisation. Batch-norm statistics are on
    the same line, as the paper has them (outside of 0..1 a variance can become negative: a gap), or
    taken afresh at every point with `recompute`: the mean of two solutions has other statistics
    than the mean of theirs. `start` (x = 0, by custom the small batch) and `end` are (weights,
    state) of one network.
    """
    (first, first_state), (second, second_state) = start, end
    shapes = [[np.shape(s) for s in state] for state in (first_state, second_state)]
    if first.shape != second.shape or shapes[0] != shapes[1]:
        raise ValueError(
            f"`start` and `end` must be of the same network. Received: {first.size} and "
            f"{second.size} weights, {len(shapes[0])} and {len(shapes[1])} other tensors"
        )
    losses = []
    for x in places:
        weights = (1.0 - x) * first + x * second
        mixed = [_mix(a, b, x) for a, b in zip(first_state, second_state, strict=True)]
        state = mixed if recompute is None else recompute(weights)
        losses.append(_finite(value(weights, state)))
    return np.array(losses)


def _mix(first, second, x: float) -> np.ndarray:
    """A point between two states; of counters and seeds, the first."""
    first, second = np.asarray(first), np.asarray(second)
    if not np.issubdtype(first.dtype, np.floating):
        return first
    return ((1.0 - x) * first + x * second).astype(first.dtype)


def _finite(loss: float) -> float:
    return float(loss) if math.isfinite(loss) else math.nan
