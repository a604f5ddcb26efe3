"""Data sets in memory: the same batches however they are split, and the augmentations."""

import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.data import augment
from tf_largebatch.data.arrays import ArrayData, pixel_statistics
from tf_largebatch.data.keyed_random import fold
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.errors import InputError


def pictures(count, *, seed=0, shape=(6, 5, 3), dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(dtype)


def make_source(**changed):
    arguments = {
        "classes": 50,
        "train": (pictures(50), np.arange(50)),
        "evaluation": (pictures(11, seed=1), np.arange(11)),
        "pixel_mean": (1, 2, 3),
        "pixel_std": (1, 1, 1),
        "augment": augment.shift_and_flip(2, flip=True),
        "augmentation": "shifted and mirrored",
    }
    return ArrayData("toy", **{**arguments, **changed})


def batches(source, plan, *, updates, worker=0, workers=1, first_update=0):
    """Images and labels of this worker's share, [updates, share, ...]."""
    share = plan.global_batch // workers
    dataset = source.train_batches(
        plan, seed=4, first_update=first_update, worker=worker, workers=workers
    ).take(updates * share // plan.replica_batch)
    parts = [np.concatenate(part) for part in zip(*dataset.as_numpy_iterator(), strict=True)]
    return [part.reshape(updates, share, *part.shape[1:]) for part in parts]


@pytest.mark.parametrize("workers, replicas", [(2, 6), (3, 3)])
def test_augmented_global_batches_do_not_depend_on_the_split(workers, replicas):
    source = make_source()
    whole = batches(source, BatchPlan(global_batch=12, train_examples=50), updates=6)
    plan = BatchPlan(global_batch=12, train_examples=50, replicas=replicas)
    shares = [batches(source, plan, updates=6, worker=w, workers=workers) for w in range(workers)]
    for part in (0, 1):
        joined = np.concatenate([share[part] for share in shares], axis=1)
        np.testing.assert_array_equal(joined, whole[part])


def test_restart_delivers_the_same_images():
    plan = BatchPlan(global_batch=12, train_examples=50, replicas=2)
    whole = batches(make_source(), plan, updates=8)
    rest = batches(make_source(), plan, updates=3, first_update=5)
    for part in (0, 1):
        np.testing.assert_array_equal(rest[part], whole[part][5:])


def test_without_augmentation_each_label_comes_with_its_own_image():
    train = (pictures(50), np.arange(50))
    source = make_source(train=train, augment=None)
    images, labels = batches(source, BatchPlan(global_batch=25, train_examples=50), updates=4)
    np.testing.assert_array_equal(images, train[0][labels])
    assert sorted(labels[:2].ravel()) == list(range(50)) == sorted(labels[2:].ravel())


def test_same_example_is_augmented_anew_in_the_next_epoch():
    images, labels = batches(
        make_source(), BatchPlan(global_batch=50, train_examples=50), updates=2
    )
    first, second = (images[e][np.argsort(labels[e])] for e in (0, 1))
    changed = (first != second).reshape(50, -1).any(axis=1)
    # 5 x 5 shifts and 2 mirrors: 1 in 50 repeats itself by chance.
    assert changed.sum() >= 45


@pytest.mark.parametrize("global_batch, replicas", [(8, 2), (1200, 1)])
def test_train_shapes_are_static(global_batch, replicas):
    plan = BatchPlan(global_batch=global_batch, train_examples=50, replicas=replicas)
    images, labels = make_source().train_batches(plan, seed=0).element_spec
    assert images == tf.TensorSpec([plan.replica_batch, 6, 5, 3], tf.uint8)
    assert labels == tf.TensorSpec([plan.replica_batch], tf.int32)


def test_evaluation_delivers_every_example_once_and_not_augmented():
    evaluation = (pictures(11, seed=1), np.arange(11))
    source = make_source(evaluation=evaluation)
    parts = [source.eval_batches(4, worker=w, workers=2) for w in (0, 1)]
    for part in parts:
        assert part.element_spec == (
            tf.TensorSpec([4, 6, 5, 3], tf.uint8),
            tf.TensorSpec([4], tf.int32),
            tf.TensorSpec([4], tf.float32),
        )
    rows = [np.concatenate(r) for r in zip(*[b for p in parts for b in p], strict=True)]
    counted = rows[2] == 1
    assert rows[2].sum() == 11 and sorted(rows[1][counted]) == list(range(11))
    np.testing.assert_array_equal(rows[0][counted], evaluation[0][rows[1][counted]])


def test_datasets_keep_their_order_and_are_not_sharded_again():
    source = make_source()
    plan = BatchPlan(global_batch=10, train_examples=50)
    for dataset in (source.train_batches(plan, seed=0), source.eval_batches(4)):
        options = dataset.options()
        assert options.deterministic is True
        policy = options.experimental_distribute.auto_shard_policy
        assert policy == tf.data.experimental.AutoShardPolicy.OFF


def test_shift_moves_each_image_by_its_own_amount_and_fills_with_zeros():
    images = pictures(200, shape=(7, 6, 2), dtype=np.float32) + 1  # no zeros of its own
    keys = fold(1, tf.range(200, dtype=tf.int64))
    got = augment.random_shift(tf.constant(images), keys, 2).numpy()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    places = []
    for image, frame in zip(got, padded, strict=True):
        matches = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(frame[y : y + 7, x : x + 6], image)
        ]
        places.append(matches[0])
    counts = np.bincount([5 * y + x for y, x in places], minlength=25)
    # 200 images on 25 places: 8 expected, sd 2.8.
    assert len(places) == 200 and counts.min() >= 1 and counts.max() <= 8 + 4 * 2.8


def test_flip_mirrors_half_of_the_images_left_to_right():
    images = pictures(400)
    keys = fold(2, tf.range(400, dtype=tf.int64))
    got = augment.random_flip(tf.constant(images), keys).numpy()
    kept = (got == images).reshape(400, -1).all(axis=1)
    np.testing.assert_array_equal(got[~kept], images[~kept][:, :, ::-1])
    assert abs(kept.sum() - 200) < 4 * 10  # sd 10


def test_noise_has_the_given_deviation_and_differs_between_examples_and_pixels():
    images = np.full((500, 8, 8, 1), 0.25, np.float32)
    keys = fold(3, tf.range(500, dtype=tf.int64))
    noise = augment.add_noise(tf.constant(images), keys, 0.3).numpy().astype(np.float64) - 0.25
    # 32,000 values: the mean has sd 0.3 / 179, the deviation 0.3 / 253.
    assert abs(noise.mean()) < 4 * 0.3 / 179
    assert abs(noise.std() - 0.3) < 4 * 0.3 / 253
    assert len(np.unique(noise)) > 31_000


def test_pixel_statistics_are_those_of_each_channel():
    images = pictures(400, shape=(60, 60, 2)) // np.array(
        [1, 3], np.uint8
    )  # over one million pixels
    mean, std = pixel_statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2), dtype=np.float64), rtol=1e-9)


