"""A user's type checker sees the public names, and finds the user's mistakes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
import keras

from tf_largebatch import LARS, BatchPlan, Steps, Warmup, report_ready
from tf_largebatch.recipes.goyal_8k import RECIPE
from tf_largebatch.records.recipe import Recipe

plan = BatchPlan(global_batch=256, train_examples=1280)
steps = Steps.from_epochs(4.0, epochs=(20, 26), factor=0.1, plan=plan)
rate: Warmup = Warmup.from_epochs(steps, 5, start_rate=0.0, plan=plan)
model = keras.Sequential([keras.layers.Dense(10)])
model.compile(optimizer=LARS(rate, weight_decay=1e-4), loss="mse")
updates: int = plan.updates_at(30)
recipe: Recipe = RECIPE
report_ready()
"""
MISTAKES = {
    "from tf_largebatch import LARRS": 'has no attribute "LARRS"',
    "BatchPlan(global_batch='256', train_examples=1)": 'incompatible type "str"',
    "BatchPlan(batch=256, train_examples=1)": 'Unexpected keyword argument "batch"',
    "LARS(rate, momentum='0.9')": 'incompatible type "str"',
    "Steps.from_epochs(4.0, epochs=(20,), factor=0.1)": 'Missing named argument "plan"',
    "text: str = plan.updates_at(30)": 'expression has type "int"',
}
# As a user has it: installed packages are read for their types, and not checked.
CONFIG = """
[mypy]
strict = True
[mypy-keras.*]
ignore_missing_imports = True
[mypy-tf_largebatch.*]
follow_imports = silent
ignore_missing_imports = True
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What mypy says of the program, and of the same with the mistakes behind it."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "right.py").write_text(PROGRAM)
    (folder / "wrong.py").write_text(PROGRAM + "\n".join(MISTAKES) + "\n")
    (folder / "mypy.ini").write_text(CONFIG)
    return subprocess.run(
        [sys.executable, "-m", "mypy", "right.py", "wrong.py"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
    ).stdout.splitlines()


def test_a_typed_program_passes_the_strict_checker(found):
    assert found[-1].startswith("Found ")  # it has run
    assert [line for line in found if line.startswith("right.py")] == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(found, mistake):
    number = len(PROGRAM.splitlines()) + list(MISTAKES).index(mistake) + 1
    said = [line for line in found if re.match(rf"wrong\.py:{number}: error", line)]
    assert any(MISTAKES[mistake] in line for line in said), found
