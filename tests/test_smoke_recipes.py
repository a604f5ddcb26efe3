"""The record of smoke runs: which rows are run, and that it holds no other."""

import importlib.util
import json
from pathlib import Path

from tf_largebatch.__main__ import load_recipes

ROOT = Path(__file__).parents[1]


def load_tool():
    spec = importlib.util.spec_from_file_location(
        "smoke_recipes", ROOT / "tools" / "smoke_recipes.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_every_module_and_each_of_its_kinds_is_chosen_once_and_new_kinds_come_first():
    tool = load_tool()
    chosen = tool.chosen()
    kinds = [(recipe.name, tool.kind(recipe)) for recipe in chosen]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == {
        (recipe.name, tool.kind(recipe)) for recipe in load_recipes() if not recipe.missing
    }
    known = {tool.kind(recipe) for recipe in chosen}
    assert {tool.kind(recipe) for recipe in chosen[: len(known)]} == known


def test_the_record_holds_chosen_rows_and_says_of_a_failure_what_failed():
    rows = {(recipe.name, recipe.row) for recipe in load_tool().chosen()}
    record = json.loads((ROOT / "tools" / "records" / "smoke.json").read_text(encoding="utf-8"))
    for run in record["runs"]:
        assert (run["name"], run["row"]) in rows
        assert run["updates"] >= 3 if run["status"] == 0 else run["error"]
