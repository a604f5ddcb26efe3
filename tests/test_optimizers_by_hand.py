"""Single updates worked by hand, one for each part of the rules that is easily misplaced."""

import keras
import numpy as np
import pytest
from optimizer_replay import RateTable

from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD, RMSpropSGD

W = [[3.0, 4.0]]  # |w| = 5


def run(optimizer, *gradients, w=W):
    """Value of one tensor after these updates."""
    variable = keras.Variable(np.float32(w), name="kernel")
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(np.float32(gradient))], [variable])
    return variable.numpy()


def close(got, want, rtol=1e-6):
    np.testing.assert_allclose(got, want, rtol=rtol)


def test_lars_divides_by_the_sum_of_both_norms():
    # |g| = 10, decay |w| = 0.5 * 5 = 2.5: r = 0.5 * 5 / 12.5 = 0.2. d = (-8+1.5, 6+2) = (-6.5, 8)
    # and |d| = 10.3, so the other denominator would give r = 0.243. lr 1: w - 0.2 d = (4.3, 2.4)
    optimizer = LARS(1.0, momentum=0.0, weight_decay=0.5, trust_coefficient=0.5)
    close(run(optimizer, [[-8.0, 6.0]]), [[4.3, 2.4]])


def test_lars_combined_divides_by_the_norm_of_the_sum():
    # d = (-9+1.5, 8+2) = (-7.5, 10), |d| = 12.5: r = 0.5 * 5 / 12.5 = 0.2; w - 0.2 d = (4.5, 2)
    optimizer = LARS(
        1.0, momentum=0.0, weight_decay=0.5, trust_coefficient=0.5, decay_in_norm="combined"
    )
    close(run(optimizer, [[-9.0, 8.0]]), [[4.5, 2.0]])


def test_lars_adds_epsilon_to_the_denominator_once():
    # r = 1 * 5 / (10 + 15) = 0.2; w - 0.2 g = (3 + 1.6, 4 - 1.2)
    optimizer = LARS(1.0, momentum=0.0, trust_coefficient=1.0, epsilon=15.0)
    close(run(optimizer, [[-8.0, 6.0]]), [[4.6, 2.8]])


def test_lars_inside_keeps_the_rate_of_the_update_that_stored_it():
    # Rank 1 tensor, so r = 1. Update 0 at rate 1, g = 1: v = 1, w = 9.
    # Update 1 at rate 10, g = 0: inside v = 0.5, w = 8.5; outside w = 9 - 10 * 0.5 = 4.
    rates = RateTable((1.0, 10.0))
    close(run(LARS(rates, momentum=0.5), [1.0], [0.0], w=[10.0]), [8.5])
    outside = LARS(rates, momentum=0.5, momentum_placement="outside")
    close(run(outside, [1.0], [0.0], w=[10.0]), [4.0])
    corrected = LARS(rates, momentum=0.5, momentum_correction=True)
    close(run(corrected, [1.0], [0.0], w=[10.0]), [4.0])


def test_lars_update_takes_the_ratio_on_the_velocity():
    # Update 0: v = (0, 10), r = 5 / 10, w = (3, 4) - 0.1 * 0.5 * (0, 10) = (3, 3.5).
    # Update 1: v = 0.5 * (0, 10) + (12, 0) = (12, 5), |v| = 13, |w|^2 = 21.25;
    # w - 0.1 * sqrt(21.25) / 13 * (12, 5)
    optimizer = LARS(
        0.1,
        momentum=0.5,
        trust_coefficient=1.0,
        momentum_placement="update",
        decay_in_norm="combined",
    )
    r = 21.25**0.5 / 13
    close(run(optimizer, [[0.0, 10.0]], [[12.0, 0.0]]), [[3 - 1.2 * r, 3.5 - 0.5 * r]])


@pytest.mark.parametrize("make", [MomentumSGD, LARS])
def test_nesterov_looks_ahead_by_momentum_times_the_new_velocity(make):
    # Rank 1: r = 1. Update 0: v = 2, step 0.1 * (2 + 0.5 * 2) = 0.3, w = 9.7.
    # Update 1: v = 0.5 * 2 + 4 = 5, step 0.1 * (4 + 0.5 * 5) = 0.65, w = 9.05
    optimizer = make(0.1, momentum=0.5, nesterov=True)
    close(run(optimizer, [2.0], [4.0], w=[10.0]), [9.05])


