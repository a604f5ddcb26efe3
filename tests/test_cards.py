"""Cards and launchers say what the modules say."""

import dataclasses
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tf_largebatch.__main__ import load_recipes, miniature_record

ROOT = Path(__file__).parents[1]
NAMES = sorted({recipe.name for recipe in load_recipes()})
LAUNCHERS = ("local.sh", "cluster.sbatch", "k8s.yaml", "tpu.sh")


def test_no_card_is_stale_and_every_folder_has_a_recipe():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "render_cards.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_record_of_a_miniature_is_of_the_rows_that_the_module_has(name):
    path, _ = miniature_record(name)
    recorded = json.loads(path.read_text(encoding="utf-8"))["rows"]
    rows = importlib.import_module(f"tf_largebatch.recipes.{name}").MINIATURE.rows
    assert [row["label"] for row in recorded] == [row.label for row in rows]
    for old, row in zip(recorded, rows, strict=True):
        now = json.loads(json.dumps(dataclasses.asdict(row.recipe)))
        assert old["recipe"] == keep(now, old["recipe"]), row.label


def keep(now, old):
    """The fields that the record knows: one that is added later is off in it."""
    if not isinstance(old, dict):
        return now
    return {key: keep(now[key], value) for key, value in old.items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_launcher_ends_in_the_module_call(name):
    for launcher in LAUNCHERS:
        text = (ROOT / "recipes" / name / launcher).read_text(encoding="utf-8")
        assert re.search(rf"tf_largebatch\.recipes\.{name}\b", text), launcher


@pytest.mark.parametrize("name", NAMES)
def test_shell_launchers_are_shell(name):
    for launcher in ("local.sh", "cluster.sbatch", "tpu.sh"):
        path = ROOT / "recipes" / name / launcher
        assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
        assert path.stat().st_mode & 0o100


def test_a_launcher_without_its_data_says_what_is_missing(tmp_path):
    done = subprocess.run(
        ["bash", str(ROOT / "recipes" / "goyal_8k" / "local.sh")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode != 0
    assert "DATA: a folder of ImageNet TFRecord shards" in done.stderr
