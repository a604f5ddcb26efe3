"""What the trials of `sharp_minima` say: differences, tables, figures."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_largebatch.studies.sharp_minima_plan import (
    DECAYS,
    EPSILONS,
    NEAR,
    SIDES,
    make_trial,
)
from tf_largebatch.studies.study import Answer, Claim, Conclusion, Results, Scale, answer

WITHOUT, WITH = DECAYS


def conclude(claims: Mapping[str, Claim], results: Results, scale: Scale) -> Conclusion:
    """Applies the rules, and draws what there is."""
    return Conclusion(answers=answers(claims, results, scale), tables=[], tuning=[], figures=[])


def answers(claims: Mapping[str, Claim], results: Results, scale: Scale) -> list[Answer]:
    """One answer a claim, or a part of one."""

    def pairs(decay: float, of: Callable[[Mapping], float]) -> list[tuple[float, float]]:
        found = [[solution(results, scale, decay, side, seed) for side in SIDES] for seed in seeds]
        return [(of(a), of(b)) for a, b in found if a and b]

    def sharpness(epsilon: float) -> Callable[[Mapping], float]:
        return lambda one: one["sharpness"][f"{epsilon:g}"]["sharpness"]

    seeds = range(scale.seeds)
    errors = pairs(WITHOUT, lambda one: one["test_error_pct"])
    found = [answer(claims["C11a"], [b - a for a, b in errors], scale)]
    for epsilon in EPSILONS:
        measured = pairs(WITHOUT, sharpness(epsilon))
        decades = [math.log10(b / a) for a, b in measured if a > 0 and b > 0]
        found.append(answer(claims["C11b"], decades, scale, part=f"epsilon {epsilon:g}"))
    for decay in DECAYS:
        part = f"decay {decay:g}"
        lines = [results.get(make_trial("between", decay, s, scale).name) for s in seeds]
        ends = [rises(line["places"], line["train"]) for line in lines if line]
        sign = 1.0 if decay == WITHOUT else -1.0
        flips = [sign * share(*pair) for pair in ends]
        found.append(answer(claims["C12a"], flips, scale, part=part))
    for decay in DECAYS:
        normed = [share(*pair) for pair in pairs(decay, line_rise)]
        found.append(answer(claims["C12b"], normed, scale, part=f"decay {decay:g}"))
    return found


def solution(
    results: Results, scale: Scale, decay: float, side: str, seed: int
) -> Mapping[str, Any] | None:
    """What was measured of a solution; None where it is missing."""
    return results.get(make_trial("solution", decay, seed, scale, side).name)


def rises(places: Sequence[float], losses: Sequence[float | None]) -> tuple[float, float]:
    """Mean loss within NEAR of each end (0 and 1), less the loss at it.

    Outside of 0 to 1 a variance on the line can be negative: such a point, None, is left out.
    """
    known = [(x, loss) for x, loss in zip(places, losses, strict=True) if loss is not None]

    def rise(end: float) -> float:
        near = [loss for x, loss in known if abs(x - end) <= NEAR + 1e-9]
        return statistics.fmean(near) - min(known, key=lambda point: abs(point[0] - end))[1]

    return rise(0.0), rise(1.0)


def line_rise(one: Mapping[str, Any]) -> float:
    """Mean loss over all points of the filter-normalised lines, less the loss at the solution."""
    middle = len(one["places"]) // 2
    all_lines = [[math.inf if loss is None else loss for loss in line] for line in one["lines"]]
    return statistics.fmean(statistics.fmean(line) - line[middle] for line in all_lines)


def share(small: float, large: float) -> float:
    """(large - small) / (|large| + |small|): 0 for equal rises, 1 where only `large` rises."""
    if math.inf in (small, large):
        return float(large == math.inf) - float(small == math.inf)
    total = abs(small) + abs(large)
    return (large - small) / total if total else 0.0
