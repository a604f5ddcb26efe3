"""One style for all figures, and the figures of runs; matplotlib is imported to draw."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_largebatch.records.curve import EpochRecord
from tf_largebatch.records.files import write_bytes
from tf_largebatch.records.result import Result, RowResult
from tf_largebatch.review.tables import error_text, is_finite, scale_text

# Okabe and Ito's colours, told apart by colour-blind readers; without yellow, pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
STYLES = ("-", "-.", ":")  # the second round of colours is drawn in the second style
ALONG = {"epoch": "epoch", "update": "update", "images_seen": "images seen"}
ERRORS = {"validation_error_pct": "validation error, %", "train_error_pct": "training error, %"}


def draw_curves(result: Result, path: Path) -> bytes:
    """Draws errors against epoch, writes the PNG and returns its bytes.

    The validation error above, the training error below. One colour per row: the mean over the
    seeds that finished as a line, their range as a band. Each diverged run is a thin line that ends
    in a cross. At full scale the published errors are dashed lines; that of a miniature or of a
    modified run is another experiment's and is left out.
    """
    from matplotlib.lines import Line2D

    figure, axes, below = make_axes((7, 7.4), panels=2)
    own, published = result.scale == "full" and not result.modified, []
    for number, row in enumerate(result.rows):
        if own and is_finite(row.published_error_pct):
            axes.axhline(row.published_error_pct, color=colour(number), ls="--", lw=1)
            published.append(row.published_error_pct)
    rows = [(row.label, row) for row in result.rows]
    legend = _draw_rows(axes, rows, also=published)
    _draw_rows(below, rows, error="train_error_pct")
    grey: dict[str, Any] = {"color": COLOURS[-1], "lw": 1}
    if published:
        legend.append(Line2D([], [], **grey, ls="--", label="published"))
    if any(row.diverged for row in result.rows):
        legend.append(Line2D([], [], **grey, marker="X", ms=9, mec="white", label="diverged"))
    title = axes.set_title(curves_title(result), fontsize=10, wrap=True)
    title.set_parse_math(False)
    return write_png(figure, path, legend)


def draw_batches(result: Result, path: Path) -> bytes | None:
    """Draws each row's error against its batch, writes the PNG and returns its bytes.

    The mean over the seeds that finished, and their sample deviation. None, and no file, where the
    rows have fewer than three batches: there is no curve to see.
    """
    rows = [(number, row) for number, row in enumerate(result.rows) if row.errors_pct]
    if len({row.global_batch for _, row in rows}) < 3:
        return None
    figure, axes = make_axes((7, 4.2))
    legend = [
        axes.errorbar(
            row.global_batch,
            row.mean_error_pct,
            row.std_error_pct or 0.0,
            color=colour(number),
            fmt="o",
            capsize=3,
            label=row.label,
        )
        for number, row in rows
    ]
    axes.set_xscale("log", base=2)
    plain_numbers(axes.xaxis, base=2)
    _fit_errors(axes, [error for _, row in rows for error in row.errors_pct])
    name_axes(axes, "images per update", ERRORS["validation_error_pct"])
    return write_png(figure, path, legend)


def curves_title(result: Result) -> str:
    """Returns what the figure is of; a miniature's is not the paper's network, data or batch."""
    if result.scale != "miniature":
        return f"{result.title} · {scale_text(result)}"
    data = {row.recipe["data"]["name"] for row in result.rows if "data" in row.recipe}
    batches = sorted({row.global_batch for row in result.rows})
    sizes = f"{batches[0]:,}" if len(batches) == 1 else f"{batches[0]:,} to {batches[-1]:,}"
    own = [*sorted(data), f"batch {sizes}", *["modified"] * result.modified]
    return f"Miniature of {result.title.partition(':')[0]}: {', '.join(own)}"


def draw_comparison(named: Sequence[tuple[str, RowResult, int]], path: Path) -> bytes:
    """Draws validation errors of several set-ups, writes the PNG and returns its bytes.

    One panel against epoch; where batches differ one against updates, and where the sizes of the
    data differ one against images seen. Looks as in `draw_curves`, without published errors.
    `named` are (label, row, images of an epoch) of each.
    """
    panels = ["epoch"]
    panels += ["update"] * (len({row.global_batch for _, row, _ in named}) > 1)
    panels += ["images_seen"] * (len({examples for *_, examples in named}) > 1)
    figure, *all_axes = make_axes((7, 1 + 3.2 * len(panels)), panels=len(panels))
    rows = [(label, row) for label, row, _ in named]
    for axes, along in zip(all_axes, panels, strict=True):
        legend = _draw_rows(axes, rows, along=along)
    return write_png(figure, path, legend)


def draw_rates(rates: Sequence[tuple[str, Sequence[float], Sequence[float]]], path: Path) -> bytes:
    """Draws each schedule's (label, epochs, rates), writes the PNG and returns its bytes."""
    figure, axes = make_axes((7, 3.6))
    for number, (label, epochs, values) in enumerate(rates):
        # A rate holds until the next update changes it.
        axes.plot(epochs, values, **_look(number), label=label, drawstyle="steps-post")
    name_axes(axes, "epoch", "learning rate")
    axes.set_xlim(left=0)
    axes.set_yscale("symlog", linthresh=1e-3)  # drops of ten, and warmups from zero
    axes.set_ylim(bottom=0)
    return write_png(figure, path, axes.get_legend_handles_labels()[0])


