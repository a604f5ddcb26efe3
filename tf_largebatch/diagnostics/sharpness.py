"""Sharpness of a minimum: by how much the loss can rise in a small box around it.

Keskar et al. 2016, arXiv:1609.04836, Metric 2.1. It is not invariant to a change of
parametrisation: compare runs of one architecture with each other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from tf_largebatch.records.checks import check

EPSILONS = (1e-3, 5e-4)  # of the paper's tables
ITERATIONS = 10  # of L-BFGS-B: the paper's maximisation is inexact


@dataclass(frozen=True)
class Sharpness:
    """One measurement."""

    sharpness: float  # phi, in percent of 1 + loss: a lower bound, the maximisation is inexact
    epsilon: float
    directions: int | None  # of the random manifold; None for the full space
    loss: float  # at the weights
    worst_loss: float  # the highest that was met in the box
    evaluations: int  # of loss and gradient
    not_finite: int  # of the evaluations; they did not count


def measure_sharpness(
    value_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]],
    weights: np.ndarray,
    *,
    epsilon: float = EPSILONS[0],
    directions: int | None = None,
    iterations: int = ITERATIONS,
    seed: int = 0,
) -> Sharpness:
    """Maximises the loss over the box and returns how far it rises.

        phi = 100 (max_{y in C} f(x + A y) - f(x)) / (1 + f(x))
        C = {y : |y_i| <= epsilon (|(A+ x)_i| + 1)}

    with A = I, or n x p of independent standard normal numbers (ours: the paper says "random") and
    A+ its pseudo-inverse. The maximisation is L-BFGS-B over y in units of the box. It starts at a
    random point of the box: at a minimum itself the gradient vanishes, and it would stay there and
    report 0. The highest loss met anywhere counts. A takes 8 n p bytes; `directions` is p, None
    for the full space. An `ArithmeticError` says that the loss at `weights` is not finite, or is
    nowhere else.
    """
    check(epsilon > 0, "epsilon", "above 0", epsilon)
    usable = directions is None or 1 <= directions <= weights.size
    check(usable, "directions", f"in 1..{weights.size} or None", directions)
    check(iterations >= 1, "iterations", "at least 1", iterations)
    loss = float(value_and_gradient(weights)[0])
    if not np.isfinite(loss):
        raise ArithmeticError(f"the loss at the weights themselves is {loss}")
    random = np.random.default_rng(seed)
    manifold, inside = None, weights
    if directions is not None:
        manifold = random.standard_normal((weights.size, directions))
        inside = np.linalg.solve(manifold.T @ manifold, manifold.T @ weights)
    half_sides = epsilon * (np.abs(inside) + 1.0)
    climb = _Climb(value_and_gradient, weights, half_sides, manifold)
    start = random.uniform(-1.0, 1.0, half_sides.size)
    climb.set_unit(start)
    bounds = [(-1.0, 1.0)] * half_sides.size
    options = {"maxiter": iterations, "ftol": 0.0, "gtol": 0.0}
    minimize(climb, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    if climb.not_finite == climb.evaluations:
        raise ArithmeticError("no loss in the box is finite")
    worst = max(climb.highest, loss)
    return Sharpness(
        sharpness=100.0 * (worst - loss) / (1.0 + loss),
        epsilon=epsilon,
        directions=directions,
        loss=loss,
        worst_loss=worst,
        evaluations=climb.evaluations + 1,
        not_finite=climb.not_finite,
    )


class _Climb:
    """Minus the loss over the box scaled to [-1, 1]^p, with the highest loss kept."""

    def __init__(self, value_and_gradient, weights, half_sides, manifold):
        self._f, self._weights = value_and_gradient, weights
        self._half_sides, self._manifold = half_sides, manifold
        self._unit = 1.0
        self.highest, self.evaluations, self.not_finite = -np.inf, 0, 0

    def set_unit(self, start: np.ndarray) -> None:
        """Scales the values so that the first step, along the gradient, crosses the box."""
        _, slope = self(start)
        mean = float(np.mean(np.abs(slope)))
        self._unit = 1.0 / mean if mean > 0 else 1.0

    def __call__(self, place: np.ndarray) -> tuple[float, np.ndarray]:
        step = self._half_sides * place
        moved = self._weights + (step if self._manifold is None else self._manifold @ step)
        loss, gradient = self._f(moved)
        self.evaluations += 1
        if not (np.isfinite(loss) and np.all(np.isfinite(gradient))):
            self.not_finite += 1
            # A wall: the line search turns back from it.
            return np.finfo(float).max ** 0.5, np.zeros_like(place)
        self.highest = max(self.highest, float(loss))
        along = gradient if self._manifold is None else self._manifold.T @ gradient
        return -self._unit * loss, -self._unit * self._half_sides * along
