"""The instruments on one solution: each gives numbers, arrays, a figure and lines of a table."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

import numpy as np

from tf_largebatch.diagnostics import figures, landscape, sharpness
from tf_largebatch.diagnostics.hessian import top_eigenvalues
from tf_largebatch.diagnostics.layer_ratios import LayerRatio, fit_log_growth, layer_ratios
from tf_largebatch.diagnostics.objective import Objective
from tf_largebatch.records.checks import check
from tf_largebatch.review.figures import draw_noise
from tf_largebatch.review.findings import Finding
from tf_largebatch.review.noise_scale import advise, from_two_batches

BETWEEN = (-0.5, 1.5)  # range of the line between two solutions, arXiv:1712.09913
SEEN = 40  # points of the noise scale's figure


def measure_noise_scale(
    objective: Objective, *, micro_batch: int, global_batch: int | None, updates: int | None
) -> Finding:
    """Measures B_simple at the solution, from the gradients of `micro_batch` examples each.

    A micro-batch of 1 takes every example by itself: for small models. Inference-mode batch norm,
    so that an example's gradient does not depend on its neighbours'.
    """
    if objective.examples < 2 * micro_batch:
        raise ValueError(
            f"the noise scale must have two micro-batches or more. Received: {objective.examples} "
            f"images, {micro_batch} in a micro-batch. Use more images or smaller micro-batches"
        )
    rows = list(_tally(objective, micro_batch))
    counts, small, big = (np.array(column) for column in zip(*rows, strict=True))
    estimates = [
        from_two_batches(s, b, small_batch=micro_batch, big_batch=int(n) * micro_batch)
        for n, s, b in rows[1:]
    ]
    last = estimates[-1]
    scales = np.array([math.nan, *(e.b_simple or math.nan for e in estimates)])
    examples = counts * micro_batch
    show = np.unique(np.linspace(1, len(rows) - 1, SEEN).astype(int))
    advice = advise(last, global_batch=global_batch, updates=updates)
    scalars = {"noise/grad_sq": last.grad_sq, "noise/trace": last.trace}
    if last.b_simple is not None:
        scalars["noise/b_simple"] = last.b_simple
    numbers = asdict(last) | {"b_simple": last.b_simple, "examples": int(examples[-1])}
    return Finding(
        name="noise_scale",
        title="gradient noise scale (McCandlish et al. 2018)",
        lines=(("noise scale", advice),),
        numbers=numbers | {"micro_batch": micro_batch, "advice": advice},
        arrays={"examples": examples, "small_sq": small, "big_sq": big, "b_simple": scales},
        figure=draw_noise(examples[show], scales[show], global_batch),
        scalars=scalars,
    )


def _tally(objective: Objective, micro_batch: int):
    """Yields (micro-batches so far, mean of their squared norms, square of their mean)."""
    squares, total = 0.0, np.zeros_like(objective.vector)
    gradients = objective.batch_gradients(objective.vector, micro_batch=micro_batch)
    for number, gradient in enumerate(gradients, 1):
        squares += float(gradient @ gradient)
        total += gradient
        yield number, squares / number, float(total @ total) / number**2


def measure_sharpness(objective: Objective, *, manifold: int, seed: int) -> Finding:
    """Measures Keskar's sharpness in the full space and on a random manifold."""
    f, weights = objective.value_and_gradient, objective.vector
    found = [
        sharpness.measure_sharpness(f, weights, epsilon=epsilon, directions=directions, seed=seed)
        for directions in (None, min(manifold, weights.size))
        for epsilon in sharpness.EPSILONS
    ]
    lines, scalars = [], {}
    for one in found:
        space = "full space" if one.directions is None else f"{one.directions} directions"
        bad = f", {one.not_finite} of {one.evaluations} not finite" * bool(one.not_finite)
        text = f"{one.sharpness:.4g} (loss {one.loss:.4g} -> {one.worst_loss:.4g}{bad})"
        lines.append((f"sharpness, {space}, eps {one.epsilon:g}", text))
        tag = "full" if one.directions is None else "manifold"
        scalars[f"sharpness/{tag}_{one.epsilon:g}"] = one.sharpness
    return Finding(
        name="sharpness",
        title="sharpness (Keskar et al. 2016, Metric 2.1)",
        lines=tuple(lines),
        numbers={"measured": [asdict(one) for one in found], "seed": seed},
        scalars=scalars,
    )


def measure_hessian(objective: Objective, *, count: int, products: int, seed: int) -> Finding:
    """Finds the largest eigenvalues of the Hessian of the mean loss."""
    size, product = objective.vector.size, partial(objective.hessian_vector, objective.vector)
    found = top_eigenvalues(product, size, count=min(count, size), products=products, seed=seed)
    arrays = {"largest": found.largest, "residuals": found.residuals}
    values = ", ".join(f"{v:.4g}" for v in found.largest)
    state = "" if found.converged else f" (residuals up to {found.residuals.max():.2g})"
    return Finding(
        name="hessian",
        title="largest eigenvalues of the Hessian (Lanczos)",
        lines=(
            ("eigenvalues", f"{values}{state}"),
            ("least Ritz value", f"{found.smallest:.4g}, {found.products} products"),
        ),
        numbers=asdict(found) | {name: a.tolist() for name, a in arrays.items()} | {"seed": seed},
        arrays=arrays,
        figure=figures.draw_spectrum(found.largest, found.residuals),
        scalars={"hessian/largest": float(found.largest[0]), "hessian/smallest": found.smallest},
    )


