"""Cards say what the modules say."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tf_largebatch.__main__ import load_recipes, recipe_modules
from tf_largebatch.records.recipe import deciding
from tf_largebatch.review.recipe_list import miniature_record

ROOT = Path(__file__).parents[1]
NAMES = sorted({recipe.name for recipe in load_recipes()})


def test_no_card_is_stale_and_every_folder_has_a_recipe():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "render_cards.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_record_of_a_miniature_is_of_the_rows_that_the_module_has(name):
    record = miniature_record(name)
    if record is None:
        return  # the card says that it has not run
    path, _ = record
    recorded = json.loads(path.read_text(encoding="utf-8"))["rows"]
    rows = recipe_modules()[name].MINIATURE.rows
    assert [row["label"] for row in recorded] == [row.label for row in rows]
    for old, row in zip(recorded, rows, strict=True):
        now = deciding(json.loads(json.dumps(dataclasses.asdict(row.recipe))))
        then = deciding(old["recipe"])  # by the names of today
        assert then == keep(now, then), row.label


def keep(now, old):
    """The fields that the record knows: one that is added later is off in it."""
    if not isinstance(old, dict):
        return now
    return {key: keep(now[key], value) for key, value in old.items()}
