"""What the trials of `sharp_minima` say: differences, tables, figures."""

import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_largebatch.studies.sharp_minima_figures import (
    Curves,
    draw_lines,
    draw_planes,
    draw_sharpness,
)
from tf_largebatch.studies.sharp_minima_plan import (
    DECAYS,
    EPSILONS,
    LARGE,
    NEAR,
    SIDES,
    SMALL,
    make_trial,
    size,
)
from tf_largebatch.studies.study import (
    Answer,
    Claim,
    Conclusion,
    Figure,
    Results,
    Scale,
    Table,
    answer,
)

WITHOUT = DECAYS[0]
# [recall] Keskar et al., F1: test error, training error, sharpness at both epsilons.
PUBLISHED = {
    SMALL: ("1.97 ± 0.07", "at most 2", "1.23", "0.61", ""),  # [recall]
    LARGE: ("2.19 ± 0.07", "at most 2", "205.1", "42.9", ""),  # [recall]
}
PUBLISHED_SHARPNESS = {1e-3: (1.23, 205.1), 5e-4: (0.61, 42.9)}  # [recall]
PLANE = (1e-3, 10.0)  # nats, of the contours
NOTES = (
    "Nothing is tuned, as in the paper: Adam at 1e-3 makes 4,680 updates at 256 images and 200 at "
    "6,000.",
    "With decay 5e-4, in the pair of seed 0, the small batch is the flatter and the worse of the "
    "two, with errors on the training set as well: decay acts at 23 times as many updates. Where "
    "that holds, sharpness, normalised or not, does not order the test errors, other than in Li "
    "et al., who train a convolutional network for 300 epochs.",
    "The paper's sharpness is 9 to 60 times below ours at either batch; the table of other ways to "
    "measure says what could explain it. Which images it is of, where the climb starts and in "
    "which mode batch norm is are not stated in what we could read.",
)


def conclude(claims: Mapping[str, Claim], results: Results, scale: Scale) -> Conclusion:
    """Applies the rules, and draws what there is."""
    return Conclusion(
        answers=answers(claims, results, scale),
        tables=[solution_table(results, scale), variation_table(results, scale)],
        tuning=[],
        figures=draw(results, scale),
        notes=NOTES,
    )


def solution_table(results: Results, scale: Scale) -> Table:
    """What was measured of the solutions, and what is published."""
    table = []
    for decay in DECAYS:
        for side, batch in zip(SIDES, size(scale).batches, strict=True):
            found = known(results, scale, decay, side)
            columns = [
                ([one["test_error_pct"] for one in found], ".2f"),
                ([one["train_error_pct"] for one in found], ".2f"),
                *(([_sharpness(one, e) for one in found], ".4g") for e in EPSILONS),
                ([one["kernel_norm"] for one in found], ".1f"),
            ]
            cells = [_cell(values, form) for values, form in columns]
            table.append([f"{decay:g}", f"{batch:,}", *cells])
            if decay == WITHOUT and not scale.quick:
                table.append(["published", f"{batch:,}", *PUBLISHED[side]])
    header = ["decay", "batch", "test error, %", "training error, %"]
    header += [*(f"sharpness, epsilon {e:g}" for e in EPSILONS), "norm of the kernels"]
    note = "Mean and deviation over the seeds. Published: Keskar et al., F1, quoted from memory."
    return Table("The solutions", header, table, "" if scale.quick else note)


def variation_table(results: Results, scale: Scale) -> Table:
    """Sharpness measured in other ways."""
    names = [make_trial("variations", WITHOUT, 0, scale, side).name for side in SIDES]
    small, large = (results.get(name, {}) for name in names)
    table = [
        [way, f"{small[way]:.4g}", f"{large[way]:.4g}", _ratio(small[way], large[way])]
        for way in small
        if way in large
    ]
    header = ("measured", *(f"{batch:,}" for batch in size(scale).batches), "ratio")
    title = "Sharpness at epsilon 1e-3 with one thing changed at a time, seed 0, without decay"
    return Table(title, header, table)


def _ratio(small: float, large: float) -> str:
    return f"{large / small:.3g}" if small > 0 else ""


def _cell(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{form}}{deviation}"


