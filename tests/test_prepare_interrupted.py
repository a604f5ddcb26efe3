"""A killed preparation leaves nothing that looks complete, and continues to the same bytes."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import prepare_sources as fake
import pytest

from tf_largebatch.data.collection import Picture
from tf_largebatch.data.prepare import pool, preparation, shard
from tf_largebatch.data.prepare.shard import Options
from tf_largebatch.data.shards import find_shards
from tf_largebatch.records.errors import InputError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return fake.write_tars(tmp_path_factory.mktemp("interrupted") / "source")


@pytest.fixture(scope="module")
def whole(source):
    """What a run that nobody stops makes."""
    assert fake.prepare(source, "--out", source.parent / "whole", *fake.SMALL) == 0
    return fake.contents(source.parent / "whole")


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


def killed_at(monkeypatch, module, name, call, *, after=False):
    """Ends the process, so to speak, at one call of a function."""
    real, calls = getattr(module, name), []

    def counting(*arguments, **keywords):
        calls.append(1)
        if len(calls) == call and not after:
            raise Killed
        result = real(*arguments, **keywords)
        if len(calls) == call:
            raise Killed
        return result

    monkeypatch.setattr(module, name, counting)


def finished_shards(out):
    return sorted((out / ".partial").glob("*-of-*.json"))


def test_killed_while_shards_are_written_nothing_is_found_and_the_rest_is_made(
    source, whole, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        killed_at(patch, shard, "_finish", 4)
        with pytest.raises(Killed):
            fake.prepare(source, "--out", out, *fake.SMALL)
    assert len(finished_shards(out)) == 3
    with pytest.raises(InputError, match="no shards"):
        find_shards(out)
    before = {path.stem: path.with_suffix("").stat().st_mtime_ns for path in finished_shards(out)}
    written = []
    real = shard._write
    monkeypatch.setattr(shard, "_write", lambda d, s: written.append(s.name) or real(d, s))
    assert fake.prepare(source, "--out", out, *fake.SMALL) == 0
    assert len(written) == 3 and not set(written) & set(before)
    assert fake.contents(out) == whole
    for name, when in before.items():
        assert (out / name).stat().st_mtime_ns == when


@pytest.mark.parametrize("move", range(1, 10))
def test_killed_at_any_move_to_its_place_the_folder_is_refused_or_complete(
    source, whole, tmp_path, monkeypatch, move
):
    # 6 shards, then the label map drafted and moved, then the manifest drafted and moved.
    out = tmp_path / "out"
    real = preparation.Preparation._complete

    def complete(self, manifest):
        killed_at(monkeypatch, preparation.os, "replace", move, after=True)
        real(self, manifest)

    with monkeypatch.context() as patch:
        patch.setattr(preparation.Preparation, "_complete", complete)
        with pytest.raises(Killed):
            fake.prepare(source, "--out", out, *fake.SMALL)
    monkeypatch.undo()
    if move < 6:
        with pytest.raises(InputError, match="missing|no validation"):
            find_shards(out)
    assert not (out / "dataset.json").exists()
    monkeypatch.setattr(shard, "_write", lambda *_: pytest.fail("a shard was made again"))
    assert fake.prepare(source, "--out", out, *fake.SMALL) == 0
    assert fake.contents(out) == whole


def test_a_finished_shard_that_was_damaged_meanwhile_is_made_again(
    source, whole, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        killed_at(patch, shard, "_finish", 4)
        with pytest.raises(Killed):
            fake.prepare(source, "--out", out, *fake.SMALL)
    flipped, cut, _ = (path.with_suffix("") for path in finished_shards(out))
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-1])
    assert fake.prepare(source, "--out", out, *fake.SMALL) == 0
    assert fake.contents(out) == whole


def test_a_complete_folder_is_recognised_and_left_alone(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert fake.prepare(source, "--out", out, *fake.SMALL) == 0
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert fake.prepare(source, "--out", out, *fake.SMALL) == 0
    assert "complete already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_a_complete_folder_that_lost_a_shard_is_an_error(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert fake.prepare(source, "--out", out, *fake.SMALL) == 0
    (out / "train-00001-of-00004").unlink()
    assert fake.prepare(source, "--out", out, *fake.SMALL) == 2
    assert "train-00001-of-00004 must be a file of" in capsys.readouterr().err


@pytest.mark.parametrize("change", [("--quality", "90"), ("--train-shards", "5")])
@pytest.mark.parametrize("complete", [True, False])
def test_a_folder_of_other_options_is_refused(source, tmp_path, monkeypatch, change, complete):
    out = tmp_path / "out"
    if complete:
        assert fake.prepare(source, "--out", out, *fake.SMALL) == 0
    else:
        with monkeypatch.context() as patch:
            killed_at(patch, shard, "_finish", 2)
            with pytest.raises(Killed):
                fake.prepare(source, "--out", out, *fake.SMALL)
    before = fake.contents(out)
    assert fake.prepare(source, "--out", out, *fake.SMALL, *change) == 2
    assert fake.contents(out) == before


def test_two_runs_do_not_work_in_one_folder(source, tmp_path, capsys):
    import fcntl

    (tmp_path / "out" / ".partial").mkdir(parents=True)
    with open(tmp_path / "out" / ".partial" / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert fake.prepare(source, "--out", tmp_path / "out", *fake.SMALL) == 2
    assert "another preparation is at work" in capsys.readouterr().err
    assert fake.prepare(source, "--out", tmp_path / "out", *fake.SMALL) == 0


def start(source, out, *words, code=None):
    """The command as a process of its own."""
    head = ["-c", code] if code else ["-m", "tf_largebatch.data.prepare"]
    command = [sys.executable, *head, source, "--out", out, *fake.SMALL[:-2], *words]
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


SIGNALLED = """
import os, sys
from tf_largebatch.data.prepare import __main__ as command, shard
real = shard._finish
def finish(draft):
    if sum(1 for _ in draft.parent.glob("*-of-*.json")) == 2:
        os.kill(os.getpid(), {number})
    return real(draft)
