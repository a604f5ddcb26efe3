"""The networks as the training engine calls them: values in, values out, inside one function."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import make

PIXELS = {"pixel_mean": 4.9, "pixel_std": 6.0}


def make_batch(examples, shape=(8, 8, 1), classes=10, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 17, (examples, *shape)).astype("uint8")
    return tf.constant(pixels), tf.constant(rng.integers(0, classes, examples))


def make_network(bn_batch, seed=3):
    # Gammas of one, so that every kernel of every block has a gradient.
    return make("digits_resnet", seed=seed, bn_batch=bn_batch, last_gamma=1.0, width=8, **PIXELS)


def loss_of(logits, labels):
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_mean(losses)


def stateful(model, images, labels):
    """Loss, gradients and moving statistics of a plain call, which changes the model."""

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = loss_of(model(images, training=True), labels)
        return loss, tape.gradient(loss, model.trainable_variables)

    loss, gradients = step()
    return loss, gradients, [v.value for v in model.non_trainable_variables]


def make_stateless(model, *, jit_compile=None):
    """Returns a function of images and labels that gives the same from values alone."""

    @tf.function(jit_compile=jit_compile)
    def step(trainable, fixed, images, labels):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            logits, moved = model.stateless_call(trainable, fixed, images, training=True)
            loss = loss_of(logits, labels)
        return loss, tape.gradient(loss, trainable), moved

    trainable = [tf.identity(v.value) for v in model.trainable_variables]
    fixed = [tf.identity(v.value) for v in model.non_trainable_variables]
    return lambda images, labels: step(trainable, fixed, images, labels)


def assert_alike(got, want, tolerance):
    """Tensor by tensor, within `tolerance` of the largest value of each."""
    for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(want), strict=True):
        a, b = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
        np.testing.assert_allclose(a, b, atol=tolerance * (1e-3 + np.abs(b).max()), rtol=0)


def under_policy(policy, make):
    """Returns `make()` with every layer under this precision policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return make()
    finally:
        keras.config.set_dtype_policy(before)


def flatten(tensors):
    return np.concatenate([t.numpy().ravel() for t in tensors]).astype(np.float64)


@pytest.mark.parametrize(
    ("bn_batch", "jit_compile"),
    [(None, None), (4, None), pytest.param(4, True, marks=pytest.mark.slow)],
)
def test_the_stateless_call_equals_the_stateful_one_and_leaves_the_model_alone(
    bn_batch, jit_compile
):
    images, labels = make_batch(12)
    model = make_network(bn_batch)
    before = [v.numpy() for v in model.variables]
    got = make_stateless(model, jit_compile=jit_compile)(images, labels)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())
    want = stateful(model, images, labels)
    assert_alike(got, want, 1e-4 if jit_compile else 1e-6)
    assert all(np.abs(g).max() > 0 for g in want[1])


def test_ghost_batches_equal_micro_batches_of_the_same_size_and_not_the_whole_batch():
    # What one device does with a big batch is what the engine does with three small ones: the mean
    # of the losses, of the gradients and of the new moving statistics.
    images, labels = make_batch(12)
    ghost = make_stateless(make_network(4))(images, labels)
    plain = make_stateless(make_network(None))
    parts = [plain(images[i : i + 4], labels[i : i + 4]) for i in (0, 4, 8)]
    mean = tf.nest.map_structure(lambda *values: sum(values) / 3.0, *parts)
    assert_alike(ghost, mean, 1e-4)
    whole = plain(images, labels)
    g, w = flatten(ghost[1]), flatten(whole[1])
    assert np.linalg.norm(g - w) > 0.1 * np.linalg.norm(w)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_16_bit_policy_gives_float32_gradients_near_those_of_float32(policy):
    images, labels = make_batch(12)
    want = make_stateless(make_network(4))(images, labels)
    got = make_stateless(under_policy(policy, lambda: make_network(4)))(images, labels)
    assert {t.dtype for t in tf.nest.flatten(got)} == {tf.float32}
    # Some ten roundings of 2**-9 (bfloat16) on the way to each value, and ReLUs that switch.
    g, w = flatten(got[1]), flatten(want[1])
    assert abs(float(got[0]) - float(want[0])) < 1e-3
    assert np.linalg.norm(g - w) < 0.06 * np.linalg.norm(w)
    np.testing.assert_allclose(flatten(got[2]), flatten(want[2]), atol=0.005)


@pytest.mark.slow
def test_resnet50_compiles_whole_and_equals_its_stateful_call():
    # float64, and pixel constants that are exact: the last stage has batch norms of 8 values, which
    # would make a rounding of float32 visible in the gradients.
    images, labels = make_batch(4, (64, 64, 3), 5)
    settings = {"pixel_mean": 8.0, "pixel_std": 8.0, "last_gamma": 1.0, "bn_batch": 2, "seed": 0}
    model = under_policy(
        "float64", lambda: make("resnet50", image_shape=(64, 64, 3), classes=5, **settings)
    )
    got = make_stateless(model, jit_compile=True)(images, labels)
    want = stateful(model, images, labels)
    assert_alike(got, want, 1e-5)
    assert all(np.abs(g).max() > 0 for g in want[1])
