"""Who is missing at the start, and who is gone later."""

import socket
import threading

import pytest
from workers import free_ports

from tf_largebatch.records.errors import InputError
from tf_largebatch.training.workers.absence import describe_loss, meet
from tf_largebatch.training.workers.cluster import Cluster


def cluster(size):
    return tuple(f"127.0.0.1:{port}" for port in free_ports(size))


def meet_all(workers, ranks, seconds):
    """What each of them got out of it: None, or the error's text."""
    results = {}

    def one(rank):
        try:
            results[rank] = meet(Cluster(workers, rank), seconds)
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
