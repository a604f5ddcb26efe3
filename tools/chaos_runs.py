"""Commands of a recipe, each in a process forked from one that has imported all it needs.

Importing TensorFlow takes a process six seconds, which thousands of runs cannot afford. The parent
never starts TensorFlow's runtime, so that its children may. What is compared of a finished run is
read without TensorFlow. Linux only.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
# The runs are small: more threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import h5py

import tf_largebatch.training.results
import tf_largebatch.training.train  # noqa: F401, what children need
from tf_largebatch.data import synthetic
from tf_largebatch.recipes import goyal_8k
from tf_largebatch.training.command import main

MINIATURE = dataclasses.replace(goyal_8k.MINIATURE, rows=goyal_8k.MINIATURE.rows[:1], claims=())
COMMON = ["--set=epochs=2", "--set=schedule.warmup_epochs=0", "--set=schedule.drop_epochs=1"]
# 1280 / 64 = 20 updates an epoch.
DIGITS = [*COMMON, "--set=global_batch=64", "--checkpoint-updates=7"]
IMAGES = [*COMMON, "--set=global_batch=4", "--set=model.bn_batch=4", "--checkpoint-updates=3"]
IMAGES += ["--set=model.architecture=digits_resnet", "--set=data.image_size=32"]
IMAGES += ["--set=data.eval_short_side=36"]
LONGEST_SECONDS = 240.0  # of one command, on a busy machine
NOT_FINISHED = 70  # status of a child that met an error of its own


@dataclass
class Ended:
    """How a command ended: its status, negative for a signal, and all that it printed."""

    status: int
    text: str

    @property
    def last(self) -> str:
        """Its last line."""
        return (self.text.strip().splitlines() or [""])[-1]


class Command:
    """One command at work.

    Args:
        flags: of the recipe.
        log: takes what it prints.
        before: called in the process before the command.
        environment: variables of the process.
    """

    def __init__(
        self,
        flags: list[str],
        log: Path,
        *,
        before: Callable[[], None] | None = None,
        environment: dict[str, str] | None = None,
    ):
        self.log = log
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._work(flags, before, environment or {})

    def _work(self, flags, before, environment) -> None:
        status = NOT_FINISHED
        try:
            os.setsid()
            file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.environ.update(environment)
            # Where a killed process leaves what it had put there, it goes with the logs.
            tempfile.tempdir = str(self.log.parent)
            if before is not None:
                before()
            main(goyal_8k.RECIPE, MINIATURE, flags)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else NOT_FINISHED
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def poll(self) -> bool:
        """Whether it has ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal; False where it has ended before."""
        if self.poll():
            return False
        os.kill(self.pid, number)
        return True

    def wait_quietly(self, seconds: float = LONGEST_SECONDS) -> None:
        """Waits for its end, which `wait` still tells."""
        deadline = time.monotonic() + seconds
        while not self.poll() and time.monotonic() < deadline:
            time.sleep(0.05)

    def wait(self, seconds: float = LONGEST_SECONDS) -> Ended:
        """How it ended; one that takes too long is killed, with status None's place taken by -9."""
        deadline = time.monotonic() + seconds
        while not self.poll():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.02)
        _, status = os.waitpid(self.pid, 0)
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        if time.monotonic() > deadline:
            text += f"\nTraceback: no end after {seconds:g} s"
        return Ended(os.waitstatus_to_exitcode(status), text)


def run(flags: list[str], log: Path, **options) -> Ended:
    """Runs a command to its end."""
    return Command(flags, log, **options).wait()


def outcome(folder: Path) -> str | None:
    """Returns a digest of weights, curve and record of all runs of a folder, without times.

    None where no command has ended there.
    """
    if not (folder / "result.json").exists():
        return None
    digest = hashlib.sha256()
    try:
        for path in sorted(folder.rglob("model.keras")):
            digest.update(str(path.relative_to(folder)).encode())
            with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file:
                with h5py.File(file) as weights:
                    weights.visititems(lambda name, item: _add(digest, name, item))
        for path in sorted(folder.rglob("metrics.csv")):
            head, *lines = path.read_text(encoding="utf-8").splitlines()
            times = [i for i, name in enumerate(head.split(",")) if "seconds" in name]
            for line in lines:
                kept = [v for i, v in enumerate(line.split(",")) if i not in times]
                digest.update(",".join(kept).encode())
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        digest.update(json.dumps(_timeless(result["rows"]), sort_keys=True).encode())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        return f"{type(error).__name__}: {error}"[:120]
    return digest.hexdigest()


def _add(digest, name: str, item) -> None:
    if isinstance(item, h5py.Dataset):
        digest.update(name.encode())
        digest.update(item[()].tobytes())


def _timeless(data):
    if isinstance(data, dict):
        return {k: _timeless(v) for k, v in data.items() if "seconds" not in k}
    return [_timeless(v) for v in data] if isinstance(data, list) else data


def write_images(folder: Path) -> None:
    """Shards of 24 training and 8 validation pictures, in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            synthetic.write_shards(
                folder, train_examples=24, eval_examples=8, shards=3, image_size=40
            )
        finally:
            os._exit(0)
    os.waitpid(child, 0)


# What happens to a process from within: hooks that are set before its command.


GROWS = ("os.mkdir",)  # beside opening, what needs room
CHANGES = (*GROWS, "os.rename", "os.remove")


def at_write(
    number: int, folder: Path, act: Callable[[], None], *, events: tuple[str, ...], always: bool
) -> None:
    """Acts at the n-th time that Python opens a file below the folder, or does one of `events`.

    With `always` at all later ones too. What TensorFlow writes by itself is not seen.
    """
    seen, place = 0, str(folder)

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event == "open":
            writes = isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        else:
            writes = event in events
        if writes and str(arguments[0]).startswith(place):
            seen += 1
            if seen == number or (always and seen > number):
                act()

    sys.addaudithook(hook)


def kill_self() -> None:
    """SIGKILL to this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def no_space() -> None:
    """What a full disk says."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def step_clock(rng: random.Random) -> None:
    """Lets `time.time` jump once, by an hour to ten years, after some calls."""
    plain, left = time.time, rng.randrange(1, 40)
    jump = rng.choice([-1, 1]) * 10 ** rng.uniform(3.5, 8.5)

    def stepped() -> float:
        nonlocal left
        left -= 1
        return plain() + (jump if left < 0 else 0.0)

    time.time = stepped


# A disk of its own.


@contextlib.contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[bool]:
    """A tmpfs of this size; yields False, and no such disk, where mounting is not allowed."""
    place.mkdir(parents=True)
    options = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "chaos", str(place)]
    mounted = shutil.which("mount") is not None and _quiet(options)
    try:
        yield mounted
    finally:
        if mounted:
            _quiet(["umount", "-l", str(place)])


def make_room(place: Path) -> None:
    """Lets the disk of `small_disk` grow."""
    _quiet(["mount", "-o", "remount,size=256m", str(place)])


def _quiet(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
