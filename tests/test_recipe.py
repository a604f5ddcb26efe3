import ast
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tf_largebatch.__main__ import find_recipe, load_recipes, main
from tf_largebatch.recipes import smith_16k
from tf_largebatch.recipes.goyal_8k import RECIPE
from tf_largebatch.records import overrides
from tf_largebatch.records.files import write_json
from tf_largebatch.records.plan import Plan, describe_data
from tf_largebatch.review import recipe_list

RECIPES = Path(__file__).parents[1] / "tf_largebatch" / "recipes"
SOURCE = re.compile(r"§|Table|Fig\.|Eq\.|paper|seed|ours|recall|code:|derived|unknown")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.py")), ids=lambda p: p.stem)
def test_every_number_of_a_recipe_has_its_source_on_the_line(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
        if number:
            line = lines[node.lineno - 1]
            comment = line.partition("#")[2]
            cited = SOURCE.search(comment) or "source=" in line
            assert cited, f"{path.name}:{node.lineno} has no source: {line}"


def test_a_module_is_named_like_its_recipe():
    names = {path.stem for path in RECIPES.glob("*.py")} - {"__init__"}
    assert names == {recipe.name for recipe in load_recipes()}


def with_miniatures(recipes):
    return [(recipe, find_recipe(recipe.name).MINIATURE) for recipe in recipes]


def test_the_list_shows_every_recipe_with_batch_updates_and_published_accuracy():
    recipes = load_recipes()
    lines = recipe_list.table(with_miniatures(recipes)).splitlines()
    assert len(lines) == len(recipes) + 1
    for recipe, line in zip(recipes, lines[1:], strict=True):
        call = recipe.name if recipe.row is None else f"{recipe.name} --row {recipe.row}"
        assert line.startswith(call + "  ")
        assert f"  {recipe.global_batch:,}" in line
        if recipe.expected:
            assert f"  {100 - recipe.expected.top1_error_pct:.2f}" in line
    (line,) = (x for x in lines if x.startswith("goyal_8k  "))
    assert "14,076" in line and "256x P100, Caffe2, 1 h" in line


@pytest.mark.parametrize(
    ("seeds", "rung", "verdict"), [(1, "plan", None), (3, "mini", "cannot tell")]
)
def test_a_miniature_counts_with_several_seeds(seeds, rung, verdict, tmp_path, monkeypatch):
    _, record = recipe_list.miniature_record("smith_16k")
    rows = [dataclasses.replace(row, runs=row.runs[:seeds]) for row in record.rows]
    copy = tmp_path / "smith_16k" / "runs" / "some"
    copy.mkdir(parents=True)
    write_json(copy / "result.json", dataclasses.replace(record, rows=rows, claims=()).to_json())
    monkeypatch.setattr(recipe_list, "RECORDS", tmp_path)
    recipe_list.miniature_record.cache_clear()
    try:
        shown = recipe_list.describe(smith_16k.RECIPE, smith_16k.MINIATURE)
    finally:
        recipe_list.miniature_record.cache_clear()
    assert (shown["rung"], shown["verdict"]) == (rung, verdict)


def test_a_damaged_record_is_one_line_and_status_2(tmp_path, monkeypatch, capsys):
    record = tmp_path / "goyal_8k" / "runs" / "some" / "result.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"rows": ')
    monkeypatch.setattr(recipe_list, "RECORDS", tmp_path)
    recipe_list.miniature_record.cache_clear()
    try:
        with pytest.raises(SystemExit) as end:
            main(["list"])
    finally:
        recipe_list.miniature_record.cache_clear()
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert str(record) in error and error.count("\n") == 1


def test_the_list_for_machines_has_the_same_recipes():
    done = subprocess.run(
        [sys.executable, "-m", "tf_largebatch", "--json"],
        capture_output=True,
        text=True,
        cwd=RECIPES.parents[1],
        check=True,
    )
    rows = json.loads(done.stdout)
    assert [(r["name"], r["row"]) for r in rows] == [(r.name, r.row) for r in load_recipes()]
    (goyal,) = (r for r in rows if r["name"] == "goyal_8k")
    assert goyal["updates"] == 14_076 and goyal["published_top1_pct"] == 76.26


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "`epochs` must be above 0. Received: epochs=0"),
        ({"epochs": 50}, r"at least the schedule's last change \(80\)"),
        (
            {"data": dataclasses.replace(RECIPE.data, plain_last_epochs=91)},
            "`data.plain_last_epochs` must be at most 90",
        ),
        ({"global_batch": 0}, "`global_batch` must be at least 1"),
        ({"reference_rate": -0.1}, "Received: reference_rate=-0.1"),
        ({"scaling": "cubic"}, "one of linear, sqrt, none"),
    ],
)
def test_a_recipe_out_of_range_cannot_be_made(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE, **change)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("model", {"architecture": "resnet5"}, "one of resnet50, .*Received: name='resnet5'"),
        ("model", {"bn_decay": 1.0}, r"`model.bn_decay` must be in \[0, 1\)"),
        ("model", {"bn_batch": 1}, "`model.bn_batch` must be at least 2 or none"),
        ("optimizer", {"momentum": 1.0}, r"`optimizer.momentum` must be in \[0, 1\)"),
        ("optimizer", {"weight_decay": -1e-4}, "`optimizer.weight_decay` must be at least 0"),
        ("schedule", {"drop_epochs": (60, 30)}, "`schedule.drop_epochs` must be rising"),
        ("schedule", {"warmup_epochs": 31}, r"at most the first drop \(30\)"),
        ("data", {"min_area": 0.0}, r"`data.min_area` must be in \(0, max\]"),
        ("data", {"eval_short_side": 200}, r"at least .* evaluation \(224\)"),
        ("data", {"eval_image_size": 260}, r"at least .* evaluation \(260\)"),
        ("data", {"eval_image_size": 31}, r"`data.eval_image_size` must be at least 32"),
        ("data", {"eval_image_size": 256, "plain_last_epochs": 1}, "must be 0 where evaluation"),
        ("expected", {"top1_error_pct": 101}, "in 0..100"),
    ],
)
def test_a_part_out_of_range_cannot_be_made(part, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(getattr(RECIPE, part), **change)


def plan_of(recipe, **batch):
    return Plan(
        recipe=recipe,
        phases=recipe.phases(**batch),
        scale="full",
        data=describe_data(recipe),
        departures=("epochs 90 -> 80",),
    )


def test_the_plan_says_what_a_reader_of_the_paper_checks():
    lines = dict(plan_of(RECIPE, replicas=8).lines())
    assert lines["global batch"] == "8192 = 8 replicas x 32 micro-batch x 32 accumulation"
    assert lines["learning rate"] == "3.2 = 0.1 x 8192 / 256 (linear)"
    assert lines["  epoch 5"] == "update 782: 3.2 (warmup ends)"
    assert lines["  epoch 30"] == "update 4,692: 0.32 (x 0.1)"
    assert lines["updates"] == "14,076 (156.39 an epoch)"
    assert lines["exempt tensors"] == ("no decay on 107 of 161 tensors (106 batch norm, 1 bias)")
    assert lines["published"] == "23.74 +- 0.09 % error (top-1 76.26 %; Table 1, 5 runs)"
    assert lines["batch norm"].startswith("statistics of 32 images")
    assert lines["modified"] == "epochs 90 -> 80"


def test_the_plan_follows_a_change():
    changed, _ = overrides.apply(RECIPE, ["global_batch=4096", "optimizer.exclude_rank_below=0"])
    lines = dict(plan_of(changed, micro_batch=64).lines())
    assert lines["learning rate"] == "1.6 = 0.1 x 4096 / 256 (linear)"
    assert lines["exempt tensors"] == "none: decay on all 161 tensors"
    assert "2 groups in each micro-batch" in lines["batch norm"]
