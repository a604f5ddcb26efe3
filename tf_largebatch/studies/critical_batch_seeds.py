"""What the trials of `critical_batch` give a seed: updates, fit, noise scale, ladder."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tf_largebatch.diagnostics.critical_batch import Tradeoff, fit_tradeoff
from tf_largebatch.review.verdict import interval
from tf_largebatch.studies import critical_batch_plan as study
from tf_largebatch.studies.study import Results, Scale

Errors = dict[str, dict[int, list[float | None]]]  # by row, batch, seed
LADDER_TEXTS = {
    "lamb_root": "LAMB, root rule",
    "sgd_root": "SGD, root rule",
    "sgd_linear": "SGD, linear rule",
}


@dataclass(frozen=True)
class Seed:
    """One seed on one data set: its updates at each batch, the fit, the noise scale."""

    steps: dict[int, int]
    fit: Tradeoff | None
    noise: dict[int, float | None]  # by batch

    @property
    def noise_scale(self) -> float | None:
        """The geometric mean over the batches; None unless all are there."""
        found = [value for value in self.noise.values() if value]
        if not found or len(found) < len(self.noise):
            return None
        return math.exp(statistics.fmean(map(math.log, found)))


def read_seed(data: str, number: int, results: Results, scale: Scale) -> Seed:
    """Returns what is there of a seed."""
    batches = study.of("batches", scale)
    found = {b: study.fastest(data, b, number, results, scale) for b in batches}
    steps = {batch: one[1] for batch, one in found.items() if one is not None}
    whole = len(steps) == len(batches)
    fit = fit_tradeoff(list(steps), list(steps.values())) if whole else None
    noise: dict[int, float | None] = {}
    for batch in study.of("noise_batches", scale):
        trial = study.noise_trial(data, batch, number, results, scale)
        done = trial is not None and trial.name in results
        noise[batch] = results[trial.name]["b_simple"] if trial is not None and done else None
    return Seed(steps, fit, noise)


def median_fit(seeds: Sequence[Seed]) -> Tradeoff | None:
    """The law fitted to the medians over the seeds that are whole."""
    whole = [seed.steps for seed in seeds if seed.fit is not None]
    if not whole:
        return None
    medians = {batch: statistics.median(s[batch] for s in whole) for batch in whole[0]}
    return fit_tradeoff(list(medians), list(medians.values()))


def geometric(values: Sequence[float]) -> str:
    """The geometric mean with its interval, in words."""
    low, high = interval([math.log(value) for value in values])
    mean = math.exp(statistics.fmean(map(math.log, values)))
    ends = ", ".join(two_digits(math.exp(end)) for end in (low, high))
    return f"{two_digits(mean)} [{ends}], n = {len(values)}"


def two_digits(value: float) -> str:
    """A batch as well as it is known."""
    return f"{float(f'{value:.2g}'):,.0f}"


def read_ladder(results: Results, scale: Scale) -> Errors:
    """Test errors by row, batch and seed; None where a trial is missing."""
    batches = study.ladder(scale)["batches"]
    errors: Errors = {}
    for row, (optimizer, _) in study.ROWS.items():
        best = study.ladder_search(optimizer, results, scale).best
        errors[row] = {b: [] for b in batches}
        if best is None:
            continue
        for batch in batches:
            # At the smallest batch the rules of an optimizer are one training.
            named = row if batch > batches[0] else row.replace("linear", "root")
            for seed in range(scale.seeds):
                trial = study.ladder_trial(named, batch, best, seed, study.FINAL, scale)
                found = results.get(trial.name, {})
                errors[row][batch].append(found.get("test_error_pct"))
    return errors
