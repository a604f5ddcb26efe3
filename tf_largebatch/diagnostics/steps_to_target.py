"""Steps to a target: a quasi-random search of its own for every batch size.

Shallue et al. 2018, arXiv:1811.03600: no scaling rule is assumed; at each batch the fewest updates
over all trials count in which the validation error first reaches the goal.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import qmc

from tf_largebatch.diagnostics.critical_batch import Tradeoff, fit_tradeoff
from tf_largebatch.records.checks import check

EDGE = 0.1  # ours: within a tenth of the range from its end


@dataclass(frozen=True)
class Range:
    """One hyperparameter's search space, low < high; `log` draws evenly in the logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self):
        ordered = math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high
        check(ordered, "low", f"below `high`, {self.high}", self.low)
        check(not self.log or self.low > 0, "low", "above 0 with `log`", self.low)

    def at(self, share: float) -> float:
        """Returns the value at `share` (0..1) of the range."""
        if self.log:
            return self.low * (self.high / self.low) ** share
        return self.low + share * (self.high - self.low)

    def share(self, value: float) -> float:
        """Returns where in the range, 0..1, a value lies."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Trial:
    """One training: its hyperparameters, and when it got there."""

    settings: dict[str, float]
    steps: int | None  # the first update at which it had reached the target; None: it never did


@dataclass(frozen=True)
class BatchResult:
    """The search at one batch size, with its trials in order."""

    global_batch: int
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The trial with the fewest steps; None where none reached the target."""
        reached = [trial for trial in self.trials if trial.steps is not None]
        return min(reached, key=lambda trial: trial.steps or 0, default=None)

    @property
    def steps(self) -> int | None:
        """Its steps; None where none reached the target."""
        return None if self.best is None else self.best.steps

    def at_edge(self, space: Mapping[str, Range]) -> list[str]:
        """Names the hyperparameters whose best value is at an end: widen their range."""
        if self.best is None:
            return []
        shares = {name: space[name].share(value) for name, value in self.best.settings.items()}
        return [name for name, share in shares.items() if not EDGE <= share <= 1 - EDGE]


def quasi_random(space: Mapping[str, Range], trials: int, *, seed: int) -> list[dict[str, float]]:
    """Returns points of a scrambled Halton sequence: as even as a grid, for any number of them."""
    check(bool(space), "space", "one range or more", space)
    check(trials >= 1, "trials", "at least 1", trials)
    points = qmc.Halton(len(space), scramble=True, rng=seed).random(trials)
    return [
        {name: limits.at(float(p)) for (name, limits), p in zip(space.items(), point, strict=True)}
        for point in points
    ]


def fit_results(results: Sequence[BatchResult]) -> Tradeoff:
    """Fits the trade-off to the batches that reached the target: three or more."""
    reached = {r.global_batch: r.steps for r in results if r.steps is not None}
    return fit_tradeoff([*reached], [*reached.values()])
