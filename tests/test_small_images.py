"""A recipe on CIFAR-10, Fashion-MNIST or MNIST trains by the way that every recipe does."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from commands import run_recipe

from tf_largebatch.records.plan import Plan
from tf_largebatch.records.recipe import ModelSpec, Recipe, SGDSpec, SmallImagesSpec, StepsSpec
from tf_largebatch.training.build import open_dataset
from tf_largebatch.training.run import Run
from tf_largebatch.training.train import train
from tf_largebatch.training.workers.team import Team

REAL = Path(__file__).parents[2] / "shared" / "data"
EXAMPLES = 60


def make_folder(name, folder):
    """A few pictures in the form that their owners have, real ones where they are at hand."""
    if name == "cifar10":
        rng = np.random.default_rng(0)
        for batch in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
            rows = rng.integers(0, 256, (EXAMPLES // 5, 3073), np.uint8)
            rows[:, 0] %= 10
            (folder / f"{batch}.bin").write_bytes(rows.tobytes())
        return
    for part in ("train", "t10k"):
        images, labels = some_of_mnist(name, part)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
            content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))


def some_of_mnist(name, part):
    if (REAL / name).is_dir():
        from tf_largebatch.data.idx import find_idx, read_idx

        files = (find_idx(REAL / name, f"{part}-{k}-ubyte") for k in ("images-idx3", "labels-idx1"))
        return tuple(read_idx(file)[:EXAMPLES] for file in files)
    images = np.random.default_rng(0).integers(0, 256, (EXAMPLES, 28, 28), np.uint8)
    return images, (np.arange(EXAMPLES) % 10).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("cifar10", "digits_resnet"),
        ("fashion_mnist", "fully_connected"),
        pytest.param("mnist", "digits_resnet", marks=pytest.mark.slow),
    ],
)
def test_a_recipe_on_small_images_trains_and_scores(tmp_path, name, architecture):
    make_folder(name, tmp_path)
    recipe = Recipe(
        name="small",
        title="a few updates",
        paper="none",
        data=SmallImagesSpec(name=name, shift=2, flip=True, mixup_alpha=0.2),
        model=ModelSpec(architecture=architecture),
        global_batch=20,
        epochs=2,
        reference_rate=0.01,
        reference_batch=20,
        optimizer=SGDSpec(momentum=0.9, weight_decay=1e-4),
        schedule=StepsSpec(warmup_epochs=0, drop_epochs=(1,)),
    )
    dataset = open_dataset(recipe.data, tmp_path, epochs=recipe.epochs)
    plan = Plan(
        recipe=recipe,
        phases=recipe.phases(train_examples=dataset.train_examples),
        scale="full",
        data=dataset.describe(),
    )
    (tmp_path / "run").mkdir()
    result = train(
        Run(
            label=name,
            plan=plan,
            dataset=dataset,
            seed=0,
            folder=tmp_path / "run",
            team=Team(1),
        )
    )
    assert result.diverged_at is None
    assert [epoch.update for epoch in result.epochs] == [3, 6]
    last = result.epochs[-1]
    assert math.isfinite(last.train_loss) and 0 <= last.validation_error_pct <= 100
    assert (tmp_path / "run" / "model.keras").is_file()


def test_held_out_images_are_the_last_of_the_training_set_and_not_trained_on(tmp_path):
    make_folder("fashion_mnist", tmp_path)
    images, labels = some_of_mnist("fashion_mnist", "train")
    spec = SmallImagesSpec(name="fashion_mnist", held_out=20)
    dataset = open_dataset(spec, tmp_path, epochs=1)
    assert (dataset.train_examples, dataset.eval_examples) == (EXAMPLES - 20, 20)
    batches = list(dataset.eval_batches(20))
    np.testing.assert_array_equal(batches[0][0][..., 0], images[-20:])
    np.testing.assert_array_equal(batches[0][1], labels[-20:])
    assert dataset.pixel_mean == (pytest.approx(images[:-20].mean()),)


@pytest.mark.parametrize("held_out", [-1, 60_000, 0.5])
def test_no_more_can_be_held_out_than_there_is(held_out):
    with pytest.raises(ValueError, match=r"`data.held_out` must be a whole number in 0..59999"):
        SmallImagesSpec(name="mnist", held_out=held_out)


def test_a_folder_for_a_miniature_on_the_digits_is_refused(tmp_path):
    done = run_recipe("smith_16k", "--miniature-data", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "the miniature of smith_16k is on the digits" in done.stderr


def test_a_folder_without_the_miniatures_images_is_refused(tmp_path):
    done = run_recipe("you_alexnet", "--miniature-data", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "holds no fashion_mnist" in done.stderr
