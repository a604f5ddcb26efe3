"""The command line as a user meets it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import ROOT, curve, make_once, run_process, run_recipe

from tf_largebatch.__main__ import load_recipes
from tf_largebatch.training import rows
from tf_largebatch.training.checkpoint import Checkpoints


@pytest.mark.parametrize("arguments", [("--help",), ("--plan",)])
def test_help_and_plan_import_no_framework(arguments):
    # -X importtime names every module that is loaded.
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tf_largebatch.recipes.goyal_8k", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tf_largebatch.training.command" in loaded
    assert not loaded & {"tensorflow", "keras", "numpy", "matplotlib", "rich", "jinja2"}


STOP_AT_TENSORFLOW = """
import os, sys
from tf_largebatch.records.errors import InputError
from tf_largebatch.training import command, session
from tf_largebatch.recipes.goyal_8k import MINIATURE, RECIPE

def stop():
    raise InputError(os.environ.get("TF_NUM_INTRAOP_THREADS", "TensorFlow's own"))

session._load_framework = stop
command.main(RECIPE, MINIATURE, sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("arguments", "given", "threads"),
    [([], None, "1"), ([], "2", "2"), (["--smoke"], None, "TensorFlow's own")],
)
def test_digits_alone_have_one_thread_an_operation(tmp_path, arguments, given, threads):
    environment = {k: v for k, v in os.environ.items() if k != "TF_NUM_INTRAOP_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", STOP_AT_TENSORFLOW, f"--run-dir={tmp_path}", *arguments],
        env=environment | ({"TF_NUM_INTRAOP_THREADS": given} if given else {}),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    (line,) = done.stderr.splitlines()
    assert line.endswith(threads)


def test_a_terminal_is_told_that_tensorflow_starts(tmp_path):
    ours, theirs = os.openpty()
    subprocess.run(
        [sys.executable, "-c", STOP_AT_TENSORFLOW, f"--run-dir={tmp_path}"],
        stderr=theirs,
        cwd=ROOT,
        timeout=60,
    )
    assert os.read(ours, 1000).startswith(b"starts TensorFlow\r\n")
    os.close(ours), os.close(theirs)


def test_the_list_of_recipes_is_what_the_package_prints():
    done = run_process("list", module="tf_largebatch")
    assert done.returncode == 0
    assert "goyal_8k" in done.stdout
    assert "76.26 +- 0.09" in done.stdout


def test_the_plan_shows_a_departure():
    done = run_recipe("goyal_8k", "--plan", "--set=optimizer.momentum=0.95", "--replicas=8")
    assert done.returncode == 0
    assert "8192 = 8 replicas x 32 micro-batch x 32 accumulation" in done.stdout
    assert "modified        optimizer.momentum 0.9 -> 0.95" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "optimizer.momentun=0.9", "--plan"], "Nearest: optimizer.momentum"),
        (["--set", "optimizer.momentum=2", "--plan"], "must be in [0, 1)"),
        (["--set", "epochs", "--plan"], "--set must be field=value. Received: 'epochs'"),
        (["--replicas", "3", "--plan"], "Replica counts that divide it: 2 or 4"),
        (["--micro-batch", "48", "--plan"], "Nearest that do: 32 or 64"),
        (["--seeds", "0"], "argument --seeds: must be a whole number of at least 1. Received: 0"),
        (["--replicas", "x"], "--replicas: must be a whole number of at least 1. Received: x"),
        (["--seed", "-1"], "--seed: must be a whole number in 0..2147483647. Received: -1"),
        (["--precision", "float8"], "invalid choice: 'float8'"),
        (["--wire", "int8"], "invalid choice: 'int8'"),
        (["--micro-batch", "most"], "a whole number of at least 1, or auto. Received: most"),
        (["--checkpoint-updates", "0"], "must be a whole number of at least 1. Received: 0"),
        (["--checkpoint-minutes", "0"], "must be a number above 0. Received: 0"),
        (["--checkpoint-minutes", "nan"], "must be a number above 0. Received: nan"),
        (["--skip-unreadable", "-1"], "must be a whole number of at least 0. Received: -1"),
        (["--tpu", "local", "--precision", "float16"], "float32 or bfloat16 on a TPU"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["--data", "/nonexistent/imagenet"], "/nonexistent/imagenet"),
        (["--smoke", "--data", "x"], "--smoke must stand without --data"),
        (["--skip-unreadable", "2"], "--skip-unreadable must be left out without ImageNet"),
        (["--replica", "2"], "unrecognized arguments: --replica 2. Nearest: --replicas"),
    ],
)
def test_wrong_flags_are_one_line_and_status_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(run_recipe("goyal_8k", *arguments), message, tmp_path)


