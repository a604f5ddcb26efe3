"""Which workers train together and which one this process is, read from the environment.

`resolve` takes the first of these that is there:

    TF_CONFIG       TensorFlow's own: {"cluster": {"worker": ["a:5000", "b:5000"]},
                    "task": {"type": "worker", "index": 0}}
    a SLURM step    what srun sets: SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NODELIST,
                    SLURM_STEP_TASKS_PER_NODE, SLURM_JOB_ID
    an indexed Job  JOB_COMPLETION_INDEX, which Kubernetes sets, with TF_LARGEBATCH_WORKERS (how
                    many) and TF_LARGEBATCH_HOSTS (for example "job-{index}.service:5000")

and answers None where there is none: one process. An empty variable counts as absent. TensorFlow's
own SLURM resolver is not used: it needs `nvidia-smi`, fails without a GPU and rejects node lists
such as r[1-2]n[1-2]. Standard library only.
"""

import dataclasses
import functools
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from tf_largebatch.records.errors import InputError
from tf_largebatch.training.workers.slurm import expand_hosts, expand_tasks

TF_CONFIG = "TF_CONFIG"
COMPLETION_INDEX = "JOB_COMPLETION_INDEX"
WORKERS = "TF_LARGEBATCH_WORKERS"  # indexed Job: how many workers
HOSTS = "TF_LARGEBATCH_HOSTS"  # indexed Job: host:port with {index} in the place of the rank
BASE_PORT = "TF_LARGEBATCH_BASE_PORT"  # SLURM: port of each node's first worker
READY = "TF_LARGEBATCH_READY"  # file that a worker touches once its cluster is up

EXAMPLE = '{"cluster": {"worker": ["a:5000", "b:5000"]}, "task": {"type": "worker", "index": 0}}'

# Below Linux's ephemeral ports (32768 and up), and 16 apart so that jobs with neighbouring
# numbers can share a node: 12000 + 16 * 1250 = 32000.
_FIRST_PORT, _PORTS_PER_JOB, _JOBS = 12_000, 16, 1_250

_LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}")
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of one training job, and which of them this process is; rank 0 is the chief.

    `workers` are addresses by rank, host:port; an IPv6 host stands in brackets.
    """

    workers: tuple[str, ...]
    rank: int

    def __post_init__(self) -> None:
        if not self.workers:
            raise InputError("workers must name at least one host:port. Received: workers=()")
        seen: dict[str, int] = {}
        for rank, address in enumerate(self.workers):
            match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
            if not match or not 1 <= int(match["port"]) <= 65_535:
                raise InputError(
                    "workers must be host:port with a port in 1..65535. Received: "
                    f"{_brief(address)} for worker {rank}. Write it like node1:5000"
                )
            first = seen.setdefault(address.lower(), rank)
            if first != rank:
                raise InputError(
                    f"workers must not repeat an address. Received: {address} for workers {first} "
                    f"and {rank}. Give each worker its own host or port"
                )
        if not 0 <= self.rank < self.size:
            raise InputError(
                f"rank must be in 0..{self.size - 1} for {self.size} workers. Received: "
                f"rank={self.rank}"
            )

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self.workers)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    @property
    def is_local(self) -> bool:
        """Whether all workers are reached through this machine's loopback (IPv4)."""
        hosts = {address.rpartition(":")[0].lower() for address in self.workers}
        return all(host == "localhost" or _LOOPBACK.fullmatch(host) for host in hosts)

    @functools.cached_property
    def _neighbours(self) -> tuple[int, ...]:
        """Ranks on this worker's host, this one included; hosts are compared as written."""
        hosts = [address.rpartition(":")[0].lower() for address in self.workers]
        return tuple(r for r, host in enumerate(hosts) if host == hosts[self.rank])

    @property
    def local_rank(self) -> int:
        """Position among the workers of the same host, from 0."""
        return self._neighbours.index(self.rank)

    @property
    def local_size(self) -> int:
        """Number of workers on the same host."""
        return len(self._neighbours)

    def to_tf_config(self) -> str:
        """Returns the JSON that TensorFlow expects in TF_CONFIG."""
        task = {"type": "worker", "index": self.rank}
        return json.dumps({"cluster": {"worker": list(self.workers)}, "task": task})


def resolve(environ: Mapping[str, str] = os.environ) -> Cluster | None:
    """Returns the cluster that the environment describes, None for a single process.

    A SLURM step of one task is a single process. So is an indexed Job without the two
    TF_LARGEBATCH variables: its pods work alone. InputError: the environment contradicts itself or
    lacks something.
    """
    if environ.get(TF_CONFIG):
        return _from_tf_config(environ[TF_CONFIG])
    if environ.get("SLURM_PROCID"):
        return _from_slurm(environ)
    if environ.get(WORKERS) or environ.get(HOSTS):
        return _from_indexed_job(environ)
    return None


def report_ready(environ: Mapping[str, str] = os.environ) -> None:
    """Tells the launcher that this worker's cluster is up; does nothing without a launcher.

    Example:
        >>> from tf_largebatch import report_ready
        >>> report_ready()  # without a launcher: nothing
    """
    if environ.get(READY):
        Path(environ[READY]).touch()


def require_free_port(cluster: Cluster) -> None:
    """Checks that this worker can listen on its port, and that no other process does."""
    port = int(cluster.workers[cluster.rank].rpartition(":")[2])
    with socket.socket() as probe:
        # As TensorFlow's own server does: a port that just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise InputError(
                f"the port of worker {cluster.rank} must be free. Received: "
                f"{cluster.workers[cluster.rank]} ({error.strerror or error}). End what uses it or "
                f"choose another port (on SLURM: {BASE_PORT})"
            ) from None


