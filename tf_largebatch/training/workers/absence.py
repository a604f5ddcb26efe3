"""Workers that are not there: none at the start, or gone later, each named in one line."""

import contextlib
import functools
import re
import socket
import threading
import time
from collections.abc import Callable

from tf_largebatch.records.errors import InputError
from tf_largebatch.training.workers.cluster import Cluster

_GREETING = "tf_largebatch worker"
_RETRY_SECONDS = 0.2
_LINE_BYTES = 256
_BEAT_SECONDS = 1.0  # between the chief's signs of life
_LATE_SECONDS = 2.0  # that one of them may come late


def meet(workers: Cluster, seconds: float) -> list[socket.socket]:
    """Returns once every worker has called this; InputError names those that did not, on each.

    TensorFlow's worker 0 waits for a missing worker without limit, in a call that neither an
    exception nor a signal nor another thread interrupts. So they meet before it: the others greet
    worker 0 on its port, which it answers when the last one has come.

    Returns the open connections, the chief's to all others and theirs to it, for `watch`.
    """
    deadline = time.monotonic() + seconds
    part = _receive if workers.is_chief else _greet
    missing, connections = part(workers, deadline)
    if missing:
        named = ", ".join(f"{rank} ({workers.workers[rank]})" for rank in missing)
        raise InputError(
            f"all {workers.size} workers must start within {seconds:g} s (--join-timeout). "
            f"Missing: worker {named}. Look at its own output, and whether its address can be "
            "reached"
        )
    return connections


def watch(
    workers: Cluster, connections: list[socket.socket], seconds: float, lost: Callable[[str], None]
) -> None:
    """Lets the chief give a sign of life every second, and the others notice that none comes.

    TensorFlow notices a frozen worker within `seconds`, but a frozen chief, which is the one that
    notices, only after several times that. `lost` is called in another thread, with what to say.
    """
    part = functools.partial(_listen, workers, connections[0], seconds, lost)
    if workers.is_chief:
        part = functools.partial(_beat, connections)
    threading.Thread(target=part, daemon=True).start()


def _beat(guests: list[socket.socket]) -> None:
    while guests:
        for guest in list(guests):
            try:
                guest.sendall(b".")
            except OSError:  # it has ended
                guests.remove(guest)
                guest.close()
        time.sleep(_BEAT_SECONDS)


def _listen(workers: Cluster, chief: socket.socket, seconds: float, lost: Callable) -> None:
    chief.settimeout(seconds + _LATE_SECONDS)
    try:
        while chief.recv(_LINE_BYTES):
            pass
    except TimeoutError:
        silent = RuntimeError("/task:0 heartbeat")
        lost(describe_loss(silent, workers, seconds))
    except OSError:  # it has ended, which TensorFlow says
        pass
    chief.close()


def _receive(workers: Cluster, deadline: float) -> tuple[list[int], list[socket.socket]]:
    """The chief's part: the ranks that did not come, and the connections to those that did."""
    port = int(workers.workers[0].rpartition(":")[2])
    came: dict[int, socket.socket] = {}
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1" if workers.is_local else "", port))
        server.listen(workers.size)
        while len(came) < workers.size - 1 and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(TimeoutError):
                guest = server.accept()[0]
                rank = _read_rank(guest, workers.size)
                if rank is None or rank in came:
                    guest.close()
                else:
                    came[rank] = guest
        missing = [rank for rank in range(1, workers.size) if rank not in came]
        for guest in came.values():
            with contextlib.suppress(OSError):
                guest.sendall(f"missing {' '.join(map(str, missing))}\n".encode())
            if missing:
                guest.close()
    return missing, list(came.values())


def _read_rank(guest: socket.socket, size: int) -> int | None:
    """The rank that a guest names; None for a stranger, such as a port scan."""
    guest.settimeout(5.0)
    try:
        text = guest.recv(_LINE_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return None
    match = re.fullmatch(rf"{_GREETING} (\d+)\n", text)
    return int(match[1]) if match and 0 < int(match[1]) < size else None


def _greet(workers: Cluster, deadline: float) -> tuple[list[int], list[socket.socket]]:
    """Another worker's part: the ranks that the chief misses, or the chief's; the connection."""
    host, _, port = workers.workers[0].rpartition(":")
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            # Not there yet, or its name is not known yet.
            chief = stack.enter_context(
                socket.create_connection((host.strip("[]"), int(port)), timeout=left)
            )
            chief.sendall(f"{_GREETING} {workers.rank}\n".encode())
            # A little more than the chief waits, so that its answer names who is missing.
            chief.settimeout(max(deadline - time.monotonic(), 0) + 5.0)
            answer = re.fullmatch(r"missing ?([\d ]*)\n", _read_line(chief))
            if answer:
                missing = [int(rank) for rank in answer[1].split()]
                if not missing:
                    stack.pop_all()
                return missing, [chief]
        time.sleep(_RETRY_SECONDS)
    return [0], []


def _read_line(chief: socket.socket) -> str:
    """Its answer alone: signs of life may follow at once."""
    text = b""
    while len(text) < _LINE_BYTES and not text.endswith(b"\n") and (one := chief.recv(1)):
        text += one
    return text.decode(errors="replace")


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
    return f"{who} {how}; the same command continues from the newest checkpoint that is whole"
