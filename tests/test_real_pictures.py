"""The paper's path on real pictures: TFRecords, ResNet-50 at 224 pixels, checkpoint, export."""

import csv
import json
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
import shards
import tensorflow as tf
from commands import run_recipe

PICTURES = Path(__file__).parents[2] / "shared" / "data" / "imagenet_jpeg"
TRAIN, EVALUATION = 48, 21

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (PICTURES / "images.tar").exists(), reason=f"needs the real pictures in {PICTURES}"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """TFRecords of the first pictures, in the family with labels from 1."""
    folder = tmp_path_factory.mktemp("imagenet")
    with (PICTURES / "images.csv").open(newline="") as file:
        labels = {row["path"]: int(row["label0"]) for row in csv.DictReader(file)}
    with tarfile.open(PICTURES / "images.tar") as tar:
        members = [m for m in tar.getmembers() if m.name in labels][: TRAIN + EVALUATION]
        records = [
            shards.example(
                tar.extractfile(m).read(), labels[m.name] + 1, convention="image/encoded"
            )
            for m in members
        ]
    for split, part in (("train", records[:TRAIN]), ("validation", records[TRAIN:])):
        shards.write_split(folder, split, part, shards=3, convention="image/encoded")
    return folder


def test_goyal_8k_trains_evaluates_saves_and_continues_on_real_pictures(folder, tmp_path):
    run = tmp_path / "run"
    changes = {
        "global_batch": 16,
        "model.bn_batch": 8,
        "epochs": 1,
        "schedule.warmup_epochs": 0.5,
        "schedule.drop_epochs": 1,
        "schedule.warmup_start_rate": 0,
    }
    settings = [f"--set={name}={value}" for name, value in changes.items()]
    done = run_recipe("goyal_8k", "--data", folder, "--run-dir", run, *settings)
    assert done.returncode == 0, done.stderr
    assert "modified" in done.stdout

    result = json.loads((run / "result.json").read_text())
    assert result["scale"] == "full"
    assert "training images 1,281,167 -> 48" in result["departures"]
    (epoch,) = result["rows"][0]["runs"][0]["epochs"]
    assert epoch["update"] == 3  # 48 images, 16 an update
    assert epoch["images_seen"] == TRAIN
    assert np.isfinite([epoch["train_loss"], epoch["validation_loss"]]).all()
    assert {"checkpoints", "metrics.csv", "plan.json", "report.html", "curves.png"} <= {
        p.name for p in run.iterdir()
    }
    assert tf.train.latest_checkpoint(run / "checkpoints").endswith("ckpt-3")

    # The exported model takes raw pixels and gives the score that was reported.
    model = keras.models.load_model(run / "model.keras")
    assert model.count_params() == 25_610_152  # 25,557,032 weights and the running statistics
    from tf_largebatch.data import imagenet

    source = imagenet.open_folder(folder)
    wrong = counted = 0.0
    for images, labels, weights in source.eval_batches(8):
        answers = np.argmax(model.predict_on_batch(images), axis=1)
        wrong += float(((answers != labels) * weights).numpy().sum())
        counted += float(weights.numpy().sum())
    assert counted == EVALUATION
    assert 100 * wrong / counted == pytest.approx(epoch["validation_error_pct"], abs=1e-4)


def test_decoding_a_crop_gives_the_pixels_of_the_whole_picture():
    with (PICTURES / "images.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    rng, inner_differences, edge_differences = np.random.default_rng(0), 0, 0
    with tarfile.open(PICTURES / "images.tar") as tar:
        for member in (m for m in tar.getmembers() if m.name in rows):
            encoded = tar.extractfile(member).read()
            whole = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_FAST").numpy()
            height, width = whole.shape[:2]
            assert (height, width) == tuple(int(rows[member.name][k]) for k in ("height", "width"))
            h, w = rng.integers(24, height + 1), rng.integers(24, width + 1)
            top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
            crop = tf.io.decode_and_crop_jpeg(
                encoded, [top, left, h, w], channels=3, dct_method="INTEGER_FAST"
            ).numpy()
            different = (crop != whole[top : top + h, left : left + w]).any(axis=2)
            inner_differences += different[2:-2, 2:-2].sum()
            edge_differences += different.any()
    # Subsampled chroma is interpolated across the cut, so a picture's outermost two may differ.
    assert inner_differences == 0
    assert edge_differences < 0.3 * len(rows)
