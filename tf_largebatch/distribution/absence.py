"""Workers that are not there: none at the start, or gone later, each named in one line."""

import os
import re
import socket
import sys
import threading

from tf_largebatch.cluster import Cluster

NOT_THERE = 2  # exit status of a worker whose peers never came
_PROBE_SECONDS = 2.0


class JoinLimit:
    """Ends this process with one line if the other workers are not there in time.

    TensorFlow's worker 0 waits for a missing worker without limit, in a call that neither an
    exception nor a signal interrupts; hence the thread and the hard exit. Nothing is trained yet.

    Args:
        workers: whom to wait for.
        seconds: how long.
    """

    def __init__(self, workers: Cluster, seconds: float):
        self._workers, self._seconds = workers, seconds
        self._there = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def __exit__(self, *error: object) -> None:
        self._there.set()

    def _watch(self) -> None:
        if self._there.wait(self._seconds):
            return
        line = describe_missing(self._workers, self._seconds)
        print(line, file=sys.stderr, flush=True)
        os._exit(NOT_THERE)


def describe_missing(workers: Cluster, seconds: float) -> str:
    """Returns which workers do not answer on their port, after `seconds` of waiting."""
    others = [(r, a) for r, a in enumerate(workers.workers) if r != workers.rank]
    missing = [f"{rank} ({address})" for rank, address in others if not _listens(address)]
    who = ", ".join(missing) or "an unknown one of " + ", ".join(str(rank) for rank, _ in others)
    return (
        f"all {workers.size} workers must start within {seconds:g} s (--join-timeout). Missing: "
        f"worker {who}. Look at its own output, and whether its address can be reached"
    )


def describe_loss(error: Exception, workers: Cluster, seconds: float) -> str:
    """Returns which worker is gone, as far as TensorFlow's error says it.

    Args:
        error: what a running step raised.
        workers: of this run.
        seconds: of silence after which TensorFlow gives a worker up.
    """
    text = str(error)
    named = {int(n) for n in re.findall(r"/task:(\d+)", text)} - {workers.rank}
    silent = "heartbeat" in text.lower() or "deadline" in text.lower()
    ranks = sorted(named) if 0 < len(named) < workers.size - 1 or workers.size == 2 else []
    if not ranks and workers.size == 2:
        ranks = [1 - workers.rank]
    who = "worker " + " ".join(map(str, ranks)) if ranks else "another worker"
    how = f"has been silent for {seconds:g} s (--worker-timeout)" if silent else "is gone"
    return f"{who} {how}; the last checkpoint is unharmed, the same command continues from it"


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False
