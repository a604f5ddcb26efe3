"""One folder per run: who owns it, files that are whole or absent, and where it was run.

docs/checkpoint.md has every file, and what becomes of a run without it.
"""

import contextlib
import csv
import dataclasses
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import sys
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tf_largebatch.records.curve import EpochRecord
from tf_largebatch.records.errors import STAMP, InputError
from tf_largebatch.records.files import DRAFT, read_json, write_csv, write_json
from tf_largebatch.records.locks import lock
from tf_largebatch.records.recipe import deciding
from tf_largebatch.records.result import OF_DATA

MARK, LOCK = "run.json", "run.lock"
_OWN_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)  # Windows has neither
PLAN, RESULT, METRICS, SEED = "plan.json", "result.json", "metrics.csv", "seed.json"
MODEL = "model.keras"
PACKAGES = ("tf-largebatch", "tensorflow", "keras", "numpy", "tensorboard")


def default_folder(name: str) -> Path:
    """Returns `runs/<name>-<date>-<time>`, a folder that does not exist yet.

    Under `tf-largebatch launch` it is the same one for every restart of the workers.
    """
    if os.environ.get(STAMP):
        return Path("runs") / f"{name}-{os.environ[STAMP]}"
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(f for f in (Path("runs") / name for name in names) if not f.exists())


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder if need be, and keeps other commands out of it for the length of the block.

    The lock ends with the process, however that ends. A file system that knows no locks keeps
    nobody out.

    Raises:
        InputError: not a folder, not writable, or another command is at work in it.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _lock(path)
    except BlockingIOError:
        raise InputError(
            f"--run-dir must not be in use. Received: {folder}, where another command is at work "
            f"({_holder(path)}). Wait for it, or choose another folder"
        ) from None
    except OSError as error:
        why = f"Received: {folder} ({error.strerror or error})"
        raise InputError(f"--run-dir must be a folder that can be written to. {why}") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _lock(path: Path) -> IO[str]:
    while True:
        # Not through a link: what it leads to is not ours.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _OWN_FILE, 0o644)
        file = os.fdopen(handle, "r+")
        try:
            lock(file)
        except BlockingIOError:
            file.close()
            raise
        except OSError:  # no locks on this file system
            pass
        # Whoever held it before may have removed this very file meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                with contextlib.suppress(OSError):  # a word for people
                    os.truncate(handle, 0)
                    os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
                return file
        file.close()


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")[:100] or "just started"
    except (OSError, ValueError):
        return "unknown"


def claim(folder: Path, identity: dict[str, Any]) -> bool:
    """Makes the folder this run's own; returns whether it was before, so that it is continued.

    The caller has it `locked`. `identity` is plain data: what makes two runs the same one (recipe,
    seeds, precision, ...).

    Raises:
        InputError: another run's, or holding files of no run.
    """
    identity = _deciding(json.loads(json.dumps(identity)))
    mark = folder / MARK
    if mark.exists():
        try:
            owner = _deciding(read_json(mark))
        except (ValueError, TypeError, AttributeError, RecursionError):
            remedy = "Remove the folder or choose another --run-dir"
            raise InputError(f"{mark} is damaged. {remedy}") from None
        if owner == identity:
            return True
        whose = f"belongs to another run ({_differences(owner, identity) or 'another version'})"
        raise InputError(f"--run-dir {folder} {whose}. Choose another folder")
    ours = {LOCK, MARK + DRAFT}  # of a start that was killed
    if others := sorted(p.name for p in folder.iterdir() if p.name not in ours):
        rule = "must be an empty folder or one of this run"
        raise InputError(
            f"--run-dir {rule}. Received: {folder}, which holds {others[0]} and no {MARK}"
        )
    write_json(mark, identity)
    return False


def _differences(owner: dict[str, Any], identity: dict[str, Any]) -> str:
    """What differs, in words: the changes of numbers as they were given, else the numbers."""
    names = {name for name in identity if owner.get(name) != identity[name]}
    if "settings" in names and names <= {"settings", "recipes"}:
        given = [map(_as_flag, run.get("settings") or ["none"]) for run in (owner, identity)]
        return "{} there, {} here".format(*(" ".join(flags) for flags in given))
    there, here = dict(_leaves(owner)), dict(_leaves(identity))
    differ = [name for name in here if there.get(name) != here[name]]
    shown = (f"{n}: {_brief(there.get(n))} there, {_brief(here[n])} here" for n in differ[:3])
    return ", ".join(shown)


def _as_flag(change: str) -> str:
    """`epochs 30 -> 4`, as departures are written, as the flag that made it.

    One that no flag made stays: the caller's own data or network.
    """
    if change.startswith((*OF_DATA, "network ")):
        return change
    name, _, values = change.partition(" ")
    return f"--set {name}={values.rpartition(' -> ')[2]}" if values else change


def _leaves(data: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of every number and text in plain data."""
    if isinstance(data, dict | list):
        pairs = data.items() if isinstance(data, dict) else enumerate(data)
        for key, value in pairs:
            yield from _leaves(value, f"{name}.{key}".lstrip("."))
    else:
        yield name, data


def _deciding(identity: dict[str, Any]) -> dict[str, Any]:
    """Without what its recipes say beside their numbers, which versions word in other ways."""
    recipes = [deciding(recipe) for recipe in identity.get("recipes", [])]
    return {**identity, "recipes": recipes} if recipes else identity


def release(folder: Path) -> None:
    """Gives up a claimed folder in which nothing was written yet; another is left alone."""
    with contextlib.suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {MARK, LOCK}:
            (folder / MARK).unlink(missing_ok=True)
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def write_metrics(path: Path, records: list[EpochRecord]) -> None:
    """Writes one line per epoch, with the fields of `EpochRecord` as header."""
    names = [f.name for f in dataclasses.fields(EpochRecord)]
    # As text, so that a run that is continued reads an infinite loss back as one.
    write_csv(path, names, ([str(getattr(r, name)) for name in names] for r in records))


def read_metrics(path: Path) -> list[EpochRecord]:
    """Reads what `write_metrics` wrote; an absent file holds no epochs."""
    if not path.exists():
        return []
    kinds = typing.get_type_hints(EpochRecord)
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return [EpochRecord(**{name: kinds[name](text) for name, text in row.items()}) for row in lines]


def environment() -> dict[str, Any]:
    """Returns versions, hardware and commit as plain data, without importing a framework."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": cores,
        "versions": versions,
        "commit": _commit(),
        "command": " ".join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def processor() -> str:
    """Returns the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The package's commit, with `+` where its files differ from it; None outside a checkout."""
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "__init__.py"):
            return None
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.TimeoutExpired):
        return None
