"""Per-layer norms, and how far the weights have walked.

You et al. 2017, arXiv:1708.03888, compare |w| / |grad L(w)| of the layers after one update: in
AlexNet-BN it runs from 5.76 (conv1) to 1345 (fc6), so that one rate cannot suit them all. Hoffer et
al. 2017, arXiv:1705.08741, find |w_t - w_0| to grow like log t, alike for all batches whose rate
grows as the square root of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LayerRatio:
    """One tensor.

    Attributes:
        name: its path.
        rank: number of its dimensions.
        weight_norm: |w|.
        gradient_norm: |grad L(w)|.
    """

    name: str
    rank: int
    weight_norm: float
    gradient_norm: float

    @property
    def ratio(self) -> float | None:
        """|w| / |grad L(w)|; None without a gradient, and for weights of zero."""
        usable = self.gradient_norm > 0 and self.weight_norm > 0
        return self.weight_norm / self.gradient_norm if usable else None


def layer_ratios(
    names: Sequence[str], weights: Sequence[np.ndarray], gradients: Sequence[np.ndarray]
) -> list[LayerRatio]:
    """Returns the norms of every tensor, in float64, in the order given.

    Raises:
        ValueError: lists that are not equally long.
        ArithmeticError: a gradient that is not finite.
    """
    rows = []
    for name, weight, gradient in zip(names, weights, gradients, strict=True):
        norm, own = (float(np.linalg.norm(np.asarray(t, np.float64))) for t in (weight, gradient))
        if not np.isfinite(own):
            raise ArithmeticError(f"the gradient of {name} is not finite")
        rows.append(LayerRatio(name, np.ndim(weight), norm, own))
    return rows


@dataclass(frozen=True)
class LogGrowth:
    """distance = slope log(t) + intercept, by least squares.

    Attributes:
        slope: distance per unit of the natural logarithm of the updates.
        intercept: distance at one update.
        r_squared: share of the variance that the line explains; 1 for a perfect one.
    """

    slope: float
    intercept: float
    r_squared: float


def fit_log_growth(updates: Sequence[int], distances: Sequence[float]) -> LogGrowth:
    """Fits |w_t - w_0| to the logarithm of the updates (arXiv:1705.08741, section 3).

    Args:
        updates: t >= 1, three different ones or more.
        distances: |w_t - w_0| of each.

    Raises:
        ValueError: fewer, or an update below 1.
    """
    if len(set(updates)) < 3:
        raise ValueError(
            f"`updates` must be three different ones or more. Received: {list(updates)}. Keep more "
            "checkpoints"
        )
    if min(updates) < 1:
        raise ValueError(f"`updates` must be at least 1. Received: {list(updates)}")
    logs, y = np.log(np.asarray(updates, np.float64)), np.asarray(distances, np.float64)
    slope, intercept = np.polyfit(logs, y, 1)
    left, all_of_it = np.sum((y - slope * logs - intercept) ** 2), np.sum((y - y.mean()) ** 2)
    return LogGrowth(
        slope=float(slope),
        intercept=float(intercept),
        r_squared=float(1.0 - left / all_of_it) if all_of_it > 0 else 1.0,
    )
