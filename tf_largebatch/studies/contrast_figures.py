"""Figures that studies share: differences beside the papers', searches, training losses."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tf_largebatch.review.figures import as_png, colour, finish, make_axes, name_axes, plain_numbers
from tf_largebatch.review.verdict import Finding, Rule
from tf_largebatch.studies.fitting import GUESSING_PCT

Point = tuple[float, float]


@dataclass(frozen=True)
class Contrast:
    """A measured difference, and the paper's where it can stand beside it."""

    label: str
    finding: Finding
    rule: Rule
    published: float | None = None


def draw_contrasts(contrasts: Sequence[Contrast], xlabel: str) -> bytes:
    """Draws means with intervals and seeds, one below another, published ones as diamonds.

    Where a claim agrees the ground is shaded.
    """
    figure, axes = make_axes((7.2, 1.5 + 0.62 * len(contrasts)))
    shown = [v for c in contrasts for v in (*c.finding.differences, c.published or 0.0)]
    low, high = (f(*shown, *(c.rule.smallest for c in contrasts)) for f in (min, max))
    wide = max(high, -low) > 10  # one large difference would hide where the small ones lie
    left, right = (low * 1.3 - 0.5, high * 1.3) if wide else (low - 0.5, high + 0.5)
    for place, contrast in enumerate(contrasts):
        found, smallest = contrast.finding, contrast.rule.smallest
        ground = {"more": (smallest, right), "equal": (-smallest, smallest)}
        holds = ground.get(contrast.rule.kind, (left, smallest))
        axes.fill_betweenx([place - 0.3, place + 0.34], *holds, color="#dfeedd", lw=0)
        axes.plot([found.low, found.high], [place, place], color=colour(0), lw=2)
        axes.plot(found.mean, place, "o", color=colour(0), ms=7)
        axes.plot(found.differences, [place + 0.2] * found.seeds, "|", color=colour(0), ms=7)
        if contrast.published is not None:
            axes.plot(contrast.published, place, "D", mfc="none", color=colour(1), ms=8)
        text = axes.text(0.005, place - 0.38, f"{contrast.label}: {found.verdict}", fontsize=9)
        text.set_transform(axes.get_yaxis_transform())
    axes.axvline(0, color="#555555", lw=0.8)
    if wide:
        axes.set_xscale("symlog", linthresh=2)
        plain_numbers_around_zero(axes)
    axes.set_ylim(len(contrasts) - 0.45, -0.75)
    axes.set_xlim(left, right)
    axes.set_yticks([])
    name_axes(axes, xlabel, "")
    return as_png(figure, _marks())


def _marks() -> list:
    """The legend of measured and published values."""
    from matplotlib.lines import Line2D

    ours = Line2D([], [], color=colour(0), marker="o", ms=7, lw=2, label="measured here")
    paper = Line2D([], [], color=colour(1), marker="D", ms=8, mfc="none", ls="none")
    paper.set_label("published")
    return [ours, paper]


def plain_numbers_around_zero(axes) -> None:
    """Writes -10, -1, 0, 1, 10 on an axis that is logarithmic on both sides of 0."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks = [sign * value for value in (1, 2, 5, 10, 20, 50, 100) for sign in (-1, 1)]
    axes.xaxis.set_major_locator(FixedLocator([0, *ticks]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def draw_rates(curves: Mapping[str, Sequence[Point]]) -> bytes:
    """Draws each search's (rate, error), named at the line's end; both axes are logarithmic."""
    figure, axes = make_axes((7.6, 4.4))
    ends = []
    for number, (label, points) in enumerate(curves.items()):
        kept = sorted((r, e) for r, e in points if e < GUESSING_PCT)
        lost = [r for r, e in points if e >= GUESSING_PCT]
        shade = colour(number)
        if kept:
            axes.plot(*zip(*kept, strict=True), "o-", color=shade, ms=4)
            ends.append((*kept[-1], label, shade))
        where = axes.get_xaxis_transform()
        axes.plot(lost, [0.98] * len(lost), "x", color=shade, ms=7, transform=where)
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        plain_numbers(axis)
    _name_ends(axes, ends)
    return finish(figure, axes, "learning rate", "held-out error, %", legend=False)


def _name_ends(axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes (x, y, label, colour) right of the lines' ends, apart from each other."""
    spot, points = -1e9, 72 / axes.figure.dpi
    for x, y, label, shade in sorted(ends, key=lambda end: end[1]):
        height = axes.transData.transform((x, y))[1] * points
        spot = max(height, spot + 11)
        at = {"xytext": (7, spot - height), "textcoords": "offset points", "va": "center"}
        axes.annotate(label, (x, y), **at, color=shade, fontsize=9, annotation_clip=False)


