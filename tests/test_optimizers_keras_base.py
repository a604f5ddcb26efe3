"""The traps of the Keras base class: decay, accumulation, averages, scaling, sparse, 16 bits."""

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from optimizer_replay import RateTable, make_problem, make_variables, replay, values_of

from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD, Muon, RMSpropSGD


def rmsprop(rate=0.1, **options):
    return RMSpropSGD(rate, center_updates=3, period_updates=4, **options)


EVERY = (MomentumSGD, LARS, LAMB, Muon, rmsprop)
COMBINED = {"momentum_placement": "update", "decay_in_norm": "combined"}


def worst(a, b):
    return max(float(np.max(np.abs(x - y))) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("make", EVERY)
def test_the_base_class_adds_no_second_decay(make):
    # The base class would take rate * decay * w from every tensor, 5 % here, exempt ones included.
    weights, gradients = make_problem(updates=1)
    zero = [[np.zeros_like(g) for g in gradients[0]]]
    got = replay(make(0.5, weight_decay=0.1, exclude_rank_below=9), weights, zero)[-1]
    for before, after in zip(weights, got, strict=True):
        np.testing.assert_array_equal(before, after)


def test_decay_is_applied_once_where_it_applies():
    # exclude_rank_below=0, zero gradient, no momentum: w * (1 - 0.5 * 0.1), not its square
    w = keras.Variable([2.0], name="kernel")
    optimizer = MomentumSGD(0.5, momentum=0.0, weight_decay=0.1, exclude_rank_below=0)
    optimizer.build([w])
    optimizer.apply([keras.ops.zeros((1,))], [w])
    np.testing.assert_allclose(w.numpy(), [1.9], rtol=1e-7)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("clip", [{}, {"global_clipnorm": 0.05}])
def test_accumulated_micro_steps_equal_one_update_of_their_mean(make, clip):
    weights, gradients = make_problem(updates=6)
    accumulated = replay(
        make(0.1, weight_decay=0.01, gradient_accumulation_steps=3, **clip), weights, gradients
    )[-1]
    means = [
        [
            np.mean(parts, axis=0, dtype=np.float32)
            for parts in zip(*gradients[k : k + 3], strict=True)
        ]
        for k in (0, 3)
    ]
    whole = replay(make(0.1, weight_decay=0.01, **clip), weights, means)[-1]
    assert worst(accumulated, whole) < 2e-6


def test_lamb_counts_updates_not_micro_steps():
    # Rank 1, epsilon 0: the first update moves every weight by the rate, whatever its number of
    # micro-steps; with the count of micro-steps the bias correction would be another.
    w = keras.Variable([1.0, 2.0], name="bias")
    optimizer = LAMB(0.1, epsilon=1e-12, gradient_accumulation_steps=4)
    optimizer.build([w])
    for _ in range(4):
        optimizer.apply([keras.ops.convert_to_tensor([3.0, -2.0])], [w])
    np.testing.assert_allclose(w.numpy(), [0.9, 2.1], rtol=1e-6)


def test_a_schedule_counts_updates_not_micro_steps():
    # Keras would ask for the rates of micro-steps 1 and 3: 5 and 7.
    w = keras.Variable([10.0], name="bias")
    optimizer = MomentumSGD(
        RateTable((1.0, 5.0, 6.0, 7.0)), momentum=0.0, gradient_accumulation_steps=2
    )
    optimizer.build([w])
    seen = []
    for _ in range(4):
        optimizer.apply([keras.ops.ones((1,))], [w])
        seen.append(float(w.numpy()[0]))
    assert seen == [10.0, 9.0, 9.0, 4.0]


def test_the_moving_average_counts_updates_not_micro_steps():
    # Updates move 10 to 9 and 8; average 9, then 0.5 * 9 + 0.5 * 8.
    w = keras.Variable([10.0], name="bias")
    optimizer = MomentumSGD(
        1.0, momentum=0.0, gradient_accumulation_steps=2, use_ema=True, ema_momentum=0.5
    )
    optimizer.build([w])
    for _ in range(5):
        optimizer.apply([keras.ops.ones((1,))], [w])
    optimizer.finalize_variable_values([w])
    np.testing.assert_allclose(w.numpy(), [8.5])


@pytest.mark.parametrize("make", EVERY)
def test_the_moving_average_follows_the_weights(make):
    weights, gradients = make_problem(updates=4)
    optimizer = make(0.1, use_ema=True, ema_momentum=0.5)
    path = replay(optimizer, weights, gradients)
    average = path[1]
    for values in path[2:]:
        average = [0.5 * a + 0.5 * v for a, v in zip(average, values, strict=True)]
    optimizer.finalize_variable_values(optimizer._trainable_variables)
    got = [values_of(v) for v in optimizer._trainable_variables]
    assert worst(got, average) < 1e-5


@pytest.mark.parametrize("make", EVERY)
def test_a_loss_scale_cancels(make):
    weights, gradients = make_problem(updates=3)
    scaled = [[np.float32(1024) * g for g in update] for update in gradients]
    plain = replay(make(0.1, weight_decay=0.01), weights, gradients)[-1]
    got = replay(make(0.1, weight_decay=0.01, loss_scale_factor=1024.0), weights, scaled)[-1]
    assert worst(plain, got) == 0.0  # a power of two moves no digit


@pytest.mark.parametrize("make", EVERY)
def test_a_dynamic_loss_scale_skips_a_broken_update_and_keeps_the_state(make):
    inner = make(0.1)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
    w = keras.Variable(np.float32([[1.0, 2.0]]), name="kernel")
    optimizer.build([w])
    optimizer.apply([8.0 * keras.ops.convert_to_tensor([[1.0, -1.0]])], [w])
    before = [w.numpy(), *[v.numpy() for v in inner.variables]]
    optimizer.apply([keras.ops.convert_to_tensor([[np.inf, 1.0]])], [w])
    after = [w.numpy(), *[v.numpy() for v in inner.variables]]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda: LARS(0.1),
        lambda: LARS(0.1, zero_rule="skip"),
        lambda: LARS(0.1, decay_in_norm="combined"),
        lambda: LARS(0.1, **COMBINED),
        lambda: LARS(0.1, clip_trust_ratio=True),
        lambda: LAMB(0.1),
        lambda: LAMB(0.1, clip_trust_ratio=True),
        lambda: MomentumSGD(0.1, clipnorm=1.0),
        lambda: MomentumSGD(0.1, global_clipnorm=1.0),
    ],
)
def test_one_broken_element_breaks_its_tensor_in_sight(make, broken):
    # Left alone, |g| = inf gives r = 0: the other elements stand still and look healthy.
    w = keras.Variable(np.ones((2, 3), np.float32), name="kernel")
    optimizer = make()
    optimizer.build([w])
    gradient = np.ones((2, 3), np.float32)
    gradient[0, 0] = broken
    optimizer.apply([keras.ops.convert_to_tensor(gradient)], [w])
    assert np.isnan(w.numpy()).all()


