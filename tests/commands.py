"""A recipe's command as the tests give it: here, or in a process of its own.

Importing TensorFlow costs a process six seconds of CPU, so a process is started only where it is
what is tested: its signals, its workers, what it imports.
"""

import contextlib
import dataclasses
import fcntl
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# As `sitecustomize.py` on the path it takes TensorFlow away; Keras takes its name in `sys.modules`,
# be it None, for a TensorFlow that is there.
NO_TENSORFLOW = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def call(main: Callable, *arguments) -> subprocess.CompletedProcess:
    """Calls a command's `main`, which exits: its status and what it printed, as of a process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with pytest.raises(SystemExit) as end:
            main(*arguments)
    return subprocess.CompletedProcess([], end.value.code, out.getvalue(), err.getvalue())


def run_recipe(name: str, *arguments, rows: slice = slice(None)) -> subprocess.CompletedProcess:
    """Runs `python -m tf_largebatch.recipes.NAME` in this process.

    Args:
        name: of the recipe's module.
        arguments: flags.
        rows: of the miniature, those that run.
    """
    from tf_largebatch.training.command import main

    module = importlib.import_module(f"tf_largebatch.recipes.{name}")
    miniature = dataclasses.replace(module.MINIATURE, rows=module.MINIATURE.rows[rows], claims=())
    return call(main, module.RECIPE, miniature, [str(a) for a in arguments])


def run_process(
    *arguments, module="tf_largebatch.recipes.goyal_8k", cwd=ROOT, timeout=600
) -> subprocess.CompletedProcess:
    """Runs `python -m MODULE` to its end in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=timeout,
    )


def curve(folder: Path) -> list[dict]:
    """The epochs of a command's only run, without the time that each took."""
    (row,) = json.loads((folder / "result.json").read_text())["rows"]
    (run,) = row["runs"]
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in run["epochs"]]


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Makes a folder that tests only read, once for all processes that run tests.

    Args:
        factory: pytest's.
        name: of the folder.
        make: fills it; called by the process that comes first, while the others wait.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each process has a folder of its own in one that they share
    folder = base / "shared" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if not lock.read():
            make(folder)
            lock.write("made")
    return folder
