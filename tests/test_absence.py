"""Who is missing at the start, and who is gone later."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from commands import ROOT
from workers import free_ports

from tf_largebatch.records.errors import InputError
from tf_largebatch.training.workers.absence import describe_loss, meet, watch
from tf_largebatch.training.workers.cluster import Cluster


def cluster(size):
    return tuple(f"127.0.0.1:{port}" for port in free_ports(size))


def meet_all(workers, ranks, seconds):
    """What each of them got out of it: None, or the error's text."""
    results = {}

    def one(rank):
        try:
            for connection in meet(Cluster(workers, rank), seconds):
                connection.close()
            results[rank] = None
        except InputError as error:
            results[rank] = str(error)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_all_go_on_when_the_last_one_has_come():
    assert meet_all(cluster(3), [2, 1, 0], 20) == {0: None, 1: None, 2: None}


@pytest.mark.parametrize(("ranks", "missing"), [([0, 2], 1), ([1, 2], 0), ([0, 1], 2)])
def test_those_that_came_name_the_one_that_did_not(ranks, missing):
    workers = cluster(3)
    results = meet_all(workers, ranks, 1.0)
    for rank in ranks:
        assert f"Missing: worker {missing} ({workers[missing]}). Look" in results[rank]


def test_one_that_is_alone_names_both_that_did_not_come():
    workers = cluster(3)
    text = meet_all(workers, [0], 1.0)[0]
    assert f"Missing: worker 1 ({workers[1]}), 2 ({workers[2]})" in text


def test_strangers_on_the_port_are_no_workers():
    workers = cluster(2)
    results = {}
    thread = threading.Thread(target=lambda: results.update(meet_all(workers, [0], 6.0)))
    thread.start()
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", b"tf_largebatch worker 7\n", b"\xff\xfe"):
        for _ in range(100):
            try:
                port = int(workers[0].rpartition(":")[2])
                with socket.create_connection(("127.0.0.1", port), timeout=1) as stranger:
                    stranger.sendall(greeting)
                break
            except OSError:
                threading.Event().wait(0.05)
    assert meet_all(workers, [1], 6.0) == {1: None}
    thread.join(30)
    assert results == {0: None}


FROZEN = """
import sys, time
from tf_largebatch.training.workers.absence import meet, watch
from tf_largebatch.training.workers.cluster import Cluster
workers = Cluster(tuple(sys.argv[1:]), 0)
watch(workers, meet(workers, 60.0), 2.0, print)
print("together", flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def killed_at_the_end(process):
    """A frozen one would be waited for without end."""
    try:
        yield
    finally:
        process.kill()


def test_a_frozen_chief_is_named_and_one_that_thaws_in_time_is_not():
    workers, said = cluster(2), []
    with (
        subprocess.Popen(
            [sys.executable, "-c", FROZEN, *workers],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as chief,
        killed_at_the_end(chief),
    ):
        me = Cluster(workers, 1)
        watch(me, meet(me, 60.0), 2.0, said.append)
        assert chief.stdout.readline() == "together\n"
        chief.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        chief.send_signal(signal.SIGCONT)
        time.sleep(4.0)
        assert said == []
        chief.send_signal(signal.SIGSTOP)
        frozen = time.monotonic()
        while not said and time.monotonic() - frozen < 20:
            time.sleep(0.05)
        assert time.monotonic() - frozen < 2.0 + 3.0  # --worker-timeout, and what the docs say
    assert said == [
        "worker 0 has been silent for 2 s (--worker-timeout); the same command continues from the "
        "newest checkpoint that is whole"
    ]


def test_a_chief_that_has_ended_is_not_called_silent():
    workers, said, connections = cluster(2), [], {}
    threads = [
        threading.Thread(target=lambda r=r: connections.update({r: meet(Cluster(workers, r), 20)}))
        for r in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    watch(Cluster(workers, 1), connections[1], 0.1, said.append)
    connections[0][0].close()
    time.sleep(3.0)
    assert said == []


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is this machine on Linux alone")
@pytest.mark.parametrize(("other", "reached"), [("127.0.0.1", False), ("10.0.0.1", True)])
def test_a_chief_waits_for_workers_of_its_own_machine_on_loopback_alone(other, reached):
    mine = cluster(1)[0]
    meeting = threading.Thread(target=meet_all, args=((mine, f"{other}:1"), [0], 3.0))
    meeting.start()
    found = {}
    for host in ("127.0.0.1", "127.0.0.2"):
        deadline = time.monotonic() + (2.0 if host == "127.0.0.1" else 0.5)
        while not found.get(host) and time.monotonic() < deadline:
            with socket.socket() as guest:
                found[host] = not guest.connect_ex((host, int(mine.rpartition(":")[2])))
            time.sleep(0.02)
    meeting.join(30)
    assert found == {"127.0.0.1": True, "127.0.0.2": reached}


@pytest.mark.parametrize(
    ("workers", "local"),
    [
        (("127.0.0.1:1", "127.0.0.1:2"), True),
        (("localhost:1", "127.0.0.2:2"), True),
        (("127.0.0.1:1", "10.0.0.1:2"), False),
        (("node1:1", "node2:1"), False),
        (("127.0.0.1.evil.org:1", "127.0.0.1:2"), False),
    ],
)
def test_workers_of_one_machine_meet_on_loopback_alone(workers, local):
    assert Cluster(workers, 0).is_local is local


@pytest.mark.parametrize(
    ("text", "size", "words"),
    [
        ("/job:worker/replica:0/task:1 heartbeat timeout", 3, "worker 1 has been silent for 9 s"),
        ("Connection reset by peer /job:worker/replica:0/task:2", 3, "worker 2 is gone"),
        ("Connection reset by peer", 3, "another worker is gone"),
        ("Connection reset by peer", 2, "worker 1 is gone"),
        ("Deadline Exceeded", 2, "worker 1 has been silent for 9 s (--worker-timeout)"),
    ],
)
def test_a_lost_worker_is_named_as_far_as_the_error_says(text, size, words):
    workers = Cluster(tuple(f"a:{5000 + i}" for i in range(size)), 0)
    assert describe_loss(RuntimeError(text), workers, 9).startswith(words)
