"""Runs a function of a test module as several worker processes on this machine.

    results = run_workers(train, workers=2, updates=20)     # results[rank] is what it returned

The function must be at the top level of an importable module, and its arguments and result
picklable. Each worker is a fresh process with its own `TF_CONFIG`; whatever happens, none is left.
"""

import importlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
POLL_SECONDS = 0.05


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on; different ones, as all are open at once."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def run_workers(
    function: Callable,
    workers: int = 2,
    *,
    timeout_seconds: float = 180.0,
    environment: dict[str, str] | None = None,
    **arguments,
) -> list:
    """Calls `function(**arguments)` in every worker: their results, in the order of rank.

    Raises:
        RuntimeError: a worker failed (the first one, with the end of what it printed) or did not
            end in time.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        call = {"module": function.__module__, "name": function.__name__, "arguments": arguments}
        (folder / "call").write_bytes(pickle.dumps(call))
        processes = []
        try:
            for rank, task in enumerate(_tasks(workers)):
                processes.append(_start(folder, rank, workers, task, environment or {}))
            _wait(processes, folder, time.monotonic() + timeout_seconds)
        finally:
            for process in processes:
                _kill(process)
        return [pickle.loads((folder / f"result{r}").read_bytes()) for r in range(workers)]


def _tasks(workers: int) -> list[str]:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    return [
        json.dumps(
            {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}},
        )
        for rank in range(workers)
    ]


def _start(
    folder: Path, rank: int, workers: int, task: str, environment: dict[str, str]
) -> subprocess.Popen:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    settings = {
        "TF_CONFIG": task,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **environment,
    }
    with (folder / f"log{rank}").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, __file__, str(folder), str(rank), str(workers)],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its children end with it
        )


def _wait(processes: list[subprocess.Popen], folder: Path, deadline: float) -> None:
    while any(process.poll() is None for process in processes):
        for rank, process in enumerate(processes):
            if process.poll():
                raise RuntimeError(f"worker {rank} failed ({process.returncode}): {_log(folder)}")
        if time.monotonic() > deadline:
            for process in processes:  # each then says where it stands
                if process.poll() is None:
                    process.send_signal(signal.SIGABRT)
            time.sleep(1.0)
            raise RuntimeError(f"the workers did not end in time: {_log(folder)}")
        time.sleep(POLL_SECONDS)
    for rank, process in enumerate(processes):
        if process.returncode:
            raise RuntimeError(f"worker {rank} failed ({process.returncode}): {_log(folder)}")


def _log(folder: Path) -> str:
    logs = sorted(folder.glob("log*"))
    return "\n".join(f"[{p.name}]\n{p.read_text(errors='replace')[-4000:]}" for p in logs)


def _kill(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _work(folder: Path, rank: int, workers: int) -> None:
    call = pickle.loads((folder / "call").read_bytes())
    function = getattr(importlib.import_module(call["module"]), call["name"])
    result = function(**call["arguments"])
    part = folder / f"part{rank}"
    part.write_bytes(pickle.dumps(result))
    part.rename(folder / f"result{rank}")
    # TensorFlow aborts the workers that still run when the first one leaves.
    while len(list(folder.glob("result*"))) < workers:
        time.sleep(POLL_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    _work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