def draw(results: Results, scale: Scale) -> list[Figure]:
    """The figures for which there is something to draw."""
    figures, batches = [], [f"{batch:,}" for batch in size(scale).batches]
    seeds = [
        pair
        for seed in range(scale.seeds)
        if all(pair := [solution(results, scale, WITHOUT, side, seed) for side in SIDES])
    ]
    if seeds and not scale.quick:
        measured = {
            f"epsilon {e:g}": [[_sharpness(one, e) for one in pair if one] for pair in seeds]
            for e in EPSILONS
        }
        published = {f"epsilon {e:g}": PUBLISHED_SHARPNESS[e] for e in EPSILONS}
        caption = (
            "Sharpness without decay: by how many percent of 1 + loss the training loss can rise "
            "in the box. Diamonds: Keskar et al., F1, quoted from memory."
        )
        figures.append(Figure("sharpness.png", draw_sharpness(measured, published), caption))
    between = {_title(decay): _between(results, scale, decay) for decay in DECAYS}
    if all(between.values()):
        marks = {0.0: batches[0], 1.0: batches[1]}
        png = draw_lines(between, "on the way from the small to the large batch's", marks)
        caption = (
            "Loss on the line between the two solutions, weights and batch-norm statistics: "
            "geometric mean and range of the seeds. What looks sharp here changes with the norm of "
            "the weights."
        )
        figures.append(Figure("between.png", png, caption))
    normed = {_title(decay): _normed(results, scale, decay, batches) for decay in DECAYS}
    if all(normed.values()):
        png = draw_lines(normed, "along a filter-normalised direction", {})
        caption = (
            "Training loss along random filter-normalised directions (Li et al.): geometric mean "
            "and range of the seeds."
        )
        figures.append(Figure("normalised.png", png, caption))
    planes = {}
    for decay in DECAYS:
        for side, batch in zip(SIDES, batches, strict=True):
            found = results.get(make_trial("plane", decay, 0, scale, side).name)
            if found:
                losses = [[math.nan if v is None else v for v in row] for row in found["losses"]]
                planes[f"{batch} images, {_title(decay)}"] = (found["places"], losses)
    if planes:
        caption = (
            "Training loss on a plane of two filter-normalised directions, seed 0; the solution is "
            f"the cross, contours from {PLANE[0]:g} to {PLANE[1]:g} nats in equal steps of the "
            "logarithm."
        )
        figures.append(Figure("planes.png", draw_planes(planes, PLANE), caption))
    return figures


def _title(decay: float) -> str:
    return f"decay {decay:g}" if decay else "without decay"


def _between(results: Results, scale: Scale, decay: float) -> list[Curves]:
    names = [make_trial("between", decay, seed, scale).name for seed in range(scale.seeds)]
    found = [results[name] for name in names if name in results]
    parts = (("train", "training"), ("test", "test")) if found else ()
    return [
        Curves(label, found[0]["places"], [_finite(one[name]) for one in found])
        for name, label in parts
    ]


def _normed(results: Results, scale: Scale, decay: float, batches: list[str]) -> list[Curves]:
    curves = []
    for side, batch in zip(SIDES, batches, strict=True):
        found = known(results, scale, decay, side)
        if found:
            lines = [_finite(line) for one in found for line in one["lines"]]
            curves.append(Curves(f"{batch} images", found[0]["places"], lines))
    return curves


def _finite(losses: Sequence[float | None]) -> list[float]:
    return [math.nan if loss is None else loss for loss in losses]


def _sharpness(one: Mapping[str, Any], epsilon: float) -> float:
    return one["sharpness"][f"{epsilon:g}"]["sharpness"]


def answers(claims: Mapping[str, Claim], results: Results, scale: Scale) -> list[Answer]:
    """One answer a claim, or a part of one."""

    def pairs(decay: float, of: Callable[[Mapping], float]) -> list[tuple[float, float]]:
        found = [[solution(results, scale, decay, side, seed) for side in SIDES] for seed in seeds]
        return [(of(a), of(b)) for a, b in found if a and b]

    seeds = range(scale.seeds)
    errors = pairs(WITHOUT, lambda one: one["test_error_pct"])
    found = [answer(claims["C11a"], [b - a for a, b in errors], scale)]
    for epsilon in EPSILONS:
        measured = pairs(WITHOUT, functools.partial(_sharpness, epsilon=epsilon))
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


def known(results: Results, scale: Scale, decay: float, side: str) -> list[Mapping[str, Any]]:
    """What was measured of the solutions of all seeds that are there."""
    found = [solution(results, scale, decay, side, seed) for seed in range(scale.seeds)]
    return [one for one in found if one]


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
