"""What README promises is so: its commands, its example, and every number in it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tf_largebatch.__main__ import load_recipes

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def python(*arguments, timeout=300):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=timeout,
    )


def test_the_numbers_of_the_miniature_come_from_the_committed_record():
    done = python("tools/render_readme.py", "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("recipe", load_recipes(), ids=lambda r: r.name)
def test_the_table_of_recipes_has_the_published_numbers(recipe):
    (line,) = re.findall(rf"^\| `{recipe.name}` \|.*$", TEXT, re.MULTILINE)
    expected = recipe.expected
    updates = recipe.batch_plan().updates_at(recipe.epochs)
    assert f"| {recipe.global_batch:,} | {updates:,} |" in line
    assert f"| {expected.top1_error_pct:.2f} ± {expected.std_pct:g} |" in line
    assert "| not run |" in line  # nobody has; a record would have to say otherwise
    assert f"python -m tf_largebatch.recipes.{recipe.name} --data DIR" in line


def test_every_module_that_a_command_names_exists():
    modules = set(re.findall(r"python -m (tf_largebatch[\w.]*)", TEXT))
    assert "tf_largebatch.recipes.goyal_8k" in modules
    for module in modules:
        base = ROOT.joinpath(*module.split("."))
        assert base.with_suffix(".py").exists() or (base / "__main__.py").exists(), module


def test_every_file_that_is_linked_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.slow
def test_the_example_trains_a_users_own_model_with_lars():
    code = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0]
    assert len(code.strip().splitlines()) <= 24
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    accuracy = float(re.findall(r"val_accuracy: ([0-9.]+)", done.stdout)[-1])
    assert accuracy > 0.85  # chance is 0.1
    assert "decay=False, adapted=False" in done.stdout
