"""Damaged data ends a run with one line that names file and record, and status 2."""

import csv

import pytest
import shards
from commands import run_recipe

SMALL = [
    "--set=model.architecture=digits_resnet",  # compiles in a quarter of the time
    "--set=global_batch=4",
    "--set=model.bn_batch=4",
    "--set=data.image_size=32",
    "--set=data.eval_short_side=36",
    "--set=epochs=2",
    "--set=schedule.warmup_epochs=0",
    "--set=schedule.drop_epochs=2",
]


def good(count):
    return [shards.example(shards.flat_jpeg(2 * n), n) for n in range(count)]


def run(folder, tmp_path, *flags):
    done = run_recipe("goyal_8k", "--data", folder, "--run-dir", tmp_path / "run", *SMALL, *flags)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_a_truncated_shard_is_named_before_training(tmp_path):
    folder = tmp_path / "data"
    (path,) = shards.write_split(folder, "train", good(8))
    shards.write_split(folder, "validation", good(4))
    path.write_bytes(path.read_bytes()[:-7])
    assert path.name in run(folder, tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_other_files_is_refused_with_what_was_found(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"x")
    assert str(folder) in run(folder, tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_picture_that_does_not_decode_is_named_during_training(tmp_path, split):
    folder = tmp_path / "data"
    broken = shards.flat_jpeg(100)[:200] + b"\0" * 100  # the header is whole, the picture is not
    for name, count in (("train", 8), ("validation", 6)):
        records = good(count)
        if name == split:
            records[5] = shards.example(broken, 5)
        shards.write_split(folder, name, records)
    line = run(folder, tmp_path)
    assert f"imagenet2012-{split}.tfrecord-00000-of-00001" in line
    assert "record 5" in line
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_a_label_out_of_range_is_named_with_its_value(tmp_path):
    folder = tmp_path / "data"
    records = good(8)
    records[3] = shards.example(shards.flat_jpeg(9), 1000)
    shards.write_split(folder, "train", records)
    shards.write_split(folder, "validation", good(4))
    line = run(folder, tmp_path)
    assert "record 3" in line
    assert "1000" in line


@pytest.mark.slow
def test_pictures_that_cannot_be_read_are_skipped_counted_and_named_up_to_a_limit(tmp_path):
    folder = tmp_path / "data"
    broken = shards.flat_jpeg(100)[:200] + b"\0" * 100
    train, validation = good(8), good(4)
    for number in (2, 5):
        train[number] = shards.example(broken, number)
    validation[1] = shards.example(broken, 1)
    shards.write_split(folder, "train", train)
    shards.write_split(folder, "validation", validation)

    flags = ["--data", folder, "--run-dir", tmp_path / "run", *SMALL, "--skip-unreadable=2"]
    done = run_recipe("goyal_8k", *flags)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "metrics.csv").open() as file:
        epochs = list(csv.DictReader(file))
    assert [(e["unread"], e["validation_unread"]) for e in epochs] == [("2", "1")] * 2
    reports = [line for line in done.stderr.splitlines() if "could not be read" in line]
    assert len(reports) == 2
    for report in reports:
        assert "2 training images could not be read and were skipped, 1 validation image" in report
        assert "record 2" in report and "record 5" in report

    line = run(folder, tmp_path / "other", "--skip-unreadable=1")
    assert "2 training images of this epoch could not be read" in line
    assert "more than --skip-unreadable 1 allows" in line
    assert "record 2" in line and "record 5" in line
