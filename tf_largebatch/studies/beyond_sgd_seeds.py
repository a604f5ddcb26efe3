"""What the trials of `beyond_sgd` give an optimizer: updates and fit of each seed."""

import math
import statistics
from dataclasses import dataclass

from tf_largebatch.diagnostics.critical_batch import NEAR, Tradeoff, fit_tradeoff
from tf_largebatch.studies import beyond_sgd_plan as study
from tf_largebatch.studies.study import Results, Scale


@dataclass(frozen=True)
class Row:
    """An optimizer.

    Attributes:
        steps: of each seed, by batch; a batch at which the target was not reached is left out.
        fits: of each seed, None unless the target was reached at every batch.
        curve: the law fitted to the medians over the seeds that have a fit.
    """

    steps: list[dict[int, int]]
    fits: list[Tradeoff | None]
    curve: Tradeoff | None

    def critical_batch(self, seed: int) -> float | None:
        """The seed's critical batch, within what the batches can tell."""
        fit = self.fits[seed]
        if fit is None:
            return None
        low, high = fit.smallest_batch * NEAR, fit.largest_batch / NEAR
        return min(max(fit.critical_batch, low), high)

    def critical_batches(self) -> list[float]:
        """Those of all seeds that have one."""
        found = [self.critical_batch(seed) for seed in range(len(self.fits))]
        return [one for one in found if one is not None]

    def examples(self, seed: int, batch: int) -> int | None:
        """Examples to the target."""
        steps = self.steps[seed].get(batch)
        return None if steps is None else batch * steps


def read_row(optimizer: str, results: Results, scale: Scale) -> Row:
    """Returns what is there of an optimizer."""
    batches = study.of("batches", scale)
    steps: list[dict[int, int]] = []
    for seed in range(scale.seeds):
        found = {b: study.cell(optimizer, b, scale).fastest(seed, results) for b in batches}
        steps.append({b: one[1] for b, one in found.items() if one is not None})
    whole = [own for own in steps if len(own) == len(batches)]
    fits = [fit_tradeoff(list(s), list(s.values())) if s in whole else None for s in steps]
    medians = {b: statistics.median(own[b] for own in whole) for b in batches if whole}
    curve = fit_tradeoff(list(medians), list(medians.values())) if whole else None
    return Row(steps, fits, curve)


def doublings(one: float | None, other: float | None) -> float | None:
    """log2(one / other), where both are known."""
    return None if one is None or other is None else math.log2(one / other)
