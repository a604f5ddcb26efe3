"""Colour jitter and lighting: against their definition, one change after another, in float64."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.data.color import change_colors, draw_changes

GREY = np.array([0.299, 0.587, 0.114])


def keys(count):
    return tf.cast(tf.range(count, dtype=tf.int64), tf.uint64)


def blended(picture, kind, factor):
    """fb.resnet.torch: x * factor + (1 - factor) * (black, the mean of grey, grey)."""
    grey = (picture @ GREY)[..., np.newaxis]
    other = {"brightness": 0.0, "contrast": grey.mean(), "saturation": grey}[kind]
    return picture * factor + (1 - factor) * other


@pytest.mark.parametrize(
    "kinds", list(itertools.permutations(["brightness", "contrast", "saturation"]))
)
@pytest.mark.parametrize("width", [7, 16])
def test_every_order_of_the_three_changes_gives_our_one(kinds, width):
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 255, (9, width, 3))
    factors = {"brightness": 0.7, "contrast": 1.35, "saturation": 0.62}
    expected = picture
    for kind in kinds:
        expected = blended(expected, kind, factors[kind])
    changes = tf.constant([*factors.values(), 0.0, 0.0, 0.0], tf.float32)
    got = change_colors(tf.constant(picture, tf.float32), changes).numpy()
    # float32 of values up to 255 * 1.35: an ulp is 3e-5.
    np.testing.assert_allclose(got, expected, atol=2e-3)


def test_light_is_added_to_every_pixel_as_it_is():
    picture = tf.zeros([2, 2, 3])
    got = change_colors(picture, tf.constant([1.0, 1.0, 1.0, 5.0, -6.0, 7.0]))
    np.testing.assert_allclose(got, np.broadcast_to([5.0, -6.0, 7.0], (2, 2, 3)))


def test_light_has_the_covariance_of_the_principal_components():
    # light = sum_k a_k l_k v_k, a_k ~ N(0, 0.1^2): covariance 255^2 * 0.01 * sum_k l_k^2 v_k v_k^T.
    values = np.array([0.2175, 0.0188, 0.0045])
    vectors = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    expected = 255**2 * 0.01 * (vectors * values**2) @ vectors.T
    light = draw_changes(keys(40_000), jitter=0.0, lighting_std=0.1).numpy()[:, 3:]
    # The deviation of a sample variance is sqrt(2 / n) = 0.7 %; the numbers are fixed.
    assert abs(np.cov(light.T) - expected).max() < 0.03 * expected.max()
    assert abs(light.mean(axis=0)).max() < 4 * np.sqrt(expected.max() / 40_000)


def test_factors_are_uniform_around_one_and_independent():
    factors = draw_changes(keys(20_000), jitter=0.4, lighting_std=0.0).numpy()[:, :3]
    assert factors.min() >= 0.6 - 1e-6 and factors.max() <= 1.4 + 1e-6
    for column in factors.T:
        share = np.sort((column - 0.6) / 0.8)
        assert abs(share - np.arange(20_000) / 20_000).max() < 1.95 / np.sqrt(20_000)
    off_diagonal = np.corrcoef(factors.T)[np.triu_indices(3, 1)]
    assert abs(off_diagonal).max() < 4 / np.sqrt(20_000)


def test_one_key_draws_the_same_in_a_batch_of_any_size():
    whole = draw_changes(keys(50), jitter=0.4, lighting_std=0.1).numpy()
    alone = draw_changes(keys(50)[7:8], jitter=0.4, lighting_std=0.1).numpy()
    np.testing.assert_array_equal(whole[7:8], alone)


def test_without_jitter_and_light_nothing_changes():
    picture = tf.constant(np.random.default_rng(1).uniform(0, 255, (5, 4, 3)), tf.float32)
    changes = draw_changes(keys(3), jitter=0.0, lighting_std=0.0)
    np.testing.assert_allclose(changes, [[1, 1, 1, 0, 0, 0]] * 3, atol=0)
    np.testing.assert_array_equal(change_colors(picture, changes[0]), picture)
