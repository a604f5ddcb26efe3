"""Two replicas equal one device, clipping included, whoever sums the gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from optimizer_replay import RateTable, make_problem, make_variables, replay, values_of

from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD, Muon, RMSpropSGD

UPDATES = 5
RATES = (0.05, 0.1, 0.2, 0.1, 0.05)
TOLERANCE = 1e-6


class OwnCollectives(tf.distribute.MirroredStrategy):
    """Strategies of one process number their collectives alike, and mix where shapes differ."""

    _collective_key_base = 1000


@pytest.fixture(scope="module")
def strategy():
    return OwnCollectives(["CPU:0", "CPU:1"])


def rmsprop(rate, **options):
    return RMSpropSGD(rate, center_updates=2, period_updates=3, **options)


def lars_update(rate, **options):
    return LARS(rate, momentum_placement="update", decay_in_norm="combined", **options)


EVERY = (MomentumSGD, LARS, lars_update, LAMB, Muon, rmsprop)
CLIPS = ({}, {"global_clipnorm": 0.5}, {"clipnorm": 0.05}, {"clipvalue": 0.01})


def make_parts():
    """Weights, gradients, and for each replica its part of them.

    All numbers are multiples of 2^-18 below 64, so that the parts sum to the gradients exactly. The
    parts are larger than their sum and not parallel to it: clipping them is not clipping the sum.
    """
    weights, gradients = make_problem(updates=UPDATES)
    rng = np.random.default_rng(7)

    def grid(x):
        return np.float32(np.round(np.ldexp(x, 18)) / 2**18)

    whole = [[grid(g) for g in update] for update in gradients]
    first = [[grid(rng.standard_normal(g.shape)) for g in update] for update in whole]
    second = [
        [g - part for g, part in zip(update, parts, strict=True)]
        for update, parts in zip(whole, first, strict=True)
    ]
    return weights, whole, (first, second)


def run_on_two(strategy, make, weights, parts, *, already_reduced=False):
    """Weights after all updates, the gradients summed by the optimizer or before it."""
    stacks = [
        tf.constant([[update[i] for update in part] for part in parts])  # replica, update, tensor
        for i in range(len(weights))
    ]
    with strategy.scope():
        variables = make_variables(weights)
        optimizer = make()
        optimizer.build(variables)
    if already_reduced:
        optimizer._all_reduce_sum_gradients = list

    def replica_update(index):
        context = tf.distribute.get_replica_context()
        grads = [stack[context.replica_id_in_sync_group, index] for stack in stacks]
        if already_reduced:
            grads = context.all_reduce("SUM", grads)
        optimizer.apply(grads, variables)

    update = tf.function(lambda index: strategy.run(replica_update, args=(index,)))
    for index in range(UPDATES):
        update(tf.constant(index))
    copies = [strategy.experimental_local_results(v.value) for v in variables]
    for pair in copies:
        np.testing.assert_array_equal(pair[0].numpy(), pair[1].numpy())
    return [pair[0].numpy() for pair in copies], optimizer


def worst(a, b):
    """Largest difference, relative to the largest weight of the tensor."""
    return max(float(np.max(np.abs(x - y)) / np.max(np.abs(x))) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "clip, already_reduced",
    [
        pytest.param(clip, reduced, id=f"{''.join(clip) or 'no_clipping'}-{who}_sums")
        for clip in CLIPS
        for reduced, who in ((False, "keras"), (True, "engine"))
        if not reduced or clip in CLIPS[:2]
    ],
)
@pytest.mark.parametrize("make", [LARS, LAMB])
def test_two_replicas_equal_one_device(strategy, make, clip, already_reduced):
    weights, gradients, parts = make_parts()

    def optimizer():
        return make(RateTable(RATES), weight_decay=0.01, **clip)

    one = replay(optimizer(), weights, gradients)[-1]
    two, _ = run_on_two(strategy, optimizer, weights, parts, already_reduced=already_reduced)
    assert worst(one, two) < TOLERANCE


@pytest.mark.parametrize("make", [MomentumSGD, lars_update, rmsprop])
def test_two_replicas_equal_one_device_with_active_clipping(strategy, make):
    weights, gradients, parts = make_parts()

    def optimizer():
        return make(RateTable(RATES), weight_decay=0.01, global_clipnorm=0.5)

    one = replay(optimizer(), weights, gradients)[-1]
    two, _ = run_on_two(strategy, optimizer, weights, parts)
    assert worst(one, two) < TOLERANCE


def test_the_parts_are_such_that_clipping_them_would_be_seen(strategy):
    # Guard: Keras's SGD clips each replica's part, and is far away on the same input.
    weights, gradients, parts = make_parts()

    def optimizer():
        return keras.optimizers.SGD(RateTable(RATES), momentum=0.9, global_clipnorm=0.5)

    one = replay(optimizer(), weights, gradients)[-1]
    two, _ = run_on_two(strategy, optimizer, weights, parts)
    assert worst(one, two) > 0.01


def test_trust_ratios_of_two_replicas_are_those_of_one_device(strategy):
    weights, gradients, parts = make_parts()

    def optimizer():
        return LARS(RateTable(RATES), record_trust_ratio=True)

    one = optimizer()
    replay(one, weights, gradients)
    _, two = run_on_two(strategy, optimizer, weights, parts)
    assert list(two.trust_ratios()) == list(one.trust_ratios())
    want = list(one.trust_ratios().values())
    np.testing.assert_allclose(list(two.trust_ratios().values()), want, rtol=1e-5)


def test_fit_on_two_replicas_equals_fit_on_one_device(strategy):
    x = np.random.default_rng(0).standard_normal((64, 4)).astype("float32")
    results = []
    for where in (tf.distribute.get_strategy(), strategy):
        with where.scope():
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="body")])
            optimizer = LARS(0.5, weight_decay=0.01, trust_coefficient=0.1, global_clipnorm=0.1)
            model.compile(optimizer, loss="mse", jit_compile=False)
        data = tf.data.Dataset.from_tensor_slices((x, x[:, :3])).batch(16, drop_remainder=True)
        model.fit(data, epochs=2, shuffle=False, verbose=0)
        results.append([values_of(v) for v in model.trainable_variables])
    assert worst(*results) < 2e-6


@pytest.mark.parametrize(
    "option", [{"gradient_accumulation_steps": 2}, {"use_ema": True, "ema_overwrite_frequency": 3}]
)
def test_what_keras_cannot_compile_on_replicas_is_an_error_at_build(strategy, option):
    with strategy.scope():
        variables = make_variables(make_problem()[0])
        optimizer = LARS(0.1, **option)
        with pytest.raises(ValueError, match=f"{list(option)[-1]}` must be None on several"):
            optimizer.build(variables)
