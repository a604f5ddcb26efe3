"""Searches of equal budget: a grid of rates that widens at its edges, and quasi-random points.

found = search_rates("sgd-b0512", grid, results, make_trial)
if found.missing: plan those first
else: found.best is the rate of the final trials, found.table the search for the page
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tf_largebatch.records.checks import check
from tf_largebatch.studies.fitting import usable
from tf_largebatch.studies.study import Results, Scale, Table, Trial

FACTOR = 2.0  # between neighbours of a grid
WIDEN = 3  # times at each end
TUNING_SEEDS = 2
HELD_OUT_ERROR = "held_out_error_pct"  # the key of a tuning trial's result that is minimised


@dataclass(frozen=True)
class Search:
    """The state of a search of one row.

    Attributes:
        row: whose.
        missing: trials that must be run before more can be said.
        best: the rate of the least mean error; None as long as something is missing.
        points: (rate, error of each tuning seed or None, mean or None), by rate.
        at_edge: whether the best still lies on an end after all widening.
    """

    row: str
    missing: tuple[Trial, ...]
    best: float | None
    points: tuple[tuple[float, tuple[float | None, ...], float | None], ...]
    at_edge: bool

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Rate and mean error of the points that have one, by rate."""
        return [(rate, error) for rate, _, error in self.points if error is not None]


def grid(lowest: float, count: int, factor: float = FACTOR) -> tuple[float, ...]:
    """Returns lowest * factor ** (0, ..., count - 1)."""
    return tuple(lowest * factor**n for n in range(count))


def search_rates(
    row: str,
    rates: Sequence[float],
    results: Results,
    make_trial: Callable[[float, int], Trial],
    *,
    seeds: int = TUNING_SEEDS,
    key: str = HELD_OUT_ERROR,
    widen: int = WIDEN,
) -> Search:
    """Finds the rate of a row; pure, so that it may be asked after every trial.

    The rate of the least mean over the tuning seeds wins, the lower of two that are equal. Where it
    lies on an end of the grid, the grid grows there by one step of its own factor, `widen` times at
    most at each end.

    Args:
        row: its name, for the page.
        rates: the grid, rising by one factor; of the same length for every row of a study.
        results: of what is finished.
        make_trial: (rate, tuning seed) -> Trial of stage "tune".
        seeds: of the tuning, 0 to seeds - 1.
        key: of the result, the error to make least; None or NaN counts as guessing.
        widen: steps at each end.
    """
    check(len(rates) >= 2 and list(rates) == sorted(rates), "rates", "two or more, rising", rates)
    known, factor = list(rates), rates[1] / rates[0]
    room = {"low": widen, "high": widen}
    while True:
        trials = {rate: [make_trial(rate, seed) for seed in range(seeds)] for rate in known}
        missing = tuple(t for own in trials.values() for t in own if t.name not in results)
        points = [(rate, _errors(own, results, key)) for rate, own in trials.items()]
        means = {
            rate: statistics.fmean(e for e in errors if e is not None)
            for rate, errors in points
            if None not in errors
        }
        shown = tuple((rate, errors, means.get(rate)) for rate, errors in points)
        if missing:
            return Search(row, missing, None, shown, at_edge=False)
        best = min(known, key=lambda rate: (means[rate], rate))
        if best == known[0] and room["low"]:
            known, room["low"] = [best / factor, *known], room["low"] - 1
        elif best == known[-1] and room["high"]:
            known, room["high"] = [*known, best * factor], room["high"] - 1
        else:
            return Search(row, (), best, shown, at_edge=best in (known[0], known[-1]))


def _errors(trials: Sequence[Trial], results: Results, key: str) -> tuple[float | None, ...]:
    return tuple(usable(results[t.name].get(key)) if t.name in results else None for t in trials)


def search_points(
    space: Mapping[str, tuple[float, float]], count: int, *, seed: int
) -> list[dict[str, float]]:
    """Returns quasi-random points, even in the logarithm of each range; the same for every row.

    The first n of `count` points are the points of a search of n.

    Args:
        space: name -> (low, high), 0 < low < high; `one_minus_momentum` in place of momentum.
        count: of the points.
        seed: of the scrambling of the sequence.
    """
    from tf_largebatch.diagnostics.steps_to_target import Range, quasi_random

    return quasi_random({n: Range(*ends, log=True) for n, ends in space.items()}, count, seed=seed)


def tuning_table(
    searches: Sequence[Search], scale: Scale, title: str = "Searches of the rate"
) -> Table:
    """Returns every point of the searches as a table, the best in bold."""
    rows: list[list[str]] = []
    for search in searches:
        for rate, errors, mean in search.points:
            cells = [f"{e:.2f}" if e is not None else "not run" for e in errors]
            text = "not run" if mean is None else f"{mean:.2f}"
            mark = "**" if rate == search.best else ""
            rows.append([search.row, f"{mark}{rate:.4g}{mark}", ", ".join(cells), text])
    edges = [search.row for search in searches if search.at_edge]
    note = f"The best of {', '.join(edges)} still lies on an end." if edges else ""
    note += " A quick look: too small to tell." if scale.quick else ""
    header = ("row", "rate", "held-out error of each tuning seed, %", "mean, %")
    return Table(title, header, rows, note.strip())
