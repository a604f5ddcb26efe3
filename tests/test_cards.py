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


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("recipes/*/tuning.json")), ids=lambda p: p.parent.name
)
def test_every_row_of_a_tuned_miniature_has_its_best_rate_of_one_grid(path):
    tuned = json.loads(path.read_text(encoding="utf-8"))["rows"]
    rows = recipe_modules()[path.parent.name].MINIATURE.rows
    rows = [row for row in rows if row.recipe.stop is None]  # the others have the rates of these
    assert [*tuned] == [row.label for row in rows]
    grids = {tuple(round(rate / pairs[0][0], 6) for rate, _ in pairs) for pairs in tuned.values()}
    assert len(grids) == 1
    for row in rows:
        best = min((error, rate) for rate, error in tuned[row.label] if error is not None)[1]
        assert row.recipe.reference_rate == pytest.approx(best), row.label
        assert best not in (tuned[row.label][0][0], tuned[row.label][-1][0]), (
            "the grid is too short"
        )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smith_16k", "of which a part can be held out. Received: digits"),
        ("smith_16", "Received: smith_16. Nearest: smith_16k"),
    ],
)
def test_a_miniature_that_cannot_be_tuned_is_one_line(name, says):
    command = [sys.executable, str(ROOT / "tools" / "tune_miniature.py"), name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


def test_the_best_rate_is_of_those_that_did_not_diverge(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    from tune_miniature import best

    assert best([[0.1, 9.0], [0.2, 8.0], [0.4, 8.0], [0.8, None]]) == 0.2
    assert best([[0.1, None], [0.2, None]]) == 0.1  # at an end: the grid goes on below


def keep(now, old):
    """The fields that the record knows: one that is added later is off in it."""
    if not isinstance(old, dict):
        return now
    return {key: keep(now[key], value) for key, value in old.items()}