def test_description_names_sizes_and_augmentation():
    assert make_source().describe() == (
        "toy: 50 training and 11 evaluation images of 6x5x3 (uint8, in memory), 50 classes; "
        "shifted and mirrored"
    )


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"train": (pictures(50), np.arange(49))}, "50 images, labels of shape"),
        ({"train": (pictures(0), np.arange(0))}, "n > 0"),
        ({"train": (pictures(50), np.arange(50) + 1)}, "label 50 at example 49"),
        ({"train": (pictures(50), np.arange(50) - 1)}, "label -1 at example 0"),
        ({"evaluation": (pictures(3, shape=(5, 5, 3)), np.arange(3))}, "the evaluation images"),
        ({"evaluation": (pictures(3, dtype=np.float32), np.arange(3))}, "dtype=float32"),
        ({"pixel_mean": (1.0,)}, "`pixel_mean` must be one finite number for each of 3"),
        ({"pixel_std": (1, 0, 1)}, "`pixel_std` must be above 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed, words):
    with pytest.raises(InputError, match=words) as caught:
        make_source(**changed)
    assert "\n" not in str(caught.value)


def test_plan_of_another_data_set_is_refused():
    with pytest.raises(ValueError, match="plan.train_examples=49"):
        make_source().train_batches(BatchPlan(global_batch=7, train_examples=49), seed=0)
