"""Sharpness and eigenvalues on bowls, and on matrices whose spectrum is known."""

import itertools

import numpy as np
import pytest

from tf_largebatch.diagnostics.hessian import top_eigenvalues
from tf_largebatch.diagnostics.sharpness import measure_sharpness

CURVATURES = np.array([5.0, 3.0, 1.0, 0.5, 0.1])


def bowl(hessian, loss=0.0):
    def value_and_gradient(x):
        return loss + 0.5 * float(x @ hessian @ x), hessian @ x

    return value_and_gradient


def rotated(values, seed=0):
    """A symmetric matrix with these eigenvalues."""
    random = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(random.standard_normal((len(values), len(values))))
    return basis * values @ basis.T


def test_the_sharpness_at_the_bottom_of_a_bowl_is_that_of_a_corner():
    # |y_i| <= 1e-3 (0 + 1): 1/2 x 1e-6 x (5 + 3 + 1 + 0.5 + 0.1) = 4.8e-6; phi = 100 x that / 1.
    found = measure_sharpness(bowl(np.diag(CURVATURES)), np.zeros(5), epsilon=1e-3)
    assert found.sharpness == pytest.approx(4.8e-4, rel=1e-6)


def test_the_box_grows_with_the_weights_and_the_loss_divides():
    # x = 2 everywhere: sides 0.1 x (2 + 1) = 0.3, highest at 2.3. f(x) = 1 + 9.6 x 4 / 2 = 20.2,
    # there 1 + 9.6 x 5.29 / 2 = 26.392. phi = 100 x 6.192 / 21.2 = 29.2075...
    found = measure_sharpness(bowl(np.diag(CURVATURES), 1.0), np.full(5, 2.0), epsilon=0.1)
    assert found.loss == pytest.approx(20.2)
    assert found.worst_loss == pytest.approx(26.392)
    assert found.sharpness == pytest.approx(100 * 6.192 / 21.2)


def test_a_bowl_twice_as_steep_is_twice_as_sharp():
    one, two = (
        measure_sharpness(bowl(k * rotated(CURVATURES)), np.zeros(5)).sharpness for k in (1, 2)
    )
    assert two == pytest.approx(2 * one, rel=1e-3)


@pytest.mark.parametrize("at", [0.0, 1.5])
def test_the_random_manifold_has_its_own_box(at):
    # A convex loss is highest at a corner of the box: all four are tried.
    hessian, x, seed, epsilon = rotated(CURVATURES), np.full(5, at), 3, 0.05
    manifold = np.random.default_rng(seed).standard_normal((5, 2))
    inside, *_ = np.linalg.lstsq(manifold, x, rcond=None)
    sides = epsilon * (np.abs(inside) + 1)
    f = bowl(hessian)
    corners = [
        f(x + manifold @ (sides * np.array(signs)))[0]
        for signs in itertools.product([-1, 1], repeat=2)
    ]
    found = measure_sharpness(f, x, epsilon=epsilon, directions=2, seed=seed)
    # L-BFGS-B may end in another corner than the highest, never above it.
    assert found.worst_loss <= max(corners) * (1 + 1e-9)
    assert any(found.worst_loss == pytest.approx(c, rel=1e-6) for c in corners)


def test_losses_that_are_not_finite_are_counted_and_do_not_win():
    def walled(x):
        loss, gradient = bowl(np.eye(5))(x)
        return (np.inf, gradient) if x[0] > 5e-4 else (loss, gradient)

    found = measure_sharpness(walled, np.zeros(5), seed=1)
    assert np.isfinite(found.sharpness)
    assert found.not_finite > 0


def test_a_loss_that_is_finite_nowhere_is_an_error_and_no_zero():
    def f(x):
        return (0.0, np.zeros(3)) if not x.any() else (np.nan, np.zeros(3))

    with pytest.raises(ArithmeticError, match="no loss in the box is finite"):
        measure_sharpness(f, np.zeros(3))
    with pytest.raises(ArithmeticError, match="at the weights themselves is nan"):
        measure_sharpness(lambda x: (np.nan, x), np.zeros(3))


@pytest.mark.parametrize(
    "wrong", [{"epsilon": 0.0}, {"directions": 0}, {"directions": 6}, {"iterations": 0}]
)
def test_arguments_of_the_sharpness_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
        measure_sharpness(bowl(np.eye(5)), np.zeros(5), **wrong)


def test_the_largest_eigenvalues_of_a_known_spectrum_are_found():
    values = np.concatenate([[100.0, 50.0, 20.0], np.linspace(-1.0, 2.0, 197)])
    matrix = rotated(values)
    found = top_eigenvalues(lambda v: matrix @ v, 200, count=3, products=60, tolerance=1e-8)
    assert found.converged
    np.testing.assert_allclose(found.largest, [100.0, 50.0, 20.0], rtol=1e-10)
    assert found.products < 60


def test_the_residual_bounds_the_error_before_convergence():
    values = np.linspace(0.0, 1.0, 400)
    matrix = rotated(values)
    found = top_eigenvalues(lambda v: matrix @ v, 400, count=2, products=12)
    assert not found.converged
    for value, residual in zip(found.largest, found.residuals, strict=True):
        assert np.min(np.abs(values - value)) <= residual


def test_many_products_make_no_copies_of_an_eigenvalue():
    # Without reorthogonalisation, 100 comes back several times within 120 products.
    values = np.concatenate([[100.0], np.linspace(0.0, 1.0, 299)])
    matrix = rotated(values)
    found = top_eigenvalues(lambda v: matrix @ v, 300, count=3, products=300, tolerance=1e-12)
    assert np.sum(found.largest > 50) == 1
    assert found.largest[1] == pytest.approx(1.0, abs=1e-6)


def test_all_eigenvalues_of_a_small_matrix_come_out_with_the_negative_ones():
    values = np.array([3.0, 1.0, -2.0])
    matrix = rotated(values)
    found = top_eigenvalues(lambda v: matrix @ v, 3, count=3, products=10, tolerance=0.0)
    np.testing.assert_allclose(found.largest, values, atol=1e-12)
    assert found.smallest == pytest.approx(-2.0)
    assert found.products == 3


def test_a_krylov_space_that_is_exhausted_ends_the_search():
    # Two different eigenvalues: two products show them, a third direction does not exist.
    matrix = rotated(np.repeat([5.0, 2.0], 25))
    found = top_eigenvalues(lambda v: matrix @ v, 50, count=3, products=20, tolerance=0.0)
    assert found.products == 2
    np.testing.assert_allclose(found.largest, [5.0, 2.0], rtol=1e-12)


def test_products_that_are_not_finite_are_an_error():
    with pytest.raises(ArithmeticError, match="vector 1 is not finite"):
        top_eigenvalues(lambda v: v * np.nan, 5, count=1)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 6}, {"count": 5, "products": 4}])
def test_arguments_of_the_spectrum_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        top_eigenvalues(lambda v: v, 5, **wrong)