def draw_noise(
    places: Sequence[int], scales: Sequence[float], batch: int | None, xlabel="examples measured"
) -> bytes:
    """Draws B_simple against the examples that it was measured on, and the batch in use.

    Where it could not be told (NaN) the line has a gap. `xlabel` is what `places` are.
    """
    figure, axes = make_axes()
    axes.plot(places, scales, color=COLOURS[0], label="B_simple", marker=".", ms=4)
    if batch is not None:
        axes.axhline(batch, color=COLOURS[1], ls="--", lw=1, label=f"batch of the run, {batch:,}")
    axes.set_yscale("log")
    plain_numbers(axes.yaxis)
    return finish(figure, axes, xlabel, "examples", legend=True)


def colour(number: int) -> str:
    """Returns the colour of row `number` in the figure and the report."""
    return COLOURS[number % len(COLOURS)]


def make_axes(size: tuple[float, float] = (6.4, 4.2), *, panels: int = 1) -> tuple:
    """Returns an empty figure of this size in inches, and the axes of each panel, from above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, *figure.subplots(panels, squeeze=False)[:, 0]


def name_axes(axes, xlabel: str, ylabel: str) -> None:
    """Names the axes, and draws their grid."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def plain_numbers(axis, base: int = 10) -> None:
    """Writes 256 for 2^8, and 130 for 1.3 x 10^2, on an axis that may span less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if base == 10:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def finish(figure, axes, xlabel: str, ylabel: str, *, legend: bool) -> bytes:
    """Names the axes, draws the legend below them if asked, and returns the figure as PNG."""
    name_axes(axes, xlabel, ylabel)
    return as_png(figure, axes.get_legend_handles_labels()[0] if legend else ())


def as_png(figure, legend: Sequence = ()) -> bytes:
    """Returns the figure as PNG, with these entries in a legend below it."""
    if legend:
        shown = figure.legend(handles=legend, loc="outside lower center", ncols=2, fontsize=9)
        for text in shown.get_texts():
            text.set_parse_math(False)  # names are the user's words: a $ is no mathematics
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def write_png(figure, path: Path, legend: Sequence) -> bytes:
    """Writes the figure, whole or not at all, and returns the bytes of the file."""
    data = as_png(figure, legend)
    write_bytes(path, data)
    return data


def _look(number: int) -> dict:
    return {"color": colour(number), "ls": STYLES[number // len(COLOURS) % len(STYLES)]}


def _draw_rows(
    axes,
    named: Sequence[tuple[str, RowResult]],
    *,
    along: str = "epoch",
    also: Sequence[float] = (),
    error: str = "validation_error_pct",
) -> list:
    """Draws (label, row); returns the legend. The axis has room for the errors in `also` too."""
    legend = [
        _draw_row(axes, row, _look(i), label, along, error) for i, (label, row) in enumerate(named)
    ]
    name_axes(axes, ALONG[along], ERRORS[error])
    if along == "epoch":
        axes.set_xlim(left=0)
    else:  # the updates of a small batch are many times those of a large one
        axes.set_xscale("log")
    drawn = [e for _, row in named for run in row.runs for _, e in _points(run.epochs, error)] + [
        *also
    ]
    _fit_errors(axes, drawn)
    if not drawn:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no epoch finished", ha="center", transform=axes.transAxes)
    return legend


def _fit_errors(axes, drawn: Sequence[float]) -> None:
    # A tenfold range would press the rows that work onto the bottom of a linear axis.
    if drawn and min(drawn) > 0 and max(drawn) >= 10 * min(drawn):
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)


def _draw_row(axes, row: RowResult, look: dict, label: str, along: str, error: str):
    from matplotlib.lines import Line2D

    by_epoch: dict[int, list[float]] = {}
    for run in row.runs:
        points = _points(run.epochs, error, along)
        if run.diverged_at is None:
            for epoch, value in points:
                by_epoch.setdefault(epoch, []).append(value)
            continue
        axes.plot(*zip(*points, strict=True), **look, lw=0.8) if points else None
        # A run that diverged within its first epoch has no point: its cross stands at the top.
        epoch, value = points[-1] if points else (0, 0.97)
        where = axes.transData if points else axes.get_xaxis_transform()
        axes.plot(epoch, value, "X", color=look["color"], ms=9, mec="white", transform=where)
    epochs = sorted(by_epoch)
    errors = [by_epoch[e] for e in epochs]
    mark = "o" if len(epochs) < 10 else None
    axes.plot(epochs, [sum(e) / len(e) for e in errors], **look, lw=1.8, marker=mark, ms=4)
    if len(row.errors_pct) > 1:
        low, high = [*map(min, errors)], [*map(max, errors)]
        axes.fill_between(epochs, low, high, color=look["color"], alpha=0.18, lw=0)
    text = f"{label}: {error_text(row)}{' %' * bool(row.errors_pct)}"
    if row.diverged:
        text += f" (×: {row.diverged} of {len(row.runs)})"
    return Line2D([], [], **look, lw=1.8, label=text)


def _points(
    epochs: tuple[EpochRecord, ...], error: str, along: str = "epoch"
) -> list[tuple[int, float]]:
    points = ((getattr(e, along), getattr(e, error)) for e in epochs)
    return [(place, value) for place, value in points if math.isfinite(value)]
