"""A disk that is full at any write: one line, and the same command goes on once there is room."""

import contextlib
import errno
import os
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import curve, make_once
from test_docs_checkpoint import command

from tf_largebatch.training import results, train
from tf_largebatch.training.checkpoint import Checkpoints
from tf_largebatch.training.storage import explain


def mount(folder, kilobytes, *options):
    words = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={kilobytes}k", *options]), "none"]
    return subprocess.run([*words, str(folder)], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own; where none can be made, the test is skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount(folder, 8192):
        pytest.skip("needs leave to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Leaves no byte; returns the ballast."""
    ballast = folder.parent / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return ballast


PLACES = {
    "TensorBoard": (train, "make_watchers"),
    "checkpoint": (Checkpoints, "save"),
    "export": (train, "export"),
    "pages": (results, "_write"),
}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["start", *PLACES])
def test_a_disk_that_is_full_at_any_write_costs_nothing(disk, place, monkeypatch, tmp_path_factory):
    def make(folder):
        done = command(folder / "run")
        assert done.returncode == 0, done.stderr

    ended = make_once(tmp_path_factory, "ended", make) / "run"
    folder = disk / "run"
    if place == "start":
        folder.mkdir()
        fill(folder)
    else:
        where, name = PLACES[place]
        work = getattr(where, name)

        def fill_and_work(*arguments, **options):
            fill(folder)
            return work(*arguments, **options)

        monkeypatch.setattr(where, name, fill_and_work)
    done = command(folder)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert str(folder) in line and os.strerror(errno.ENOSPC) in line, done.stderr
    monkeypatch.undo()
    (disk / "ballast").unlink()
    done = command(folder)
    assert done.returncode == 0, done.stderr
    assert curve(folder) == curve(ended)
    one, other = (keras.saving.load_model(f / "model.keras").get_weights() for f in (folder, ended))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def system(code, name=None):
    return OSError(code, os.strerror(code), name)


@pytest.mark.parametrize(
    "error",
    [
        system(errno.ENOSPC),
        system(errno.EDQUOT, "/somewhere/run/report.html.part"),
        system(errno.EROFS, "/somewhere/run/report.html.part"),
        system(errno.EFBIG),
        tf.errors.ResourceExhaustedError(None, None, "x.v2; No space left on device"),
        tf.errors.UnknownError(None, None, "Flush failed: File too large"),
    ],
)
def test_a_disk_without_room_is_known_by_the_systems_words(tmp_path, error):
    assert "Make room" in str(explain(error, tmp_path))
    assert "\n" not in str(explain(error, tmp_path))


def test_a_folder_that_is_gone_is_named(tmp_path):
    error = system(errno.ENOENT, str(tmp_path / "gone" / "seed.json.part"))
    assert (
        "the run folder" in (text := str(explain(error, tmp_path / "gone"))) and "is gone" in text
    )
    error = tf.errors.NotFoundError(None, None, f"{tmp_path}/gone/train/x; No such file")
    assert "is gone" in str(explain(error, tmp_path / "gone"))


def test_what_has_nothing_to_do_with_the_folder_stays_what_it_is(tmp_path):
    for error in (
        ValueError("No space left on device"),
        system(errno.ENOENT, "/elsewhere/data"),
        tf.errors.InvalidArgumentError(None, None, "shapes differ"),
    ):
        assert explain(error, tmp_path) is None
    error = system(errno.EISDIR, str(tmp_path / "report.html"))
    assert "Repair or remove it" in str(explain(error, tmp_path))
