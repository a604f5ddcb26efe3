"""The texts of `tf-largebatch job`: a script or a manifest for each kind of machine.

All end in the recipe's own command. None but `local` has been run by this project, and each says
so in its head.
"""

import json
import re
import shlex
from dataclasses import dataclass

from tf_largebatch.records.recipe import Recipe

PORT = 5000  # of a worker in its pod
RESTARTS = 100  # of workers that ended because another one did
CHECKPOINT_SECONDS = 120  # before SLURM's end of the time, for the last checkpoint
_DATA = '"${DATA:?a folder of ImageNet TFRecord shards}"'


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to run where."""

    recipe: Recipe
    update: str | None  # how it is spread over the GPUs, in words; None where that is seen at start
    workers: int  # processes, one a node
    gpus: int | None  # of each worker; None takes what is there
    micro_batch: int | str | None  # images per GPU per forward pass, or "auto"; None: the recipe's
    data: str | None  # folder of the images; None leaves it to $DATA, or to /data of a container
    run_dir: str | None  # None leaves it to $RUN_DIR, or to /runs of a container
    image: str  # of the containers

    @property
    def name(self) -> str:
        """A name that DNS and SLURM take: small letters, digits and dashes."""
        return re.sub("[^a-z0-9]+", "-", f"{self.recipe.name}-{self.recipe.row or ''}").strip("-")

    @property
    def head(self) -> str:
        """Which recipe, and how it is split."""
        split = "" if self.update is None else f"\n# An update is {self.update}."
        return f"# {self.recipe.label}: {self.recipe.title}.{split}"

    @property
    def module(self) -> list[str]:
        """The recipe's module and its flags, as words of a command."""
        words = ["-m", f"tf_largebatch.recipes.{self.recipe.name}"]
        if self.recipe.row is not None:
            words += ["--row", self.recipe.row]
        if self.micro_batch is not None:
            words += ["--micro-batch", str(self.micro_batch)]
        return words

    def shell(self, run_dir: str) -> str:
        """The same as a line of a script, with data and run folder."""
        data = _DATA if self.data is None else shlex.quote(self.data)
        folder = run_dir if self.run_dir is None else shlex.quote(self.run_dir)
        return f"{shlex.join(self.module)} \\\n  --data {data} \\\n  --run-dir {folder}"


def local(job: Job) -> str:
    """A script for the GPUs of one machine; several workers are started by the launcher."""
    folder = f'"${{RUN_DIR:-runs/{job.recipe.name}}}"'
    start, end = "python", ""
    if job.workers > 1:
        share = "" if job.gpus is None else f" --gpus-per-worker {job.gpus}"
        start = f"python -m tf_largebatch launch --workers {job.workers}{share} --"
    elif job.gpus is not None:
        end = f" --replicas {job.gpus}"
    return f"""#!/usr/bin/env bash
{job.head}
# DATA=... bash THIS_FILE; the same command again continues the run.
set -euo pipefail
exec {start} {job.shell(folder)}{end} "$@"
"""


def slurm(job: Job) -> str:
    """A batch script of one worker a node."""
    return f"""#!/usr/bin/env bash
#SBATCH --job-name={job.name}
#SBATCH --nodes={job.workers}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={job.gpus}
#SBATCH --distribution=block
#SBATCH --signal=TERM@{CHECKPOINT_SECONDS}
{job.head}
# Not run on a cluster by this project. Partition, account and time are your cluster's own:
# DATA=... RUN_DIR=... sbatch --time=... THIS_FILE; the same command again continues the run.
set -euo pipefail
srun python {job.shell('"${RUN_DIR:?a folder that all nodes share}"')} "$@"
"""


def kubernetes(job: Job) -> str:
    """An indexed Job, with a headless service that gives its pods their names."""
    cluster = f"""\
    env:
      - {{name: TF_LARGEBATCH_WORKERS, value: "{job.workers}"}}
      - {{name: TF_LARGEBATCH_HOSTS, value: "{job.name}-{{index}}.{job.name}:{PORT}"}}
"""
    return f"""{job.head}
# Not run on a cluster by this project. Set the image, and the claims "imagenet" and "runs".
apiVersion: v1
kind: Service
metadata: {{name: {job.name}}}
spec:
  clusterIP: None
  selector: {{job-name: {job.name}}}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: {job.name}}}
spec:
  completionMode: Indexed
  completions: {job.workers}
  parallelism: {job.workers}
  backoffLimit: {RESTARTS}
  template:
    spec:
      subdomain: {job.name}
      restartPolicy: OnFailure
{_pod(job, "worker", cluster, indent=6)}"""


def kubeflow(job: Job) -> str:
    """A TFJob of the Training Operator, which tells each worker its cluster in TF_CONFIG."""
    return f"""{job.head}
# A TFJob of the Kubeflow Training Operator v1 (kubeflow.org/v1). Not run on a cluster by this
# project. Set the image, and the claims "imagenet" and "runs".
apiVersion: kubeflow.org/v1
kind: TFJob
metadata: {{name: {job.name}}}
spec:
  successPolicy: AllWorkers
  runPolicy:
    backoffLimit: {RESTARTS}
    cleanPodPolicy: None
  tfReplicaSpecs:
    Worker:
      replicas: {job.workers}
      restartPolicy: OnFailure
      template:
        spec:
{_pod(job, "tensorflow", "", indent=10)}"""


def tpu(job: Job) -> str:
    """A script for a TPU machine."""
    folder = f'"${{RUN_DIR:-runs/{job.recipe.name}}}"'
    return f"""#!/usr/bin/env bash
{job.head}
# DATA=gs://... TPU=local bash THIS_FILE
# Never run: the step compiles under XLA with static shapes, which is all that was tested.
set -euo pipefail
exec python {job.shell(folder)} \\
  --tpu "${{TPU:-local}}" --precision bfloat16 "$@"
"""


def _pod(job: Job, container: str, environment: str, *, indent: int) -> str:
    """Container and volumes of a worker; NCCL shares memory between the GPUs of one."""
    words = ["python", *job.module, "--data", job.data or "/data"]
    words += ["--run-dir", job.run_dir or f"/runs/{job.recipe.name}"]
    text = f"""\
containers:
  - name: {container}
    image: {json.dumps(job.image)}
    command: {json.dumps(words)}
{environment}    resources:
      limits: {{nvidia.com/gpu: {job.gpus}}}
    volumeMounts:
      - {{name: data, mountPath: /data, readOnly: true}}
      - {{name: runs, mountPath: /runs}}
      - {{name: shared-memory, mountPath: /dev/shm}}
volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: imagenet}}}}
  - {{name: runs, persistentVolumeClaim: {{claimName: runs}}}}
  - {{name: shared-memory, emptyDir: {{medium: Memory}}}}
"""
    return "".join(" " * indent + line for line in text.splitlines(keepends=True))
