"""`job`: each text is a script or a manifest of its machine, for shapes that the recipe allows."""

import json
import os
import re
import subprocess

import pytest
import yaml

from tf_largebatch.__main__ import main, recipe_modules
from tf_largebatch.planning.job import WRITERS
from tf_largebatch.training.workers import cluster


def printed(capsys, *argv):
    with pytest.raises(SystemExit) as end:
        main(["job", *argv])
    assert end.value.code == 0
    return capsys.readouterr().out


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as end:
        main(["job", *argv])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def shell(text, **variables):
    """What a script runs, with `srun` and `python` that print their arguments."""
    run = 'say() { printf "%s\\n" "$@"; }; exec() { say "$@"; }; srun() { say "$@"; };'
    return subprocess.run(
        ["bash", "-c", run + text, "script", "--seeds", "5"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **variables},
    )


@pytest.mark.parametrize("on", WRITERS)
@pytest.mark.parametrize("name", [n for n, m in recipe_modules().items() if not m.RECIPE.missing])
def test_every_recipe_has_a_text_for_every_machine(name, on, capsys):
    text = printed(capsys, name, "--on", on, *(["--gpus", "1"] if on != "tpu" else []))
    recipe = recipe_modules()[name].RECIPE
    assert f"tf_largebatch.recipes.{name}" in text
    assert recipe.row is None or f"--row {recipe.row}" in text.replace('", "', " ")
    if on in ("kubernetes", "kubeflow"):
        for document in yaml.safe_load_all(text):
            # With the number of a worker behind it, DNS takes 63 characters.
            assert re.fullmatch("[a-z]([-a-z0-9]{0,50}[a-z0-9])?", document["metadata"]["name"])
    else:
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_a_script_for_this_machine_runs_the_recipe_as_published(capsys):
    done = shell(printed(capsys, "goyal_8k", "--on", "local"), DATA="/a b")
    assert done.stdout.split("\n")[:-1] == (
        ["python", "-m", "tf_largebatch.recipes.goyal_8k", "--micro-batch", "auto"]
        + ["--data", "/a b", "--run-dir", "runs/goyal_8k", "--seeds", "5"]
    )


def test_workers_on_this_machine_are_started_by_the_launcher(capsys):
    text = printed(capsys, "goyal_8k", "--on", "local", "--workers", "2", "--gpus", "4")
    assert "python -m tf_largebatch launch --workers 2 --gpus-per-worker 4 -- -m" in text
    text = printed(capsys, "goyal_8k", "--on", "local", "--gpus", "4")
    assert "launch" not in text and "--replicas 4" in text
    assert "# An update is 8192 = 4 replicas x 2048, in micro-batches that fit." in text


def test_a_script_without_its_data_says_what_is_missing(capsys):
    done = shell(printed(capsys, "goyal_8k", "--on", "local"))
    assert done.returncode != 0
    assert "DATA: a folder of ImageNet TFRecord shards" in done.stderr


def test_folders_that_are_given_stand_in_the_text(capsys):
    given = ("--data", "gs://bucket/a b", "--run-dir", "/scratch/it's")
    done = shell(printed(capsys, "goyal_8k", "--on", "slurm", *given))
    assert "--data\ngs://bucket/a b\n--run-dir\n/scratch/it's\n" in done.stdout
    for on in ("kubernetes", "kubeflow"):
        *_, document = yaml.safe_load_all(printed(capsys, "goyal_8k", "--on", on, *given))
        assert pod(document)["containers"][0]["command"][-4:] == list(given)


def test_a_slurm_script_asks_for_the_step_that_the_workers_will_find(capsys):
    text = printed(capsys, "goyal_8k", "--on", "slurm", "--workers", "32", "--gpus", "8")
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", text, re.MULTILINE))
    assert asked["gpus-per-node"] == "8"
    nodes, tasks = int(asked["nodes"]), int(asked["ntasks-per-node"])
    # What srun sets in the step that these lines ask for.
    environ = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(nodes * tasks),
        "SLURM_STEP_NODELIST": f"n[1-{nodes}]",
        "SLURM_STEP_TASKS_PER_NODE": f"{tasks}(x{nodes})",
        "SLURM_DISTRIBUTION": asked["distribution"],
        "SLURM_PROCID": "31",
        "SLURM_NODEID": "31",
        "SLURM_LOCALID": "0",
    }
    found = cluster.resolve(environ)
    assert (found.size, found.rank, found.local_size) == (32, 31, 1)
    assert text.index("#SBATCH") < text.index("srun python -m tf_largebatch.recipes.goyal_8k")
    assert "8192 = 256 replicas x 32 micro-batch x 1 accumulation" in text


