"""Drawn pictures: readable shards of either family, all or none."""

import numpy as np
import pytest

from tf_largebatch.data import imagenet, synthetic
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.data_spec import ImageNetSpec
from tf_largebatch.records.errors import InputError

SPEC = ImageNetSpec(image_size=32, eval_short_side=32)
SIZES = {"train_examples": 31, "eval_examples": 12, "classes": 6, "image_size": 24, "shards": 3}


@pytest.mark.parametrize("convention", ["image", "image/encoded"])
def test_written_shards_hold_balanced_classes_of_either_family(tmp_path, convention):
    folder = synthetic.write_shards(tmp_path / "s", convention=convention, **SIZES)
    source = imagenet.open_folder(folder, SPEC, classes=6)
    assert (source.train_examples, source.eval_examples) == (31, 12)
    plan = BatchPlan(global_batch=31, train_examples=31)
    _, labels = next(iter(source.train_batches(plan, seed=0)))
    assert np.bincount(labels).tolist() == [6, 5, 5, 5, 5, 5]


def test_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path):
    first, second, other = (
        {
            p.name: p.read_bytes()
            for p in synthetic.write_shards(tmp_path / n, seed=s, **SIZES).iterdir()
        }
        for n, s in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second and first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_classes_can_be_told_apart_by_their_colour():
    # The share of saturated pixels nearest in hue to each class picks the class drawn.
    rng, right = np.random.default_rng(0), 0
    colours = 0.5 + 0.5 * np.cos(2 * np.pi * (np.arange(6)[:, None] / 6 + np.arange(3) / 3))
    for n in range(120):
        picture = synthetic.draw(n % 6, 6, 48, rng) / 255.0
        centred = picture - picture.mean(axis=2, keepdims=True)
        scores = (centred @ (colours - colours.mean(axis=1, keepdims=True)).T).max(axis=(0, 1))
        right += scores.argmax() == n % 6
    assert right >= 60  # chance is 20


@pytest.mark.parametrize(
    "changed",
    [
        {"convention": "webdataset"},
        {"shards": 0},
        {"classes": 1},
        {"image_size": 15},
        {"train_examples": 2},
        {"eval_examples": 2},
        {"seed": -1},
    ],
)
def test_wrong_argument_is_named_and_nothing_is_written(tmp_path, changed):
    ((name, value),) = changed.items()
    with pytest.raises(InputError, match=f"`{name}` must be .*Received: {name}={value!r}"):
        synthetic.write_shards(tmp_path / "s", **{**SIZES, **changed})
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(InputError, match="`folder` must not exist"):
        synthetic.write_shards(tmp_path, **SIZES)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return draw(*arguments)

    draw = synthetic.draw
    monkeypatch.setattr(synthetic, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthetic.write_shards(tmp_path / "s", **SIZES)
    assert list(tmp_path.iterdir()) == []
