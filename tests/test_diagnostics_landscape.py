"""Lines and planes through bowls, and the line between two solutions."""

import numpy as np
import pytest

from tf_largebatch.diagnostics import landscape

HESSIAN = np.diag([4.0, 1.0, 0.25])


def bowl(x):
    return 1.0 + 0.5 * float(x @ HESSIAN @ x)


def test_a_direction_has_the_norm_of_every_filter():
    random = np.random.default_rng(0)
    weights = [random.standard_normal(s) for s in [(3, 3, 2, 5), (7, 4), (5,), ()]]
    conv, dense, bias, scalar = landscape.random_direction(weights, seed=1)
    for j in range(5):  # a filter is one output channel
        assert np.linalg.norm(conv[..., j]) == pytest.approx(np.linalg.norm(weights[0][..., j]))
    for j in range(4):
        assert np.linalg.norm(dense[:, j]) == pytest.approx(np.linalg.norm(weights[1][:, j]))
    assert not bias.any() and not scalar.any()


def test_directions_in_many_weights_are_nearly_orthogonal_and_follow_their_seed():
    weights = [np.random.default_rng(0).standard_normal((100, 50))]
    one, again, two = (landscape.random_direction(weights, seed=s)[0].ravel() for s in (1, 1, 2))
    assert np.array_equal(one, again)
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    assert abs(cosine) < 4 / np.sqrt(5_000)


def test_a_filter_of_zeros_does_not_move():
    (direction,) = landscape.random_direction([np.zeros((3, 2))], seed=0)
    assert not direction.any()


def test_the_plot_does_not_change_when_filters_are_scaled_as_batch_norm_allows():
    # A network that divides each filter by its norm computes the same at 10 w.
    def value(x):
        filters = x.reshape(4, 3)
        return float(
            np.sum(filters / np.linalg.norm(filters, axis=0) * np.arange(12).reshape(4, 3))
        )

    w = np.random.default_rng(0).standard_normal((4, 3))
    places = np.linspace(-1, 1, 5)
    curves = []
    for scale in (1.0, 10.0):
        (direction,) = landscape.random_direction([scale * w], seed=1)
        curves.append(landscape.line(value, scale * w.ravel(), direction.ravel(), places))
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-8)


def test_a_line_through_a_bowl_is_a_parabola():
    # At (1, 0, 0) along (1, 2, 0): 1 + (4 (1 + x)^2 + (2 x)^2) / 2.
    places = np.array([-1.0, 0.0, 0.5])
    losses = landscape.line(bowl, np.array([1.0, 0, 0]), np.array([1.0, 2.0, 0]), places)
    np.testing.assert_allclose(losses, [1 + 2.0, 1 + 2.0, 1 + (9 + 1) / 2])


def test_a_plane_has_the_first_direction_along_its_columns():
    x, y = np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0])
    losses = landscape.plane(bowl, np.zeros(3), (np.eye(3)[0], np.eye(3)[1]), x, y)
    # 1 + (4 x^2 + y^2) / 2
    np.testing.assert_allclose(losses, [[1, 3, 9], [5.5, 7.5, 13.5]])


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_loss_that_is_not_finite_is_a_gap(bad):
    def value(x):
        return bad if x[0] > 0.5 else 0.0

    places = np.array([0.0, 1.0])
    losses = landscape.line(value, np.zeros(1), np.ones(1), places)
    assert losses[0] == 0 and np.isnan(losses[1])
    state = ([np.zeros(1)], [np.zeros(1)])
    between = landscape.between(
        lambda w, s: value(w), (np.zeros(1), state[0]), (np.ones(1), state[1]), places
    )
    assert np.isnan(between[1])


def test_weights_and_statistics_lie_on_the_line_between_two_solutions():
    seen = []
    start = (np.array([0.0, 2.0]), [np.array([1.0], np.float32), np.array(7)])
    end = (np.array([4.0, 4.0]), [np.array([3.0], np.float32), np.array(9)])

    def value(weights, state):
        seen.append((weights.tolist(), float(state[0][0]), int(state[1])))
        return 0.0

    landscape.between(value, start, end, np.array([-0.5, 0.0, 0.25, 1.0]))
    # The whole number is a counter, and stays.
    assert seen == [
        ([-2.0, 1.0], 0.0, 7),
        ([0.0, 2.0], 1.0, 7),
        ([1.0, 2.5], 1.5, 7),
        ([4.0, 4.0], 3.0, 7),
    ]


def test_recomputed_statistics_are_those_of_the_point():
    seen = []
    start, end = (np.array([0.0]), [np.array([5.0])]), (np.array([2.0]), [np.array([5.0])])
    landscape.between(
        lambda weights, state: seen.append(state) or 0.0,
        start,
        end,
        np.array([0.0, 0.5, 1.0]),
        recompute=lambda weights: [10.0 * weights],
    )
    assert [float(state[0][0]) for state in seen] == [0.0, 10.0, 20.0]


def test_solutions_of_different_networks_are_refused():
    with pytest.raises(ValueError, match="same network"):
        landscape.between(bowl, (np.zeros(3), []), (np.zeros(4), []), np.array([0.0]))
