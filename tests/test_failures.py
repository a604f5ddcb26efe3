"""Runs that are killed, frozen, alone or out of disk: one line, and nothing trained is lost."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from commands import ROOT, curve, make_once, run_process, run_recipe
from workers import free_ports

pytestmark = pytest.mark.slow

MODULE = "tf_largebatch.recipes.goyal_256"
# 1280 / 32 = 40 updates an epoch; ghost batches of 8, so 16 images a worker are two of them.
SETTINGS = [
    "--set=global_batch=32",
    "--set=epochs=3",
    "--set=schedule.drop_epochs=2",
    "--set=scaling=none",
    "--set=reference_rate=0.05",
    # With gammas of 1 the roundings of another split grow by 1e5 in 120 updates.
    "--set=model.last_gamma=0",
    "--seed=5",
    "--checkpoint-updates=15",
]
LAUNCH = ["--workers", "2", "--start-timeout", "120", "--run-timeout", "400", "--grace", "10"]


def start(*arguments, environment=None):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process, timeout=200):
    """What it printed and its status; it and its children are gone afterwards."""
    try:
        text, _ = process.communicate(timeout=timeout)
        return process.returncode, text
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def wait_for(condition, seconds=150):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def checkpoints(folder):
    return sorted((folder / "checkpoints").glob("ckpt-*.index"))


def worker_processes(launcher):
    """The workers by rank, as the kernel sees them."""
    ranks = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"\nPPid:\t{launcher.pid}\n" not in (process / "status").read_text():
                continue
            environment = (process / "environ").read_text().split("\0")
        except OSError:  # it has just ended
            continue
        settings = [e for e in environment if e.startswith("TF_CONFIG=")]
        if settings:
            ranks[json.loads(settings[0].partition("=")[2])["task"]["index"]] = int(process.name)
    return ranks


def weights(folder):
    return keras.saving.load_model(folder / "model.keras").get_weights()


@pytest.fixture
def undisturbed(tmp_path_factory):
    """The run on two workers that nothing happens to."""

    def make(folder):
        run = ["-m", MODULE, "--run-dir", folder / "run", *SETTINGS]
        done = run_process(*LAUNCH, "--", *run, module="tf_largebatch.launch")
        assert done.returncode == 0, done.stdout + done.stderr

    return make_once(tmp_path_factory, "undisturbed", make) / "run"


def test_two_workers_train_to_the_weights_of_one_process(undisturbed, tmp_path):
    alone = run_recipe("goyal_256", "--run-dir", tmp_path, *SETTINGS)
    assert alone.returncode == 0, alone.stderr
    for a, b in zip(weights(tmp_path), weights(undisturbed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(curve(tmp_path), curve(undisturbed), strict=True):
        assert a["update"] == b["update"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-6)
    assert json.loads((undisturbed / "plan.json").read_text())["batch"]["replicas"] == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_is_restarted_and_the_result_is_the_same_bit_for_bit(
    rank, undisturbed, tmp_path
):
    folder = tmp_path / "run"
    process = start(
        *["-m", "tf_largebatch.launch", *LAUNCH, "--restarts", "1", "--", "-m", MODULE],
        *["--run-dir", folder, *SETTINGS],
    )
    wait_for(lambda: checkpoints(folder))
    os.kill(worker_processes(process)[rank], signal.SIGKILL)
    status, text = end(process)
    assert status == 0, text
    assert f"rank {rank} was ended by SIGKILL" in text
    assert "restart 1 of 1" in text
    assert curve(folder) == curve(undisturbed)
    for a, b in zip(weights(folder), weights(undisturbed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_of_two_workers_continues_on_one_process(undisturbed, tmp_path):
    folder = tmp_path / "run"
    process = start(
        "-m", "tf_largebatch.launch", *LAUNCH, "--", "-m", MODULE, "--run-dir", folder, *SETTINGS
    )
    wait_for(lambda: checkpoints(folder))
    process.terminate()
    status, text = end(process)
    assert status == 128 + signal.SIGTERM, text
    assert "stopped after update" in text
    again = run_recipe("goyal_256", "--run-dir", folder, *SETTINGS)
    assert again.returncode == 0, again.stderr
    assert "continues" in again.stderr
    for a, b in zip(weights(folder), weights(undisturbed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_frozen_worker_is_named_within_the_configured_time(tmp_path, rank):
    folder = tmp_path / "run"
    process = start(
        *["-m", "tf_largebatch.launch", *LAUNCH, "--", "-m", MODULE],
        *["--run-dir", folder, *SETTINGS, "--worker-timeout", "4", "--set=epochs=30"],
    )
    wait_for(lambda: checkpoints(folder))
    os.kill(worker_processes(process)[rank], signal.SIGSTOP)
    frozen = time.monotonic()
    status, text = end(process)
    assert time.monotonic() - frozen < 60
    assert status == 4, text
    assert f"worker {rank} has been silent for 4 s (--worker-timeout)" in text
    assert "Traceback" not in text
    assert checkpoints(folder)


def test_a_full_disk_at_a_checkpoint_leaves_the_one_before_it(tmp_path):
    folder = tmp_path / "run"
    process = start("-m", MODULE, "--run-dir", folder, *SETTINGS, "--set=epochs=30")
    wait_for(lambda: checkpoints(folder))
    # From now on no file may grow beyond 100 kB, less than a checkpoint: as if the disk were full.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    status, text = end(process)
    assert status == 2, text
    assert "could not be written" in text and "Make room" in text
    assert "Traceback" not in text
    left = checkpoints(folder)
    assert left
    again = start("-m", MODULE, "--run-dir", folder, *SETTINGS, "--set=epochs=30")
    wait_for(lambda: checkpoints(folder)[-1].stem != left[-1].stem)
    again.terminate()
    status, text = end(again)
    assert status == 128 + signal.SIGTERM, text
    assert "continues" in text
    assert "cannot be restored" not in text


def test_a_loss_that_is_not_finite_ends_all_workers_with_status_3(tmp_path):
    done = run_process(
        *[*LAUNCH, "--", "-m", MODULE, "--run-dir", tmp_path / "run", *SETTINGS],
        "--set=reference_rate=1e30",
        module="tf_largebatch.launch",
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (note,) = (tmp_path / "run").rglob("diverged.txt")
    assert "is not finite" in note.read_text()


def test_workers_that_do_not_divide_the_batch_are_told_which_would(tmp_path):
    done = run_process(
        *["--workers", "3", *LAUNCH[2:], "--", "-m", MODULE],
        *["--run-dir", tmp_path / "run", *SETTINGS],
        module="tf_largebatch.launch",
    )
    assert done.returncode == 2
    assert "Replica counts that divide it: 2 or 4" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_worker_is_named_by_all_that_came(tmp_path):
    workers = [f"127.0.0.1:{port}" for port in free_ports(3)]
    processes = []
    for rank in (0, 2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
        processes.append(
            start(
                *["-m", MODULE, "--run-dir", tmp_path / "run", *SETTINGS, "--join-timeout", "8"],
                environment={"TF_CONFIG": json.dumps(task)},
            )
        )
    for status, text in [end(process, timeout=100) for process in processes]:
        assert status == 2, text
        assert f"Missing: worker 1 ({workers[1]}). Look" in text
        assert "within 8 s (--join-timeout)" in text
        assert "Traceback" not in text
    assert not (tmp_path / "run").exists()


def pair(tmp_path, *, arguments=([], []), environment=None):
    """Two workers without a launcher; the status and text of each."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for rank, extra in enumerate(arguments):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
        processes.append(
            start(
                *["-m", MODULE, "--run-dir", tmp_path / "run", "--join-timeout", "60", *extra],
                environment={"TF_CONFIG": json.dumps(task)},
            )
        )
    return [end(process, timeout=120) for process in processes]


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--set=optimizer.momentum=0.8", "the recipe"),
        ("--seed=12", "--seed must be the same on all workers. Received: 5 on worker 0, 12"),
        ("--precision=float16", "--precision"),
    ],
)
def test_workers_that_would_train_something_else_do_not_start(tmp_path, flag, said):
    (status0, text0), (status1, _) = pair(tmp_path, arguments=(SETTINGS, [*SETTINGS, flag]))
    assert (status0, status1) == (2, 2), text0
    assert said in text0 and "must be the same on all workers" in text0
    assert "on worker 1" in text0
    assert not (tmp_path / "run").exists()


def test_a_data_folder_that_one_worker_lacks_is_named_by_the_chief(tmp_path):
    from tf_largebatch.data import synthetic

    synthetic.write_shards(tmp_path / "images", train_examples=64, eval_examples=8)
    common = ["--set=global_batch=64", "--set=epochs=90", "--micro-batch=32"]
    (status0, text0), (status1, _) = pair(
        tmp_path,
        arguments=(
            [*common, "--data", tmp_path / "images"],
            [*common, "--data", tmp_path / "elsewhere"],
        ),
    )
    assert (status0, status1) == (2, 2), text0
    assert "worker 1: " in text0
    assert "elsewhere" in text0
    assert not (tmp_path / "run").exists()


def test_a_port_in_use_is_named(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        workers = [f"127.0.0.1:{port}", f"127.0.0.1:{free_ports(1)[0]}"]
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(task))
        done = run_recipe("goyal_256", "--run-dir", tmp_path / "run", *SETTINGS)
    assert done.returncode == 2, done.stderr
    assert f"the port of worker 0 must be free. Received: 127.0.0.1:{port}" in done.stderr
    assert not (tmp_path / "run").exists()
