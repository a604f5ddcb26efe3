"""The loss as a function of the weights: value, gradient and curvature against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.diagnostics.hessian import top_eigenvalues
from tf_largebatch.diagnostics.objective import Objective
from tf_largebatch.records.errors import InputError
from tf_largebatch.review.noise_scale import from_two_batches

FEATURES, CLASSES, EXAMPLES = 4, 3, 30


def cross_entropy(labels, logits):
    return tf.nn.softmax_cross_entropy_with_logits(tf.one_hot(labels, CLASSES), logits)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    images = random.standard_normal((EXAMPLES, FEATURES)).astype(np.float32)
    return images, random.integers(0, CLASSES, EXAMPLES).astype(np.int32)


@pytest.fixture(scope="module")
def linear(data):
    """A linear model in uneven batches, its objective, and its weights as [features, classes]."""
    inputs = keras.Input([FEATURES])
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, use_bias=False)(inputs))
    kernel = np.random.default_rng(1).standard_normal((FEATURES, CLASSES)).astype(np.float32)
    model.set_weights([kernel])
    images, labels = data
    batches = [(images[a:b], labels[a:b]) for a, b in [(0, 12), (12, 24), (24, 30)]]
    return Objective(model, cross_entropy, batches), kernel.astype(np.float64)


def softmax(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def linear_hessian(images, kernel):
    """Sum over examples of x x' (x) (diag p - p p'), over their number."""
    images = images.astype(np.float64)
    total = np.zeros((FEATURES * CLASSES,) * 2)
    for x, p in zip(images, softmax(images @ kernel), strict=True):
        total += np.kron(np.outer(x, x), np.diag(p) - np.outer(p, p))
    return total / len(images)


def test_value_and_gradient_are_those_of_the_mean_loss(linear, data):
    objective, kernel = linear
    images, labels = data[0].astype(np.float64), data[1]
    p = softmax(images @ kernel)
    loss, gradient = objective.value_and_gradient(objective.vector)
    assert loss == pytest.approx(-np.log(p[np.arange(EXAMPLES), labels]).mean(), rel=1e-6)
    assert objective.value(objective.vector) == pytest.approx(loss, rel=1e-6)
    expected = images.T @ (p - np.eye(CLASSES)[labels]) / EXAMPLES
    np.testing.assert_allclose(gradient, expected.ravel(), atol=1e-6)


def test_products_with_the_hessian_are_those_of_the_closed_form(linear, data):
    objective, kernel = linear
    direction = np.random.default_rng(2).standard_normal(FEATURES * CLASSES)
    product = objective.hessian_vector(objective.vector, direction)
    np.testing.assert_allclose(product, linear_hessian(data[0], kernel) @ direction, atol=1e-5)


def test_lanczos_finds_the_eigenvalues_of_a_linear_model(linear, data):
    objective, kernel = linear
    found = top_eigenvalues(
        lambda v: objective.hessian_vector(objective.vector, v), 12, count=4, products=12
    )
    expected = np.linalg.eigvalsh(linear_hessian(data[0], kernel))[::-1][:4]
    np.testing.assert_allclose(found.largest, expected, rtol=2e-3)


def test_an_evaluation_elsewhere_leaves_the_model_alone(linear):
    objective, kernel = linear
    elsewhere = objective.value(objective.vector + 1.0)
    np.testing.assert_array_equal(objective.model.get_weights()[0], kernel)
    assert elsewhere == pytest.approx(objective.value(objective.vector + 1.0))


def test_unread_images_do_not_count(linear, data):
    objective, _ = linear
    images, labels = data
    marked = np.where(np.arange(EXAMPLES) < 10, -1, labels).astype(np.int32)
    some = Objective(objective.model, cross_entropy, [(images, marked)])
    rest = Objective(objective.model, cross_entropy, [(images[10:], labels[10:])])
    assert some.examples == 20
    assert some.value(some.vector) == pytest.approx(rest.value(rest.vector), rel=1e-6)
    rows = [list(o.batch_gradients(o.vector, micro_batch=5)) for o in (some, rest)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def test_the_noise_scale_of_a_linear_classifier_is_found_within_5_percent():
    # Weights 0: p = 1/3 whatever x, so g = x (p - e_y)' with x ~ N(mu, 1) in 8 dimensions and y
    # drawn apart from it with q = (0.7, 0.2, 0.1). |mu|^2 = 8 x 0.25 = 2.
    # |p - q|^2 = 0.36667^2 + 0.13333^2 + 0.23333^2 = 0.20667, so |G|^2 = 2 x 0.20667 = 0.41333.
    # E|g|^2 = (8 + 2)(1 - 1/3) = 6.66667, tr S = 6.25333, B_simple = 15.129.
    random = np.random.default_rng(5)
    images = (0.5 + random.standard_normal((40_000, 8))).astype(np.float32)
    labels = random.choice(3, 40_000, p=[0.7, 0.2, 0.1]).astype(np.int32)
    inputs = keras.Input([8])
    head = keras.layers.Dense(CLASSES, use_bias=False, kernel_initializer="zeros")
    objective = Objective(keras.Model(inputs, head(inputs)), cross_entropy, [(images, labels)])
    gradients = np.array([*objective.batch_gradients(objective.vector, micro_batch=50)])
    small, big = np.mean(np.sum(gradients**2, axis=1)), np.sum(gradients.mean(axis=0) ** 2)
    found = from_two_batches(small, big, small_batch=50, big_batch=40_000)
    assert found.b_simple == pytest.approx(15.129, rel=0.05)


def test_gradients_of_single_examples_are_their_own(linear, data):
    objective, kernel = linear
    rows = np.array(list(objective.batch_gradients(objective.vector, micro_batch=1)))
    images = data[0].astype(np.float64)
    errors = softmax(images @ kernel) - np.eye(CLASSES)[data[1]]
    expected = np.einsum("ni,nj->nij", images, errors).reshape(EXAMPLES, -1)
    np.testing.assert_allclose(rows, expected, atol=1e-6)


@pytest.fixture(scope="module")
def normed(data):
    """Dense, batch norm, dense; statistics that fit nothing."""
    inputs = keras.Input([FEATURES])
    x = keras.layers.Dense(5, use_bias=False)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)(x)
    keras.utils.set_random_seed(0)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(x))
    images, labels = data
    return Objective(model, cross_entropy, [(images[:15], labels[:15]), (images[15:], labels[15:])])


def test_recomputed_statistics_are_the_means_over_the_batches(normed, data):
    kernel = normed.tensors(normed.vector)[0]
    hidden = np.split(data[0].astype(np.float64) @ kernel, 2)
    state = normed.recomputed_state(normed.vector)
    np.testing.assert_allclose(
        state[0], np.mean([h.mean(axis=0) for h in hidden], axis=0), atol=1e-6
    )
    np.testing.assert_allclose(
        state[1], np.mean([h.var(axis=0) for h in hidden], axis=0), rtol=1e-5
    )
    assert normed.has_statistics


def test_a_value_uses_the_statistics_it_is_given(normed):
    own, recomputed = normed.value(normed.vector), normed.recomputed_state(normed.vector)
    assert normed.value(normed.vector, recomputed) != pytest.approx(own, rel=1e-3)


def test_training_mode_normalises_by_each_batch(normed, data):
    # Loss by hand with the statistics of each half of 15.
    kernel, gamma, beta, head, bias = normed.tensors(normed.vector)
    losses = []
    for x, y in zip(np.split(data[0].astype(np.float64), 2), np.split(data[1], 2), strict=True):
        h = x @ kernel
        h = gamma * (h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-3) + beta
        losses += (-np.log(softmax(h @ head + bias)[np.arange(15), y])).tolist()
    loss, gradient = normed.value_and_gradient(normed.vector, training=True)
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
    # The scale of a kernel before batch norm is free: no gradient along the kernel but epsilon's.
    own = gradient[: kernel.size]
    cosine = own @ kernel.ravel() / np.linalg.norm(own) / np.linalg.norm(kernel)
    assert abs(cosine) < 0.02


def test_curvature_through_layers_is_the_change_of_the_gradient(normed):
    direction = np.random.default_rng(4).standard_normal(normed.vector.size)
    step = 1e-2
    up, down = (
        normed.value_and_gradient(normed.vector + sign * step * direction)[1] for sign in (1, -1)
    )
    product = normed.hessian_vector(normed.vector, direction)
    change = (up - down) / (2 * step)
    # Central differences: an error of order step^2, and float32 gradients over 2 steps.
    np.testing.assert_allclose(product, change, atol=1e-3 * np.abs(product).max())


def test_a_model_that_does_not_match_the_data_is_refused(linear, data):
    model = linear[0].model
    images, labels = data
    with pytest.raises(InputError, match="a model for 4, images of 3"):
        Objective(model, cross_entropy, [(images[:, :3], labels)])
    with pytest.raises(InputError, match="3 logits, a label of 7"):
        Objective(model, cross_entropy, [(images, labels + 7 - labels.max())])
    with pytest.raises(InputError, match="one image that can be read"):
        Objective(model, cross_entropy, [(images, np.full(EXAMPLES, -1, np.int32))])