def pod(document):
    if document["kind"] == "TFJob":
        return document["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]
    return document["spec"]["template"]["spec"]


def test_an_indexed_job_tells_its_pods_their_cluster(capsys):
    text = printed(capsys, "goyal_8k", "--on", "kubernetes", "--workers", "4", "--image", "a/b:1")
    service, job = yaml.safe_load_all(text)
    spec, (container,) = job["spec"], pod(job)["containers"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 4, 4)
    assert service["spec"] == {"clusterIP": "None", "selector": {"job-name": "goyal-8k"}}
    assert service["metadata"]["name"] == pod(job)["subdomain"] == job["metadata"]["name"]
    assert container["image"] == "a/b:1"
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    environ = {one["name"]: one["value"] for one in container["env"]}
    found = cluster.resolve(environ | {"JOB_COMPLETION_INDEX": "3"})
    assert found.rank == 3
    assert found.workers == tuple(f"goyal-8k-{i}.goyal-8k:5000" for i in range(4))
    check_volumes(job)


def test_a_tfjob_has_the_names_that_its_operator_looks_for(capsys):
    (job,) = yaml.safe_load_all(
        printed(capsys, "mlperf", "--on", "kubeflow", "--row", "nvidia-v1.0-3264", "--gpus", "1")
    )
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    (container,) = pod(job)["containers"]
    assert container["name"] == "tensorflow"
    assert job["spec"]["runPolicy"]["cleanPodPolicy"] == "None"
    assert container["command"][:5] == (
        ["python", "-m", "tf_largebatch.recipes.mlperf", "--row", "nvidia-v1.0-3264"]
    )
    check_volumes(job)
    # The addresses that the operator gives: cluster.resolve must read them.
    config = {
        "cluster": {"worker": [f"mlperf-worker-{i}.default.svc:2222" for i in range(2)]},
        "task": {"type": "worker", "index": 1},
        "environment": "cloud",
    }
    assert cluster.resolve({"TF_CONFIG": json.dumps(config)}).rank == 1


def check_volumes(job):
    mounts = {one["name"] for one in pod(job)["containers"][0]["volumeMounts"]}
    assert mounts == {one["name"] for one in pod(job)["volumes"]}


def test_a_tpu_is_driven_by_one_process(capsys):
    text = printed(capsys, "goyal_8k", "--on", "tpu")
    assert '--tpu "${TPU:-local}" --precision bfloat16' in text and "Never run" in text
    for flag in ("--workers", "--gpus"):
        error = refused(capsys, "goyal_8k", "--on", "tpu", flag, "4")
        assert f"Received: --on tpu {flag} 4. Leave them out" in error


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["goyal_8", "--on", "slurm"], "Received: goyal_8. Nearest: goyal_8k"),
        (["goyal_8k", "--on", "slurmy"], "Received: slurmy. Nearest: slurm"),
        (["goyal_8k", "--on", "xyz"], "There are: local, slurm, kubernetes, kubeflow, tpu"),
        (["goyal_8k"], "the following arguments are required: --on"),
        (["goyal_8k", "--on", "slurm", "--row", "a"], "Received: --row a for goyal_8k"),
        (["goyal_sweep", "--on", "slurm", "--row", "8K"], "Received: 8K. Nearest: 8k"),
        (["goyal_8k", "--on", "slurm", "--workers", "0"], "of at least 1. Received: 0"),
        (["goyal_8k", "--on", "slurm", "--workers", "3"], "Nearest that do: --workers 2, --work"),
        (["goyal_8k", "--on", "slurm", "--gpus", "7"], "Nearest that do: --gpus 4, --gpus 8"),
        (["goyal_8k", "--on", "slurm", "--workers", "9999"], "x 8 = 79992 GPUs"),
        (["goyal_8k", "--on", "slurm", "--workers", "3", "--gpus", "7"], "--gpus"),
        (["goyal_8k", "--on", "slurm", "--micro-batch", "48"], "Received: micro_batch=48"),
        (["goyal_8k", "--on", "local", "--gpus", "3"], "3 GPUs"),
    ],
)
def test_what_cannot_be_is_one_line_that_says_which_could(argv, says, capsys):
    assert says in refused(capsys, *argv)


@pytest.mark.parametrize("workers", [3, 9999])
def test_the_nearest_that_are_named_can_be(workers, capsys):
    error = refused(capsys, "goyal_8k", "--on", "slurm", "--workers", str(workers))
    named = re.findall(r"--workers (\d+)", error.partition("Nearest that do:")[2])
    assert named
    for number in named:
        printed(capsys, "goyal_8k", "--on", "slurm", "--workers", number)


def test_a_batch_norm_batch_that_would_change_is_refused(capsys):
    # 8,192 images on 4,096 GPUs are two each: 32 are shared by sixteen; on 8,192 by all of them.
    text = printed(capsys, "goyal_8k", "--on", "slurm", "--workers", "512")
    assert "8192 = 4096 replicas x 2" in text
    assert "batch-norm batch of 32" in refused(
        capsys, "goyal_8k", "--on", "slurm", "--workers", "2", "--micro-batch", "8"
    )
