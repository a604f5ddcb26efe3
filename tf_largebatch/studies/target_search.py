"""The search of the fewest updates to a target at one batch: waves of points, then finalists.

A trial's result has "steps", the updates to the target or None, and the "error_pct" at its end.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tf_largebatch.studies.study import Results, Trial


def five_digits(value: float) -> float:
    """The value rounded to five digits: the same settings on every machine."""
    return float(f"{value:.5g}")


@dataclass(frozen=True)
class TargetSearch:
    """The search at one batch, and the final trials of its best points.

    Attributes:
        waves: points of each wave; a trial ends where the fastest of the waves before it has
            reached the target, since it cannot be faster.
        finalists: points that run again on each final seed.
        budgets: updates of a trial at the most. Where no trial of the search, or of a seed, has
            reached the target, all run again with the next, and have "-long" behind their names.
        make: (place of the point, updates at the most, final seed or None) -> trial.
    """

    waves: Sequence[int]
    finalists: int
    budgets: Sequence[int]
    make: Callable[[int, int, int | None], Trial]

    def search(self, results: Results) -> tuple[list[Trial], list[int]]:
        """Returns the trials known so far, and the finalists, best first, once all ran.

        Order of the points: fewest updates to the target; of those that did not reach it, the
        least error at their end, of the longest run.
        """
        trials: list[Trial] = []
        for attempt in range(len(self.budgets)):
            last = self._search(attempt, results)
            trials += last
            if len(last) < sum(self.waves) or any(t.name not in results for t in last):
                return trials, []
            if any(results[t.name]["steps"] is not None for t in last):
                break

        def rank(number: int) -> tuple:
            found = results[last[number].name]
            steps, error = found["steps"], found["error_pct"]
            return (math.inf if steps is None else steps, 100.0 if error is None else error, number)

        return trials, sorted(range(len(last)), key=rank)[: self.finalists]

    def finals(self, seed: int, results: Results, finalists: Sequence[int]) -> list[Trial]:
        """Returns a seed's final trials known so far: first the best point, bounding the rest."""
        trials: list[Trial] = []
        for attempt, budget in enumerate(self.budgets):
            first = self._trial(finalists[0], budget, seed, attempt)
            trials.append(first)
            if first.name not in results:
                break
            limit = results[first.name]["steps"] or budget
            rest = [self._trial(place, limit, seed, attempt) for place in finalists[1:]]
            trials += rest
            own = [results.get(trial.name) for trial in (first, *rest)]
            if any(found is None or found["steps"] is not None for found in own):
                break
        return trials

    def fastest(self, seed: int, results: Results) -> tuple[Trial, int] | None:
        """The seed's fastest final trial and its updates; None while one is missing, or if none."""
        _, finalists = self.search(results)
        trials = self.finals(seed, results, finalists) if finalists else []
        if any(t.name not in results for t in trials):
            return None
        reached = [(results[t.name]["steps"], n, t) for n, t in enumerate(trials)]
        found = min((one for one in reached if one[0] is not None), default=None)
        return None if found is None else (found[2], found[0])

    def _search(self, attempt: int, results: Results) -> list[Trial]:
        """The trials of a search with one budget that are known so far, wave by wave."""
        limit, place = self.budgets[attempt], 0
        trials: list[Trial] = []
        for size in self.waves:
            wave = [self._trial(p, limit, None, attempt) for p in range(place, place + size)]
            trials += wave
            if any(trial.name not in results for trial in wave):
                break
            reached = [steps for t in wave if (steps := results[t.name]["steps"]) is not None]
            limit, place = min([limit, *reached]), place + size
        return trials

    def _trial(self, place: int, updates: int, seed: int | None, attempt: int) -> Trial:
        trial = self.make(place, updates, seed)
        return Trial(trial.name + "-long" * attempt, trial.settings)