def draw_losses(runs: Mapping[str, Sequence[tuple[Sequence[int], Sequence[float]]]]) -> bytes:
    """Draws training losses, [(updates after each epoch, loss)] of each row's seeds.

    One panel against the epoch and one against the update; a line is the mean over the seeds, a
    band their range.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for number, (label, seeds) in enumerate(runs.items()):
        losses = list(zip(*(loss for _, loss in seeds), strict=False))
        whole = [of for of in losses if all(v is not None and math.isfinite(v) for v in of)]
        means, updates = [sum(of) / len(of) for of in whole], seeds[0][0][: len(whole)]
        for axes, places in ((left, range(1, len(whole) + 1)), (right, updates)):
            band = {"color": colour(number), "alpha": 0.2, "lw": 0}
            axes.fill_between(places, [*map(min, whole)], [*map(max, whole)], **band)
            axes.plot(places, means, color=colour(number), label=label)
    name_axes(left, "epoch", "training loss, nats")
    name_axes(right, "update", "")
    for axes in (left, right):
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return as_png(figure, left.get_legend_handles_labels()[0])


def draw_rows(rows: Sequence[tuple[str, Sequence[float], float | None]], xlabel: str) -> bytes:
    """Draws (label, value of each seed, published value) of each row, one below another."""
    figure, axes = make_axes((7.2, 1.0 + 0.55 * len(rows)))
    for place, (_, values, published) in enumerate(rows):
        axes.plot(values, [place] * len(values), "|", color=colour(0), ms=12)
        if values:
            axes.plot(sum(values) / len(values), place, "o", color=colour(0), ms=7)
        if published is not None:
            axes.plot(published, place, "D", mfc="none", color=colour(1), ms=8)
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    name_axes(axes, xlabel, "")
    return as_png(figure, _marks())


def draw_walks(
    walks: Mapping[str, Sequence[tuple[Sequence[int], Sequence[float]]]],
    lines: Mapping[str, Point],
    *,
    fitted_from: int,
) -> bytes:
    """Draws distances against the logarithm of the updates, with lines (slope, intercept)."""
    figure, axes = make_axes((7.6, 4.4))
    names = []
    for number, (label, seeds) in enumerate(walks.items()):
        updates, shade = seeds[0][0], colour(number)
        distances = list(zip(*(d for _, d in seeds), strict=True))
        low, high = [*map(min, distances)], [*map(max, distances)]
        axes.fill_between(updates, low, high, color=shade, alpha=0.2, lw=0)
        means = [sum(of) / len(of) for of in distances]
        axes.plot(updates, means, "o-", color=shade, ms=4)
        names.append((updates[-1], means[-1], label, shade))
        slope, intercept = lines[label]
        ends = (fitted_from, updates[-1])
        fitted = [slope * math.log(t) + intercept for t in ends]
        axes.plot(ends, fitted, "--", color=shade, lw=1)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    _name_ends(axes, names)
    plain_numbers(axes.xaxis)
    return finish(figure, axes, "updates t", "distance from the first weights", legend=False)
