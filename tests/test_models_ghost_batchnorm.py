"""Ghost batch norm against NumPy float64, against Keras' own layer, and by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization

EPSILON = 1e-5
MOMENTUM = 0.9


def oracle(x, gamma, beta, group, upstream):
    """Output, gradients and batch statistics in float64, one group after another."""
    x, upstream = x.astype(np.float64), upstream.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    y, dx = np.empty_like(x), np.empty_like(x)
    dgamma, dbeta, means, variances = 0.0, 0.0, [], []
    for start in range(0, len(x), group):
        part = slice(start, start + group)
        mean, variance = x[part].mean(axes), x[part].var(axes)
        unit = (x[part] - mean) / np.sqrt(variance + EPSILON)
        y[part] = gamma * unit + beta
        dy = upstream[part]
        # Ioffe & Szegedy 2015, arXiv:1502.03167 §3, the chain rule through mean and variance.
        inner = dy - dy.mean(axes) - unit * (dy * unit).mean(axes)
        dx[part] = gamma / np.sqrt(variance + EPSILON) * inner
        dgamma, dbeta = dgamma + (dy * unit).sum(axes), dbeta + dy.sum(axes)
        means.append(mean)
        variances.append(variance)
    return y, dx, dgamma, dbeta, np.mean(means, 0), np.mean(variances, 0)


def make_case(shape, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    x = (3.0 * rng.standard_normal(shape) + rng.standard_normal(channels)).astype(dtype)
    upstream = rng.standard_normal(shape).astype(dtype)
    return x, upstream, rng.uniform(0.5, 2.0, channels), rng.standard_normal(channels)


def make_layer(group, shape, gamma, beta, **kwargs):
    layer = GhostBatchNormalization(group, momentum=MOMENTUM, epsilon=EPSILON, **kwargs)
    layer.build(shape)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    return layer


def run(layer, x, upstream, *, jit_compile=None):
    """Returns output and gradients of sum(output * upstream) for x, gamma and beta."""

    @tf.function(jit_compile=jit_compile)
    def step(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y * upstream)
        return y, tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

    y, gradients = step(tf.constant(x), tf.constant(upstream))
    return y.numpy(), [g.numpy() for g in gradients]


def test_one_call_by_hand():
    # Groups (1, 3) and (10, 14): means 2 and 12, variances 1 and 4, so y = (-1, 1, -1, 1).
    # Moving mean 0.9 * 0 + 0.1 * (2 + 12) / 2 = 0.7; variance 0.9 * 1 + 0.1 * (1 + 4) / 2 = 1.15.
    # (The whole batch has mean 7 and variance 27.5: 3.65 if the layer did not cut it.)
    layer = GhostBatchNormalization(2, momentum=0.9, epsilon=1e-12)
    y = layer(np.array([[1.0], [3.0], [10.0], [14.0]], "float32"), training=True)
    np.testing.assert_allclose(y, [[-1.0], [1.0], [-1.0], [1.0]], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_mean, [0.7], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [1.15], rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [None, True])
@pytest.mark.parametrize(
    ("shape", "group"), [((12, 5, 4, 3), 4), ((12, 5, 4, 3), 1), ((12, 5), 3), ((8, 6, 2), 8)]
)
def test_output_gradients_and_moving_statistics_equal_the_float64_oracle(shape, group, jit_compile):
    x, upstream, gamma, beta = make_case(shape)
    layer = make_layer(group, shape, gamma, beta)
    got_y, (got_dx, got_dgamma, got_dbeta) = run(layer, x, upstream, jit_compile=jit_compile)
    y, dx, dgamma, dbeta, mean, variance = oracle(x, gamma, beta, group, upstream)
    # float32 sums of up to 240 values of size about 3: a few 1e-6.
    np.testing.assert_allclose(got_y, y, atol=2e-5)
    np.testing.assert_allclose(got_dx, dx, atol=2e-5)
    np.testing.assert_allclose(got_dgamma, dgamma, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(got_dbeta, dbeta, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-5)


def test_the_gradient_is_that_of_keras_batch_norm_on_each_slice():
    shape, group = (12, 5, 4, 3), 4
    x, upstream, gamma, beta = make_case(shape, seed=1)
    _, got = run(make_layer(group, shape, gamma, beta), x, upstream)
    plain = make_layer(None, shape, gamma, beta)
    parts = [run(plain, x[i : i + group], upstream[i : i + group])[1] for i in range(0, 12, group)]
    np.testing.assert_allclose(got[0], np.concatenate([p[0] for p in parts]), atol=1e-5)
    for index in (1, 2):
        np.testing.assert_allclose(got[index], sum(p[index] for p in parts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("group", [None, 6])
def test_one_group_is_keras_batch_norm_to_the_last_bit(group):
    shape = (6, 5, 4, 3)
    x, upstream, gamma, beta = make_case(shape, seed=2)
    ours = make_layer(group, shape, gamma, beta)
    theirs = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)
    theirs.build(shape)
    theirs.set_weights(ours.get_weights())
    for layer_results in zip(run(ours, x, upstream), run(theirs, x, upstream), strict=True):
        np.testing.assert_array_equal(
            *(np.concatenate([np.ravel(v) for v in r]) for r in layer_results)
        )
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_inference_is_keras_batch_norm_to_the_last_bit_and_moves_nothing():
    shape = (7, 5, 4, 3)  # not a multiple of the group: inference takes any batch
    x, _, gamma, beta = make_case(shape, seed=3)
    ours = make_layer(4, shape, gamma, beta)
    ours.moving_mean.assign([0.5, -1.0, 2.0])
    ours.moving_variance.assign([0.5, 1.0, 4.0])
    theirs = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)
    theirs.build(shape)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_array_equal(ours(x, training=False), theirs(x, training=False))
    np.testing.assert_array_equal(ours.moving_mean, [0.5, -1.0, 2.0])


def test_a_frozen_layer_uses_and_keeps_its_moving_statistics():
    shape = (8, 3)
    x, _, gamma, beta = make_case(shape, seed=4)
    layer = make_layer(4, shape, gamma, beta)
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    np.testing.assert_array_equal(layer.moving_variance, np.ones(3))


def test_groups_of_a_batch_and_batches_of_one_group_move_the_statistics_alike():
    shape = (12, 5, 4, 3)
    x, upstream, gamma, beta = make_case(shape, seed=5)
    whole = make_layer(4, shape, gamma, beta)
    run(whole, x, upstream)
    moved = []
    for start in (0, 4, 8):
        part = make_layer(None, shape, gamma, beta)
        run(part, x[start : start + 4], upstream[start : start + 4])
        moved.append([part.moving_mean.numpy(), part.moving_variance.numpy()])
    mean, variance = np.mean(moved, axis=0)
    np.testing.assert_allclose(whole.moving_mean, mean, atol=1e-6)
    np.testing.assert_allclose(whole.moving_variance, variance, rtol=1e-6)


def test_the_order_of_groups_permutes_the_output_and_nothing_else():
    shape = (12, 5, 4, 3)
    x, _, gamma, beta = make_case(shape, seed=6)
    order = np.r_[8:12, 0:4, 4:8]
    one, other = (make_layer(4, shape, gamma, beta) for _ in range(2))
    np.testing.assert_allclose(one(x, training=True)[0:4], other(x[order], training=True)[4:8])
    np.testing.assert_allclose(one.moving_mean, other.moving_mean, atol=1e-7)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_statistics_are_float32_under_a_16_bit_policy(policy):
    # Values near 1000 with sd 10: their squares overflow float16, and bfloat16 sums of 80 of them
    # would be off by whole units.
    shape = (8, 5, 4, 3)
    rng = np.random.default_rng(7)
    compute = policy.removeprefix("mixed_")
    x = tf.cast(1000.0 + 10.0 * rng.standard_normal(shape), compute)
    layer = make_layer(4, shape, np.ones(3), np.zeros(3), dtype=policy)
    y = layer(x, training=True)
    assert y.dtype == compute
    assert {v.dtype for v in layer.variables} == {"float32"}
    exact = tf.cast(x, "float64").numpy()
    want_y, *_, mean, variance = oracle(exact, np.ones(3), np.zeros(3), 4, np.ones(shape))
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-5)
    # The output is rounded to 8 (bfloat16) or 11 bits: relative 2**-9, plus float32 cancellation.
    np.testing.assert_allclose(tf.cast(y, "float32"), want_y, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("switch", ["scale", "center"])
def test_without_gamma_or_beta_the_output_is_that_of_one_or_zero(switch):
    shape = (8, 3)
    x, upstream, *_ = make_case(shape, seed=8)
    layer = GhostBatchNormalization(4, epsilon=EPSILON, **{switch: False})
    want, *_ = oracle(x, 1.0, 0.0, 4, upstream)
    np.testing.assert_allclose(layer(x, training=True), want, atol=1e-5)
    assert len(layer.trainable_variables) == 1


def test_a_batch_that_the_group_does_not_divide_is_refused_when_it_is_known():
    layer = GhostBatchNormalization(4)
    with pytest.raises(ValueError, match=r"`group` must divide the batch. .*group=4, batch=6"):
        layer(np.zeros((6, 3), "float32"), training=True)


def test_a_batch_that_the_group_does_not_divide_is_refused_when_it_is_only_known_at_run_time():
    layer = GhostBatchNormalization(4)
    layer.build((None, 3))
    step = tf.function(
        lambda x: layer(x, training=True), input_signature=[tf.TensorSpec((None, 3), tf.float32)]
    )
    assert step(tf.zeros((8, 3))).shape == (8, 3)
    with pytest.raises(tf.errors.InvalidArgumentError):
        step(tf.zeros((6, 3)))


def test_a_mask_is_refused_when_the_batch_is_cut():
    with pytest.raises(ValueError, match="`mask` must be None"):
        GhostBatchNormalization(2)(
            np.zeros((4, 5, 3), "float32"), training=True, mask=np.ones((4, 5), "bool")
        )


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"group": 0}, r"`group` must be at least 1 or None. Received: group=0"),
        ({"group": 2.5}, r"`group` must be an integer or None. Received: group=2.5"),
        ({"group": True}, r"`group` must be an integer or None. Received: group=True"),
        ({"momentum": 1.5}, r"`momentum` must be in \[0, 1\]. Received: momentum=1.5"),
        ({"epsilon": 0.0}, r"`epsilon` must be a number in \(0, inf\). Received: epsilon=0.0"),
        ({"axis": 1}, r"`axis` must be -1. Received: axis=1"),
        ({"synchronized": True}, r"`synchronized` must be False. Received: synchronized=True"),
        # Keras 3.13 refuses it itself, not knowing it.
        ({"renorm": True}, r"`renorm` must be False. Received: renorm=True|Unrecog.*'renorm'"),
    ],
)
def test_arguments_outside_their_range_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GhostBatchNormalization(**kwargs)


def test_the_config_holds_every_argument():
    layer = GhostBatchNormalization(4, momentum=0.8, epsilon=1e-3, center=False, name="norm")
    copy = GhostBatchNormalization.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert (copy.group, copy.momentum, copy.epsilon, copy.center) == (4, 0.8, 1e-3, False)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' writer
def test_a_saved_model_loads_with_its_groups_and_statistics(tmp_path):
    inputs = keras.Input((5, 4, 3))
    model = keras.Model(inputs, GhostBatchNormalization(4)(inputs))
    x, *_ = make_case((8, 5, 4, 3), seed=9)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))
    assert loaded.layers[-1].group == 4
