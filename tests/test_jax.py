"""Without TensorFlow, on Keras's JAX backend: `fit` on several devices and in several processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import NO_TENSORFLOW

TESTS = Path(__file__).parent
# What needs tf.distribute.
ON_TENSORFLOW = {"DistributedFit", "measure_speed"}
# Newton-Schulz divides by the size of small directions and so enlarges what was rounded off there.
WEIGHTS_AGREE = {"LARS": 1e-6, "LAMB": 1e-6, "MomentumSGD": 1e-6, "Muon": 1e-5}


def start(folder: Path, *arguments) -> subprocess.Popen:
    (folder / "sitecustomize.py").write_text(NO_TENSORFLOW)
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{folder}:{TESTS.parent}",
    }
    return subprocess.Popen(
        [sys.executable, TESTS / "jax_fit.py", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def answer(process: subprocess.Popen) -> dict:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return answer(start(tmp_path_factory.mktemp("here"), "here"))


def check_equal(got: dict, want: dict) -> None:
    assert set(got) == set(want) == set(WEIGHTS_AGREE)
    for name, limit in WEIGHTS_AGREE.items():
        assert want[name]["loss"][-1] < 0.9 * want[name]["loss"][0]
        np.testing.assert_allclose(got[name]["loss"], want[name]["loss"], rtol=1e-6, err_msg=name)
        weights = np.array(want[name]["weights"])
        far = np.max(np.abs(got[name]["weights"] - weights)) / np.max(np.abs(weights))
        assert far <= limit, (name, far)


@pytest.mark.slow
def test_what_needs_tensorflow_says_so_and_the_rest_is_there(here):
    assert not here["tensorflow"]
    missing = {name: said for name, said in here["names"].items() if said}
    assert "DistributedFit" in missing and set(missing) <= ON_TENSORFLOW
    for name, said in missing.items():
        assert said.startswith(f"{name} needs TensorFlow, which is not installed")


@pytest.mark.slow
def test_four_devices_train_as_one_does(here):
    check_equal(here["four"], here["one"])


@pytest.mark.slow
def test_two_processes_train_as_one_does(here, tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    workers = [start(tmp_path, "worker", rank, port) for rank in range(2)]
    try:
        for worker in workers:
            check_equal(answer(worker), here["one"])
    finally:
        for worker in workers:
            worker.kill()


@pytest.mark.slow
def test_the_page_trains_on_all_devices(here):
    devices, accuracy = here["page"].split(" devices, accuracy ")
    assert devices == "4" and float(accuracy) > 0.85
