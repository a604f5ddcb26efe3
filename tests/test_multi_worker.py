"""A recipe on two workers of this machine: the same result as on one, and one line when not."""

import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from test_cli import ROOT, command, curve

pytestmark = pytest.mark.slow

MODULE = "tf_largebatch.recipes.goyal_256"
# 1280 / 32 = 40 updates an epoch, so 20 in all; 16 images a worker, in two ghost batches of 8.
SETTINGS = [
    "--set=global_batch=32",
    "--set=epochs=0.5",
    "--set=schedule.drop_epochs=0.25",
    "--set=scaling=none",
    "--set=reference_rate=0.05",
    "--seed=5",
]


def test_two_workers_train_to_the_weights_of_one_process(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = command("--run-dir", one, *SETTINGS, module=MODULE)
    assert alone.returncode == 0, alone.stderr
    launched = command(
        *["--workers", 2, "--start-timeout", 120, "--run-timeout", 300, "--", "-m", MODULE],
        *["--run-dir", two, *SETTINGS],
        module="tf_largebatch.launch",
    )
    assert launched.returncode == 0, launched.stdout + launched.stderr

    networks = [keras.saving.load_model(folder / "model.keras") for folder in (one, two)]
    for a, b in zip(*(network.get_weights() for network in networks), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(curve(one), curve(two), strict=True):
        assert a["update"] == b["update"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-6)
    assert json.loads((two / "plan.json").read_text())["batch"]["replicas"] == 2


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--set=optimizer.momentum=0.8", "the recipe"),
        ("--seed=12", "--seed must be the same on all workers. Received: 5 on worker 0, 12"),
        ("--precision=float16", "--precision"),
    ],
)
def test_workers_that_would_train_something_else_do_not_start(tmp_path, flag, said):
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    workers = [f"127.0.0.1:{port}" for port in ports]
    processes = []
    for rank, extra in enumerate(([], [flag])):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task), "PYTHONPATH": str(ROOT)}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", MODULE, "--run-dir", tmp_path / "run", *SETTINGS, *extra],
                env=environment,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
        )
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [2, 2]
    assert said in errors[0] and "must be the same on all workers" in errors[0]
    assert "on worker 1" in errors[0]
    assert not (tmp_path / "run").exists()
