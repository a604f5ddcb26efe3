"""The look that the studies' figures share: panels side by side, direct labels, named bands.

    figure, panels = make_panels(2, "MNIST", "Fashion-MNIST")
    draw_band(axes, x, low, high, colour(0))
    label_end(axes, x, y, "LARS", colour(0))
    png = as_png(figure)

Colours and axes are those of `review/figures.py`. A published number is a black diamond, open, and
says "published" and the paper.
"""

from typing import Any

from tf_largebatch.review.figures import as_png, colour, plain_numbers

__all__ = [
    "as_png",
    "colour",
    "draw_band",
    "draw_published",
    "label_end",
    "log_axis",
    "make_panels",
]
PANEL_INCHES = (4.4, 3.9)
SMALL = 8.5  # points of the labels in a figure


def make_panels(count: int, *titles: str, size: tuple[float, float] = PANEL_INCHES) -> tuple:
    """Returns a figure and its panels, side by side, with a title each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(count * size[0], size[1]), layout="constrained")
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(title, fontsize=10, loc="left")
    for axes in panels:
        axes.grid(alpha=0.25, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=SMALL)
    return figure, panels


def log_axis(axes: Any, name: str, base: int = 10, ticks: Any = None) -> None:
    """Makes an axis, "x" or "y", logarithmic with plain numbers; `ticks` are its places."""
    axis = getattr(axes, f"{name}axis")
    getattr(axes, f"set_{name}scale")("log", base=base)
    plain_numbers(axis, base=base)
    if ticks is not None:
        axis.set_ticks(ticks)
        axis.set_ticks([], minor=True)


def draw_band(axes: Any, x: Any, low: Any, high: Any, shade: str) -> None:
    """Draws an interval as a band; the caption or a label says which."""
    axes.fill_between(x, low, high, color=shade, alpha=0.18, lw=0)


def label_end(
    axes: Any,
    x: Any,
    y: Any,
    text: str,
    shade: str,
    *,
    place: int = -1,
    shift: tuple[float, float] = (5, 0),
    **look: Any,
) -> None:
    """Writes a line's name at one of its points, the last by default, in its colour."""
    options = {"fontsize": SMALL, "color": shade, "va": "center", **look}
    axes.annotate(text, (x[place], y[place]), shift, textcoords="offset points", **options)


def draw_published(axes: Any, x: float, y: float, **look: Any) -> None:
    """Draws a published number; the caption or a label says that, and whose."""
    axes.plot([x], [y], "D", **{"mfc": "white", "mec": "black", "ms": 5, "zorder": 5, **look})
