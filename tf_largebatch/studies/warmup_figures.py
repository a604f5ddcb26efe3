"""The figures of the study of warmups, as PNG bytes. matplotlib is imported to draw."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tf_largebatch.review.figures import as_png, colour, make_axes, name_axes, plain_numbers

Seeds = Mapping[float, Sequence[float]]  # place on the axis -> error of each seed, percent


@dataclass(frozen=True)
class Panel:
    """One gamma: errors against the rate at the large batch."""

    title: str
    plain: Seeds  # without warmup
    warmed: Seeds
    small: Seeds  # the small batch, at the rate that the linear rule makes of its own


def draw_rates(panels: Sequence[Panel], *, unscaled: float, scaled: float) -> bytes:
    """Draws error against rate, a panel a gamma; both axes are logarithmic."""
    figure, *all_axes = make_axes((7, 1 + 3.1 * len(panels)), panels=len(panels))
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw(axes, panel.plain, 0, "large batch, no warmup", at=0)
        _draw(axes, panel.warmed, 1, "large batch, warmup", at=-1)
        _draw(axes, panel.small, 2, "small batch", at=-1, below=True)
        for rate, name in ((unscaled, " small batch's rate"), (scaled, " linear rule")):
            axes.axvline(rate, color="#999999", lw=0.8, zorder=0)
            axes.text(rate, 2.1, name, color="#666666", fontsize=8)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(panel.plain))
        plain_numbers(axes.xaxis, base=2)
        _errors(axes)
        axes.set_title(panel.title, fontsize=10)
        name_axes(axes, "rate of the large batch at its height", "test error, %")
    return as_png(figure)


def draw_lengths(batches: Mapping[int, Seeds], published: Mapping[int, float]) -> bytes:
    """Draws error against the length of the warmup, a line a batch."""
    figure, axes = make_axes((7, 4.2))
    for number, (batch, seeds) in enumerate(batches.items()):
        _draw(axes, seeds, number, f"{batch} images", at=3, below=number == 0)
        mark = {"transform": axes.get_xaxis_transform(), "color": colour(number), "clip_on": False}
        axes.plot(published[batch], 0.02, "^", ms=9, mec="white", **mark)
    _errors(axes)
    axes.set_xticks(list(seeds))
    name_axes(axes, "length of the warmup, epochs of 90", "test error, %")
    return as_png(figure)


def _draw(axes, seeds: Seeds, number: int, label: str, *, at: int, below: bool = False) -> None:
    """One line with its band and its seeds, and the label above or below its point `at`."""
    found = {place: values for place, values in seeds.items() if values}
    if not found:
        return
    places, shade = list(found), colour(number)
    means = [statistics.fmean(values) for values in found.values()]
    spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in found.values()]
    low = [max(mean - s, 1.0) for mean, s in zip(means, spread, strict=True)]
    high = [mean + s for mean, s in zip(means, spread, strict=True)]
    axes.fill_between(places, low, high, color=shade, alpha=0.15, lw=0)
    axes.plot(places, means, "-", color=shade, lw=1.6)
    for place, values in found.items():
        axes.plot([place] * len(values), values, ".", color=shade, ms=4, alpha=0.6)
    at = min(at, len(places) - 1)
    axes.annotate(
        label,
        (places[at], means[at]),
        xytext=(4 if at == 0 else -4, -14 if below else 8),
        textcoords="offset points",
        ha="left" if at == 0 else "right",
        color=shade,
        fontsize=9,
    )


def _errors(axes) -> None:
    """The axis of errors, 2 to 100 %."""
    axes.set_yscale("log")
    axes.set_ylim(2, 110)
    axes.set_yticks([2, 5, 10, 20, 50, 100])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: "")