@pytest.mark.slow  # in a process of its own: TensorFlow connects to the TPU for good
def test_a_tpu_that_is_not_there_is_one_line_and_status_2(tmp_path):
    done = run_process("--tpu", "local", cwd=tmp_path)
    assert_refused(done, "--tpu must name a TPU that this machine reaches", tmp_path)
    assert "(missing: a TensorFlow with TPUs, which is tensorflow-tpu in its place" in done.stderr


def assert_refused(done, message, tmp_path):
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("python -m tf_largebatch.recipes")
    assert not list(tmp_path.rglob("*.json"))  # no run folder is left behind


@pytest.mark.parametrize("recipe", load_recipes(), ids=lambda r: r.label)
def test_every_recipe_can_be_squeezed_into_a_smoke_run(recipe):
    small = rows.make_smoke(recipe)
    assert small.epochs == 2
    phases = small.phases(train_examples=rows.SMOKE_TRAIN_IMAGES)
    assert 4 <= phases[-1].updates_at(small.epochs) <= 8
    assert [len(phases), phases[0].accumulation] == [1 + len(recipe.growth), 2]


def test_a_tpu_is_for_a_single_process(monkeypatch):
    workers = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(workers))
    done = run_recipe("goyal_8k", "--tpu", "local")
    assert done.returncode == 2
    assert "--tpu must be given to a single process" in done.stderr
    assert "--tpu local on worker 1 of 2" in done.stderr


def test_a_run_folder_of_another_recipe_is_refused_before_tensorflow_starts(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"recipe": "goyal_256"}))
    started = time.monotonic()
    done = run_process("--run-dir", folder, "--replicas", 1)
    assert done.returncode == 2
    assert 'belongs to another run (recipe: "goyal_256" there' in done.stderr
    assert [p.name for p in folder.iterdir()] == ["run.json"]
    assert time.monotonic() - started < 30


def test_an_unwritable_run_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    done = run_recipe("goyal_8k", "--run-dir", tmp_path / "file" / "run", "--replicas", 1)
    assert done.returncode == 2
    assert "--run-dir must be a folder that can be written to" in done.stderr


SHORT = ["--set=epochs=4", "--set=schedule.drop_epochs=2", "--seed=3", "--set=global_batch=64"]


@pytest.fixture
def whole(tmp_path_factory):
    """The folder of a run that nothing happens to, and nothing beside it."""

    def make(folder):
        with contextlib.chdir(folder):
            done = run_recipe("goyal_256", "--run-dir", folder / "run", *SHORT)
        assert done.returncode == 0, done.stderr

    return make_once(tmp_path_factory, "whole", make) / "run"


def test_a_miniature_writes_everything_it_promises_and_is_marked_modified(whole):
    assert {"report.html", "curves.png", "rates.png", "rows.csv", "result.json"} <= names(whole)
    assert RUN_FILES <= names(whole)
    result = json.loads((whole / "result.json").read_text())
    assert "epochs 30 -> 4" in result["departures"]
    assert result["environment"]["versions"]["keras"].startswith("3.")
    assert [e["update"] for e in curve(whole)] == [20, 40, 60, 80]  # 1280 / 64 an epoch
    assert "modified" in (whole / "report.html").read_text()
    assert not [p for p in whole.rglob("*.part")]
    assert names(whole.parent) == {"run"}  # nothing outside the run folder


