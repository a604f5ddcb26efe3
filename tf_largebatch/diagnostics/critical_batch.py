"""The critical batch from measured steps: fit and regimes.

McCandlish et al. 2018, arXiv:1812.06162, Eq. 2.11: the updates S and the examples E = B S that
reach a target at batch B trade off as

    (S / S_min - 1) (E / E_min - 1) = 1,    that is    S = S_min (1 + B_crit / B)

with B_crit = E_min / S_min. At B_crit both are twice their least. Shallue et al. 2018,
arXiv:1811.03600, name three regimes of the same curve: perfect scaling (S falls as 1 / B),
diminishing returns, and maximal data parallelism (S stays).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from tf_largebatch.records.checks import check

PERFECT, DIMINISHING = "perfect scaling", "diminishing returns"
MAXIMAL = "maximal data parallelism"
NEAR = 0.25  # ours: within 25 % of the least examples, or updates, counts as there


@dataclass(frozen=True)
class Tradeoff:
    """The fitted curve, over the batches that were measured."""

    steps_min: float  # S_min, updates at an endless batch
    examples_min: float  # E_min, examples at the smallest batch
    log_error: float  # root mean square of log(measured / fitted) steps
    smallest_batch: float
    largest_batch: float

    @property
    def critical_batch(self) -> float:
        """B_crit = E_min / S_min, in examples."""
        return self.examples_min / self.steps_min

    @property
    def measured(self) -> bool:
        """Whether B_crit lies within the batches; otherwise it is extrapolated."""
        return self.smallest_batch <= self.critical_batch <= self.largest_batch

    def steps(self, batch: float) -> float:
        """Returns the fitted updates at a batch."""
        return self.steps_min + self.examples_min / batch

    def regime(self, batch: float) -> str:
        """Names the regime of a batch.

        E / E_min = 1 + B / B_crit and S / S_min = 1 + B_crit / B: below a quarter of B_crit
        examples cost within 25 % of the fewest, above four times B_crit updates do.
        """
        ratio = batch / self.critical_batch
        if ratio <= NEAR:
            return PERFECT
        return MAXIMAL if ratio >= 1 / NEAR else DIMINISHING

    def text(self) -> str:
        """Says in a sentence what the fit means."""
        where = "" if self.measured else " (outside of the measured batches: extrapolated)"
        return (
            f"critical batch {self.critical_batch:,.3g}{where}: at least {self.steps_min:,.4g} "
            f"updates, at least {self.examples_min:,.4g} examples; perfect scaling to about "
            f"{NEAR * self.critical_batch:,.3g}, flat from about {self.critical_batch / NEAR:,.3g}"
        )


def fit_tradeoff(batches: Sequence[float], steps: Sequence[float]) -> Tradeoff:
    """Fits S_min and E_min to measured steps, in log space: a factor counts alike everywhere.

    Three different batches or more, with the updates to the target at each, all above 0; else a
    `ValueError`.
    """
    batch, step = np.asarray(batches, np.float64), np.asarray(steps, np.float64)
    enough = batch.shape == step.shape and len(set(batch.tolist())) >= 3
    rule = f"three different ones or more, with `steps` for each, {step.tolist()}"
    check(enough, "batches", rule, batch.tolist(), "Measure more batches")
    for name, values in (("batches", batch), ("steps", step)):
        usable = bool(np.all(np.isfinite(values)) and np.all(values > 0))
        check(usable, name, "above 0", values.tolist())

    def errors(logs):
        return np.log(np.exp(logs[0]) + np.exp(logs[1]) / batch) - np.log(step)

    # One start for each regime that the batches may show; the better end counts.
    starts = [(step.min(), (batch * step).min()), (0.01 * step.min(), (batch * step).min())]
    fits = [least_squares(errors, np.log(start), xtol=1e-12, ftol=1e-12) for start in starts]
    best = min(fits, key=lambda fit: fit.cost)
    steps_min, examples_min = (float(v) for v in np.exp(best.x))
    log_error = math.sqrt(float(np.mean(best.fun**2)))
    return Tradeoff(steps_min, examples_min, log_error, float(batch.min()), float(batch.max()))