def test_momentum_sgd_moves_the_whole_velocity_at_the_rate_of_today():
    # Update 0 at 0.01, g = 1: v = 1. Update 1 at 0.1, g = 0: v = 0.9, w moves by 0.09, where Keras,
    # whose velocity holds the rate, moves by 0.009.
    rates = RateTable((0.01, 0.1))
    close(run(MomentumSGD(rates), [1.0], [0.0], w=[1.0]), [1 - 0.01 - 0.09])
    keras_sgd = keras.optimizers.SGD(rates, momentum=0.9)
    close(run(keras_sgd, [1.0], [0.0], w=[1.0]), [1 - 0.01 - 0.009])


def test_momentum_sgd_decays_inside_the_gradient():
    # v = 1 + 0.5 * 2 = 2, w = 2 - 0.1 * 2; the next, g = 0: v = 0.5 * 2 + 0.5 * 1.8 = 1.9
    optimizer = MomentumSGD(0.1, momentum=0.5, weight_decay=0.5, exclude_rank_below=0)
    close(run(optimizer, [1.0], [0.0], w=[2.0]), [1.8 - 0.19])


def test_lamb_first_update_has_the_length_of_the_weights():
    # t = 1: m / (1 - beta_1) = g, v / (1 - beta_2) = g^2, so u = sign(g) up to epsilon, |u| =
    # sqrt(2), r = 5 / sqrt(2): w - 0.1 * 5 / sqrt(2) * (-1, 1)
    step = 0.5 / 2**0.5
    close(run(LAMB(0.1, epsilon=1e-12), [[-8.0, 6.0]]), [[3 + step, 4 - step]])


def test_lamb_adds_decay_inside_the_ratio():
    # u = (-1, 1) + 0.5 * (3, 4) = (0.5, 3), |u|^2 = 9.25
    r = 5 / 9.25**0.5
    optimizer = LAMB(0.1, weight_decay=0.5, epsilon=1e-12)
    close(run(optimizer, [[-8.0, 6.0]]), [[3 - 0.05 * r, 4 - 0.3 * r]])


def test_lamb_decoupled_decay_shrinks_the_weights_first():
    # w = (3, 4) * (1 - 0.1 * 0.5) = (2.85, 3.8), |w| = 4.75, u = (-1, 1)
    step = 0.1 * 4.75 / 2**0.5
    optimizer = LAMB(0.1, weight_decay=0.5, epsilon=1e-12, decoupled_weight_decay=True)
    close(run(optimizer, [[-8.0, 6.0]]), [[2.85 + step, 3.8 - step]])


def test_lamb_epsilon_is_outside_the_root_and_literal():
    # Bias-corrected: u = g / (|g| + 2) = (-8/10, 6/8) = (-0.8, 0.75); rank 1, so r = 1
    close(run(LAMB(0.1, epsilon=2.0), [-8.0, 6.0], w=[3.0, 4.0]), [3.08, 3.925])


def test_lamb_without_bias_correction_starts_with_raw_moments():
    # m = 0.1 g, v = 0.001 g^2: u = 0.1 / sqrt(0.001) * sign(g) = sqrt(10) * sign(g)
    optimizer = LAMB(0.1, epsilon=1e-12, bias_correction=False)
    close(run(optimizer, [-8.0, 6.0], w=[3.0, 4.0]), [3 + 0.1 * 10**0.5, 4 - 0.1 * 10**0.5])


@pytest.mark.parametrize("updates", [1, 2, 5])
def test_lamb_bias_correction_is_accurate_from_the_first_update(updates):
    # A constant gradient: m and v are exact once corrected, u = 1, each update moves by the rate.
    # In float32, 1 - 0.999 is off by 1.3e-5 and 1 - 0.999^2 by as much; the root halves that.
    got = run(LAMB(1.0, epsilon=1e-30), *[[0.01]] * updates, w=[0.0])
    np.testing.assert_allclose(got, [-updates], rtol=4e-7)


@pytest.mark.parametrize(
    "bounds, r",
    [
        ({"max_weight_norm": 2.0}, 2.0),  # phi(5) = 2
        ({"min_weight_norm": 7.0}, 7.0),  # phi(5) = 7
        ({"min_weight_norm": 2.0, "max_weight_norm": 7.0}, 5.0),
        ({"clip_trust_ratio": True}, 2**0.5),  # r = min(5 / sqrt(2), 1)
    ],
)
def test_lamb_bounds_the_weight_norm_or_the_ratio(bounds, r):
    step = 0.1 * r / 2**0.5
    optimizer = LAMB(0.1, epsilon=1e-12, **bounds)
    close(run(optimizer, [[-8.0, 6.0]]), [[3 + step, 4 - step]])


