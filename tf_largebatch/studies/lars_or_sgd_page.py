"""What the trials of `lars_or_sgd` say: differences, tables, figures."""

import math
from collections.abc import Mapping, Sequence

from tf_largebatch.studies.fitting import usable
from tf_largebatch.studies.lars_or_sgd_plan import (
    LARS,
    MOMENTUM,
    NORMED,
    PLAIN,
    SGD,
    USABLE,
    Row,
    finals,
    linear_rate,
    ratio_trial,
    rows,
    search,
    size,
    sweep,
    tuned,
)
from tf_largebatch.studies.study import Claim, Conclusion, Results, Scale, Trial, answer
from tf_largebatch.studies.tuning import HELD_OUT_ERROR, tuning_table

Errors = list[float | None]  # of each seed, None where it is missing


def conclude(claims: Mapping[str, Claim], results: Results, scale: Scale) -> Conclusion:
    """Applies the rules, and draws what there is."""
    own = size(scale)
    small, large = own.small, own.batches[-1]

    def errors(network: str, name: str, batch: int) -> Errors:
        return tuned_rate_errors(Row(network, name, batch), results, scale)

    sgd, lars = (errors(PLAIN, name, large) for name in (SGD, LARS))
    losses = {
        net: _minus(errors(net, SGD, large), errors(net, SGD, small)) for net in (PLAIN, NORMED)
    }
    linear = linear_errors(Row(PLAIN, SGD, large), results, scale)
    both = {
        net: _minus(*(pair_errors(Row(net, name, large), results, scale) for name in (SGD, LARS)))
        for net in (PLAIN, NORMED)
    }
    rates = {net: usable_rates(net, results, scale) for net in (PLAIN, NORMED)}
    differences = {
        "C5a": _minus(linear, errors(PLAIN, SGD, small)),
        "C5b": _minus(sgd, lars),
        "C6a": _minus(*([r and math.log2(r) for r in rates[net]] for net in (NORMED, PLAIN))),
        "C6b": _minus(losses[PLAIN], losses[NORMED]),
        "C7": spreads(PLAIN, results, scale),
        "C17a": both[NORMED],
        "C17b": both[PLAIN],
    }
    answers = [
        answer(claims[name], [d for d in found if d is not None], scale)
        for name, found in differences.items()
    ]
    return Conclusion(
        answers=answers,
        tables=[],
        tuning=[tuning_table([search(row, results, scale) for row in rows(scale)], scale)],
        figures=[],
    )


def tuned_rate_errors(row: Row, results: Results, scale: Scale) -> Errors:
    """Test errors at the best rate and momentum 0.9."""
    return _test_errors(finals(row, search(row, results, scale).best, MOMENTUM, scale), results)


def linear_errors(row: Row, results: Results, scale: Scale) -> Errors:
    """Test errors of SGD at the rate of the linear rule."""
    trials = finals(row, linear_rate(row, results, scale), MOMENTUM, scale)
    return _test_errors(trials, results)


def pair_errors(row: Row, results: Results, scale: Scale) -> Errors:
    """Test errors at the best pair of rate and momentum."""
    best = tuned(row, results, scale).best
    return _test_errors(finals(row, *(best or (None, MOMENTUM)), scale), results)


def usable_rates(network: str, results: Results, scale: Scale) -> Errors:
    """The largest usable rate of the sweep, of each seed whose rates are all there."""
    trials = sweep(network, scale)
    found: Errors = []
    for seed in range(scale.seeds):
        points = [
            (t.settings["rate"], usable(results[t.name].get(HELD_OUT_ERROR)))
            for t in trials
            if t.settings["seed"] == seed and t.name in results
        ]
        complete = points and len(points) == size(scale).sweep
        found.append(largest_usable(points) if complete else None)
    return found


def largest_usable(points: Sequence[tuple[float, float]]) -> float:
    """The largest rate such that from the best one to it no error is over the best by USABLE."""
    points = sorted(points)
    least = min(error for _, error in points)
    place = next(n for n, (_, error) in enumerate(points) if error == least)
    while place + 1 < len(points) and points[place + 1][1] <= least + USABLE:
        place += 1
    return points[place][0]


def ratios(network: str, results: Results, scale: Scale) -> list[dict]:
    """|W| / |grad W| of the kernels, [update][layer], of each seed that is there."""
    names = [ratio_trial(network, seed, scale).name for seed in range(scale.seeds)]
    return [
        {
            "layers": results[name]["layers"],
            "ratios": [
                [w / g if g else math.nan for w, g in zip(*pair, strict=True)]
                for pair in zip(
                    results[name]["weight_norms"], results[name]["gradient_norms"], strict=True
                )
            ],
        }
        for name in names
        if name in results
    ]


def spreads(network: str, results: Results, scale: Scale, update: int = 0) -> Errors:
    """Decades between the largest and the smallest ratio of a kernel at an update."""
    found = [one["ratios"][update] for one in ratios(network, results, scale)]
    return [math.log10(max(own) / min(own)) for own in found]


def _test_errors(trials: Sequence[Trial], results: Results) -> Errors:
    return [results[t.name]["test_error_pct"] if t.name in results else None for t in trials]


def _minus(first: Errors, second: Errors) -> Errors:
    """Seed by seed, where both are there."""
    pairs = zip(first, second, strict=False)  # what has no trial planned yet is empty
    return [a - b if a is not None and b is not None else None for a, b in pairs]
