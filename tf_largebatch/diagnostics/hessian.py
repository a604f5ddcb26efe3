"""The largest eigenvalues of the Hessian from products with vectors: Lanczos's method."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal

from tf_largebatch.records.checks import check

BREAKDOWN = 1e-10  # of the largest entry: the Krylov space is exhausted


@dataclass(frozen=True)
class Spectrum:
    """What Lanczos found.

    `largest` are eigenvalue estimates (Ritz values), falling; fewer than were asked for where
    there are not as many different ones.
    """

    largest: np.ndarray
    residuals: np.ndarray  # |H v - theta v| of each: an eigenvalue lies within that of the estimate
    smallest: float  # the least Ritz value; below zero, the loss curves down somewhere
    products: int  # Hessian-vector products used
    converged: bool  # every residual is within the tolerance


def top_eigenvalues(
    product: Callable[[np.ndarray], np.ndarray],
    size: int,
    *,
    count: int = 5,
    products: int = 60,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Spectrum:
    """Returns the algebraically largest eigenvalues of a symmetric matrix.

    Lanczos's recursion from a random vector, each new vector orthogonalised against all before it,
    twice: without that, rounding makes copies of eigenvalues that converged. From one starting
    vector, an eigenvalue that occurs twice is found once. Keeps up to `products` vectors of length
    `size` in float64, and stops when each residual is below `tolerance` times the largest
    magnitude. A product that is not finite is an `ArithmeticError`.
    """
    check(1 <= count <= size, "count", f"in 1..{size}", count)
    check(products >= count, "products", f"at least `count` ({count})", products)
    vector = np.random.default_rng(seed).standard_normal(size)
    basis = np.empty((min(products, size), size))
    basis[0] = vector / np.linalg.norm(vector)
    diagonal, beside = list[float](), list[float]()
    for step in range(len(basis)):
        new = np.asarray(product(basis[step]), np.float64)
        if not np.all(np.isfinite(new)):
            raise ArithmeticError(f"the Hessian times vector {step + 1} is not finite")
        diagonal.append(float(basis[step] @ new))
        for _ in range(2):
            new = new - basis[: step + 1].T @ (basis[: step + 1] @ new)
        norm = float(np.linalg.norm(new))
        values, weights = eigh_tridiagonal(np.array(diagonal), np.array(beside))
        largest = values[::-1][:count]
        residuals = norm * np.abs(weights[-1, ::-1][:count])
        scale = float(np.max(np.abs(values)))
        done = len(largest) == count and np.all(residuals <= tolerance * scale)
        exhausted = norm <= BREAKDOWN * max(scale, np.finfo(float).tiny)
        if done or exhausted or step + 1 == len(basis):
            break
        beside.append(norm)
        basis[step + 1] = new / norm
    return Spectrum(largest, residuals, float(values[0]), step + 1, bool(done or exhausted))
