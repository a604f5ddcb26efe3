"""The figures of `sharp_minima`, as PNG bytes. matplotlib is imported to draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_largebatch.review.figures import as_png, colour, name_axes, plain_numbers

LEAST = 1e-6  # a loss below is drawn there


@dataclass(frozen=True)
class Curves:
    """Losses along a line, of every seed: NaN where they are not finite."""

    label: str
    places: Sequence[float]
    losses: Sequence[Sequence[float]]  # [seed][place]


def draw_lines(
    panels: Mapping[str, Sequence[Curves]], xlabel: str, marks: Mapping[float, str]
) -> bytes:
    """Draws losses along lines, a panel each; bands are the range of the seeds.

    `marks` are places on the axis and what is there.
    """
    import numpy as np

    figure, all_axes = _panels(panels)
    for axes, (title, all_curves) in zip(all_axes, panels.items(), strict=True):
        for number, curves in enumerate(all_curves):
            losses = np.maximum(np.asarray(curves.losses, float), LEAST)
            whole = np.isfinite(losses).all(axis=0)
            places, losses = np.asarray(curves.places)[whole], losses[:, whole]
            shade = colour(number)
            axes.fill_between(places, losses.min(0), losses.max(0), color=shade, alpha=0.2, lw=0)
            means = np.exp(np.log(losses).mean(axis=0))
            axes.plot(places, means, color=shade)
            _write(axes, curves.label, places[-1], means[-1], shade)
        for place, text in marks.items():
            axes.axvline(place, color="#999999", lw=0.8, zorder=0)
            axes.text(
                place, 1.0, text, fontsize=8, ha="center", va="bottom",
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
        axes.set_yscale("log")
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + 0.3 * (high - low))
        axes.set_title(title, fontsize=10, pad=18 if marks else 6)
        name_axes(axes, xlabel, "loss, nats" if axes is all_axes[0] else "")
    return as_png(figure)


def draw_planes(
    planes: Mapping[str, tuple[Sequence[float], Any]], ends: tuple[float, float]
) -> bytes:
    """Draws contours of the loss, [y][x], a panel a solution, all with the same levels."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 7.2), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    levels = np.geomspace(ends[0], ends[1], 13)
    drawn = None
    for axes, (title, (places, losses)) in zip(grid.flat, planes.items(), strict=False):
        clipped = np.clip(np.asarray(losses, float), *ends)
        drawn = axes.contour(places, places, clipped, levels=levels, norm="log", cmap="viridis")
        named = drawn.levels[::3]
        axes.clabel(drawn, levels=named, fontsize=7, fmt="%.2g")
        axes.plot(0, 0, "k+", ms=8)
        axes.set_aspect("equal")
        axes.set_title(title, fontsize=10)
    return as_png(figure)


def draw_sharpness(
    measured: Mapping[str, Sequence[Sequence[float]]], published: Mapping[str, Sequence[float]]
) -> bytes:
    """Draws sharpness at the small and the large batch, a panel an epsilon, a line a seed.

    `measured` are label -> [seed][small, large]; `published`, of the same labels, hollow diamonds.
    """
    figure, all_axes = _panels(measured)
    for axes, (label, seeds) in zip(all_axes, measured.items(), strict=True):
        for values in seeds:
            axes.plot([0, 1], values, "o-", color=colour(0), ms=5, lw=1, alpha=0.7)
        axes.plot([0, 1], published[label], "D--", color=colour(1), mfc="none", ms=7, lw=1)
        _write(axes, "ours, a line a seed", 1, max(v[1] for v in seeds), colour(0))
        _write(axes, "published", 1, published[label][1], colour(1))
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        axes.set_xticks([0, 1], ["256", "6,000"])
        axes.set_xlim(-0.2, 2.0)
        axes.set_title(label, fontsize=10)
        name_axes(axes, "images an update", "sharpness, %" if axes is all_axes[0] else "")
    return as_png(figure)


def _panels(panels: Mapping[str, Any]) -> tuple:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 3.6 * len(panels), 4.2), layout="constrained")
    return figure, list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])


def _write(axes, text: str, x: float, y: float, shade: str) -> None:
    note = axes.annotate(
        text, (x, y), xytext=(6, 0), textcoords="offset points", color=shade, fontsize=9,
        va="center",
    )  # fmt: skip
    note.set_in_layout(False)
