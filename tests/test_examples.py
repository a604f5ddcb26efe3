"""The examples: one script trains the same on one process and on the workers of each cluster."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import ROOT

from tf_largebatch.__main__ import main, recipe_modules

EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
NAMESPACES = "unshare --net --uts --mount --pid --fork --kill-child --mount-proc".split()

# kubeflow/training-operator b6d14ed, manifests/base/crds/kubeflow.org_tfjobs.yaml: the properties
# and types of its openAPIV3Schema, read; of the pod template those that are used here.
TFJOB = {
    "enableDynamicWorker": bool,
    "runPolicy": {
        "activeDeadlineSeconds": int,
        "backoffLimit": int,
        "cleanPodPolicy": str,
        "schedulingPolicy": dict,
        "ttlSecondsAfterFinished": int,
    },
    "successPolicy": str,
    "tfReplicaSpecs": {"Worker": {"replicas": int, "restartPolicy": str, "template": dict}},
}


@pytest.fixture(scope="module")
def losses():
    """Of one process."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "train.py"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])["loss"]
    assert len(found) == 4 and found[-1] < 0.5 * found[0]
    return found


def in_slurm(folder: Path, command: str) -> str:
    """What a shell command prints in a SLURM of two nodes."""
    if not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "unshare", "ip"))):
        pytest.skip("SLURM is not installed (slurmctld, slurmd, slurm-client, iproute2)")
    if subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode:
        pytest.skip("network namespaces need root")
    script = ROOT / "tests" / "slurm_cluster.sh"
    python = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    done = subprocess.run(
        [*NAMESPACES, "bash", script, folder, "bash", "-c", command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**ENVIRONMENT, "PATH": python},
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_slurm_trains_on_two_nodes_as_one_process_does(losses, tmp_path):
    out = tmp_path / "out"
    in_slurm(tmp_path, f"sbatch --wait --output={out} examples/slurm.sbatch")
    found = [json.loads(line) for line in out.read_text().splitlines() if line.startswith("{")]
    assert len(found) == 2  # nodes
    for node in found:
        np.testing.assert_allclose(node["loss"], losses, rtol=1e-6)


@pytest.mark.slow
def test_slurm_takes_the_job_of_every_recipe(tmp_path, capsys):
    names = [name for name, module in recipe_modules().items() if not module.RECIPE.missing]
    for name in names:
        with pytest.raises(SystemExit):
            main(["job", name, "--on", "slurm", "--gpus", "1"])
        (tmp_path / f"{name}.sbatch").write_text(capsys.readouterr().out)
    (tmp_path / "wrong.sbatch").write_text("#!/bin/sh\n#SBATCH --gpus-per-node=9\n")
    test = 'sbatch --test-only --partition=large "$job" >/dev/null 2>&1'
    taken = in_slurm(tmp_path, f'for job in {tmp_path}/*.sbatch; do {test} && echo "$job"; done; :')
    assert {Path(line).stem for line in taken.splitlines()} == set(names)


@pytest.mark.slow
def test_ray_trains_with_two_workers_as_one_process_does(losses, tmp_path):
    python = os.environ.get("TF_LARGEBATCH_RAY_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import ray.train"], capture_output=True).returncode:
        pytest.skip(f"ray[train] is not importable by {python}")
    # Its results are below HOME; its workers import TensorFlow while it waits for them.
    waits = {"HOME": str(tmp_path), "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300"}
    done = subprocess.run(
        [python, EXAMPLES / "ray_train.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT | waits,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [found] = [json.loads(x) for x in done.stdout.splitlines() if x.startswith('{"loss"')]
    np.testing.assert_allclose(found["loss"], losses, rtol=1e-6)


def check_fields(given: dict, known: dict, place: str) -> None:
    for name, value in given.items():
        assert name in known, f"{place}.{name}"
        kind = known[name]
        if isinstance(kind, dict):
            check_fields(value, kind, f"{place}.{name}")
        else:
            assert type(value) is kind, f"{place}.{name}: {value!r}"


def job_of(capsys) -> str:
    with pytest.raises(SystemExit):
        main(["job", "goyal_8k", "--on", "kubeflow", "--gpus", "1", "--workers", "2"])
    return capsys.readouterr().out


@pytest.mark.parametrize("which", ["example", "job"])
def test_a_tfjob_has_the_fields_that_the_operator_knows(which, capsys):
    text = (EXAMPLES / "kubeflow_tfjob.yaml").read_text() if which == "example" else job_of(capsys)
    job = yaml.safe_load(text)
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    check_fields(job["spec"], TFJOB, "spec")
    assert job["spec"]["successPolicy"] in ("", "AllWorkers")
    worker = job["spec"]["tfReplicaSpecs"]["Worker"]
    assert worker["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
    [container] = worker["template"]["spec"]["containers"]
    assert container["name"] == "tensorflow"  # the one that is given TF_CONFIG


def test_what_an_example_starts_is_there():
    assert "examples/train.py" in (EXAMPLES / "slurm.sbatch").read_text()
    assert "examples/train.py" in (EXAMPLES / "kubeflow_tfjob.yaml").read_text()
    [imported] = [
        node.module
        for node in ast.walk(ast.parse((EXAMPLES / "ray_train.py").read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "train"
    ]
    assert (EXAMPLES / f"{imported}.py").exists()
    linked = re.findall(r"\]\((\S+?)\)", (EXAMPLES / "README.md").read_text())
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"} == set(
        linked
    )
