"""A sweep over devices as text, CSV, figures and one page."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tf_largebatch.planning.sweep import Point, knee, say_knee
from tf_largebatch.records.files import write_bytes, write_csv
from tf_largebatch.review.figures import COLOURS, as_png, make_axes, name_axes
from tf_largebatch.review.page import write_page

PAGE, CSV = "plan.html", "sweep.csv"
HEADER = ("devices", "batch", "images/s", "efficiency", "updates", "hours", "device-hours", "")


def cells(point: Point) -> list[str]:
    """A point as the texts of a table."""
    return [
        f"{point.devices:,}",
        f"{point.global_batch:,}",
        f"{point.images_per_second:,.0f}",
        f"{point.efficiency:.0%}",
        f"{point.updates:,.0f}",
        f"{point.hours:.3g}",
        f"{point.device_hours:,.0f}",
        "extrapolated" if point.extrapolated else "",
    ]


def table(points: Sequence[Point], title: str) -> str:
    """The points as an aligned table."""
    rows = [list(HEADER), *map(cells, points)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = ("  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join([title, *(line.rstrip() for line in lines)])


def write(
    folder: Path,
    lines: Sequence[tuple[str, str]],
    weak: Sequence[Point],
    strong: Sequence[Point],
) -> list[Path]:
    """Writes page, CSV and figures; returns their paths."""
    named = [("weak", p) for p in weak] + [("strong", p) for p in strong]
    rows = [[kind, *asdict(point).values()] for kind, point in named]
    write_csv(folder / CSV, ["scaling", *asdict(weak[0])], rows)
    figures = {
        "throughput.png": ("Images a second (weak scaling)", draw_throughput(weak)),
        "updates.png": ("Updates against the batch", draw_updates(weak)),
        "hours.png": ("Hours against devices", draw_hours(weak, strong)),
    }
    for name, (_, png) in figures.items():
        write_bytes(folder / name, png)
    write_page(
        "plan.html.j2",
        folder / PAGE,
        lines=lines,
        figures=list(figures.values()),
        header=HEADER,
        tables=[("Weak scaling", [*map(cells, weak)]), ("Strong scaling", [*map(cells, strong)])],
        knee=say_knee(weak),
    )
    return [folder / name for name in (PAGE, CSV, *figures)]


def draw_throughput(weak: Sequence[Point]) -> bytes:
    """Images a second beside those of perfect scaling, as Kurth et al. draw it."""
    figure, axes = make_axes((6.4, 4.2))
    devices = [p.devices for p in weak]
    one = weak[0].images_per_second
    axes.loglog(devices, [one * k for k in devices], color=COLOURS[6], ls="--", lw=1)
    axes.loglog(devices, [p.images_per_second for p in weak], color=COLOURS[0], marker="o", ms=4)
    last = weak[-1]
    axes.annotate("K times one device", (devices[-1], one * devices[-1]), (-110, -4), **_AT)
    text = f"modelled: {last.efficiency:.0%} at {last.devices:,}"
    axes.text(0.6, 0.3, text, transform=axes.transAxes, fontsize=9, color=COLOURS[0])
    name_axes(axes, "devices", "images a second")
    return as_png(figure)


def draw_updates(weak: Sequence[Point]) -> bytes:
    """Updates against the batch: in proportion first, flat in the end where the law says so.

    The band is the interval of the critical batch.
    """
    figure, axes = make_axes((6.4, 4.2))
    low, high = [p.updates_low for p in weak], [p.updates_high for p in weak]
    if low != high:
        axes.fill_between([p.global_batch for p in weak], low, high, color=COLOURS[0], alpha=0.2)
        middle = weak[len(weak) // 2]
        place, text = (middle.global_batch, middle.updates_high), "interval of the critical batch"
        axes.annotate(text, place, (10, 12), **_AT)
    for extrapolated, style in ((False, "-"), (True, ":")):
        # The two lines meet in the last point that was fitted.
        chosen = [p for p in weak if p.extrapolated is extrapolated]
        if extrapolated and chosen:
            chosen = [p for p in weak if not p.extrapolated][-1:] + chosen
        batches = [p.global_batch for p in chosen]
        axes.loglog(batches, [p.updates for p in chosen], color=COLOURS[0], ls=style, marker="o")
        if extrapolated and chosen:
            axes.annotate("extrapolated", (batches[-1], chosen[-1].updates), (-70, 8), **_AT)
    name_axes(axes, "images an update", "updates")
    return as_png(figure)


def draw_hours(weak: Sequence[Point], strong: Sequence[Point]) -> bytes:
    """Hours against devices, the knee marked."""
    figure, axes = make_axes((6.4, 4.2))
    for number, (name, points) in enumerate((("weak", weak), ("strong", strong))):
        devices, hours = [p.devices for p in points], [p.hours for p in points]
        axes.loglog(devices, hours, color=COLOURS[number], marker="o", ms=4)
        higher = hours[-1] == max(weak[-1].hours, strong[-1].hours)
        place, shift = (devices[-1], hours[-1]), (-75, 10 if higher else -16)
        axes.annotate(f"{name} scaling", place, shift, color=COLOURS[number], **_AT)
    if end := knee(weak):
        axes.loglog([end.devices], [end.hours], "s", color=COLOURS[3], ms=9, mfc="none")
        axes.annotate(f"knee: {end.devices:,} devices", (end.devices, end.hours), (8, 10), **_AT)
    axes.margins(y=0.12)
    name_axes(axes, "devices", "hours")
    return as_png(figure)


_AT = {"textcoords": "offset points", "fontsize": 9}
