"""A user's type checker sees the public names, and finds the user's mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
import keras

from tf_largebatch import LARS, BatchPlan, Steps, Warmup, report_ready
from tf_largebatch.records.recipe import Recipe
from tf_largebatch.recipes.goyal_8k import RECIPE

plan = BatchPlan(global_batch=256, train_examples=1280)
steps = Steps.from_epochs(4.0, epochs=(20, 26), factor=0.1, plan=plan)
rate: Warmup = Warmup.from_epochs(steps, 5, start_rate=0.0, plan=plan)
model = keras.Sequential([keras.layers.Dense(10)])
model.compile(optimizer=LARS(rate, weight_decay=1e-4), loss="mse")
updates: int = plan.updates_at(30)
recipe: Recipe = RECIPE
report_ready()
"""


def check(tmp_path, code):
    (tmp_path / "program.py").write_text(code)
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "", "--strict", "program.py"]
        + ["--follow-untyped-imports", "--cache-dir", str(ROOT / ".mypy_cache" / "user")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
    )


def test_a_typed_program_passes_the_strict_checker(tmp_path):
    done = check(tmp_path, PROGRAM)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("from tf_largebatch import LARRS", 'Module "tf_largebatch" has no attribute "LARRS"'),
        ("BatchPlan(global_batch='256', train_examples=1)", 'incompatible type "str"'),
        ("BatchPlan(global=256, train_examples=1)", "Unexpected keyword argument"),
        ("LARS(rate, momentun=0.9)", 'Unexpected keyword argument "momentun"'),
        ("Steps.from_epochs(4.0, epochs=(20,), factor=0.1)", 'Missing named argument "plan"'),
    ],
)
def test_a_mistake_is_found(line, says, tmp_path):
    done = check(tmp_path, PROGRAM + line + "\n")
    assert says in done.stdout
    assert done.returncode == 1
