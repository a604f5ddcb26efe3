"""MixUp and CutMix: the papers' formulas, partners, labels, and the same bits however split."""

import importlib
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tf_largebatch.data import mixing
from tf_largebatch.data.mixing import cut_boxes, mix, symmetric_beta
from tf_largebatch.records.errors import InputError

CLASSES = 10
BOTH = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}


def make_batch(count=32, height=12, width=16, seed=0, dtype="uint8"):
    """Pictures, labels and keys; the labels of a pair differ, so that a mixture shows."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, height, width, 3)).astype(dtype)
    labels = rng.integers(0, CLASSES // 2, count).astype("int32") * 2 + np.arange(count) % 2
    keys = rng.integers(0, 2**63, count, dtype=np.uint64)
    return tf.constant(images), tf.constant(labels, tf.int32), tf.constant(keys)


def first_keys(count):
    return tf.cast(tf.range(count, dtype=tf.int64), tf.uint64)


def own_shares(targets, labels):
    """Lambda of each example, as its label shows it."""
    return targets.numpy()[np.arange(len(labels)), labels]


def partner(values):
    values = np.asarray(values)
    return values.reshape(-1, 2, *values.shape[1:])[:, ::-1].reshape(values.shape)


# Lambda


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_lambdas_have_the_distribution_beta(alpha):
    draws = symmetric_beta(first_keys(50_000), alpha).numpy().astype(np.float64)
    assert draws.min() >= 0 and draws.max() <= 1
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)); deviations of 50,000 of them: 0.0022 for
    # the mean at most, and 0.0011 for the variance.
    assert np.mean(draws) == pytest.approx(0.5, abs=0.008)
    assert np.var(draws) == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.004)
    # Away from the ends, where float32 has several of the smallest alpha's numbers in one.
    inside = draws[(draws > 1e-6) & (draws < 1 - 1e-6)]
    low, high = stats.beta.cdf([1e-6, 1 - 1e-6], alpha, alpha)
    uniform = (stats.beta.cdf(inside, alpha, alpha) - low) / (high - low)
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3


def test_lambdas_of_a_tiny_alpha_are_finite():
    draws = symmetric_beta(first_keys(10_000), 1e-3).numpy()
    assert np.all(np.isfinite(draws))
    assert np.mean((draws == 0) | (draws == 1)) > 0.95


def test_a_lambda_has_the_same_bits_in_a_batch_of_any_size():
    keys = make_batch(67)[2]
    whole = symmetric_beta(keys, 0.2).numpy()
    parts = [symmetric_beta(keys[i : i + n], 0.2).numpy() for i, n in ((0, 1), (1, 2), (3, 64))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


# Pictures


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_mixup_is_the_papers_equation_with_the_neighbour(dtype):
    images, labels, keys = make_batch(dtype=dtype)
    mixed, targets = mix(images, labels, keys, classes=CLASSES, mixup_alpha=1.0)
    shares = own_shares(targets, labels)[:, None, None, None].astype(np.float64)
    own = images.numpy().astype(np.float64)
    want = shares * own + (1 - shares) * partner(own)
    assert mixed.dtype == images.dtype and mixed.shape == images.shape
    # uint8 is rounded: half a grey level, and the float32 arithmetic before it.
    tolerance = 0.5001 if dtype == "uint8" else 1e-3
    np.testing.assert_allclose(mixed.numpy().astype(np.float64), want, atol=tolerance)
    assert len(np.unique(shares)) == len(images) // 2  # one a pair
    np.testing.assert_array_equal(shares, partner(shares))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_cutmix_exchanges_a_rectangle_and_labels_by_its_pixels(dtype):
    images, labels, keys = make_batch(dtype=dtype)
    mixed, targets = mix(images, labels, keys, classes=CLASSES, cutmix_alpha=1.0)
    own, other, got = images.numpy(), partner(images.numpy()), mixed.numpy()
    changed = 0
    for i, share in enumerate(own_shares(targets, labels)):
        # A pixel that is the same in both pictures, of one in 256**3, would not show.
        rows, columns = np.nonzero(np.any(got[i] != own[i], axis=-1))
        if not len(rows):
            assert share == 1.0
            continue
        changed += 1
        box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        np.testing.assert_array_equal(got[i][box], other[i][box])
        area = got[i][box][..., 0].size
        assert area == len(rows)  # all of the rectangle
        assert share == pytest.approx(1 - area / (12 * 16), abs=1e-6)
    assert changed > 20


def test_cutmix_rectangles_have_the_papers_size_and_place():
    height, width, count = 40, 60, 20_000
    boxes, shares = (x.numpy() for x in cut_boxes(first_keys(count), 1.0, height, width))
    top, left, bottom, right = boxes.T
    assert top.min() == left.min() == 0 and bottom.max() == height and right.max() == width
    np.testing.assert_allclose(
        shares, 1 - (bottom - top) * (right - left) / (height * width), atol=1e-6
    )
    # Where no border cuts, the sides are those of one number, each 2 * floor(side / 2).
    free = (top > 0) & (left > 0) & (bottom < height) & (right < width)
    sides = (bottom - top)[free], (right - left)[free]
    assert np.all(sides[0] % 2 == 0) and np.all(sides[1] % 2 == 0)
    assert np.all(np.abs(sides[0] / height - sides[1] / width) <= 2 / height + 2 / width)
    # With alpha = 1 lambda is uniform. No border cuts a rectangle near the middle with sides below
    # 0.9, and among those s^2 / 0.81 is uniform, s = sqrt(1 - lambda): a quarter has s < 0.45.
    middle = (np.abs(top + bottom - height) <= 4) & (np.abs(left + right - width) <= 6)
    middle &= (bottom - top < 0.9 * height) & (bottom > top)
    assert middle.sum() > 50
    below_half = (bottom - top)[middle] < 0.45 * height
    assert np.mean(below_half) == pytest.approx(0.25, abs=4 * 0.43 / np.sqrt(middle.sum()))
    # Centres are uniform: small rectangles, which are seldom cut, are everywhere alike.
    small = (bottom - top <= 4) & (right - left <= 6) & (bottom > top)
    counts, _ = np.histogram(((top + bottom) / 2)[small], bins=4, range=(0, height))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_switch_chooses_between_the_two():
    images, labels, keys = make_batch(2_000, 4, 4)

    def run(**kwargs):
        call = tf.function(lambda: mix(images, labels, keys, classes=CLASSES, **kwargs)[0])
        return call().numpy()

    cut, blended = run(cutmix_alpha=1.0), run(mixup_alpha=0.2)
    some = run(**BOTH)
    is_cut, is_blended = (np.all(some == x, axis=(1, 2, 3)) for x in (cut, blended))
    assert np.all(is_cut | is_blended)
    # 1,000 pairs: one deviation is 0.016. Pairs that both leave alone count on both sides.
    assert np.mean(is_cut) >= 0.44 and np.mean(is_blended) >= 0.44
    assert np.mean(is_cut & ~is_blended) == pytest.approx(0.5, abs=0.08)


# Against keras-cv


@pytest.fixture
def keras_cv():
    return pytest.importorskip("keras_cv", reason="keras-cv is not installed")


def test_mixup_equals_keras_cv_at_the_same_lambdas_and_partners(keras_cv, monkeypatch):
    images, labels, keys = make_batch(dtype="float32")
    mixed, targets = mix(images, labels, keys, classes=CLASSES, mixup_alpha=0.2)
    layer = keras_cv.layers.MixUp(0.2)
    shares = own_shares(targets, labels)
    monkeypatch.setattr(layer, "_sample_from_beta", lambda *_: tf.constant(shares))
    monkeypatch.setattr(tf.random, "shuffle", lambda x, seed=None: tf.constant(partner(x)))
    want = layer({"images": images, "labels": tf.one_hot(labels, CLASSES)})
    np.testing.assert_allclose(mixed, want["images"], atol=1e-3)
    np.testing.assert_allclose(targets, want["labels"], atol=1e-6)


def test_cutmix_pictures_equal_keras_cv_at_the_same_rectangles(keras_cv):
    from keras_cv.src.utils import fill_utils

    images, labels, keys = make_batch(dtype="float32")
    mixed, targets = mix(images, labels, keys, classes=CLASSES, cutmix_alpha=1.0)
    own, got = images.numpy(), mixed.numpy()
    boxes = np.zeros((len(own), 4), np.float32)  # centre x, y, width, height
    for i in range(len(own)):
        rows, columns = np.nonzero(np.any(got[i] != own[i], axis=-1))
        if len(rows):
            sides = columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()
            boxes[i] = (columns.min() + sides[0] / 2, rows.min() + sides[1] / 2, *sides)
    want = fill_utils.fill_rectangle(images, *boxes.T, partner(own))
    np.testing.assert_array_equal(mixed, want)


# Splits and restarts


def test_a_split_into_replicas_changes_no_bit():
    images, labels, keys = make_batch(24)
    whole = mix(images, labels, keys, classes=CLASSES, **BOTH)
    for cuts in ((0, 12, 24), (0, 2, 24), (0, 2, 4, 14, 24)):
        parts = [
            mix(images[a:b], labels[a:b], keys[a:b], classes=CLASSES, **BOTH)
            for a, b in reversed(list(zip(cuts[:-1], cuts[1:], strict=True)))
        ][::-1]
        for i in (0, 1):
            np.testing.assert_array_equal(whole[i], np.concatenate([p[i] for p in parts]))


def test_a_pipeline_gives_the_bits_of_a_plain_call():
    images, labels, keys = make_batch(8)
    data = tf.data.Dataset.from_tensor_slices((images, labels, keys)).batch(4, drop_remainder=True)
    data = data.map(lambda i, y, k: mix(i, y, k, classes=CLASSES, **BOTH), tf.data.AUTOTUNE)
    got = [np.concatenate(parts) for parts in zip(*data, strict=True)]
    want = mix(images, labels, keys, classes=CLASSES, **BOTH)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    assert data.element_spec[0].shape == (4, 12, 16, 3)
    assert data.element_spec[1].shape == (4, CLASSES)


@pytest.mark.parametrize("changed", [0, 1])
def test_a_mixture_depends_on_the_keys_of_both(changed):
    images, labels, keys = make_batch(2)
    other = tf.tensor_scatter_nd_add(keys, [[changed]], tf.constant([1], tf.uint64))
    first, second = (
        own_shares(mix(images, labels, k, classes=CLASSES, mixup_alpha=1.0)[1], labels)
        for k in (keys, other)
    )
    assert np.all(first != second)


# Labels


@pytest.mark.parametrize("kwargs", [{"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}, BOTH])
def test_an_unreadable_picture_is_mixed_with_nothing(kwargs):
    images, labels, keys = make_batch(64)
    bad = np.array([3, 10, 20, 21])  # one of a pair, one of a pair, both of a pair
    broken = labels.numpy()
    broken[bad] = -1
    mixed, targets = mix(images, tf.constant(broken), keys, classes=CLASSES, **kwargs)
    alone = np.array([2, 3, 10, 11, 20, 21])
    np.testing.assert_array_equal(mixed.numpy()[alone], images.numpy()[alone])
    np.testing.assert_array_equal(targets.numpy()[bad], 0)
    np.testing.assert_array_equal(
        targets.numpy()[[2, 11]], np.eye(CLASSES)[labels.numpy()[[2, 11]]]
    )
    # The others are as they were.
    rest = np.setdiff1d(np.arange(64), alone)
    want = mix(images, labels, keys, classes=CLASSES, **kwargs)
    np.testing.assert_array_equal(mixed.numpy()[rest], want[0].numpy()[rest])
    np.testing.assert_array_equal(targets.numpy()[rest], want[1].numpy()[rest])


def test_without_mixing_the_images_stay_and_a_batch_may_be_odd():
    images, labels, keys = make_batch(5)
    got, targets = mix(images, labels, keys, classes=CLASSES)
    assert got is images
    np.testing.assert_array_equal(targets, np.eye(CLASSES)[labels.numpy()])


# Refusals


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mixup_alpha": -0.1}, "`mixup_alpha` must be 0 or more. Received: mixup_alpha=-0.1"),
        ({"cutmix_alpha": float("nan")}, "`cutmix_alpha` must be 0 or more"),
    ],
)
def test_arguments_outside_their_range_are_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        mix(*make_batch(4), **{"classes": CLASSES, **kwargs})


def test_mixing_does_not_need_keras_cv(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)  # now importing it is an error
    importlib.reload(mixing)
