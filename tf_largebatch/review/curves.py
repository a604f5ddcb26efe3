"""The figures of a result: error and rate against epoch. matplotlib is imported to draw."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from tf_largebatch.records.files import write_bytes
from tf_largebatch.records.result import EpochRecord, Result, RowResult
from tf_largebatch.review.figures import COLOURS
from tf_largebatch.review.tables import error_text, is_finite, scale_text

STYLES = ("-", "-.", ":")  # the second round of colours is drawn in the second style


def draw_curves(result: Result, path: Path) -> bytes:
    """Draws validation error against epoch and writes it as PNG.

    One colour per row: the mean over the seeds that finished as a line, their range as a band.
    Each diverged run is a thin line that ends in a cross. At full scale the published errors are
    dashed lines; a miniature's paper is another experiment and is left out.

    Returns:
        The bytes of the file, to be embedded.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.add_subplot()
    drawn = [error for row in result.rows for run in row.runs for _, error in _points(run.epochs)]
    handles = []
    for number, row in enumerate(result.rows):
        look = {"color": colour(number), "ls": STYLES[number // len(COLOURS) % len(STYLES)]}
        handles.append(_draw_row(axes, row, look))
        if result.scale == "full" and is_finite(row.published_error_pct):
            axes.axhline(row.published_error_pct, color=look["color"], ls="--", lw=1)
            drawn.append(row.published_error_pct)
    _name_axes(axes, drawn)
    # Labels are the user's words: a $ in them is no mathematics.
    title = axes.set_title(f"{result.title} · {scale_text(result)}", fontsize=10, wrap=True)
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)
    for text in [title, *legend.get_texts()]:
        text.set_parse_math(False)
    return _write(figure, path)


def draw_comparison(named: Sequence[tuple[str, RowResult, int]], path: Path) -> bytes:
    """Draws validation errors of several set-ups and writes them as PNG.

    One panel against epoch; where batches differ one against updates, and where the sizes of the
    data differ one against images seen. Looks as in `draw_curves`, without published errors.

    Args:
        named: (label, row, images of an epoch) of each.
        path: of the file.

    Returns:
        The bytes of the file.
    """
    from matplotlib.figure import Figure

    panels = ["epoch"]
    panels += ["update"] * (len({row.global_batch for _, row, _ in named}) > 1)
    panels += ["images_seen"] * (len({examples for *_, examples in named}) > 1)
    figure = Figure(figsize=(7, 1 + 3.2 * len(panels)), layout="constrained")
    drawn = [e for _, row, _ in named for run in row.runs for _, e in _points(run.epochs)]
    for axes, along in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        handles = []
        for number, (label, row, _) in enumerate(named):
            look = {"color": colour(number), "ls": STYLES[number // len(COLOURS) % len(STYLES)]}
            handles.append(_draw_row(axes, row, look, along=along, label=label))
        _name_axes(axes, drawn, along=along)
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _write(figure, path)


def draw_rates(rates: Sequence[tuple[str, Sequence[float], Sequence[float]]], path: Path) -> bytes:
    """Draws learning rate against epoch and writes it as PNG.

    Args:
        rates: (label, epochs, rates) of each schedule; the last two are equally long.
        path: of the file.

    Returns:
        The bytes of the file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for number, (label, epochs, values) in enumerate(rates):
        style = STYLES[number // len(COLOURS) % len(STYLES)]
        # A rate holds until the next update changes it.
        axes.plot(epochs, values, style, color=colour(number), label=label, drawstyle="steps-post")
    axes.set_xlabel("epoch")
    axes.set_ylabel("learning rate")
    axes.set_xlim(left=0)
    axes.set_yscale("symlog", linthresh=1e-3)  # drops of ten, and warmups from zero
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _write(figure, path)


def colour(number: int) -> str:
    """Returns the colour of row `number` in the figure and the report."""
    return COLOURS[number % len(COLOURS)]


def _write(figure, path: Path) -> bytes:
    """Writes the figure, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_bytes(path, buffer.getvalue())
    return buffer.getvalue()


def _draw_row(axes, row: RowResult, look: dict, *, along: str = "epoch", label: str | None = None):
    """Draws one row against a field of its epochs; returns its entry for the legend."""
    from matplotlib.lines import Line2D

    by_epoch: dict[int, list[float]] = {}
    for run in row.runs:
        points = _points(run.epochs, along)
        if run.diverged_at is None:
            for epoch, error in points:
                by_epoch.setdefault(epoch, []).append(error)
            continue
        axes.plot(*zip(*points, strict=True), **look, lw=0.8) if points else None
        # A run that diverged within its first epoch has no point: its cross stands at the top.
        epoch, error = points[-1] if points else (0, 0.97)
        where = axes.transData if points else axes.get_xaxis_transform()
        axes.plot(epoch, error, "X", color=look["color"], ms=9, mec="white", transform=where)
    epochs = sorted(by_epoch)
    errors = [by_epoch[e] for e in epochs]
    mark = "o" if len(epochs) < 10 else None
    axes.plot(epochs, [sum(e) / len(e) for e in errors], **look, lw=1.8, marker=mark, ms=4)
    if len(row.errors_pct) > 1:
        low, high = map(min, errors), map(max, errors)
        axes.fill_between(epochs, [*low], [*high], color=look["color"], alpha=0.18, lw=0)
    label = f"{label or row.label}: {error_text(row)}{' %' * bool(row.errors_pct)}"
    if row.diverged:
        label += f" (×: {row.diverged} of {len(row.runs)})"
    return Line2D([], [], **look, lw=1.8, label=label)


def _points(epochs: tuple[EpochRecord, ...], along: str = "epoch") -> list[tuple[int, float]]:
    return [
        (getattr(e, along), e.validation_error_pct)
        for e in epochs
        if math.isfinite(e.validation_error_pct)
    ]


def _name_axes(axes, drawn: list[float], along: str = "epoch") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xlabel({"epoch": "epoch", "update": "update", "images_seen": "images seen"}[along])
    axes.set_ylabel("validation error, %")
    if along == "epoch":
        axes.set_xlim(left=0)
    else:  # the updates of a small batch are many times those of a large one
        axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    # A tenfold range would press the rows that work onto the bottom of a linear axis.
    if drawn and min(drawn) > 0 and max(drawn) >= 10 * min(drawn):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif not drawn:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no epoch finished", ha="center", transform=axes.transAxes)