def test_a_finished_command_given_again_trains_nothing(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    before = (folder / "model.keras").stat().st_mtime_ns
    again = run_recipe("goyal_256", "--run-dir", folder, *SHORT)
    assert again.returncode == 0
    assert "continues" in again.stderr
    assert (folder / "model.keras").stat().st_mtime_ns == before
    assert curve(folder) == curve(whole)


FAST = [f"--scale-epochs={1 / 30}"]  # one epoch
RUN_FILES = {"plan.json", "metrics.csv", "model.keras", "checkpoints", "train", "validation"}


@pytest.mark.slow
def test_the_command_of_the_readme_trains_its_five_rows_from_any_folder(tmp_path):
    done = run_process(*FAST, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == {"runs"}
    (folder,) = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert [row["label"] for row in result["rows"]] == [
        "small batch",
        "large, same rate",
        "linear, no warmup",
        "linear, warmup",
        "LARS, warmup",
    ]
    assert {"report.html", "curves.png", "rates.png", "rows.csv", "result.json"} <= names(folder)
    for row in result["rows"]:
        (run,) = row["runs"]
        assert RUN_FILES <= names(folder / run["folder"])
        (epoch,) = run["epochs"]
        assert epoch["update"] == row["updates"] == 1280 / row["recipe"]["global_batch"]


@pytest.mark.slow
def test_a_smoke_run_walks_the_whole_path_and_continues_from_its_checkpoint(tmp_path):
    folder = tmp_path / "run"
    done = run_recipe("goyal_8k", "--smoke", "--run-dir", folder)
    assert done.returncode == 0, done.stderr
    assert {"result.json", "report.html", "model.keras", "checkpoints", "metrics.csv"} <= names(
        folder
    )
    result = json.loads((folder / "result.json").read_text())
    assert result["scale"] == "smoke"
    (run,) = result["rows"][0]["runs"]
    assert [e["update"] for e in run["epochs"]] == [4, 8]  # 32 images, 8 an update, two epochs
    # Two micro-batches of 4 in each update: the page has a chart of the noise, in its layout.
    written = b"".join(path.read_bytes() for path in (folder / "train").glob("events.*"))
    assert b"noise/b_simple" in written


def names(folder):
    return {p.name for p in folder.iterdir()}


@pytest.mark.slow
def test_recomputed_statistics_change_the_evaluation_and_not_the_training(tmp_path):
    flags = ["--set=global_batch=64", "--seed=2", "--set=epochs=2"]
    flags += ["--set=schedule.drop_epochs=1", "--wire=bfloat16", "--pack-mb=1"]
    for name, extra in (("plain", []), ("fresh", ["--set=model.bn_recompute_images=1280"])):
        done = run_recipe("goyal_256", "--run-dir", tmp_path / name, *flags, *extra)
        assert done.returncode == 0, done.stderr
    assert "recomputed for evaluation from 1,280 images" in done.stdout
    plain, fresh = curve(tmp_path / "plain"), curve(tmp_path / "fresh")
    for a, b in zip(plain, fresh, strict=True):
        assert a["train_loss"] == b["train_loss"]
        assert a["validation_loss"] != b["validation_loss"]


@pytest.mark.slow
def test_half_precision_learns_what_float32_learns(tmp_path):
    flags = ["--set=global_batch=64", "--seed=2"]
    flags += ["--set=epochs=6", "--set=schedule.drop_epochs=4", "--set=reference_rate=0.05"]
    losses = {}
    for precision in ("float32", "bfloat16", "float16"):
        folder = tmp_path / precision
        done = run_recipe("goyal_256", "--run-dir", folder, "--precision", precision, *flags)
        assert done.returncode == 0, done.stderr
        losses[precision] = [epoch["train_loss"] for epoch in curve(folder)]
    exact = losses.pop("float32")
    assert exact[-1] < 1.2  # from 2.3
    for rounded in losses.values():
        np.testing.assert_allclose(rounded[1:], exact[1:], rtol=0.1, atol=0.02)


def test_an_update_of_more_than_the_training_set_is_warned_of():
    for batch, words in ((1_281_152, None), (2_562_336, "2.0 passes over the 1,281,167 training")):
        done = run_recipe("goyal_256", "--plan", "--set", f"global_batch={batch}")
        lines = [line for line in done.stdout.splitlines() if line.startswith("warning")]
        assert [f"an update takes {words}" in line for line in lines] == [True] * bool(words)


def test_a_run_that_is_asked_to_stop_continues_to_the_same_result(tmp_path, whole, monkeypatch):
    save, saved = Checkpoints.save, []

    def save_and_stop(self, progress):
        save(self, progress)
        saved.append(progress.update)
        if len(saved) == 1:  # a second signal would end this process
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "save", save_and_stop)
    done = run_recipe("goyal_256", "--run-dir", tmp_path, *SHORT)
    assert done.returncode == 128 + signal.SIGTERM
    assert (
        f"SIGTERM: stopped after update {saved[-1]}; the same command with --run-dir {tmp_path}"
        in done.stderr
    )
    assert not (tmp_path / "result.json").exists()
    stopped = len(saved)
    again = run_recipe("goyal_256", "--run-dir", tmp_path, *SHORT)
    assert again.returncode == 0, again.stderr
    assert "continues" in again.stderr
    # Not from the start again. A stop at an epoch's last update leaves its evaluation to do, after
    # which the same update is saved once more.
    assert min(saved[stopped:]) >= saved[stopped - 1]
    assert curve(tmp_path) == curve(whole)


@pytest.mark.slow
def test_a_process_that_is_ended_by_sigterm_continues_to_the_same_result(
    tmp_path, whole, monkeypatch
):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "0")  # as many as here, where `whole` was trained
    module = "tf_largebatch.recipes.goyal_256"
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--run-dir", str(tmp_path), *SHORT],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    _, message = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, message
    assert "SIGTERM: stopped after update" in message
    assert not (tmp_path / "result.json").exists()

    again = run_process("--run-dir", tmp_path, *SHORT, module=module)
    assert again.returncode == 0, again.stderr
    assert curve(tmp_path) == curve(whole)
