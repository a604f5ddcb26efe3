"""Layer ratios and drift, worked by hand."""

import numpy as np
import pytest

from tf_largebatch.diagnostics.layer_ratios import fit_log_growth, layer_ratios


def test_the_ratio_of_a_layer_is_the_quotient_of_its_norms():
    # |w| = 5, |g| = 0.25.
    (row,) = layer_ratios(["a"], [np.array([[3.0], [4.0]])], [np.array([[0.15], [0.2]])])
    assert (row.weight_norm, row.gradient_norm) == (pytest.approx(5.0), pytest.approx(0.25))
    assert row.ratio == pytest.approx(20.0)
    assert row.rank == 2


def test_a_layer_without_a_gradient_or_weights_has_no_ratio():
    rows = layer_ratios(["a", "b"], [np.ones(3), np.zeros(3)], [np.zeros(3), np.ones(3)])
    assert [row.ratio for row in rows] == [None, None]


def test_a_gradient_that_is_not_finite_is_named():
    with pytest.raises(ArithmeticError, match="gradient of head/kernel"):
        layer_ratios(["head/kernel"], [np.ones(1)], [np.array([np.nan])])


def test_a_logarithmic_walk_gives_back_its_slope():
    updates = [1, 10, 100, 1_000]
    growth = fit_log_growth(updates, [0.5 + 2.0 * np.log(t) for t in updates])
    assert growth.slope == pytest.approx(2.0)
    assert growth.intercept == pytest.approx(0.5)
    assert growth.r_squared == pytest.approx(1.0)


def test_a_linear_walk_is_not_taken_for_a_logarithmic_one():
    updates = list(range(1, 200))
    assert fit_log_growth(updates, [0.1 * t for t in updates]).r_squared < 0.9


@pytest.mark.parametrize(
    ("updates", "message"), [([1, 2], "three different"), ([0, 1, 2], "at least 1")]
)
def test_updates_that_give_no_fit_are_refused(updates, message):
    with pytest.raises(ValueError, match=message):
        fit_log_growth(updates, [1.0] * len(updates))


def test_two_checkpoints_are_shown_without_a_fit():
    from tf_largebatch.diagnostics.measurements import measure_drift

    found = measure_drift(np.zeros(2), {10: np.array([3.0, 4.0]), 20: np.array([6.0, 8.0])})
    assert found.numbers["distances"] == [5.0, 10.0]
    assert found.numbers["growth"] is None
    assert "no fit to 2 checkpoints" in found.lines[0][1]