def test_a_broken_tensor_leaves_the_others_alone():
    weights, gradients = make_problem(updates=1)
    good = replay(LARS(0.1), weights, gradients)[-1]
    gradients[0][0] = np.full_like(gradients[0][0], np.nan)
    bad = replay(LARS(0.1), weights, gradients)[-1]
    assert np.isnan(bad[0]).all()
    for a, b in zip(good[1:], bad[1:], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("options", [{}, {"loss_scale_factor": 2.0}, {"clipnorm": 0.5}])
def test_sparse_gradients_with_repeated_rows_equal_the_dense_gradient(make, options):
    rows = np.float32([[1.0, 2.0], [3.0, -1.0], [0.5, 0.25]])
    sparse = tf.IndexedSlices(tf.constant(rows), tf.constant([1, 3, 1]), tf.constant([4, 2]))
    dense = np.zeros((4, 2), np.float32)
    np.add.at(dense, [1, 3, 1], rows)
    results = []
    for gradient in (sparse, tf.constant(dense)):
        w = keras.Variable(np.full((4, 2), 0.5, np.float32), name="embeddings")
        optimizer = make(0.1, weight_decay=0.01, **options)
        optimizer.build([w])
        update = tf.function(lambda: optimizer.apply([gradient], [w]))  # noqa: B023
        for _ in range(3):
            update()
        results.append(w.numpy())
    np.testing.assert_array_equal(*results)


def test_an_embedding_trains_in_fit():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(5, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(LAMB(0.05), loss="mse", jit_compile=False)
    x = np.random.default_rng(0).integers(0, 5, (64, 3))
    history = model.fit(x, x.mean(axis=1), epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("make", EVERY)
def test_16_bit_weights_follow_their_float32_twin(make, dtype):
    # Keras's Lamb never moves in bfloat16 and is NaN in float16: beta_2 rounds to 1.
    weights, gradients = make_problem(updates=4)
    gradients = [[100 * g for g in update] for update in gradients]  # squares overflow float16
    optimizer = make(0.02, weight_decay=0.01, global_clipnorm=50.0)
    variables = make_variables(weights, dtype=dtype)
    start = [v.numpy().astype(np.float32) for v in variables]
    optimizer.build(variables)
    for grads in gradients:
        optimizer.apply([tf.cast(g, dtype) for g in grads], variables)
    want = replay(make(0.02, weight_decay=0.01, global_clipnorm=50.0), start, gradients)[-1]
    for value, expected in zip(variables, want, strict=True):
        got = value.numpy().astype(np.float32)
        # Four roundings to 8 bits of the weight.
        np.testing.assert_allclose(got, expected, atol=0.02 * np.max(np.abs(expected)) + 1e-6)
    slots = [v for v in optimizer.variables if v.path.endswith(("_velocity", "_moment"))]
    assert slots and {str(v.dtype) for v in slots} == {"float32"}


def test_16_bit_weights_accumulate_and_average():
    weights, gradients = make_problem(updates=4)
    variables = make_variables(weights, dtype="bfloat16")
    optimizer = LAMB(0.02, use_ema=True, gradient_accumulation_steps=2)
    optimizer.build(variables)
    for grads in gradients:
        optimizer.apply([tf.cast(g, "bfloat16") for g in grads], variables)
    optimizer.finalize_variable_values(variables)
    moved = [v.numpy().astype(np.float32) for v in variables]
    assert all(np.isfinite(v).all() for v in moved)
    assert any(np.max(np.abs(a - b)) > 1e-3 for a, b in zip(moved, weights, strict=True))


def test_lars_norms_of_float16_weights_do_not_overflow():
    # |w| = 300 * sqrt(300) = 5196, but |w|^2 = 2.7e7 exceeds 65504
    w = keras.Variable(np.full((30, 10), 300.0), name="kernel", dtype="float16")
    optimizer = LARS(1.0, momentum=0.0, trust_coefficient=0.1)
    optimizer.build([w])
    optimizer.apply([tf.ones((30, 10), tf.float16)], [w])
    np.testing.assert_allclose(w.numpy(), 270.0, rtol=1e-3)


@pytest.mark.parametrize("make", EVERY)
def test_float64_weights_are_updated_in_float64(make):
    w = keras.Variable(np.float64([[1.0, 2.0]]), name="kernel", dtype="float64")
    optimizer = make(0.125, exclude_rank_below=0)
    optimizer.build([w])
    optimizer.apply([tf.constant([[0.3, 0.4]], tf.float64)], [w])
    g = [np.float64([[0.3, 0.4]])]
    if make is LARS:
        want = oracles.lars([[1.0, 2.0]], g, [0.125], family="A")
    elif make is LAMB:
        want = oracles.lamb([[1.0, 2.0]], g, [0.125])
    elif make is MomentumSGD:
        want = oracles.goyal_eq_9([[1.0, 2.0]], g, [0.125], momentum=0.9)
    elif make is Muon:
        want = oracles.muon([[1.0, 2.0]], g, [0.125])
    else:
        want = oracles.akiba([[1.0, 2.0]], g, [0.125], center=3, period=4)
    np.testing.assert_allclose(w.numpy(), want[-1], rtol=1e-12)


@pytest.mark.parametrize("make", [LARS, LAMB])
def test_mixed_precision_trains_in_fit(make):
    keras.config.set_dtype_policy("mixed_float16")
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    optimizer = LARS(0.02, trust_coefficient=0.5) if make is LARS else LAMB(0.01)
    model.compile(optimizer, loss="mse", jit_compile=False)
    x = np.random.default_rng(0).standard_normal((64, 4)).astype("float32")
    history = model.fit(x, x[:, :1], epochs=6, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[-1] < history[0]


def test_the_first_update_uses_the_rate_of_update_zero():
    # A schedule one update late would move by 7 here.
    w = keras.Variable([10.0], name="bias")
    optimizer = MomentumSGD(RateTable((1.0, 7.0, 0.0)), momentum=0.0)
    optimizer.build([w])
    optimizer.apply([keras.ops.ones((1,))], [w])
    np.testing.assert_allclose(w.numpy(), [9.0])


def test_a_rate_of_zero_stores_nothing_inside_and_the_gradient_outside():
    # As MLPerf's warmup from 0: family "inside" forgets the first gradient.
    for placement, want in (("inside", 10.0), ("outside", 9.5)):
        w = keras.Variable([10.0], name="bias")
        optimizer = LARS(RateTable((0.0, 1.0)), momentum=0.5, momentum_placement=placement)
        optimizer.build([w])
        for gradient in (1.0, 0.0):
            optimizer.apply([keras.ops.convert_to_tensor([gradient])], [w])
        np.testing.assert_allclose(w.numpy(), [want])


def test_constraints_hold_after_the_update():
    w = keras.Variable([[1.0, -1.0]], name="kernel")
    w.constraint = keras.constraints.NonNeg()
    optimizer = MomentumSGD(0.1)
    optimizer.build([w])
    optimizer.apply([keras.ops.convert_to_tensor([[0.0, 0.0]])], [w])
    np.testing.assert_array_equal(w.numpy(), [[1.0, 0.0]])


def test_a_missing_gradient_leaves_its_variable_alone():
    a, b = keras.Variable([[1.0]], name="a"), keras.Variable([[1.0]], name="b")
    optimizer = LARS(0.1)
    optimizer.build([a, b])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([None, keras.ops.ones((1, 1))], [a, b])
    assert float(a.numpy()[0, 0]) == 1.0 and float(b.numpy()[0, 0]) != 1.0


def test_a_second_call_does_not_trace_again():
    weights, gradients = make_problem(updates=3)
    variables = make_variables(weights)
    optimizer = LAMB(0.1)
    optimizer.build(variables)
    traces = []

    @tf.function
    def update(*grads):
        traces.append(1)
        optimizer.apply(list(grads), variables)

    for grads in gradients:
        update(*map(tf.constant, grads))
    assert len(traces) == 1
