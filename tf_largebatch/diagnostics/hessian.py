"""The largest eigenvalues of the Hessian from products with vectors: Lanczos's method."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal

BREAKDOWN = 1e-10  # of the largest entry: the Krylov space is exhausted


@dataclass(frozen=True)
class Spectrum:
    """What Lanczos found.

    Attributes:
        largest: eigenvalue estimates (Ritz values), falling; fewer than were asked for where there
            are not as many different ones.
        residuals: |H v - theta v| of each: an eigenvalue lies within that of the estimate.
        smallest: the least Ritz value; below zero, the loss curves down somewhere.
        products: Hessian-vector products used.
        converged: whether every residual is within the tolerance.
    """

    largest: np.ndarray
    residuals: np.ndarray
    smallest: float
    products: int
    converged: bool


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
    vector, an eigenvalue that occurs twice is found once. Keeps `products` vectors of length `size`
    in float64.

    Args:
        product: v -> H v, float64 [size].
        size: of the matrix, >= 1.
        count: eigenvalues wanted, 1 to size.
        products: at most this many, >= count.
        tolerance: stop when each residual is below this times the largest magnitude.
        seed: of the first vector.

    Raises:
        ValueError: an argument out of range.
        ArithmeticError: a product that is not finite.
    """
    if not 1 <= count <= size:
        raise ValueError(f"`count` must be in 1..{size}. Received: count={count}")
    if products < count:
        raise ValueError(
            f"`products` must be at least `count` ({count}). Received: products={products}"
        )
    vector = np.random.default_rng(seed).standard_normal(size)
    basis = np.empty((min(products, size), size))
    basis[0] = vector / np.linalg.norm(vector)
    diagonal: list[float] = []
    beside: list[float] = []
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
    return Spectrum(
        largest=largest,
        residuals=residuals,
        smallest=float(values[0]),
        products=step + 1,
        converged=bool(done or exhausted),
    )
