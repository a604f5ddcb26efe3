"""Per-layer norms, and how far the weights have walked.

You et al. 2017, arXiv:1708.03888, compare |w| / |grad L(w)| of the layers after one update: in
AlexNet-BN it runs from 5.76 (conv1) to 1345 (fc6), so that one rate cannot suit them all. Hoffer et
al. 2017, arXiv:1705.08741, find |w_t - w_0| to grow like log t, alike for all batches whose rate
grows as the square root of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tf_largebatch.records.checks import check


@dataclass(frozen=True)
class LayerRatio:
    """One tensor: its path, its rank, |w| and |grad L(w)|."""

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
    """Returns the norms of every tensor, in float64; a gradient that is not finite is an error."""
    rows = []
    for name, weight, gradient in zip(names, weights, gradients, strict=True):
        norm, own = (float(np.linalg.norm(np.asarray(t, np.float64))) for t in (weight, gradient))
        if not np.isfinite(own):
            raise ArithmeticError(f"the gradient of {name} is not finite")
        rows.append(LayerRatio(name, np.ndim(weight), norm, own))
    return rows


@dataclass(frozen=True)
class LogGrowth:
    """distance = slope log(t) + intercept, by least squares; log is the natural one."""

    slope: float
    intercept: float  # distance at one update
    r_squared: float  # share of the variance that the line explains; 1 for a perfect one


def fit_log_growth(updates: Sequence[int], distances: Sequence[float]) -> LogGrowth:
    """Fits |w_t - w_0| to the logarithm of the updates t >= 1 (arXiv:1705.08741, section 3)."""
    enough, fix = len(set(updates)) >= 3, "Keep more checkpoints"
    check(enough, "updates", "three different ones or more", list(updates), fix)
    check(min(updates) >= 1, "updates", "at least 1", list(updates))
    logs, y = np.log(np.asarray(updates, np.float64)), np.asarray(distances, np.float64)
    slope, intercept = np.polyfit(logs, y, 1)
    left, all_of_it = np.sum((y - slope * logs - intercept) ** 2), np.sum((y - y.mean()) ** 2)
    r_squared = float(1.0 - left / all_of_it) if all_of_it > 0 else 1.0
    return LogGrowth(float(slope), float(intercept), r_squared)
