"""Workers that are not there: none at the start, or gone later, each named in one line."""

import contextlib
import re
import socket
import time

from tf_largebatch.records.errors import InputError
from tf_largebatch.training.workers.cluster import Cluster

_GREETING = "tf_largebatch worker"
_RETRY_SECONDS = 0.2
_LINE_BYTES = 256


def meet(workers: Cluster, seconds: float) -> None:
    """Returns once every worker has called this; InputError names those that did not, on each.

    TensorFlow's worker 0 waits for a missing worker without limit, in a call that neither an
    exception nor a signal nor another thread interrupts. So they meet before it: the others greet
    worker 0 on its port, which it answers when the last one has come.
    """
    deadline = time.monotonic() + seconds
    missing = _receive(workers, deadline) if workers.is_chief else _greet(workers, deadline)
    if missing:
        named = ", ".join(f"{rank} ({workers.workers[rank]})" for rank in missing)
        raise InputError(
            f"all {workers.size} workers must start within {seconds:g} s (--join-timeout). "
            f"Missing: worker {named}. Look at its own output, and whether its address can be "
            "reached"
        )


def _receive(workers: Cluster, deadline: float) -> list[int]:
    """The chief's part: returns the ranks that did not come, and tells those that did."""
    port = int(workers.workers[0].rpartition(":")[2])
    came: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack, socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", port))
        server.listen(workers.size)
        while len(came) < workers.size - 1 and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(TimeoutError):
                guest = stack.enter_context(server.accept()[0])
                rank = _read_rank(guest, workers.size)
                if rank is not None:
                    came[rank] = guest
        missing = [rank for rank in range(1, workers.size) if rank not in came]
        for guest in came.values():
            with contextlib.suppress(OSError):
                guest.sendall(f"missing {' '.join(map(str, missing))}\n".encode())
    return missing


def _read_rank(guest: socket.socket, size: int) -> int | None:
    """The rank that a guest names; None for a stranger, such as a port scan."""
    guest.settimeout(5.0)
    try:
        text = guest.recv(_LINE_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return None
    match = re.fullmatch(rf"{_GREETING} (\d+)\n", text)
    return int(match[1]) if match and 0 < int(match[1]) < size else None


def _greet(workers: Cluster, deadline: float) -> list[int]:
    """Another worker's part: returns the ranks that the chief misses, or the chief's."""
    host, _, port = workers.workers[0].rpartition(":")
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError):  # not there yet, or its name is not known yet
            with socket.create_connection((host.strip("[]"), int(port)), timeout=left) as chief:
                chief.sendall(f"{_GREETING} {workers.rank}\n".encode())
                # A little more than the chief waits, so that its answer names who is missing.
                chief.settimeout(max(deadline - time.monotonic(), 0) + 5.0)
                answer = re.fullmatch(r"missing ?([\d ]*)\n", chief.recv(_LINE_BYTES).decode())
                if answer:
                    return [int(rank) for rank in answer[1].split()]
        time.sleep(_RETRY_SECONDS)
    return [0]


def describe_loss(error: Exception, workers: Cluster, seconds: float) -> str:
    """Which worker is gone, as far as the error of a running step says it.

    `seconds` of silence, and TensorFlow gives a worker up.
    """
    text = str(error)
    named = {int(n) for n in re.findall(r"/task:(\d+)", text)} - {workers.rank}
    silent = "heartbeat" in text.lower() or "deadline" in text.lower()
    others = set(range(workers.size)) - {workers.rank}
    if len(others) == 1:
        named = others
    # TensorFlow that names every other worker names none.
    known = named and (len(others) == 1 or named < others)
    who = "worker " + " ".join(map(str, sorted(named))) if known else "another worker"
    how = f"has been silent for {seconds:g} s (--worker-timeout)" if silent else "is gone"
    return f"{who} {how}; the last checkpoint is unharmed, the same command continues from it"
