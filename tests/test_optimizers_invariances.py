"""Properties that hold for any weights: scale, families under a constant rate, norms a tensor."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizer_replay import make_problem, replay, values_of

from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD


def final(optimizer, weights, gradients):
    return replay(optimizer, weights, gradients)[-1]


def relative(a, b):
    return max(
        float(np.max(np.abs(x - y))) / max(float(np.max(np.abs(x))), 1e-30)
        for x, y in zip(a, b, strict=True)
    )


@settings(max_examples=15, deadline=None, derandomize=True)
@given(exponent=st.integers(-12, 12), seed=st.integers(0, 10))
def test_lars_steps_do_not_depend_on_the_scale_of_the_gradient(exponent, seed):
    rng = np.random.default_rng(seed)
    weights, gradient = rng.standard_normal((2, 4, 3), np.float32)

    def step(scale):
        variable = keras.Variable(weights, name="kernel")
        optimizer = LARS(1.0, trust_coefficient=0.1)
        optimizer.build([variable])
        optimizer.apply([keras.ops.convert_to_tensor(np.float32(scale) * gradient)], [variable])
        return values_of(variable)

    np.testing.assert_allclose(step(10.0**exponent), step(1.0), rtol=2e-6)


def test_families_inside_and_outside_are_equal_while_the_rate_is_constant():
    weights, gradients = make_problem(updates=8)
    inside = final(LARS(2.0, weight_decay=0.01), weights, gradients)
    outside = LARS(2.0, weight_decay=0.01, momentum_placement="outside")
    assert relative(inside, final(outside, weights, gradients)) < 5e-6


def test_momentum_sgd_equals_keras_while_the_rate_is_constant():
    weights, gradients = make_problem(updates=8)
    for nesterov in (False, True):
        ours = final(MomentumSGD(0.05, nesterov=nesterov), weights, gradients)
        theirs = keras.optimizers.SGD(0.05, momentum=0.9, nesterov=nesterov)
        assert relative(ours, final(theirs, weights, gradients)) < 5e-6


def test_lars_exempt_everywhere_is_keras_momentum():
    weights, gradients = make_problem(updates=8)
    exempt = LARS(0.05, weight_decay=0.1, exclude_rank_below=9)
    theirs = keras.optimizers.SGD(0.05, momentum=0.9)
    assert relative(final(exempt, weights, gradients), final(theirs, weights, gradients)) < 5e-6


@pytest.mark.parametrize("decay", [None, 0.01])
def test_lamb_decoupled_is_keras_lamb(decay):
    # Keras evaluates 1 - beta^t in float32, which moves it by 6e-6 from the equation.
    weights, gradients = make_problem(updates=12)
    ours = LAMB(
        0.01, weight_decay=decay, decoupled_weight_decay=True, epsilon=1e-7, exclude_rank_below=0
    )
    theirs = keras.optimizers.Lamb(0.01, weight_decay=decay, epsilon=1e-7)
    assert relative(final(ours, weights, gradients), final(theirs, weights, gradients)) < 2e-5


def test_lamb_of_the_paper_is_not_keras_lamb_once_there_is_decay():
    weights, gradients = make_problem(updates=12)
    ours = LAMB(0.01, weight_decay=0.1, epsilon=1e-7, exclude_rank_below=0)
    theirs = keras.optimizers.Lamb(0.01, weight_decay=0.1, epsilon=1e-7)
    assert relative(final(ours, weights, gradients), final(theirs, weights, gradients)) > 1e-3


def test_the_norm_is_per_tensor_not_over_the_network():
    # A thousandfold gradient in one tensor leaves the step of another as it is.
    weights, gradients = make_problem(updates=3)
    alone = final(LARS(1.0), weights, gradients)
    for update in gradients:
        update[0] = 1000 * update[0]
    together = final(LARS(1.0), weights, gradients)
    for index in range(1, len(weights)):
        np.testing.assert_array_equal(alone[index], together[index])


def test_a_changing_rate_separates_the_families():
    # Guard of the equalities above: with one drop of the rate, inside and outside differ.
    weights, gradients = make_problem(updates=6)

    def with_drop(optimizer):
        first = replay(optimizer, weights, gradients[:3])[-1]
        return first, optimizer

    results = []
    for placement in ("inside", "outside"):
        optimizer = LARS(2.0, momentum_placement=placement)
        replayed, optimizer = with_drop(optimizer)
        variables = optimizer._trainable_variables
        optimizer.learning_rate = 0.02
        for grads in gradients[3:]:
            optimizer.apply([keras.ops.convert_to_tensor(g) for g in grads], variables)
        results.append([values_of(v) for v in variables])
    assert relative(*results) > 0.01


def test_a_parabola_is_solved():
    # f(w) = |w - 1|^2 / 2 in a matrix: every optimizer comes close to its minimum.
    makers = {
        "MomentumSGD": MomentumSGD(0.1),
        "LARS": LARS(0.05, trust_coefficient=0.1, momentum=0.5),
        "LAMB": LAMB(0.01),
    }
    for name, optimizer in makers.items():
        w = keras.Variable(np.full((2, 3), 3.0, np.float32), name="kernel")
        optimizer.build([w])
        step = tf.function(lambda: optimizer.apply([tf.convert_to_tensor(w.value) - 1.0], [w]))  # noqa: B023
        for _ in range(250):
            step()
        assert np.max(np.abs(values_of(w) - 1.0)) < 0.1, name


def test_momentum_zero_is_plain_gradient_descent():
    weights, gradients = make_problem(updates=3)
    got = final(MomentumSGD(0.1, momentum=0.0), weights, gradients)
    want = [
        w - 0.1 * sum(g[i].astype(np.float64) for g in gradients) for i, w in enumerate(weights)
    ]
    assert relative(want, got) < 1e-5


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("rule", [MomentumSGD, LARS])
def test_a_compiled_update_is_the_eager_one_to_the_bit(rule, nesterov):
    # TensorFlow's graph optimizer would add and multiply in another order.
    rng = np.random.default_rng(5)
    start = rng.standard_normal((40, 30)).astype("float32")
    gradients = [rng.standard_normal((40, 30)).astype("float32") for _ in range(10)]

    def train(wrap):
        weights = keras.Variable(start, name="kernel")
        optimizer = rule(0.1, momentum=0.9, nesterov=nesterov, weight_decay=1e-3)
        optimizer.build([weights])
        update = wrap(lambda gradient: optimizer.apply([gradient], [weights]))
        for gradient in gradients:
            update(tf.constant(gradient))
        return values_of(weights)

    compiled = train(lambda update: tf.function(lambda g: (update(g), 0)[1]))
    np.testing.assert_array_equal(compiled, train(lambda update: update))
