"""Signals while TensorFlow computes and Python's handlers wait."""

import os
import signal
import subprocess
import sys
import time

import pytest
from commands import ROOT

# A C function that gives Python's lock up and takes no notice of signals, as an update does.
PROGRAM = """
import hashlib, time
from tf_largebatch.training.workers.preemption import StopNotice

with StopNotice(None) as notice:
    print("ready", flush=True)
    {first}
    hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})
    print(notice.received.name, flush=True)
"""


@pytest.fixture
def start():
    started = []

    def make(rounds, first="pass"):
        started.append(start_process(rounds, first))
        return started[-1]

    yield make
    for process in started:
        process.kill()
        process.communicate()


def start_process(rounds, first):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(rounds=rounds, first=first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_is_answered_at_once_and_the_second_ends(start, number):
    process = start(2_000_000_000)
    process.send_signal(number)
    line = process.stderr.readline()
    assert line == f"{number.name}: stops after the updates at work; again, and it ends now\n"
    process.send_signal(number)  # of the terminal and of the launcher: the same one
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(30) == 128 + number


def test_a_second_that_comes_at_once_changes_nothing_where_the_handlers_run(start):
    """Started as a shell does in the background: SIGINT is ignored, and would be again."""
    number = signal.SIGINT
    before = signal.signal(number, signal.SIG_IGN)
    try:
        process = start(2_000_000_000, "time.sleep(1)")
    finally:
        signal.signal(number, before)
    process.send_signal(number)
    process.stderr.readline()
    time.sleep(1.2)
    process.send_signal(number)
    assert process.wait(30) == 128 + number


def test_one_signal_is_remembered_until_the_updates_are_done(start):
    process = start(3_000_000)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "SIGTERM\n")
    assert err.count("SIGTERM: stops after") == 1
