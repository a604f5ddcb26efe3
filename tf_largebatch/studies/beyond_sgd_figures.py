"""The figure of `beyond_sgd`."""

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_largebatch.studies import beyond_sgd_plan as study
from tf_largebatch.studies import figures
from tf_largebatch.studies.beyond_sgd_seeds import Row
from tf_largebatch.studies.study import Scale

CAPTION = (
    "Updates to the target against the batch, best of an equal search of each optimizer at each "
    "batch. Points: medians over seeds; lines: the law fitted to them; bands: the range of the "
    "fits to single seeds; bars across a line: its critical batch, where half the gain is had. "
    "Dashed: perfect scaling."
)


APART = 1.2  # least ratio of the heights of two labels


def draw_steps(rows: Mapping[str, Row], scale: Scale) -> bytes:
    """Draws a line an optimizer, as Shallue et al. 2018, Figure 1, draw one."""
    figure, (axes,) = figures.make_panels(1, size=(6.4, 4.4))
    batches = study.of("batches", scale)
    figures.log_axis(axes, "x", base=2, ticks=batches)
    figures.log_axis(axes, "y", base=2)
    fine = np.geomspace(batches[0], batches[-1], 200)
    shades = {name: figures.colour(number) for number, name in enumerate(rows)}
    ends = {name: _draw_row(axes, row, fine, shades[name]) for name, row in rows.items()}
    for name, height in _spread({n: end for n, end in ends.items() if end is not None}).items():
        figures.label_end(axes, [batches[-1]], [height], study.TITLES[name], shades[name])
    curve = rows["sgd"].curve
    if curve is not None:
        ideal = curve.examples_min / fine
        axes.plot(fine, ideal, "--", color="0.45", lw=0.9)
        figures.label_end(
            axes,
            fine,
            ideal,
            "perfect scaling",
            "0.35",
            place=-6,
            shift=(-6, -2),
            ha="right",
            va="top",
        )
        lowest = min(s for row in rows.values() for own in row.steps for s in own.values())
        axes.set_ylim(bottom=lowest / 1.8)
    axes.set_xlim(right=batches[-1] * 4)
    axes.set_xlabel("batch, examples")
    axes.set_ylabel(f"updates to {study.of('target_pct', scale):g} % held-out error")
    return figures.as_png(figure)


def _draw_row(axes: Any, row: Row, fine: Any, shade: str) -> float | None:
    """Draws it; returns the height at the largest batch, None where there is nothing."""
    batches = sorted({batch for own in row.steps for batch in own})
    if not batches:
        return None
    medians = [statistics.median(own[b] for own in row.steps if b in own) for b in batches]
    axes.plot(batches, medians, "o", color=shade, ms=4.5, zorder=4)
    if row.curve is None:
        return medians[-1]
    curves = np.array([[fit.steps(b) for b in fine] for fit in row.fits if fit is not None])
    figures.draw_band(axes, fine, curves.min(axis=0), curves.max(axis=0), shade)
    axes.plot(fine, [row.curve.steps(b) for b in fine], color=shade, lw=1.5)
    critical = row.curve.critical_batch
    if row.curve.measured:
        axes.plot([critical], [row.curve.steps(critical)], "|", color=shade, ms=13, mew=1.8)
    return row.curve.steps(fine[-1])


def _spread(heights: Mapping[str, float]) -> dict[str, float]:
    """The heights, moved up where two labels would lie on each other."""
    moved: dict[str, float] = {}
    least = 0.0
    for name in sorted(heights, key=lambda name: heights[name]):
        moved[name] = max(heights[name], least)
        least = moved[name] * APART
    return moved
