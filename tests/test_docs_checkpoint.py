"""The tables of docs/checkpoint.md, walked: each file removed, the same command given again."""

import contextlib
import os
import re
import shutil
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from commands import curve, make_once, run_recipe

from tf_largebatch.training.checkpoint import FORMAT, Checkpoints

PAGE = (Path(__file__).parents[1] / "docs" / "checkpoint.md").read_text(encoding="utf-8")
HALF, ENDED = (
    re.findall(r"^\| `([^`]+)` \| .*? \| (.*?) \|$", part, re.MULTILINE)
    for part in re.split(r"^Of a run that .*:$", PAGE, flags=re.MULTILINE)[1:]
)
# 1280 / 128: 10 updates an epoch.
TINY = ["--set=epochs=2", "--set=schedule.drop_epochs=1", "--set=global_batch=128", "--seed=3"]
TINY += ["--checkpoint-updates=4"]


def command(folder):
    return run_recipe("goyal_256", "--run-dir", folder, *TINY)


def newest(folder):
    return max(int(p.stem[5:]) for p in (folder / "checkpoints").glob("ckpt-*.index"))


def files(folder):
    """As the tables name them, without what only this machine and moment decide."""
    found = {p.name for p in folder.iterdir()} | {
        f"checkpoints/{p.name}" for p in (folder / "checkpoints").iterdir()
    }
    last = newest(folder) if "checkpoints" in found else 0
    names = {
        re.sub(r"tfevents\..*", "tfevents.*", n).replace(f"ckpt-{last}.", "ckpt-N.") for n in found
    }
    return {n for n in names if not re.search(r"ckpt-\d", n)}


@pytest.fixture
def ended(tmp_path_factory):
    def make(folder):
        done = command(folder / "run")
        assert done.returncode == 0, done.stderr

    return make_once(tmp_path_factory, "ended", make) / "run"


@pytest.fixture
def half(tmp_path_factory):
    """Stopped in the second of two epochs."""

    def make(folder):
        save = Checkpoints.save

        def save_and_stop(self, progress):
            save(self, progress)
            if progress.update == 12 and not stopped:  # a second signal would end this process
                stopped.append(os.kill(os.getpid(), signal.SIGTERM))

        stopped = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoints, "save", save_and_stop)
            done = command(folder / "run")
        assert done.returncode == 128 + signal.SIGTERM, done.stderr

    return make_once(tmp_path_factory, "half", make) / "run"


def test_the_page_states_the_format_that_is_written():
    assert f"| `format` | {FORMAT} |" in PAGE


@pytest.mark.slow
def test_the_tables_have_every_file_that_is_there(half, ended):
    assert files(half) == {file for file, _ in HALF}
    inside = {"checkpoints/checkpoint"}
    inside |= {f"checkpoints/ckpt-N{end}" for end in (".index", ".data-00000-of-00001")}
    assert files(ended) - inside == {file for file, _ in ENDED}


def walk(folder, file, outcome, ended):
    """Removes the file, gives the command again, and holds the end against the outcome."""
    pattern = file.replace("ckpt-N", f"ckpt-{newest(folder)}")
    (path,) = folder.glob(pattern)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = sorted(folder.rglob("*"))
    done = command(folder)
    assert "Traceback" not in done.stderr
    if outcome.startswith("refused"):
        assert done.returncode == 2 and "--run-dir must be an empty folder" in done.stderr
        assert sorted(folder.rglob("*")) == before
        return
    assert done.returncode == 0, done.stderr
    assert curve(folder) == curve(ended)
    one, other = (keras.saving.load_model(f / "model.keras").get_weights() for f in (folder, ended))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert outcome.startswith(("made again", "not needed"))
    if "ckpt-N" not in file:
        assert bool(list(folder.glob(pattern))) == outcome.startswith("made again")
    said = [line for line in done.stderr.splitlines() if "checkpoint" in line]
    assert len(said) == ("which is said" in outcome), done.stderr
    if "from the one before, which" in outcome:
        assert "continues from update 10" in said[0]
    if "from update 0" in outcome:
        assert "starts again at update 0" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "outcome"), HALF, ids=[file for file, _ in HALF])
def test_a_half_finished_run_without_a_file(half, ended, tmp_path, file, outcome):
    walk(shutil.copytree(half, tmp_path / "run"), file, outcome, ended)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "outcome"), ENDED, ids=[file for file, _ in ENDED])
def test_an_ended_run_without_a_file(ended, tmp_path, file, outcome):
    walk(shutil.copytree(ended, tmp_path / "run"), file, outcome, ended)


@pytest.mark.slow
def test_a_run_folder_that_is_removed_under_a_command_is_one_line(tmp_path, monkeypatch):
    save = Checkpoints.save

    def save_and_remove(self, progress):
        save(self, progress)
        with contextlib.suppress(OSError):
            shutil.rmtree(tmp_path / "run")

    monkeypatch.setattr(Checkpoints, "save", save_and_remove)
    done = command(tmp_path / "run")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"{tmp_path / 'run'}" in done.stderr.splitlines()[-1]
