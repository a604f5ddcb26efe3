"""The style of all figures, as PNG bytes, and the figure of the noise scale.

matplotlib is imported to draw.
"""

import io
from collections.abc import Sequence

# Okabe and Ito's colours, told apart by colour-blind readers; without yellow, pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")


def draw_noise(
    places: Sequence[int],
    scales: Sequence[float],
    batch: int | None,
    *,
    xlabel: str = "examples measured",
) -> bytes:
    """Draws B_simple against the examples that it was measured on, and the batch in use.

    Where it could not be told (NaN) the line has a gap.

    Args:
        places: examples, or updates.
        scales: B_simple at each.
        batch: in use.
        xlabel: what `places` are.
    """
    figure, axes = make_axes()
    axes.plot(places, scales, color=COLOURS[0], label="B_simple", marker=".", ms=4)
    if batch is not None:
        axes.axhline(batch, color=COLOURS[1], ls="--", lw=1, label=f"batch of the run, {batch:,}")
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    return finish(figure, axes, xlabel, "examples", legend=True)


def plain_numbers(axis, base: int = 10) -> None:
    """Writes 256 for 2^8, and 130 for 1.3 x 10^2, on an axis that may span less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if base == 10:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def make_axes(size: tuple[float, float] = (6.4, 4.2)):
    """Returns an empty figure of this size in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def finish(figure, axes, xlabel: str, ylabel: str, *, legend: bool) -> bytes:
    """Names the axes, draws the legend below them if asked, and returns the figure as PNG."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if legend and axes.get_legend_handles_labels()[1]:
        shown = figure.legend(loc="outside lower center", ncols=2, fontsize=9)
        for text in shown.get_texts():
            text.set_parse_math(False)  # names are the user's words
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
