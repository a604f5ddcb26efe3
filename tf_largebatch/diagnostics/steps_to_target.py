"""Steps to a target: a quasi-random search of its own for every batch size.

Shallue et al. 2018, arXiv:1811.03600: no scaling rule is assumed; at each batch the fewest updates
over all trials count in which the validation error first reaches the goal.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import qmc

from tf_largebatch.diagnostics.critical_batch import Tradeoff, fit_tradeoff

EDGE = 0.1  # ours: within a tenth of the range from its end


@dataclass(frozen=True)
class Range:
    """One hyperparameter's search space.

    Attributes:
        low: its end.
        high: its other end, above `low`.
        log: draw evenly in the logarithm; needs `low` above 0.

    Raises:
        ValueError: ends out of order, or a logarithm of what is not above 0.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self):
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"`low` must be below `high`. Received: low={self.low}, high={self.high}"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"`low` must be above 0 with `log`. Received: low={self.low}")

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
    """One training.

    Attributes:
        settings: its hyperparameters.
        steps: the first update at which it had reached the target; None if it never did.
    """

    settings: dict[str, float]
    steps: int | None


@dataclass(frozen=True)
class BatchResult:
    """The search at one batch size.

    Attributes:
        global_batch: examples per update.
        trials: in the order of the search.
    """

    global_batch: int
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The trial with the fewest steps; None where none reached the target."""
        reached = [trial for trial in self.trials if trial.steps is not None]
        return min(reached, key=lambda trial: trial.steps, default=None)

    def at_edge(self, space: Mapping[str, Range]) -> list[str]:
        """Names the hyperparameters whose best value is at an end: widen their range."""
        if self.best is None:
            return []
        shares = {name: space[name].share(value) for name, value in self.best.settings.items()}
        return [name for name, share in shares.items() if not EDGE <= share <= 1 - EDGE]


def quasi_random(space: Mapping[str, Range], trials: int, *, seed: int) -> list[dict[str, float]]:
    """Returns points of a scrambled Halton sequence: as even as a grid, for any number of them.

    Args:
        space: name -> range.
        trials: >= 1.
        seed: of the scrambling.

    Raises:
        ValueError: an empty space, or no trials.
    """
    if not space:
        raise ValueError("`space` must have a range or more. Received: none")
    if trials < 1:
        raise ValueError(f"`trials` must be at least 1. Received: trials={trials}")
    points = qmc.Halton(len(space), scramble=True, rng=seed).random(trials)
    return [
        {name: limits.at(float(p)) for (name, limits), p in zip(space.items(), point, strict=True)}
        for point in points
    ]


def first_reached(curve: Iterable[tuple[int, float]], target: float) -> int | None:
    """Returns the first step whose error is at most the target; None if there is none.

    Args:
        curve: (updates done, error), in order; it is read no further than needed, so that a
            training which yields them ends there. An error that is not finite ends it too.
        target: the goal, in the units of the error.
    """
    for step, error in curve:
        if not math.isfinite(error):
            return None
        if error <= target:
            return step
    return None


def steps_to_target(
    train: Callable[[int, dict[str, float]], Iterable[tuple[int, float]]],
    batches: Sequence[int],
    space: Mapping[str, Range] | Callable[[int], Mapping[str, Range]],
    *,
    target: float,
    trials: int,
    seed: int = 0,
) -> list[BatchResult]:
    """Searches every batch size on its own and returns what each trial needed.

    Args:
        train: (global batch, settings) -> (updates done, validation error) as it goes; it decides
            how long a trial may last.
        batches: examples per update.
        space: of the hyperparameters, the same at every batch or a function of it.
        target: validation error to reach.
        trials: at each batch; the paper has 100.
        seed: each batch has its own points of the sequence.
    """
    results = []
    for number, batch in enumerate(batches):
        own = space(batch) if callable(space) else space
        points = quasi_random(own, trials, seed=seed + number)
        done = [Trial(p, first_reached(train(batch, p), target)) for p in points]
        results.append(BatchResult(batch, tuple(done)))
    return results


def fit_results(results: Sequence[BatchResult]) -> Tradeoff:
    """Fits the trade-off to the batches that reached the target.

    Raises:
        ValueError: fewer than three did.
    """
    reached = [r for r in results if r.best is not None]
    return fit_tradeoff([r.global_batch for r in reached], [r.best.steps for r in reached])