def test_larc_never_exceeds_the_rate():
    # r = 1 * 5 / 10 = 0.5. At rate 0.2 the local rate lr * r would be 0.1; LARC's is min(0.5, 0.2).
    # At rate 2 it is min(0.5, 2).
    clip = {"momentum": 0.0, "trust_coefficient": 1.0, "clip_trust_ratio": True}
    close(run(LARS(0.2, **clip), [[-8.0, 6.0]]), [[4.6, 2.8]])
    close(run(LARS(2.0, **clip), [[-8.0, 6.0]]), [[7.0, 1.0]])


@pytest.mark.parametrize(
    "zero_rule, want",
    [
        ("one", [[2.7, 3.6]]),  # r = 1: w - 0.2 * 0.5 w
        ("skip", [[3.0, 4.0]]),  # no decay either
        ("denominator", [[1.5, 2.0]]),  # r = 2.5 * 5 / (0.5 * 5) = 5: w - 0.2 * 5 * 0.5 w
    ],
)
def test_lars_zero_gradient_follows_the_zero_rule(zero_rule, want):
    optimizer = LARS(
        0.2, momentum=0.0, weight_decay=0.5, trust_coefficient=2.5, zero_rule=zero_rule
    )
    close(run(optimizer, [[0.0, 0.0]]), want)


def test_lars_combined_zero_gradient_decays_at_the_trust_coefficient():
    # |d| = decay |w|: r = trust / decay, so w - lr * trust * w = w * (1 - 0.2 * 0.5)
    optimizer = LARS(
        0.2, momentum=0.0, weight_decay=0.25, trust_coefficient=0.5, decay_in_norm="combined"
    )
    close(run(optimizer, [[0.0, 0.0]]), [[2.7, 3.6]])


@pytest.mark.parametrize("zero_rule", ["one", "skip", "denominator"])
def test_lars_zero_weights_move_as_in_plain_sgd(zero_rule):
    optimizer = LARS(0.5, momentum=0.0, weight_decay=0.5, zero_rule=zero_rule)
    close(run(optimizer, [[2.0, -4.0]], w=[[0.0, 0.0]]), [[-1.0, 2.0]])


@pytest.mark.parametrize(
    "make", [lambda: LARS(1.0, weight_decay=0.1), lambda: LAMB(1.0, weight_decay=0.1)]
)
def test_zero_weights_with_zero_gradients_stay(make):
    close(run(make(), [[0.0, 0.0]], w=[[0.0, 0.0]]), [[0.0, 0.0]])


def test_rmsprop_sgd_at_the_center_is_half_of_each():
    # t = 0 = center: a = 1/2, b = 1/2 * 0.02 / 0.1 = 0.1; m = 0.01 * 4 = 0.04, sqrt = 0.2.
    # v = (0.5 + 0.1 / 0.2) * 2 = 2, w = 1 - 0.1 * 2
    optimizer = RMSpropSGD(
        0.1, center_updates=0, period_updates=10, rmsprop_learning_rate=0.02, epsilon=1e-12
    )
    close(run(optimizer, [2.0], w=[1.0]), [0.8])


def test_rmsprop_sgd_ends_as_momentum_sgd():
    # center 0, period 2: a(1) = 1/2 + 1/2 = 1 from update 1 on
    gradients = [[0.0], [1.0], [-3.0], [2.0]]
    akiba = RMSpropSGD(0.1, center_updates=0, period_updates=2, rmsprop_learning_rate=5.0)
    close(run(akiba, *gradients, w=[1.0]), run(MomentumSGD(0.1), *gradients, w=[1.0]))


def test_rmsprop_sgd_at_rate_zero_moves_nothing_and_stays_finite():
    rates = RateTable((0.0, 0.1))
    optimizer = RMSpropSGD(rates, center_updates=10, period_updates=5)
    assert np.isfinite(run(optimizer, [1.0], [1.0], w=[1.0])).all()
    optimizer = RMSpropSGD(RateTable((0.0,)), center_updates=10, period_updates=5)
    close(run(optimizer, [1.0], w=[1.0]), [1.0])
