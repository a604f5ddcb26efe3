"""Runs the trials of a study that are missing, a file each, alone or beside other processes.

    trials/mnist/b0064-s0-t03.json   {"version", "settings", "result", "seconds", "backend", ...}

A trial is a pure function of its settings, and what is planned a pure function of the results: how
many processes work, in which order, and where they were killed shows in nothing but the times.
"""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import DRAFT, read_json, write_json
from tf_largebatch.records.locks import lock as lock_file
from tf_largebatch.records.progress import ProgressLine, time_left
from tf_largebatch.studies.study import Results, Scale, Study, Trial

TRIALS = "trials"
POLL_SECONDS = 0.5
KEYS = ("version", "settings", "result", "seconds", "backend", "device", "versions")


@dataclass(frozen=True)
class Stored:
    """A trial that has been run: its file."""

    settings: dict[str, Any]
    result: dict[str, Any]
    seconds: float
    backend: str
    device: str
    versions: dict[str, str]


class Trials:
    """The trial files of one study in one folder."""

    def __init__(self, study: Study, folder: Path, say: Callable[[str], None] | None = None):
        self._study, self._folder = study, folder / TRIALS
        self._say = say or (lambda line: print(line, file=sys.stderr))
        self._stored: dict[str, Stored] = {}  # of earlier calls; plans only grow
        self._named: set[str] = set()

    def results(self, plan_of: Callable[[Results], list[Trial]]) -> dict[str, dict]:
        """Returns the results that count, found by planning again until nothing more is there."""
        return {name: one.result for name, one in self.stored(plan_of).items()}

    def stored(self, plan_of: Callable[[Results], list[Trial]]) -> dict[str, Stored]:
        """The same with all that is kept of each."""
        while True:
            planned = plan_of({name: one.result for name, one in self._stored.items()})
            before = len(self._stored)
            for trial in planned:
                if trial.name not in self._stored:
                    self.read(trial)
            if len(self._stored) == before:
                return self._stored

    def path(self, trial: Trial) -> Path:
        """The file of a trial."""
        return self._folder / f"{trial.name}.json"

    def read(self, trial: Trial) -> Stored | None:
        """Returns a finished trial; None where it is missing, damaged or of another design."""
        known = self._stored.get(trial.name)
        if known is not None and known.settings == trial.settings:
            return known
        path = self.path(trial)
        if not path.exists():
            return None
        try:
            data = read_json(path)
            version = data["version"]
            stored = Stored(**{key: data[key] for key in KEYS[1:]})
        except (ValueError, TypeError, KeyError):
            self._refuse(path, "is damaged")
            return None
        if version != self._study.version:
            self._refuse(path, f"is of another version of the design, {version}")
            return None
        if stored.settings != trial.settings:
            self._refuse(path, "has other settings than the plan")
            return None
        self._stored[trial.name] = stored
        return stored

    def _refuse(self, path: Path, why: str) -> None:
        """Names a file that does not count, once."""
        if str(path) not in self._named:
            self._named.add(str(path))
            self._say(f"{path} {why}: it does not count, and is run again")

    @contextlib.contextmanager
    def claim(self, trial: Trial) -> Iterator[bool]:
        """Yields whether this process may run the trial now: no other does, and it is missing.

        The lock is the operating system's, so that a killed process has none; the file says who.
        """
        path = self.path(trial)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock")
        with lock.open("a+") as file:
            try:
                lock_file(file)
            except BlockingIOError:
                yield False
                return
            if self.read(trial) is not None:  # another process was faster
                lock.unlink(missing_ok=True)
                yield False
                return
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            try:
                yield True
            finally:
                lock.unlink(missing_ok=True)

    def write(self, trial: Trial, result: dict[str, Any], seconds: float) -> None:
        """Keeps a finished trial, whole or not at all."""
        from tf_largebatch.studies import fitting

        write_json(
            self.path(trial),
            {
                "version": self._study.version,
                "settings": trial.settings,
                "result": _plain(result),
                "seconds": round(seconds, 2),
                **fitting.place(),
            },
        )


def run(study: Study, folder: Path, scale: Scale, sets: Any, *, shown: bool = True) -> None:
    """Runs what is missing until nothing is, together with every process that does the same.

    Args:
        study: which.
        folder: where its `trials/` are.
        scale: its seeds, and whether it is a quick look.
        sets: `sets.Sets`.
        shown: whether to print progress.
    """
    trials, progress = Trials(study, folder), ProgressLine()
    started, first = time.monotonic(), None

    def plan_of(results: Results) -> list[Trial]:
        return check_plan(study.plan(results, scale))

    while True:
        results = trials.results(plan_of)
        planned = plan_of(results)
        missing = [trial for trial in planned if trial.name not in results]
        done = len(planned) - len(missing)
        first = done if first is None else first
        if shown:
            left = time_left(time.monotonic() - started, done - first, len(planned) - first)
            text = f"{study.name}: {done} of {len(planned)} trials{left if missing else ''}"
            progress.show(text, at_once=not missing)
        if not missing:
            progress.end()
            return
        if not _run_one(study, trials, missing, sets):
            time.sleep(POLL_SECONDS)  # all that is missing runs elsewhere


def _run_one(study: Study, trials: Trials, missing: list[Trial], sets: Any) -> bool:
    """Runs the first trial that no other process runs; returns whether there was one."""
    for trial in missing:
        with trials.claim(trial) as mine:
            if mine:
                began = time.monotonic()
                result = study.run(dict(trial.settings), sets)
                trials.write(trial, result, time.monotonic() - began)
                return True
    return False


def check_plan(planned: Any) -> list[Trial]:
    """Returns the trials of a plan as a list; two of one name are a mistake of the study."""
    listed = list(planned)
    names = [trial.name for trial in listed]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two trials of a plan have one name, {twice}")
    return listed


def clean(folder: Path) -> None:
    """Removes what killed processes left: locks that nobody holds, drafts."""
    for pattern in ("*.lock", f"*{DRAFT}"):
        for path in (folder / TRIALS).rglob(pattern):
            with contextlib.suppress(OSError), path.open("a") as file:
                lock_file(file)
                path.unlink(missing_ok=True)


def check_backend(study: Study) -> None:
    """Raises InputError unless Keras runs on a backend that the study can run on."""
    import keras

    backend = keras.backend.backend()
    if backend not in study.backends:
        raise InputError(
            f"KERAS_BACKEND must be {' or '.join(study.backends)} for {study.name}. Received: "
            f"{backend}"
        )


def _plain(value: Any) -> Any:
    """The value as JSON has it: NumPy's numbers as Python's, what is not finite as None."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