def measure_line(objective: Objective, *, points: int, seed: int) -> Finding:
    """Draws the loss along a filter-normalised random direction."""
    places = np.linspace(-landscape.RANGE, landscape.RANGE, points)
    direction = _direction(objective, seed)
    losses = landscape.line(objective.value, objective.vector, direction, places)
    return Finding(
        name="landscape_1d",
        title="loss along a filter-normalised direction (Li et al. 2018)",
        lines=(("landscape, line", _range_text(losses)),),
        numbers={"points": points, "gaps": int(np.isnan(losses).sum()), "seed": seed},
        arrays={"x": places, "loss": losses},
        figure=figures.draw_line(places, {"loss": losses}, "step, in units of the filters"),
    )


def measure_plane(objective: Objective, *, points: int, seed: int) -> Finding:
    """Draws the loss over two filter-normalised random directions."""
    places = np.linspace(-landscape.RANGE, landscape.RANGE, points)
    directions = (_direction(objective, seed), _direction(objective, seed + 1))
    losses = landscape.plane(objective.value, objective.vector, directions, places, places)
    return Finding(
        name="landscape_2d",
        title="loss over two filter-normalised directions (Li et al. 2018)",
        lines=(("landscape, plane", _range_text(losses)),),
        numbers={"points": points, "gaps": int(np.isnan(losses).sum()), "seeds": [seed, seed + 1]},
        arrays={"x": places, "y": places, "loss": losses},
        figure=figures.draw_plane(places, places, losses),
    )


def measure_between(objective: Objective, other: tuple, *, points: int, names: tuple) -> Finding:
    """Draws the loss between this solution (x = 0) and another (x = 1).

    `other` is its (weights, state). Both ways where the network has batch norm: statistics on the
    line too, and taken afresh at every point.
    """
    places = np.linspace(*BETWEEN, points)
    along = (objective.value, (objective.vector, objective.state), other, places)
    curves = {"loss": landscape.between(*along)}
    if objective.has_statistics:
        curves = {"statistics interpolated": curves["loss"]}
        again = landscape.between(*along, recompute=objective.recomputed_state)
        curves["statistics recomputed"] = again
    gaps = {label: int(np.isnan(losses).sum()) for label, losses in curves.items()}
    return Finding(
        name="interpolation",
        title=f"loss between {names[0]} (0) and {names[1]} (1)",
        lines=tuple((f"between, {label}", _range_text(one)) for label, one in curves.items()),
        numbers={"points": points, "gaps": gaps, "start": names[0], "end": names[1]},
        arrays={"x": places} | {k.replace(" ", "_"): v for k, v in curves.items()},
        figure=figures.draw_line(places, curves, f"0: {names[0]}, 1: {names[1]}"),
    )


def measure_layers(objective: Objective, solutions: Mapping[str, np.ndarray]) -> Finding:
    """Measures |w| / |grad L(w)| of every tensor, with batch norm as in training.

    Each of the objective's batches is one group of batch norm; solutions are label -> weights.
    """
    groups: dict[str, list[LayerRatio]] = {}
    lines, arrays = [], {}
    for label, weights in solutions.items():
        _, gradient = objective.value_and_gradient(weights, training=True)
        tensors = objective.tensors(weights), objective.tensors(gradient)
        groups[label] = rows = layer_ratios(objective.names, *tensors)
        arrays[f"{label}_weight_norm"] = np.array([r.weight_norm for r in rows])
        arrays[f"{label}_gradient_norm"] = np.array([r.gradient_norm for r in rows])
        kernels = [(r.ratio, r.name) for r in rows if r.rank > 1 and r.ratio is not None]
        text = "no kernel has a gradient"
        if kernels:
            (low, lowest), (high, highest) = min(kernels), max(kernels)
            text = f"|w|/|g| from {low:.3g} ({lowest}) to {high:.4g} ({highest})"
        lines.append((f"layers, {label}", text))
    return Finding(
        name="layers",
        title="weight norm over gradient norm, by layer (You et al. 2017)",
        lines=tuple(lines),
        numbers={k: [asdict(row) | {"ratio": row.ratio} for row in v] for k, v in groups.items()},
        arrays=arrays,
        figure=figures.draw_ratios(groups),
    )


def measure_drift(first: np.ndarray, later: Mapping[int, np.ndarray]) -> Finding:
    """Measures the distance |w_t - w_0| against the updates; `later` is t >= 1 -> w_t."""
    check(bool(later), "later", "the weights of one update or more", later)
    updates = sorted(later)
    distances = [float(np.linalg.norm(later[u] - first)) for u in updates]
    growth = fit_log_growth(updates, distances) if len(updates) > 2 else None
    fit = f"no fit to {len(updates)} checkpoints, three are needed"
    if growth is not None:
        fit = f"{growth.slope:.3g} log t + {growth.intercept:.3g}, R^2 {growth.r_squared:.3f}"
    text = f"{distances[-1]:.4g} after {updates[-1]:,} updates; {fit}"
    return Finding(
        name="drift",
        title="distance from the first weights (Hoffer et al. 2017)",
        lines=(("drift", text),),
        numbers={"updates": updates, "distances": distances, "growth": growth and asdict(growth)},
        arrays={"updates": np.array(updates), "distances": np.array(distances)},
        figure=figures.draw_growth(updates, distances, growth),
        scalars={"drift/distance": distances[-1]},
    )


def _direction(objective: Objective, seed: int) -> np.ndarray:
    weights = objective.tensors(objective.vector)
    return objective.flat(landscape.random_direction(weights, seed=seed))


def _range_text(losses: np.ndarray) -> str:
    finite = losses[np.isfinite(losses)]
    gaps = losses.size - finite.size
    if not finite.size:
        return f"no loss of {losses.size} is finite"
    text = f"loss {finite.min():.4g} to {finite.max():.4g} at {losses.size} points"
    return text + f", {gaps} not finite (gaps in the figure)" * bool(gaps)
