"""The figures of `lars_or_sgd`, as PNG bytes. matplotlib is imported to draw."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tf_largebatch.review.figures import as_png, colour, name_axes, plain_numbers

Errors = Sequence[float]  # of each seed, percent
TICKS = (8, 9, 10, 12, 15, 20, 30, 50)  # percent


@dataclass(frozen=True)
class Ladder:
    """One optimizer on one network: test errors by batch."""

    label: str
    errors: Mapping[int, Errors]
    dashed: bool = False
    tuned: Errors = ()  # at the largest batch, its momentum tuned too


@dataclass(frozen=True)
class Sweep:
    """One optimizer on one network at the largest batch: held-out errors by rate."""

    label: str
    errors: Mapping[float, Errors]
    usable: float | None = None  # the largest rate that can be used, the median of the seeds


@dataclass(frozen=True)
class Panel:
    """One network."""

    title: str
    ladders: Sequence[Ladder] = ()
    sweeps: Sequence[Sweep] = ()
    layers: Sequence[str] = ()
    ratios: Sequence[Sequence[Sequence[float]]] = field(default=())  # [seed][update][layer]


def draw_ladders(panels: Sequence[Panel], highest: float) -> bytes:
    """Draws test error against the batch; above `highest` a point is a mark at the top."""
    figure, all_axes = _side_by_side(panels)
    batches = sorted({b for panel in panels for row in panel.ladders for b in row.errors})
    for axes, panel in zip(all_axes, panels, strict=True):
        labels = []
        for number, row in enumerate(panel.ladders):
            look = {"color": colour(number), "ls": "--" if row.dashed else "-"}
            shown = {b: e for b, e in row.errors.items() if e and statistics.median(e) <= highest}
            lost = [b for b, e in row.errors.items() if e and statistics.median(e) > highest]
            _draw(axes, shown, look, band=False)
            if lost:
                top = {"transform": axes.get_xaxis_transform(), "clip_on": False}
                axes.plot(lost, [1.0] * len(lost), "^", color=colour(number), ms=8, **top)
            if row.tuned:
                place = max(row.errors)
                axes.plot(place, statistics.median(row.tuned), "D", mfc="none", ms=8, **look)
            if shown:
                last = max(shown)
                labels.append((last, statistics.median(shown[last]), row.label, colour(number)))
            elif lost:
                labels.append((max(lost), highest, row.label, colour(number)))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_ylim(top=highest)
        axes.set_xticks(batches)
        axes.set_yticks([tick for tick in TICKS if tick <= highest])
        _label(axes, labels)
        for axis in (axes.xaxis, axes.yaxis):
            plain_numbers(axis, base=2)
        axes.minorticks_off()
        axes.set_title(panel.title, fontsize=10, pad=12)
        name_axes(axes, "images an update", "test error, %" if axes is all_axes[0] else "")
    return as_png(figure)


def draw_sweeps(panels: Sequence[Panel]) -> bytes:
    """Draws held-out error against the rate at the largest batch; bands are ranges of seeds."""
    figure, all_axes = _side_by_side(panels)
    for axes, panel in zip(all_axes, panels, strict=True):
        for number, row in enumerate(panel.sweeps):
            shown = {rate: e for rate, e in row.errors.items() if e}
            _draw(axes, shown, {"color": colour(number)})
            if shown:
                place = (min(shown), statistics.median(shown[min(shown)]))
                _write(axes, row.label, place, (0, 11), colour(number), "center")
            if row.usable:
                axes.axvline(row.usable, color=colour(number), lw=0.9, ls=":")
                text = f"usable to {row.usable:.3g}"
                axes.text(
                    row.usable, 0.98, text, rotation=90, fontsize=8, ha="right", va="top",
                    color=colour(number), transform=axes.get_xaxis_transform(),
                )  # fmt: skip
        for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
            set_scale("log")
            plain_numbers(axis)
        axes.margins(y=0.15)
        axes.set_title(panel.title, fontsize=10)
        name_axes(axes, "rate at its height", "held-out error, %" if axes is all_axes[0] else "")
    return as_png(figure)


def draw_ratios(panels: Sequence[Panel], published: tuple[float, float]) -> bytes:
    """Draws |W| / |grad W| over the first epoch; the published range stands at the first update."""
    figure, all_axes = _side_by_side(panels)
    for axes, panel in zip(all_axes, panels, strict=True):
        labels = []
        for number, name in enumerate(panel.layers):
            curves = [[row[number] for row in seed] for seed in panel.ratios]
            by_update = list(zip(*curves, strict=True))
            places = range(1, len(by_update) + 1)
            low, high = [*map(min, by_update)], [*map(max, by_update)]
            axes.fill_between(places, low, high, color=colour(number), alpha=0.2, lw=0)
            means = [statistics.fmean(values) for values in by_update]
            axes.plot(places, means, color=colour(number))
            labels.append((len(means), means[-1], name, colour(number)))
        if axes is all_axes[-1]:
            axes.plot([1, 1], published, color="#555555", marker="_", ms=9, lw=1)
            text = "AlexNet-BN after one update,\nconv1 to fc6 (published)"
            _write(axes, text, (1, published[1]), (5, -4), "#555555", "left")
        axes.set_yscale("log")
        _label(axes, labels)
        plain_numbers(axes.yaxis)
        axes.set_title(panel.title, fontsize=10)
        name_axes(axes, "update", "|W| / |grad W|" if axes is all_axes[0] else "")
    return as_png(figure)


def _side_by_side(panels: Sequence[Panel]) -> tuple:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 3.8 * len(panels), 4.4), layout="constrained")
    return figure, list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])


def _draw(axes, errors: Mapping[Any, Errors], look: dict, *, band: bool = True) -> None:
    """Medians as a line, the range of the seeds as bars, and between them as a band if asked."""
    places = sorted(errors)
    low, high = ([of(errors[p]) for p in places] for of in (min, max))
    if band:
        axes.fill_between(places, low, high, color=look["color"], alpha=0.2, lw=0)
    axes.vlines(places, low, high, color=look["color"], alpha=0.5, lw=3)
    middles = [statistics.median(errors[p]) for p in places]
    axes.plot(places, middles, marker="o", ms=4, **look)


def _label(axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes (x, y, text, colour) at the lines' ends, apart from each other, with room for them."""
    import math

    ends = axes.transAxes.transform([(0, 0), (1.4, 1)])  # 40 % more to the right, for the labels
    axes.set_xlim(right=axes.transData.inverted().transform(ends)[1, 0])
    bottom, top = map(math.log, axes.get_ylim())
    least, before = 0.055 * (top - bottom), -math.inf
    for x, y, text, shade in sorted(labels, key=lambda label: label[1]):
        place = max(math.log(y), before + least)
        before = place
        _write(axes, text, (x, math.exp(place)), (7, 0), shade, "left")


def _write(axes, text: str, place: tuple[float, float], offset, shade: str, align: str) -> None:
    note = axes.annotate(
        text, place, xytext=offset, textcoords="offset points", color=shade, fontsize=9,
        ha=align, va="center",
    )  # fmt: skip
    note.set_in_layout(False)
