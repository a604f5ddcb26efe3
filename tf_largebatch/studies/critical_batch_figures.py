"""The figures of `critical_batch`."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_largebatch.review.verdict import interval
from tf_largebatch.studies import critical_batch_plan as study
from tf_largebatch.studies import figures
from tf_largebatch.studies.critical_batch_seeds import (
    LADDER_TEXTS,
    Errors,
    Seed,
    median_fit,
    two_digits,
)
from tf_largebatch.studies.study import Scale

STEPS_CAPTION = (
    "Updates to the target against the batch, best of the search at each batch. Small points: "
    "seeds; large: their median. Line: the law fitted to the medians; band: the range of the fits "
    "to single seeds. Dashed: perfect scaling. Bars at the bottom: critical batch and noise scale, "
    "geometric mean with 95 % interval over seeds; open diamonds: as McCandlish et al. 2018 "
    "published them for MNIST, with another network and target."
)
LADDER_CAPTION = (
    "Test error on Fashion-MNIST after 10 epochs against the batch; every row has one rate, tuned "
    "at 64, and follows its rule from there. Small points: seeds; line: mean; band: 95 % interval "
    "of the mean."
)


# [paper: digest] McCandlish et al. 2018, Table 1, averages over a run
PUBLISHED = {"mnist": {"critical batch": 200, "noise scale": 900}}


def draw_steps(sets: dict[str, list[Seed]], scale: Scale) -> bytes:
    """Draws a panel a data set, as Shallue et al. 2018, Figure 1."""
    figure, panels = figures.make_panels(len(sets), *(study.TITLES[data] for data in sets))
    for axes, (data, seeds) in zip(panels, sets.items(), strict=True):
        _draw_one(axes, seeds, PUBLISHED.get(data, {}))
        axes.set_xlabel("batch, examples")
        goal = study.target_pct(data, scale)
        axes.set_ylabel(f"updates to {goal:g} % held-out error")
    return figures.as_png(figure)


def _draw_one(axes: Any, seeds: Sequence[Seed], published: Mapping[str, int]) -> None:
    shade, batches = figures.colour(0), sorted({b for seed in seeds for b in seed.steps})
    figures.log_axis(axes, "x", base=2)
    figures.log_axis(axes, "y", base=2)
    if not batches:
        return
    for seed in seeds:
        axes.plot(list(seed.steps), list(seed.steps.values()), ".", color=shade, ms=4, alpha=0.45)
    medians = [statistics.median(s.steps[b] for s in seeds if b in s.steps) for b in batches]
    axes.plot(batches, medians, "o", color=shade, ms=5.5, zorder=4)
    fine = np.geomspace(batches[0], batches[-1], 200)
    fits = [seed.fit for seed in seeds if seed.fit is not None]
    curve = median_fit(seeds)
    if curve is not None:
        bundle = np.array([[fit.steps(b) for b in fine] for fit in fits])
        figures.draw_band(axes, fine, bundle.min(axis=0), bundle.max(axis=0), shade)
        axes.plot(fine, [curve.steps(b) for b in fine], color=shade, lw=1.5)
    start = medians[0] * batches[0] if curve is None else curve.examples_min
    axes.plot(fine, start / fine, "--", color="0.45", lw=0.9)
    place = int(0.62 * len(fine))
    label = "perfect scaling"
    figures.label_end(
        axes, fine, start / fine, label, "0.35", place=place, shift=(-6, -4), ha="right", va="top"
    )
    least = min(medians)
    axes.set_ylim(bottom=least / 6, top=1.6 * max(medians))
    marks = (
        ("critical batch", [fit.critical_batch for fit in fits], 3.2, 1),
        ("noise scale", [s.noise_scale for s in seeds if s.noise_scale is not None], 4.6, 2),
    )
    for text, values, divisor, number in marks:
        shade = figures.colour(number)
        _draw_mark(axes, text, values, least / divisor, shade, published.get(text))


def _draw_mark(
    axes: Any,
    text: str,
    values: Sequence[float],
    height: float,
    shade: str,
    published: int | None,
) -> None:
    """A bar of the interval of a batch, with its name, and the published one."""
    if not values:
        return
    logs = [math.log(value) for value in values]
    mean = math.exp(statistics.fmean(logs))
    ends = [math.exp(end) for end in interval(logs)] if len(logs) > 1 else [mean, mean]
    axes.plot(ends, [height] * 2, color=shade, lw=3, solid_capstyle="butt", alpha=0.5)
    axes.plot([mean], [height], "|", color=shade, ms=9, mew=2)
    if published is not None:
        figures.draw_published(axes, published, height, mec=shade)
    right = max(ends[1], published or 0)
    label = f"{text} {two_digits(mean)}"
    figures.label_end(axes, [right], [height], label, shade, shift=(7, 0))


def draw_ladder(errors: Errors, scale: Scale) -> bytes:
    """Draws the test errors of the rows against the batch."""
    figure, (axes,) = figures.make_panels(1, size=(5.6, 3.9))
    for number, (row, own) in enumerate(errors.items()):
        shade = figures.colour(number)
        known = {b: [e for e in found if e is not None] for b, found in own.items()}
        known = {batch: found for batch, found in known.items() if found}
        if not known:
            continue
        for batch, found in known.items():
            axes.plot([batch] * len(found), found, ".", color=shade, ms=4, alpha=0.45)
        batches, means = list(known), [statistics.fmean(found) for found in known.values()]
        axes.plot(batches, means, "-o", color=shade, ms=4, lw=1.5)
        if all(len(found) > 1 for found in known.values()):
            ends = [interval(found) for found in known.values()]
            figures.draw_band(axes, batches, [e[0] for e in ends], [e[1] for e in ends], shade)
        figures.label_end(axes, batches, means, LADDER_TEXTS[row], shade)
    figures.log_axis(axes, "x", base=2, ticks=study.ladder(scale)["batches"])
    axes.set_yscale("log")
    figures.plain_numbers(axes.yaxis)
    axes.set_xlim(right=axes.get_xlim()[1] * 3)
    axes.set_xlabel("batch, examples")
    axes.set_ylabel(f"test error on {study.TITLES[study.ladder(scale)['data']]}, %")
    return figures.as_png(figure)
