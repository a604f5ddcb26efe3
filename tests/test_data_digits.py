"""The embedded digits: a fixed split, its units, its augmentation."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tf_largebatch.data import digits
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.data_spec import DigitsSpec


def all_examples(source):
    """Training images and labels of epoch 0, then the evaluation's."""
    plan = BatchPlan(global_batch=1280, train_examples=1280)
    train = next(source.train_batches(plan, seed=0).as_numpy_iterator())
    return train, next(source.eval_batches(517).as_numpy_iterator())


def test_split_is_1280_and_517_and_no_image_is_in_both_or_lost():
    source = digits.load(DigitsSpec(shift=0, noise=0.0))
    assert (source.train_examples, source.eval_examples) == (1280, 517)
    (train, train_labels), (test, test_labels, _) = all_examples(source)
    ours = np.concatenate([train, test]).reshape(1797, 64) * 16
    labelled = np.column_stack([ours, np.concatenate([train_labels, test_labels])])
    theirs = np.column_stack([load_digits().data, load_digits().target])
    np.testing.assert_array_equal(*(a[np.lexsort(a.T)] for a in (labelled, theirs)))


def test_split_never_changes():
    # Labels of the evaluation set in order: any other permutation or cut gives another sum.
    _, (_, labels, _) = all_examples(digits.load())
    places = np.random.RandomState(0).permutation(1797)[1280:]
    np.testing.assert_array_equal(labels, load_digits().target[places])


def test_both_parts_hold_every_class():
    (_, train), (_, test, _) = all_examples(digits.load())
    assert np.bincount(train, minlength=10).min() >= 100
    assert np.bincount(test, minlength=10).min() >= 35


def test_images_are_float32_from_0_to_1_with_the_stated_mean_and_deviation():
    source = digits.load(DigitsSpec(shift=0, noise=0.0))
    (images, _), _ = all_examples(source)
    assert images.dtype == np.float32 and images.shape == (1280, 8, 8, 1)
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert source.pixel_mean[0] == pytest.approx(images.astype(np.float64).mean(), rel=1e-12)
    assert source.pixel_std[0] == pytest.approx(images.astype(np.float64).std(), rel=1e-12)


def test_training_noise_has_deviation_0_3_and_evaluation_has_none():
    (noisy, _), (test, _, _) = all_examples(digits.load(DigitsSpec(shift=0)))
    (clean, _), (clean_test, _, _) = all_examples(digits.load(DigitsSpec(shift=0, noise=0.0)))
    # 81,920 values: the deviation of the deviation is 0.3 / 405.
    assert (noisy - clean).std(dtype=np.float64) == pytest.approx(0.3, abs=4 * 0.3 / 405)
    np.testing.assert_array_equal(test, clean_test)


def test_description_is_one_line_with_the_augmentation():
    text = digits.load(DigitsSpec(shift=1, noise=0.3)).describe()
    assert "1,280 training and 517" in text and "shift up to 1 pixels, noise of sd 0.3" in text


@pytest.mark.parametrize(
    "changed",
    [{"shift": -1}, {"shift": 8}, {"shift": 0.5}, {"noise": -0.1}, {"noise": float("nan")}],
)
def test_wrong_argument_is_named(changed):
    (name, value) = next(iter(changed.items()))
    with pytest.raises(ValueError, match=f"`data.{name}` must be .* Received: data.{name}="):
        DigitsSpec(**changed)
