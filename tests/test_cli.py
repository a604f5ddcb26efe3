"""The command line as a user meets it, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tf_largebatch.__main__ import load_recipes
from tf_largebatch.training import rows

ROOT = Path(__file__).parents[1]


def command(*arguments, module="tf_largebatch.recipes.goyal_8k", cwd=None, timeout=600):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd or ROOT,
        env=environment,
        timeout=timeout,
    )


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


def test_the_list_of_recipes_is_what_the_package_prints():
    done = command("list", module="tf_largebatch")
    assert done.returncode == 0
    assert "goyal_8k" in done.stdout
    assert "76.26 +- 0.09" in done.stdout


def test_the_plan_shows_a_departure():
    done = command("--plan", "--set", "optimizer.momentum=0.95", "--replicas", 8)
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
        (["--tpu", "local"], "--tpu must name a TPU that this machine reaches"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["--data", "/nonexistent/imagenet"], "/nonexistent/imagenet"),
    ],
)
def test_wrong_flags_are_one_line_and_status_2(arguments, message, tmp_path):
    done = command(*arguments, cwd=tmp_path)
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


def test_a_tpu_is_for_a_single_process(monkeypatch, tmp_path):
    workers = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(workers))
    done = command("--tpu", "local", cwd=tmp_path)
    assert done.returncode == 2
    assert "--tpu must be given to a single process" in done.stderr
    assert "--tpu local on worker 1 of 2" in done.stderr


def test_a_run_folder_of_another_recipe_is_refused_before_tensorflow_starts(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"recipe": "goyal_256"}))
    started = time.monotonic()
    done = command("--run-dir", folder, "--replicas", 1)
    assert done.returncode == 2
    assert 'belongs to another run (recipe: "goyal_256" there' in done.stderr
    assert [p.name for p in folder.iterdir()] == ["run.json"]
    assert time.monotonic() - started < 30


def test_an_unwritable_run_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    done = command("--run-dir", tmp_path / "file" / "run", "--replicas", 1)
    assert done.returncode == 2
    assert "--run-dir must be a folder that can be written to" in done.stderr


FAST = [
    "--set=epochs=1",
    "--set=schedule.drop_epochs=1",
    "--set=schedule.warmup_epochs=0",
    "--set=global_batch=256",
]


@pytest.mark.slow
def test_a_miniature_writes_everything_it_promises_and_is_marked_modified(tmp_path):
    folder = tmp_path / "run"
    done = command("--run-dir", folder, *FAST)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    assert [row["label"] for row in result["rows"]] == [
        "small batch",
        "large, same rate",
        "linear, no warmup",
        "linear, warmup",
        "LARS, warmup",
    ]
    assert "epochs 30 -> 1" in result["departures"]
    assert result["environment"]["versions"]["keras"].startswith("3.")
    assert {"report.html", "curves.png", "rates.png", "rows.csv", "result.json"} <= names(folder)
    for row in result["rows"]:
        (run,) = row["runs"]
        assert {
            "plan.json",
            "metrics.csv",
            "model.keras",
            "checkpoints",
            "train",
            "validation",
        } <= names(folder / run["folder"])
        (epoch,) = run["epochs"]
        assert epoch["update"] == row["updates"] == 5  # 1280 / 256
    assert "modified" in (folder / "report.html").read_text()
    assert not [p for p in folder.rglob("*.part")]
    assert names(tmp_path) == {"run"}  # nothing outside the run folder

    # The same command again trains nothing: every row is there.
    before = (folder / "small-batch" / "seed-0" / "model.keras").stat().st_mtime_ns
    again = command("--run-dir", folder, *FAST)
    assert again.returncode == 0
    assert "continues" in again.stderr
    assert (folder / "small-batch" / "seed-0" / "model.keras").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_smoke_run_walks_the_whole_path_and_continues_from_its_checkpoint(tmp_path):
    folder = tmp_path / "run"
    done = command("--smoke", "--run-dir", folder)
    assert done.returncode == 0, done.stderr
    assert {"result.json", "report.html", "model.keras", "checkpoints", "metrics.csv"} <= names(
        folder
    )
    result = json.loads((folder / "result.json").read_text())
    assert result["scale"] == "smoke"
    (run,) = result["rows"][0]["runs"]
    assert [e["update"] for e in run["epochs"]] == [4, 8]  # 32 images, 8 an update, two epochs
    assert list((folder / "noise").glob("events.*"))  # two micro-batches of 4 in each update


def names(folder):
    return {p.name for p in folder.iterdir()}


@pytest.mark.slow
def test_recomputed_statistics_change_the_evaluation_and_not_the_training(tmp_path):
    module, flags = "tf_largebatch.recipes.goyal_256", ["--set=global_batch=64", "--seed=2"]
    flags += ["--set=epochs=2", "--set=schedule.drop_epochs=1", "--wire=bfloat16", "--pack-mb=1"]
    for name, extra in (("plain", []), ("fresh", ["--set=model.bn_recompute_images=1280"])):
        done = command("--run-dir", tmp_path / name, *flags, *extra, module=module)
        assert done.returncode == 0, done.stderr
    assert "recomputed for evaluation from 1,280 images" in done.stdout
    plain, fresh = curve(tmp_path / "plain"), curve(tmp_path / "fresh")
    for a, b in zip(plain, fresh, strict=True):
        assert a["train_loss"] == b["train_loss"]
        assert a["validation_loss"] != b["validation_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_what_float32_learns(tmp_path, precision):
    module, flags = "tf_largebatch.recipes.goyal_256", ["--set=global_batch=64", "--seed=2"]
    flags += ["--set=epochs=6", "--set=schedule.drop_epochs=4", "--set=reference_rate=0.05"]
    losses = []
    for name in ("float32", precision):
        folder = tmp_path / name
        done = command("--run-dir", folder, "--precision", name, *flags, module=module)
        assert done.returncode == 0, done.stderr
        losses.append([epoch["train_loss"] for epoch in curve(folder)])
    assert losses[0][-1] < 1.2  # from 2.3
    np.testing.assert_allclose(losses[1][1:], losses[0][1:], rtol=0.1, atol=0.02)


SHORT = ["--set=epochs=4", "--set=schedule.drop_epochs=2", "--seed=3"]


@pytest.mark.slow
def test_a_run_that_is_ended_by_sigterm_continues_to_the_same_result(tmp_path):
    module = "tf_largebatch.recipes.goyal_256"
    whole = command("--run-dir", tmp_path / "whole", *SHORT, module=module)
    assert whole.returncode == 0, whole.stderr

    folder = tmp_path / "stopped"
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--run-dir", str(folder), *SHORT],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    _, message = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, message
    assert "SIGTERM: stopped after update" in message
    assert not (folder / "result.json").exists()

    again = command("--run-dir", folder, *SHORT, module=module)
    assert again.returncode == 0, again.stderr
    for name in ("whole", "stopped"):
        assert (tmp_path / name / "result.json").exists()
    assert curve(folder) == curve(tmp_path / "whole")


def curve(folder):
    (row,) = json.loads((folder / "result.json").read_text())["rows"]
    (run,) = row["runs"]
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in run["epochs"]]
