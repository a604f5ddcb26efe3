"""A folder of pictures as --data: the same pictures, order and crops as from shards of them."""

import keras
import numpy as np
import pytest
import shards as toy
import tensorflow as tf

from tf_largebatch import run
from tf_largebatch.data import imagenet
from tf_largebatch.recipes.goyal_8k import RECIPE
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.data_spec import ImageNetSpec
from tf_largebatch.records.errors import InputError

SPEC = ImageNetSpec(image_size=32, eval_short_side=40)
CLASSES = ("ant", "bee", "cat")
COUNTS = {"train": 4, "val": 2}  # of each class
SHORT = ["global_batch=4", "model.bn_batch=2", "epochs=2", "schedule.drop_epochs=1"]
SHORT += ["schedule.warmup_epochs=0", "data.image_size=32", "data.eval_short_side=40"]


def write_tree(root):
    """Pictures with detail, and shards of the same in the same order; (tree, shards)."""
    rng, tree = np.random.default_rng(0), root / "tree"
    for split, count in COUNTS.items():
        records = []
        for label, name in enumerate(CLASSES):
            (tree / split / name).mkdir(parents=True)
            for number in range(count):
                detail = rng.integers(0, 256, (9, 11, 3), np.uint8).repeat(4, 0).repeat(4, 1)
                png = (label, number) == (1, 0)  # by its bytes, whatever its name says
                encode = tf.io.encode_png if png else tf.io.encode_jpeg
                encoded = encode(detail).numpy()
                (tree / split / name / f"{number}.JPEG").write_bytes(encoded)
                records.append(toy.example(encoded, label))
        toy.write_split(root / "shards", {"val": "validation"}.get(split, split), records)
    (tree / "train" / "ant" / "notes.txt").touch()
    return tree, root / "shards"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("both"))


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path)[0]


def batches(source, count, **share):
    plan = BatchPlan(global_batch=8, train_examples=12, replicas=2)
    data = source.train_batches(plan, seed=3, **share)
    return list(data.take(count).as_numpy_iterator())


def test_pictures_train_and_evaluate_as_shards_of_them_do(both):
    tree, shards = (imagenet.open_folder(folder, SPEC, classes=3) for folder in both)
    assert (tree.train_examples, tree.eval_examples, tree.classes) == (12, 6, 3)
    ours, theirs = ([*batches(s, 6), *s.eval_batches(4)] for s in (tree, shards))
    for a, b in zip(ours, theirs, strict=True):
        for part, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(part, other)
    # A restart and each of two workers have their part of the same stream.
    for (a, _), (b, _) in zip(batches(tree, 4, first_update=1), ours[2:6], strict=True):
        np.testing.assert_array_equal(a, b)
    for worker in (0, 1):
        mine = batches(tree, 3, worker=worker, workers=2)
        for (a, _), (b, _) in zip(mine, ours[worker:6:2], strict=True):
            np.testing.assert_array_equal(a, b)
    text = tree.describe()
    assert "12 training images in class folders, 6 validation images, 3 classes" in text
    assert "a file each, 1 other files ignored" in text and "files read one by one" in text


def test_a_picture_moved_to_another_class_is_other_data(tree):
    before = imagenet.open_folder(tree, SPEC).fingerprint
    assert imagenet.open_folder(tree, SPEC).fingerprint == before
    (tree / "train" / "ant" / "3.JPEG").rename(tree / "train" / "bee" / "-1.JPEG")
    assert imagenet.open_folder(tree, SPEC).fingerprint != before


def refused(folder, *words):
    with pytest.raises(InputError) as error:
        imagenet.open_folder(folder, SPEC)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), error.value


def test_trees_that_cannot_be_read_are_refused_in_a_line(tree):
    place = tree / "val" / "cat"
    place.rename(tree / "val" / "dog")
    refused(tree, "the validation classes must be among the training classes", "with dog")
    (tree / "val" / "dog").rename(place)
    (tree / "train" / "dog").mkdir()
    refused(tree, "every class must have training pictures", "with none in dog")
    (tree / "train" / "dog").rmdir()
    with pytest.raises(InputError, match="`classes` must be at least the 3 class folders"):
        imagenet.open_folder(tree, SPEC, classes=2)
    for path in [*tree.glob("val/*/*")]:
        path.rename(tree / "val" / f"{path.parent.name}{path.name}")
    for name in CLASSES:
        (tree / "val" / name).rmdir()
    refused(tree, "the validation pictures must lie in class folders", "prepare")
    (tree / "val").rename(tree / "test")
    refused(tree, "must have train/ and one of val/ and validation/", "test, train")


def test_pictures_without_class_folders_are_refused_in_a_line(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.JPEG").touch()
    refused(tmp_path, "has no shards", "of pictures in train/<class>/ and val/<class>/")


def test_a_picture_that_cannot_be_read_is_named_or_counted(tree):
    path = tree / "train" / "cat" / "2.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    source = imagenet.open_folder(tree, SPEC)
    plan = BatchPlan(global_batch=12, train_examples=12)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        next(iter(source.train_batches(plan, seed=0)))
    error = source.explain_failure(caught.value, plan, seed=0, update=0)
    assert str(error).startswith(f"{path} holds an image that does not decode")
    assert str(error).endswith("Replace the picture, or the shard with its record")
    path.unlink()  # after the start
    assert source.unreadable(plan, seed=0, update=0)[0].startswith(f"{path} cannot be read")
    marked = imagenet.open_folder(write_broken(tree, path), SPEC, skip_unreadable=True)
    _, labels = next(iter(marked.train_batches(plan, seed=0)))
    assert sorted(labels.numpy().tolist()) == [-1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]


def write_broken(tree, path):
    path.write_bytes(b"no picture")
    return tree


def test_a_recipe_trains_on_a_tree_and_names_what_differs(tree, tmp_path):
    def make_small(images):
        layers = [keras.Input(images.shape), keras.layers.Rescaling(1 / 255)]
        layers += [keras.layers.Flatten(), keras.layers.Dense(images.classes)]
        return keras.Sequential(layers, name="small")

    result = run(RECIPE, data=tree, model=make_small, run_dir=tmp_path / "run", set=SHORT)
    departures = set(result.departures)
    assert {"classes 1,000 -> 3", "training images 1,281,167 -> 12"} <= departures
    assert len(result.rows[0].runs[0].epochs) == 2
