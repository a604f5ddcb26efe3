"""The counter-based random numbers, against integers of Python and against their distributions."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.data import keyed_random

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15


def mix_by_hand(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def keys_of(count):
    return keyed_random.fold(11, tf.range(count, dtype=tf.int64))


def kolmogorov_distance(values, cdf):
    values = np.sort(values)
    at = cdf(values)
    steps = np.arange(len(values) + 1) / len(values)
    return max((steps[1:] - at).max(), (at - steps[:-1]).max())


def test_stream_is_the_published_splitmix64_sequence():
    # First outputs of the authors' reference program splitmix64.c (S. Vigna) for the seed 1234567.
    got = keyed_random.random_bits(tf.constant([1234567], tf.uint64), 5)[0].numpy()
    assert got.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("key", [0, 5, 2**64 - 1])
def test_fold_is_two_mixes_around_an_exclusive_or(key):
    values = [0, 1, 2**40 + 3]
    got = keyed_random.fold(key, tf.constant(values, tf.int64)).numpy().tolist()
    assert got == [mix_by_hand(mix_by_hand((key + GAMMA) & MASK) ^ v) for v in values]


def test_different_values_never_share_a_key():
    keys = keyed_random.fold(3, tf.range(100_000, dtype=tf.int64)).numpy()
    assert len(np.unique(keys)) == 100_000


def test_a_draw_does_not_depend_on_its_neighbours_in_the_batch():
    keys = keys_of(50)
    whole = keyed_random.normals(keys, 7).numpy()
    parts = [keyed_random.normals(keys[i : i + 3], 7).numpy() for i in range(0, 50, 3)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_uniforms_are_uniform_along_keys_and_along_draws():
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is the 0.1 % point; the input is fixed, so it never flakes.
    for keys, count in ((40_000, 1), (1, 40_000)):
        values = keyed_random.uniforms(keys_of(keys), count).numpy().ravel().astype(np.float64)
        assert values.min() >= 0 and values.max() < 1
        assert kolmogorov_distance(values, lambda x: x) < 1.95 / math.sqrt(40_000)


def test_consecutive_draws_and_consecutive_keys_are_uncorrelated():
    draws = keyed_random.uniforms(keys_of(20_000), 4).numpy().astype(np.float64)
    correlations = np.corrcoef(np.concatenate([draws[:-1], draws[1:]], axis=1).T) - np.eye(8)
    assert abs(correlations).max() < 4.5 / math.sqrt(20_000)


def test_normals_are_standard_normal():
    values = keyed_random.normals(keys_of(4_000), 11).numpy().astype(np.float64)
    cdf = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)))
    assert kolmogorov_distance(values.ravel(), cdf) < 1.95 / math.sqrt(values.size)
    correlations = np.corrcoef(values.T) - np.eye(11)
    assert abs(correlations).max() < 4.5 / math.sqrt(4_000)


def test_integers_reach_both_ends_equally_often():
    counts = np.bincount(
        keyed_random.integers(keys_of(9_000), 2, 0, 8).numpy().ravel(), minlength=9
    )
    # 18,000 draws on 9 values: 2,000 each, sd 42.
    assert len(counts) == 9 and abs(counts - 2_000).max() < 4 * 42
    low = keyed_random.integers(keys_of(300), 1, -2, 2).numpy()
    assert set(low.ravel()) == {-2, -1, 0, 1, 2}


def test_largest_uniform_times_any_size_stays_below_that_size():
    sizes = np.arange(1, 100_000, dtype=np.float32)
    assert (np.float32(1 - 2.0**-24) * sizes < sizes).all()
