"""The GPUs of each worker: CUDA_VISIBLE_DEVICES by its place on its host. No framework."""

import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path

from tf_largebatch.records.errors import InputError
from tf_largebatch.training.workers.cluster import Cluster

GPUS = "CUDA_VISIBLE_DEVICES"
GPUS_ASSIGNED = "TF_LARGEBATCH_GPUS_ASSIGNED"  # set where CUDA_VISIBLE_DEVICES is final


def visible_gpus(
    environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")
) -> tuple[str, ...]:
    """Returns what names this process's GPUs in CUDA_VISIBLE_DEVICES, without importing anything.

    That variable, if present, decides; as in CUDA, its list ends at an entry of -1. Otherwise the
    files nvidia0, nvidia1, ... of the folder `devices` are counted.
    """
    if GPUS in environ:
        names = [name.strip() for name in environ[GPUS].split(",")]
        return tuple(itertools.takewhile(lambda n: n not in ("", "-1", "NoDevFiles"), names))
    found = [p for p in devices.glob("nvidia*") if re.fullmatch(r"nvidia[0-9]+", p.name)]
    return tuple(str(i) for i in range(len(found)))


def share_gpus(gpus: tuple[str, ...], workers: int, per_worker: int | None = None) -> list[str]:
    """Returns CUDA_VISIBLE_DEVICES of each of the workers of one host; "-1" hides every GPU.

    None `per_worker`: as many as every worker can have. InputError: fewer GPUs than asked for, or
    fewer than workers but some.
    """
    if per_worker is None:
        if 0 < len(gpus) < workers:
            raise InputError(
                f"{GPUS} must name a GPU for each of the {workers} workers of this host. Received: "
                f"{GPUS}={','.join(gpus)}. Start at most {len(gpus)}, or train on the CPU with "
                f"{GPUS}=-1"
            )
        per_worker = len(gpus) // workers
    if per_worker * workers > len(gpus):
        raise InputError(
            f"GPUs per worker must be at most {len(gpus) // workers}: this host shows {len(gpus)} "
            f"to {workers} workers. Received: {per_worker}"
        )
    shares = [gpus[i * per_worker : (i + 1) * per_worker] for i in range(workers)]
    return [",".join(share) or "-1" for share in shares]


def gpu_for_local_rank(
    cluster: Cluster, environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")
) -> str | None:
    """Returns CUDA_VISIBLE_DEVICES for this worker, None where it needs no change.

    Workers that share a host share out its GPUs by local rank. Nothing changes on a host of one
    worker, without a GPU, or where the worker sees only its own already: a variable of one entry,
    srun's --gpus-per-task, or `tf-largebatch launch`. InputError: GPUs, but fewer than workers.
    """
    if cluster.local_size == 1 or environ.get(GPUS_ASSIGNED):
        return None
    gpus = visible_gpus(environ, devices)
    bound = environ.get("SLURM_GPUS_PER_TASK", "").rpartition(":")[2]
    if not gpus or str(len(gpus)) == bound or (GPUS in environ and len(gpus) == 1):
        return None
    return share_gpus(gpus, cluster.local_size)[cluster.local_rank]
