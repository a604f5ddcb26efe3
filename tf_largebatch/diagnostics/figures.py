"""The figures of the instruments, as PNG bytes. matplotlib is imported to draw."""

from collections.abc import Mapping, Sequence

import numpy as np

from tf_largebatch.diagnostics.critical_batch import Tradeoff
from tf_largebatch.diagnostics.layer_ratios import LayerRatio, LogGrowth
from tf_largebatch.review.figures import colour, finish, make_axes, plain_numbers

CONTOURS = 15


def draw_steps(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float], Tradeoff | None]], goal: str
) -> bytes:
    """Draws updates to the target against the batch, as Shallue et al. 2018, Figure 1.

    Both axes are logarithmic; a dashed line is perfect scaling from the smallest batch, a thin one
    the fitted trade-off, and a cross on it the critical batch. `curves` are (label, batches,
    updates, fit) of each workload.
    """
    figure, axes = make_axes()
    for number, (label, batches, steps, fit) in enumerate(curves):
        shade, order = colour(number), np.argsort(batches)
        batch, step = np.asarray(batches, float)[order], np.asarray(steps, float)[order]
        axes.plot(batch, step, "o", color=shade, ms=5, label=label)
        axes.plot(batch, step[0] * batch[0] / batch, "--", color=shade, lw=0.8, alpha=0.7)
        if fit is not None:
            fine = np.geomspace(batch[0], batch[-1], 200)
            axes.plot(fine, [fit.steps(b) for b in fine], color=shade, lw=1.4)
            if fit.measured:
                at = fit.critical_batch
                axes.plot(at, fit.steps(at), "X", color=shade, ms=9, mec="white")
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log", base=2)
        plain_numbers(axis, base=2)
    return finish(figure, axes, "batch, examples", f"updates to {goal}", legend=True)


def draw_line(places: np.ndarray, curves: dict[str, np.ndarray], xlabel: str) -> bytes:
    """Draws losses on a line; a loss that is not finite is a gap with a cross at the top."""
    figure, axes = make_axes()
    for number, (label, losses) in enumerate(curves.items()):
        shade = colour(number)
        axes.plot(places, losses, color=shade, lw=1.6, label=label)
        gaps = places[np.isnan(losses)]
        look = {"color": shade, "ms": 5, "transform": axes.get_xaxis_transform()}
        name = f"{label}: not finite" if len(gaps) else None
        axes.plot(gaps, np.full(len(gaps), 0.98), "x", label=name, **look)
    gappy = any(np.isnan(losses).any() for losses in curves.values())
    return finish(figure, axes, xlabel, "loss, nats", legend=len(curves) > 1 or gappy)


def draw_plane(x: np.ndarray, y: np.ndarray, losses: np.ndarray) -> bytes:
    """Draws contours of the loss on a plane, [y, x]; what is not finite is hatched."""
    figure, axes = make_axes((6.4, 5.4))
    axes.patch.set(hatch="xx", edgecolor="#999999")
    finite = losses[np.isfinite(losses)]
    if finite.size and finite.min() < finite.max():
        low, high = finite.min(), finite.max()
        wide = low > 0 and high > 20 * low
        levels = (np.geomspace if wide else np.linspace)(low, high, CONTOURS)
        drawn = axes.contourf(x, y, np.ma.masked_invalid(losses), levels=levels, cmap="viridis")
        figure.colorbar(drawn, ax=axes, label="loss, nats", format="%.3g")
    axes.plot(0, 0, "+", color="white", ms=10)
    return finish(figure, axes, "first direction", "second direction", legend=False)


def draw_spectrum(values: np.ndarray, residuals: np.ndarray) -> bytes:
    """Draws eigenvalue estimates with the bounds of their errors."""
    figure, axes = make_axes((5, 3.6))
    ranks = np.arange(1, len(values) + 1)
    axes.errorbar(ranks, values, yerr=residuals, fmt="o", color=colour(0), capsize=3)
    axes.set_xticks(ranks)
    return finish(figure, axes, "rank", "eigenvalue of the Hessian", legend=False)


def draw_ratios(groups: Mapping[str, Sequence[LayerRatio]]) -> bytes:
    """Draws |w| / |grad L(w)| of every tensor that has one, a mark for each group of weights."""
    names = [row.name for row in next(iter(groups.values()))]
    figure, axes = make_axes((8, max(3.0, 0.22 * len(names) + 1)))
    for number, (label, rows) in enumerate(groups.items()):
        points = [(row.ratio, i) for i, row in enumerate(rows) if row.ratio is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "os^D"[number % 4], ms=5, label=label)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    return finish(figure, axes, "weight norm / gradient norm", "", legend=True)


def draw_growth(
    updates: Sequence[int], distances: Sequence[float], growth: LogGrowth | None
) -> bytes:
    """Draws the distance from the first weights against the logarithm of the updates."""
    figure, axes = make_axes()
    axes.plot(updates, distances, "o-", color=colour(0), label="measured")
    if growth is not None:
        ends = np.array([min(updates), max(updates)], float)
        fitted = growth.slope * np.log(ends) + growth.intercept
        label = f"{growth.slope:.3g} log t + {growth.intercept:.3g}"
        axes.plot(ends, fitted, "--", color=colour(1), label=label)
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    return finish(figure, axes, "updates t", "distance from the first weights", legend=True)
