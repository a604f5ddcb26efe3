"""The notebooks run from top to bottom, and what is committed is what such a run leaves."""

import json
import os
import subprocess
import sys

import pytest
from commands import ROOT

FOLDER = ROOT / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
REAL = ROOT.parent / "shared" / "data"
LARGEST = 400_000  # bytes of a committed notebook


def kinds(path):
    """Of every cell of code, what it left: text, pictures."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    left = []
    for cell in cells:
        if cell["cell_type"] == "code":
            outputs = cell["outputs"]
            left.append({name for o in outputs for name in o.get("data", {"text": ""})})
    return left


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_leaves_what_is_committed(name, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if REAL.is_dir():
        environment["TF_LARGEBATCH_DATA"] = str(REAL)
    command = [sys.executable, "tools/run_notebooks.py", "--out", tmp_path, name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert kinds(tmp_path / f"{name}.ipynb") == kinds(FOLDER / f"{name}.ipynb")


def test_the_index_names_every_notebook():
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert NAMES and all(f"({name}.ipynb)" in index for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_has_outputs_no_error_and_no_path_of_a_machine(name):
    path = FOLDER / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    assert len(text) < LARGEST
    assert any(kinds(path)) and "image/png" in text
    assert '"output_type": "error"' not in text
    for place in ("/home/", "/work/", "/root/"):
        assert place not in text