def _from_tf_config(text: str) -> Cluster:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"TF_CONFIG must be JSON. Received: TF_CONFIG={_brief(text)} ({error}). "
            f"Write it like {EXAMPLE}"
        ) from None
    for key in ("cluster", "task"):
        if not isinstance(config, dict) or not isinstance(config.get(key), dict):
            raise InputError(
                f'TF_CONFIG must hold an object "{key}". Received: TF_CONFIG={_brief(config)}. '
                f"Write it like {EXAMPLE}"
            )
    jobs, task = config["cluster"], config["task"]
    for job, addresses in jobs.items():
        if job not in ("chief", "worker") or not isinstance(addresses, list):
            raise InputError(
                'TF_CONFIG must hold in "cluster" a list "worker" and at most a list "chief" '
                f"beside it. Received: {_brief({job: addresses})}. Write it like {EXAMPLE}"
            )
    chief, workers = jobs.get("chief", []), jobs.get("worker", [])
    if len(chief) > 1 or not chief + workers:
        raise InputError(
            'TF_CONFIG must name in "cluster" at least one worker, and one chief at most. '
            f"Received: {_brief(jobs)}. Write it like {EXAMPLE}"
        )
    return _cluster(TF_CONFIG, chief + workers, _task_rank(jobs, task))


def _task_rank(jobs: dict, task: dict) -> int:
    """The usual reading: a chief is worker 0, and the workers come after it."""
    job, index = task.get("type"), task.get("index")
    if isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index):
        index = int(index)  # as TensorFlow reads it: manifests fill in text
    group = jobs.get(job, []) if isinstance(job, str) else []
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(group):
        names = [f"{name} 0..{len(group) - 1}" for name, group in jobs.items() if group]
        raise InputError(
            f'TF_CONFIG must name in "task" one of the cluster: {", ".join(names)}. Received: '
            f'{_brief(task)}. Set its "type" and "index"'
        )
    return index + (len(jobs.get("chief", [])) if job == "worker" else 0)


def _from_slurm(environ: Mapping[str, str]) -> Cluster | None:
    size = _whole(environ, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", least=1, default=1)
    if size == 1:
        return None
    if not (environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_STEP_ID")):
        # A batch script's own process: rank 0 by its variables, and nobody will be rank 1.
        raise InputError(
            f"this process must be started by srun to be one of {size} tasks. Received: "
            f"SLURM_NTASKS={size} and no SLURM_STEP_ID. Write srun in front of the command, use "
            "python -m tf_largebatch launch for one machine, or unset SLURM_PROCID to train alone"
        )
    rank = _whole(environ, "SLURM_PROCID")
    name, text = _first(environ, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")
    hosts = expand_hosts(text, name)
    counts_name, text = _first(environ, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    counts = expand_tasks(text, counts_name)
    if len(counts) != len(hosts) or sum(counts) != size:
        raise InputError(
            f"{counts_name} must give {len(hosts)} nodes {size} tasks. Received: {counts_name}="
            f"{text} ({len(counts)} nodes, {sum(counts)} tasks). Start the workers with srun"
        )
    places = [(node, local) for node, count in enumerate(counts) for local in range(count)]
    workers = [f"{hosts[node]}:{_base_port(environ) + local}" for node, local in places]
    cluster = _cluster("SLURM", workers, rank)
    # The addresses are made on the assumption that ranks fill one node after the other.
    layout = environ.get("SLURM_DISTRIBUTION") or "block"
    node = _whole(environ, "SLURM_NODEID", default=places[rank][0])
    local = _whole(environ, "SLURM_LOCALID", default=places[rank][1])
    one_way = len({place[0] for place in places}) in (1, len(places))
    if (node, local) != places[rank] or not (one_way or layout.startswith("block")):
        raise InputError(
            f"tasks must fill one node after the other. Received: task {rank} as number {local} of "
            f"node {node}, SLURM_DISTRIBUTION={layout}. Start with srun --distribution=block"
        )
    return cluster


def _base_port(environ: Mapping[str, str]) -> int:
    if environ.get(BASE_PORT):
        return _whole(environ, BASE_PORT, least=1)
    return _FIRST_PORT + _whole(environ, "SLURM_JOB_ID") % _JOBS * _PORTS_PER_JOB


def _from_indexed_job(environ: Mapping[str, str]) -> Cluster:
    size = _whole(environ, WORKERS, least=1)
    rank = _whole(environ, COMPLETION_INDEX)
    _, pattern = _first(environ, HOSTS)
    if size > 1 and "{index}" not in pattern:
        raise InputError(
            f"{HOSTS} must hold {{index}}. Received: {HOSTS}={_brief(pattern)}. Write it like "
            "job-{index}.service:5000"
        )
    return _cluster(HOSTS, [pattern.replace("{index}", str(i)) for i in range(size)], rank)


def _cluster(source: str, workers: Sequence[str], rank: int) -> Cluster:
    try:
        return Cluster(tuple(workers), rank)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _first(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """Name and value of the first variable that is set."""
    for name in names:
        if environ.get(name):
            return name, environ[name]
    raise InputError(
        f"{' or '.join(names)} must be set. Received: nothing. Set it, or unset its companions to "
        "train alone"
    )


def _whole(environ, *names: str, least: int = 0, default: int | None = None) -> int:
    if default is not None and not any(environ.get(name) for name in names):
        return default
    name, text = _first(environ, *names)
    if not re.fullmatch("[0-9]{1,15}", text) or int(text) < least:
        raise InputError(
            f"{name} must be a whole number of at least {least}. Received: {name}={_brief(text)}"
        )
    return int(text)


def _brief(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 120 else text[:117] + "..."