shard._finish = finish
command.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_the_run_and_the_same_command_completes_it(source, whole, tmp_path, number):
    out = tmp_path / "out"
    code = SIGNALLED.format(number=int(number))
    process = start(source, out, "--processes", "1", code=code)
    _, errors = process.communicate(timeout=120)
    killed = number == signal.SIGKILL
    assert process.returncode == (-number if killed else 128 + number)
    assert killed or errors.splitlines()[-1].startswith("stopped; the same command continues")
    drafts = list((out / ".partial").glob("*.part"))
    assert len(drafts) == (1 if killed else 0)
    with pytest.raises(InputError, match="no shards"):
        find_shards(out)
    assert fake.prepare(source, "--out", out, *fake.SMALL) == 0
    assert fake.contents(out) == whole


@pytest.mark.slow
def test_several_processes_make_the_same_bytes(source, whole, tmp_path):
    process = start(source, tmp_path / "out", "--processes", "3")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert fake.contents(tmp_path / "out") == whole
    assert "30 of 30" not in output and "40 of 40 pictures · 6 of 6 shards" in errors
    # Nothing of TensorFlow's own notes.
    assert "absl" not in errors and "WARNING" not in errors


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(source, tmp_path):
    process = start(source, tmp_path / "out", "--processes", "2")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = []
    while len(workers) < 3:  # two workers and the standard library's resource tracker
        assert process.poll() is None
        workers = children.read_text().split()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    patience = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < patience
        time.sleep(0.1)


def test_spread_work_comes_back_once_per_task():
    assert sorted(pool.spread(abs, range(-9, 0), processes=2)) == list(range(1, 10))
    assert list(pool.spread(abs, [-1, -2], processes=1)) == [1, 2]
    assert list(pool.spread(abs, [], processes=2)) == []


def test_a_killed_worker_is_an_error_and_not_a_wait_for_ever():
    with pytest.raises(InputError, match="ended with status 7"):
        list(pool.spread(os._exit, [7], processes=2))


def test_a_failing_worker_shows_its_traceback():
    with pytest.raises(RuntimeError, match="ValueError"):
        list(pool.spread(math.sqrt, [-1.0], processes=2))


def test_a_full_disk_is_one_line_and_leaves_no_shard(tmp_path):
    source = fake.write_folders(tmp_path / "source")
    picture = next((source / "train" / fake.CLASSES[0]).iterdir())
    task = shard.Shard(
        name="train-00000-of-00001",
        pictures=(Picture(picture.name, fake.CLASSES[0], str(picture), 0, picture.stat().st_size),),
        classes=fake.CLASSES,
        out=tmp_path,
        options=Options(),
    )
    partial = tmp_path / ".partial"
    partial.mkdir()
    # Writing to this device always fails for want of space.
    (partial / f"{task.name}.{os.getpid()}{shard.DRAFT}").symlink_to("/dev/full")
    with pytest.raises(InputError, match="cannot be written.*(?i:space)") as caught:
        shard.make_shard(task)
    assert "\n" not in str(caught.value)
    assert not (partial / task.name).exists()
    assert not (partial / f"{task.name}.json").exists()


def test_the_manifest_says_nothing_about_time_or_place(source, whole):
    text = whole["dataset.json"].decode()
    assert str(source.parent) not in text
    assert set(json.loads(text)) == {
        "form",
        "identity",
        "layout",
        "classes",
        "first_label",
        "options",
        "versions",
        "splits",
    }
