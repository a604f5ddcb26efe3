"""ImageNet: coverage, splits, restarts, both families of keys, every bad record."""

import csv
import dataclasses
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import shards as toy
import tensorflow as tf
from google.protobuf.message import DecodeError

from tf_largebatch.data import imagenet
from tf_largebatch.data.crops import evaluation_image
from tf_largebatch.data.shards import ShardIndex, find_shards, index_shards
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.data_spec import ImageNetSpec
from tf_largebatch.records.errors import InputError

REAL = Path(__file__).parents[2] / "shared" / "data" / "imagenet_jpeg"
SIDE = 32
SPEC = ImageNetSpec(image_size=SIDE, eval_short_side=40)
SMALL = {"spec": SPEC, "classes": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """20 training and 9 validation pictures: number n is of one grey level, and has label n."""
    return toy.write_greys(tmp_path_factory.mktemp("greys") / "shards")


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """10 + 3 pictures with detail, so that a crop shows where it was taken."""
    root, rng = tmp_path_factory.mktemp("varied"), np.random.default_rng(0)
    for split, count in (("train", 10), ("validation", 3)):
        records = []
        for n in range(count):
            image = np.repeat(np.repeat(rng.integers(0, 256, (9, 11, 3), np.uint8), 4, 0), 4, 1)
            records.append(toy.example(tf.io.encode_jpeg(image).numpy(), n))
        toy.write_split(root, split, records, shards=2)
    return root


def batches(source, plan, *, updates, worker=0, workers=1, first_update=0, seed=4):
    share = plan.global_batch // workers
    dataset = source.train_batches(
        plan, seed=seed, first_update=first_update, worker=worker, workers=workers
    ).take(updates * share // plan.replica_batch)
    parts = [np.concatenate(part) for part in zip(*dataset.as_numpy_iterator(), strict=True)]
    return [part.reshape(updates, share, *part.shape[1:]) for part in parts]


def evaluation(source, batch, *, workers):
    parts = [list(source.eval_batches(batch, worker=w, workers=workers)) for w in range(workers)]
    assert len({len(part) for part in parts}) == 1
    return [np.concatenate(rows) for rows in zip(*sum(parts, []), strict=True)]


def greys_of(images):
    """The grey level of each picture, back to its number."""
    return np.round((images.mean(axis=(-3, -2, -1)) - 2) / 2).astype(int)


def test_every_epoch_delivers_every_picture_once_across_batch_boundaries(folder):
    source = imagenet.open_folder(folder, **SMALL)
    # 20 examples in batches of 8: five updates are two epochs, the third batch straddles.
    images, labels = batches(source, BatchPlan(global_batch=8, train_examples=20), updates=5)
    epochs = labels.reshape(2, 20)
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert not np.array_equal(*epochs)
    np.testing.assert_array_equal(greys_of(images), labels)


@pytest.mark.parametrize("workers, replicas", [(2, 4), (3, 3)])
def test_augmented_global_batches_do_not_depend_on_the_split(varied, workers, replicas):
    source = imagenet.open_folder(varied, **SMALL)
    whole = batches(source, BatchPlan(global_batch=12, train_examples=10), updates=2)
    plan = BatchPlan(global_batch=12, train_examples=10, replicas=replicas)
    shares = [batches(source, plan, updates=2, worker=w, workers=workers) for w in range(workers)]
    for part in (0, 1):
        joined = np.concatenate([share[part] for share in shares], axis=1)
        np.testing.assert_array_equal(joined, whole[part])


def test_restart_delivers_the_same_images(varied):
    plan = BatchPlan(global_batch=4, train_examples=10)
    whole = batches(imagenet.open_folder(varied, **SMALL), plan, updates=6)
    rest = batches(imagenet.open_folder(varied, **SMALL), plan, updates=3, first_update=3)
    for part in (0, 1):
        np.testing.assert_array_equal(rest[part], whole[part][3:])


def test_crops_change_from_epoch_to_epoch_and_with_the_seed(varied):
    source, plan = (
        imagenet.open_folder(varied, **SMALL),
        BatchPlan(global_batch=10, train_examples=10),
    )
    runs = [batches(source, plan, updates=2, seed=seed) for seed in (0, 1)]
    views = [run[0][e][np.argsort(run[1][e])] for run in runs for e in (0, 1)]
    for a in range(4):
        for b in range(a):
            same = (views[a] == views[b]).reshape(10, -1).all(axis=1)
            assert same.sum() <= 1


@pytest.mark.parametrize("batch, workers", [(4, 1), (2, 2), (4, 3), (9, 1)])
def test_evaluation_counts_every_picture_once(folder, batch, workers):
    source = imagenet.open_folder(folder, **SMALL)
    images, labels, weights = evaluation(source, batch, workers=workers)
    counted = weights == 1
    assert weights.sum() == 9 and sorted(labels[counted]) == list(range(9))
    np.testing.assert_array_equal(greys_of(images[counted]), labels[counted])
    assert not images[~counted].any() and set(weights) <= {0.0, 1.0}


def test_shapes_are_static_and_images_stay_uint8(folder):
    source = imagenet.open_folder(folder, **SMALL)
    plan = BatchPlan(global_batch=8, train_examples=20, replicas=2)
    assert source.train_batches(plan, seed=0).element_spec == (
        tf.TensorSpec([4, SIDE, SIDE, 3], tf.uint8),
        tf.TensorSpec([4], tf.int32),
    )
    assert source.eval_batches(5).element_spec == (
        tf.TensorSpec([5, SIDE, SIDE, 3], tf.uint8),
        tf.TensorSpec([5], tf.int32),
        tf.TensorSpec([5], tf.float32),
    )


def test_both_families_of_keys_give_the_same_pictures_and_labels(folder, tmp_path):
    other = toy.write_greys(tmp_path, convention="image/encoded")
    sources = [imagenet.open_folder(f, **SMALL) for f in (folder, other)]
    plan = BatchPlan(global_batch=20, train_examples=20)
    trained = [batches(source, plan, updates=1) for source in sources]
    scored = [evaluation(source, 4, workers=1) for source in sources]
    for ours, theirs in zip(trained[0] + scored[0], trained[1] + scored[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_description_names_shards_counts_keys_and_crops(folder, tmp_path):
    text = imagenet.open_folder(folder, **SMALL).describe()
    assert "20 training images in 3 shards, 9 validation images in 3" in text
    assert "'image' and 'label' (labels 0 to 19)" in text and "area 0.08 to 1" in text
    toy.write_greys(tmp_path, convention="image/encoded")
    text = imagenet.open_folder(tmp_path, **SMALL).describe()
    assert "'image/encoded' and 'image/class/label' (labels 1 to 20)" in text and "\n" not in text


def test_constants_are_the_customary_ones_in_units_of_uint8():
    for ours, of_one in (
        (imagenet.PIXEL_MEAN, (0.485, 0.456, 0.406)),
        (imagenet.PIXEL_STD, (0.229, 0.224, 0.225)),
    ):
        np.testing.assert_allclose(ours, 255 * np.array(of_one), rtol=1e-12)


def write_with(folder, bad, *, split="train", where=3):
    """The toy shards with the record `where` of one split replaced; returns its place."""
    toy.write_greys(folder)
    records = [toy.example(toy.flat_jpeg(g), n) for n, g in enumerate(toy.grey_levels(12))]
    records[where] = bad
    for old in folder.glob(f"*{split}*"):
        old.unlink()
    path = toy.write_split(folder, split, records, shards=2)[where % 2]
    return f"record {where // 2} of {path}"


def assert_one_line(error, words):
    assert isinstance(error, InputError), error
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error), str(error)


# What is wrong with the record, what it stores, and what is said of it.
BAD_RECORDS = {
    "truncated JPEG": (lambda: toy.example(toy.flat_jpeg(9)[:-60], 2), "does not decode"),
    "no picture at all": (lambda: toy.example(b"nothing", 2), "does not decode"),
    "empty picture": (lambda: toy.example(b"", 2), "does not decode"),
    "label too large": (
        lambda: toy.example(toy.flat_jpeg(9), 20),
        "has label 20, which is not from 0 to 19",
    ),
    "label below": (
        lambda: toy.example(toy.flat_jpeg(9), -1),
        "has label -1, which is not from 0 to 19",
    ),
    "other keys": (
        lambda: toy.example(b"x", 1, convention="image/encoded"),
        "has not one picture under 'image'",
    ),
    "not an example": (lambda: b"\xff\xff", "holds no tf.train.Example"),
}


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_bad_training_record_stops_training_and_is_named(tmp_path, kind):
    bad, words = BAD_RECORDS[kind]
    place = write_with(tmp_path, bad())
    source, plan = (
        imagenet.open_folder(tmp_path, **SMALL),
        BatchPlan(global_batch=4, train_examples=12),
    )
    iterator, updates = iter(source.train_batches(plan, seed=0)), []
    # TensorFlow's message quotes a record that is no example, and fails on bytes that are no UTF-8.
    with pytest.raises((tf.errors.InvalidArgumentError, UnicodeDecodeError)) as caught:
        while len(updates) < 3:
            updates.append(len(updates))
            next(iterator)
    update = updates[-1]
    found = source.explain_failure(caught.value, plan, seed=0, update=update)
    assert_one_line(found, [place, words])
    assert source.explain_failure(ValueError("other"), plan, seed=0, update=update) is None
    for other in {0, 1, 2} - {update}:
        assert source.explain_failure(caught.value, plan, seed=0, update=other) is None


@pytest.mark.parametrize("kind", ["truncated JPEG", "label too large"])
def test_bad_validation_record_stops_evaluation_and_is_named(tmp_path, kind):
    bad, words = BAD_RECORDS[kind]
    place = write_with(tmp_path, bad(), split="validation")
    source = imagenet.open_folder(tmp_path, **SMALL)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(source.eval_batches(4))
    assert_one_line(source.explain_eval_failure(caught.value), [place, words])


def test_label_out_of_range_is_in_the_message(tmp_path):
    write_with(tmp_path, toy.example(toy.flat_jpeg(9), 777), where=5)
    source, plan = (
        imagenet.open_folder(tmp_path, **SMALL),
        BatchPlan(global_batch=12, train_examples=12),
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="777"):
        next(iter(source.train_batches(plan, seed=0)))


def test_damaged_payload_is_found_by_its_checksum(tmp_path):
    toy.write_greys(tmp_path, shards=1)
    source, plan = (
        imagenet.open_folder(tmp_path, **SMALL),
        BatchPlan(global_batch=20, train_examples=20),
    )
    (path,) = tmp_path.glob("*train*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(tf.errors.DataLossError) as caught:
        next(iter(source.train_batches(plan, seed=0)))
    found = source.explain_failure(caught.value, plan, seed=0, update=0)
    assert_one_line(found, [f"of {path}", "cannot be read"])


def test_shard_that_vanishes_during_training_is_named(tmp_path):
    toy.write_greys(tmp_path, shards=1)
    source, plan = (
        imagenet.open_folder(tmp_path, **SMALL),
        BatchPlan(global_batch=20, train_examples=20),
    )
    (path,) = tmp_path.glob("*train*")
    path.unlink()
    with pytest.raises(tf.errors.NotFoundError) as caught:
        next(iter(source.train_batches(plan, seed=0)))
    found = source.explain_failure(caught.value, plan, seed=0, update=0)
    assert_one_line(found, [str(path), "cannot be read"])


def test_failure_of_something_else_is_not_blamed_on_the_data(folder):
    source, plan = (
        imagenet.open_folder(folder, **SMALL),
        BatchPlan(global_batch=4, train_examples=20),
    )
    for error in (ValueError("x"), tf.errors.InvalidArgumentError(None, None, "shapes")):
        assert source.explain_failure(error, plan, seed=0, update=0) is None
        assert source.explain_eval_failure(error) is None


@pytest.mark.parametrize("content", ["neither", "both", "not an example"])
def test_first_record_with_unknown_keys_is_shown(tmp_path, content):
    both = tf.train.Example()
    both.MergeFromString(toy.example(b"x", 1) + toy.example(b"x", 1, convention="image/encoded"))
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"]))
    neither = tf.train.Example(features=tf.train.Features(feature={"jpg": feature, "cls": feature}))
    record, words = {
        "neither": (neither.SerializeToString(), "neither kind of keys. Received: cls, jpg"),
        "both": (both.SerializeToString(), "both kinds of keys"),
        "not an example": (b"\xff", "Received: no tf.train.Example"),
    }[content]
    for split in ("train", "validation"):
        toy.write_split(tmp_path, split, [record])
    with pytest.raises(InputError) as caught:
        imagenet.open_folder(tmp_path)
    assert_one_line(
        caught.value, ["record 0 of", words, "'image/encoded' with 'image/class/label'"]
    )


def test_two_families_in_one_folder_are_refused(tmp_path):
    toy.write_split(tmp_path, "train", [toy.example(b"x", 1)])
    record = toy.example(b"x", 1, convention="image/encoded")
    toy.write_split(tmp_path, "validation", [record], convention="image/encoded")
    with pytest.raises(InputError, match="must have the same keys"):
        imagenet.open_folder(tmp_path)


def test_truncated_shard_is_refused_when_the_folder_is_opened(tmp_path):
    toy.write_greys(tmp_path, shards=1)
    (path,) = tmp_path.glob("*train*")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="record 19 starts at byte"):
        imagenet.open_folder(tmp_path, **SMALL)


def test_plan_of_another_data_set_is_refused(folder):
    source = imagenet.open_folder(folder, **SMALL)
    with pytest.raises(ValueError, match="plan.train_examples=21"):
        source.train_batches(BatchPlan(global_batch=7, train_examples=21), seed=0)


def test_picture_that_is_a_png_trains_and_scores_like_the_others(tmp_path):
    image = np.full((30, 40, 3), 46, np.uint8)
    write_with(tmp_path, toy.example(tf.io.encode_png(image).numpy(), 19))
    source, plan = (
        imagenet.open_folder(tmp_path, **SMALL),
        BatchPlan(global_batch=12, train_examples=12),
    )
    ((images,), (labels,)) = batches(source, plan, updates=1)
    assert (images[labels == 19] == 46).all()


def test_plain_epochs_train_on_the_evaluation_crop_and_those_before_do_not(varied):
    source = imagenet.open_folder(varied, plain_from_epoch=1, **SMALL)
    augmented = imagenet.open_folder(varied, **SMALL)
    plan = BatchPlan(global_batch=10, train_examples=10)
    images, labels = batches(source, plan, updates=2)
    usual, _ = batches(augmented, plan, updates=2)
    np.testing.assert_array_equal(images[0], usual[0])
    for image, label in zip(images[1], labels[1], strict=True):
        encoded, _ = source._parse(source._train.payload(list_of(source).index(label)))
        np.testing.assert_array_equal(image, evaluation_image(encoded, SPEC))
    assert "no augmentation from epoch 1 on" in source.describe()


@pytest.mark.parametrize("skip", [False, True])
def test_evaluation_at_another_size_changes_evaluation_alone(varied, skip):
    small, both, large = (
        imagenet.open_folder(
            varied,
            ImageNetSpec(image_size=size, eval_image_size=own, eval_short_side=48),
            classes=20,
            skip_unreadable=skip,
        )
        for size, own in ((32, None), (32, 48), (48, None))
    )
    plan = BatchPlan(global_batch=10, train_examples=10)
    np.testing.assert_array_equal(*(batches(s, plan, updates=1)[0] for s in (both, small)))
    for ours, theirs in zip(
        evaluation(both, 2, workers=1), evaluation(large, 2, workers=1), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert (both.image_shape, both.eval_image_shape) == ((32, 32, 3), (48, 48, 3))


def test_plain_epochs_need_the_training_size_at_evaluation(varied):
    with pytest.raises(InputError, match="`eval_image_size` must be image_size .32"):
        own = ImageNetSpec(image_size=32, eval_image_size=48, eval_short_side=48)
        imagenet.open_folder(varied, own, plain_from_epoch=1)


def list_of(source):
    """The label of each training record, in the order of the index."""
    payloads = [source._train.payload(n) for n in range(source.train_examples)]
    return [int(source._parse(payload)[1]) for payload in payloads]


def test_colours_change_the_training_pictures_alone_and_by_key(varied):
    plain = imagenet.open_folder(varied, **SMALL)
    coloured = dataclasses.replace(SPEC, color_jitter=0.4, lighting_std=0.1)
    other = imagenet.open_folder(varied, coloured, classes=20)
    plan = BatchPlan(global_batch=10, train_examples=10)
    (usual, labels), (changed, same) = (batches(s, plan, updates=1) for s in (plain, other))
    np.testing.assert_array_equal(labels, same)
    assert (usual != changed).reshape(10, -1).any(axis=1).all()
    split = BatchPlan(global_batch=10, train_examples=10, replicas=5)
    np.testing.assert_array_equal(batches(other, split, updates=1)[0], changed)
    for ours, theirs in zip(
        evaluation(plain, 3, workers=1), evaluation(other, 3, workers=1), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert "jitter 0.4, lighting std 0.1" in other.describe()


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_unreadable_training_record_is_marked_in_its_place_and_named(tmp_path, kind):
    bad, words = BAD_RECORDS[kind]
    place = write_with(tmp_path, bad())
    source = imagenet.open_folder(tmp_path, skip_unreadable=True, **SMALL)
    plan = BatchPlan(global_batch=4, train_examples=12)
    images, labels = batches(source, plan, updates=6)
    assert sorted(labels.ravel().tolist()) == sorted(2 * [-1, 0, 1, 2, *range(4, 12)])
    assert not images[labels == -1].any()
    np.testing.assert_array_equal(greys_of(images[labels >= 0]), labels[labels >= 0])
    for update in range(3):
        named = source.unreadable(plan, seed=4, update=update)
        assert len(named) == (labels[update] == -1).sum()
        assert all(place in line and words in line and "\n" not in line for line in named)


def test_unreadable_validation_record_counts_as_wrong(tmp_path):
    place = write_with(tmp_path, toy.example(b"nothing", 2), split="validation")
    source = imagenet.open_folder(tmp_path, skip_unreadable=True, **SMALL)
    images, labels, weights = evaluation(source, 5, workers=2)
    assert weights.sum() == 12
    assert sorted(labels[weights == 1]) == [-1, 0, 1, 2, *range(4, 12)]
    assert not images[labels == -1].any() and weights[labels == -1] == [1.0]
    (named,) = list(source._find_in_evaluation())
    assert place in named


def test_shard_that_vanishes_is_marked_record_by_record(tmp_path):
    toy.write_greys(tmp_path, shards=2)
    source = imagenet.open_folder(tmp_path, skip_unreadable=True, **SMALL)
    next(iter(tmp_path.glob("*train*00001-of*"))).unlink()
    _, labels = batches(source, BatchPlan(global_batch=20, train_examples=20), updates=2)
    assert (labels == -1).sum() == 20
    assert sorted(labels[labels >= 0]) == sorted(2 * list(range(0, 20, 2)))


def test_marking_changes_nothing_where_all_can_be_read(varied):
    plan = BatchPlan(global_batch=10, train_examples=10, replicas=2)
    sources = [imagenet.open_folder(varied, skip_unreadable=s, **SMALL) for s in (False, True)]
    runs = [batches(s, plan, updates=2) + evaluation(s, 2, workers=2) for s in sources]
    for ours, theirs in zip(*runs, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert sources[0].unreadable(plan, seed=4, update=0) == []


def test_folder_of_another_file_system_trains_and_scores(folder):
    root = "ram://largebatch-imagenet/data"
    tf.io.gfile.makedirs(root)
    for path in folder.iterdir():
        with tf.io.gfile.GFile(f"{root}/{path.name}", "wb") as copy:
            copy.write(path.read_bytes())
    sources = [imagenet.open_folder(f, **SMALL) for f in (folder, root)]
    plan = BatchPlan(global_batch=20, train_examples=20)
    runs = [batches(s, plan, updates=1) + evaluation(s, 9, workers=1) for s in sources]
    for ours, theirs in zip(*runs, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_restart_in_the_middle_of_an_epoch_of_full_size_takes_seconds(folder):
    small = index_shards(find_shards(folder)["train"])
    chosen = np.arange(1_281_167) % 7  # the first shard's records, again and again
    index = ShardIndex(
        small.paths, small.shards[chosen], small.offsets[chosen], small.lengths[chosen]
    )
    source = imagenet.open_folder(folder, SPEC, classes=20)
    source._train, source.train_examples = index, len(index)
    plan = BatchPlan(global_batch=32, train_examples=1_281_167)
    start = time.process_time()
    images, _ = next(iter(source.train_batches(plan, seed=0, first_update=55 * 40_036 + 20_000)))
    assert images.shape == (32, SIDE, SIDE, 3) and time.process_time() - start < 10


def test_a_record_that_only_protobuf_refuses_is_delivered_and_not_named(tmp_path):
    # A further feature under the key b"\xff", which is no UTF-8: TensorFlow's parser skips it.
    entry = b"\n\x05\n\x01\xff\x12\x00"
    odd = toy.example(toy.flat_jpeg(3), 7) + b"\n" + bytes([len(entry)]) + entry
    with pytest.raises(DecodeError):
        tf.train.Example.FromString(odd)
    records = [toy.example(toy.flat_jpeg(3), 0), odd]
    for split in ("train", "validation"):
        toy.write_split(tmp_path, split, records)
    source = imagenet.open_folder(tmp_path, skip_unreadable=True, **SMALL)
    plan = BatchPlan(global_batch=2, train_examples=2)
    _, labels = batches(source, plan, updates=1)
    assert sorted(labels[0]) == [0, 7]
    assert source.unreadable(plan, seed=4, update=0) == list(source._find_in_evaluation()) == []


@pytest.mark.slow
def test_500_mutated_files_are_delivered_or_marked_and_never_lost(tmp_path):
    # Each has 1 to 20 places changed, cut out or put in, and some their end cut off.
    rng, count = np.random.default_rng(11), 500
    good = [
        tf.io.encode_jpeg(rng.integers(0, 256, (37, 41, 3), np.uint8), quality=70).numpy(),
        tf.io.encode_png(rng.integers(0, 256, (23, 31, 3), np.uint8)).numpy(),
    ]
    records = []
    for n in range(count):
        whole = good[n % 5 == 0] if n % 2 else toy.example(good[n % 5 == 0], n % 20)
        changed = mutated(rng, whole)
        # Half of the changes are in the picture, half anywhere in the serialized example.
        records.append(toy.example(changed, n % 20) if n % 2 else changed)
    # The first record tells the family of keys.
    records[0] = toy.example(good[0], 0)
    for split in ("train", "validation"):
        toy.write_split(tmp_path, split, records, shards=3)
    source = imagenet.open_folder(tmp_path, skip_unreadable=True, **SMALL)
    plan = BatchPlan(global_batch=50, train_examples=count)
    _, labels = batches(source, plan, updates=10)
    marked = [(labels[update] == -1).sum() for update in range(10)]
    named = [len(source.unreadable(plan, seed=4, update=update)) for update in range(10)]
    assert marked == named
    assert 100 < sum(marked) < 450
    assert labels.max() < 20 and labels.min() == -1
    _, labels, weights = evaluation(source, 64, workers=2)
    assert weights.sum() == count
    assert (labels[weights == 1] == -1).sum() == len(list(source._find_in_evaluation()))


def mutated(rng, content):
    content = bytearray(content)
    for _ in range(rng.integers(1, 21)):
        at = int(rng.integers(0, len(content)))
        match rng.integers(0, 4):
            case 0:
                content[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                content[at] = int(rng.integers(0, 256))
            case 2:
                del content[at : at + int(rng.integers(1, 5))]
            case 3:
                content[at:at] = rng.bytes(int(rng.integers(1, 5)))
    if rng.random() < 0.2:
        del content[int(rng.integers(0, len(content))) :]
    return bytes(content)


def test_a_negative_epoch_is_refused(folder):
    with pytest.raises(InputError, match="`plain_from_epoch` must be at least 0"):
        imagenet.open_folder(folder, plain_from_epoch=-1)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"the 400 ImageNet pictures are not at {REAL}")
def test_400_real_pictures_keep_their_labels_and_look_like_pillows(tmp_path):
    image_module = pytest.importorskip("PIL.Image", reason="the oracle is Pillow")
    with open(REAL / "images.csv", newline="") as file:
        labels = {row["path"]: int(row["label0"]) for row in csv.DictReader(file)}
    with tarfile.open(REAL / "images.tar") as archive:
        archive.extractall(tmp_path / "pictures", filter="data")
    paths = sorted(labels)
    assert len(paths) == 400
    encoded = [(tmp_path / "pictures" / path).read_bytes() for path in paths]
    records = [
        toy.example(e, labels[p] + 1, convention="image/encoded")
        for e, p in zip(encoded, paths, strict=True)
    ]
    shards = tmp_path / "shards"
    toy.write_split(shards, "train", records, shards=7, convention="image/encoded")
    toy.write_split(shards, "validation", records, shards=1, convention="image/encoded")

    source = imagenet.open_folder(shards)
    images, got, weights = evaluation(source, 64, workers=2)
    assert weights.sum() == 400
    order = np.concatenate([np.arange(0, 64) + 64 * (2 * t + w) for w in (0, 1) for t in range(4)])
    differences = []
    for image, label, weight, place in zip(images, got, weights, order, strict=True):
        if not weight:
            continue
        assert label == labels[paths[place]]
        with image_module.open(tmp_path / "pictures" / paths[place]) as picture:
            wanted = pillow_evaluation_crop(image_module, picture.convert("RGB"))
        differences.append(abs(image.astype(int) - wanted))
    # Both decode with the exact transform; colours and rounding may differ by a level or two.
    assert max(d.mean() for d in differences) < 1.0
    assert np.mean([d.max() <= 3 for d in differences]) > 0.99

    plan = BatchPlan(global_batch=80, train_examples=400)
    images, got = batches(source, plan, updates=5)
    assert sorted(got.ravel()) == sorted(labels.values())
    assert images.shape == (5, 80, 224, 224, 3)


def pillow_evaluation_crop(image_module, picture):
    """Short side 256, centre 224, unfiltered bilinear, as one affine map."""
    short = min(picture.size)
    wide, tall = (256 * side // short for side in picture.size)
    left, top = (wide - 224) // 2, (tall - 224) // 2
    corners = (left / wide, top / tall, (left + 224) / wide, (top + 224) / tall)
    extent = [c * side for c, side in zip(corners, picture.size * 2, strict=True)]
    return np.asarray(
        picture.transform(
            (224, 224),
            image_module.Transform.EXTENT,
            extent,
            resample=image_module.Resampling.BILINEAR,
        ),
        np.int64,
    )


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_evaluation_batches_is_known(tmp_path, workers, skip):
    folder = toy.write_greys(tmp_path / "data", validation=9)
    source = imagenet.open_folder(folder, skip_unreadable=skip, **SMALL)
    # 9 pictures in batches of 2 are 5 batches: 5, 3 or 2 for each of the workers.
    for worker in range(workers):
        batches = source.eval_batches(2, worker=worker, workers=workers)
        assert int(batches.cardinality()) == -(-5 // workers) == len(list(batches))
