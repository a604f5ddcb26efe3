"""Claims of miniatures: what states them, what decides them, and who wears the verdict."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tf_largebatch.__main__ import load_recipes, main, recipe_modules
from tf_largebatch.records.contrast import Contrast
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.recipe import Miniature, Row
from tf_largebatch.records.result import EpochRecord, Result, RowResult, SeedResult
from tf_largebatch.review import claims, recipe_list, tables
from tf_largebatch.review.verdict import AGREES, CANNOT_TELL, CONTRADICTS, VERDICTS

ROOT = Path(__file__).parents[1]
MODULES = recipe_modules()
WORSE = Contrast("SGD", "LARS", "more", "LARS holds")


def run(seed, error, diverged_at=None):
    one = dict(update=5, images_seen=1280, learning_rate=0.1, train_loss=1.0, train_error_pct=1.0)
    one |= dict(validation_loss=1.0, validation_top5_error_pct=0.0, seconds=1.0)
    epochs = (EpochRecord(epoch=1, validation_error_pct=error, **one),)
    facts = dict(folder="x", epochs=epochs, wall_seconds=1.0)
    return SeedResult(seed=seed, diverged_at=diverged_at, **facts)


def row(label, *runs):
    recipe = {"data": {"name": "digits"}}
    facts = dict(recipe=recipe, global_batch=256, peak_rate=1.0, updates=150)
    return RowResult(label=label, runs=tuple(runs), **facts)


def rows(sgd, lars):
    return [
        row(label, *(run(seed, error) for seed, error in enumerate(errors)))
        for label, errors in (("SGD", sgd), ("LARS", lars))
    ]


def judge(claim, found):
    (one,) = claims.judge([claim], found, stated_before=True)
    return one


def miniature(*stated, labels=("SGD", "LARS")):
    recipe = MODULES["smith_16k"].MINIATURE.rows[0].recipe
    recipe = dataclasses.replace(recipe, global_batch=256, reference_rate=1.0, scaling="none")
    of = tuple(Row(label, "", recipe) for label in labels)
    return Miniature(contrast="A test.", rows=of, claims=stated)


def test_differences_are_of_the_same_seed_and_their_verdict_is_the_rules():
    one = judge(WORSE, rows([6.0, 7.0, 8.0, 9.0, 10.0], [4.0, 4.5, 6.0, 7.5, 7.0]))
    assert one.differences == (2.0, 2.5, 2.0, 1.5, 3.0)
    assert one.mean == pytest.approx(2.2)
    assert one.low == pytest.approx(1.6, abs=0.2) and one.high == pytest.approx(2.8, abs=0.2)
    assert one.verdict == AGREES
    turned = judge(dataclasses.replace(WORSE, row="LARS", minus="SGD"), rows([6] * 5, [4] * 5))
    assert turned.mean == -2.0 and turned.verdict == CONTRADICTS


def test_seeds_that_only_one_row_has_are_left_out():
    found = [row("SGD", run(0, 9.0), run(2, 8.0), run(3, 7.0)), row("LARS", run(2, 1.0))]
    one = judge(WORSE, found)
    assert (one.differences, one.low, one.verdict) == ((7.0,), None, CANNOT_TELL)
    assert claims.numbers(one) == "+7.00 points, n = 1"
    none = judge(WORSE, [found[0], row("LARS")])
    assert (none.differences, none.mean, none.verdict) == ((), None, CANNOT_TELL)


def test_a_run_that_diverged_has_the_error_of_guessing_among_ten():
    found = [row("SGD", run(0, 9.0, diverged_at=3)), row("LARS", run(0, 4.0))]
    assert judge(WORSE, found).differences == (86.0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": "SDG"}, "`contrast of 'LARS holds'` must be a row of the miniature (SGD; LARS). "
         "Received: contrast of 'LARS holds'='SDG'"),
        ({"minus": "SGD"}, "`contrast.minus` must be another row"),
        ({"kind": "less"}, "`contrast.kind` must be one of more, equal, no_worse"),
        ({"smallest": 0.0}, "`contrast.smallest` must be above 0 and finite"),
        ({"smallest": float("nan")}, "Received: contrast.smallest=nan"),
    ],
)  # fmt: skip
def test_a_claim_that_cannot_be_is_one_line_that_names_it(change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        miniature(dataclasses.replace(WORSE, **change))
    assert "\n" not in str(error.value)


def test_a_record_of_other_rows_is_one_line_that_names_them():
    record = result(rows([5.0] * 5, [4.0] * 5))
    with pytest.raises(InputError, match=r"module \(SGD at 256, rate 1; Nesterov at 256") as error:
        claims.find(miniature(labels=("SGD", "Nesterov")), record)
    assert "Received: SGD at 256, rate 1; LARS" in str(error.value)
    assert "\n" not in str(error.value)
    faster = [dataclasses.replace(row, peak_rate=2.0) for row in record.rows]
    with pytest.raises(InputError, match="Received: SGD at 256, rate 2; "):
        claims.find(miniature(), dataclasses.replace(record, rows=tuple(faster)))


def result(found, **fields):
    facts = dict(recipe="a", title="A", paper="arXiv:1", scale="miniature")
    return Result(**facts, rows=tuple(found), **fields)


def test_a_record_keeps_what_it_shows_and_one_without_is_judged_when_it_is_read():
    found = rows([6.0, 7.0, 8.0, 9.0, 10.0], [4.0, 4.5, 6.0, 7.5, 7.0])
    judged = claims.judge([WORSE], found, stated_before=True)
    again = Result.from_json(json.loads(json.dumps(result(found, claims=judged).to_json())))
    assert again.claims == judged == claims.find(miniature(WORSE), again)
    old = again.to_json()
    del old["claims"]
    (late,) = claims.find(miniature(WORSE), Result.from_json(old))
    assert late == dataclasses.replace(judged[0], stated_before=False)
    # A claim that was changed later is judged anew, whatever the record says.
    stricter = dataclasses.replace(WORSE, smallest=3.0)
    (late,) = claims.find(miniature(stricter), again)
    assert late.verdict == CONTRADICTS and not late.stated_before


def test_the_closing_table_says_claim_numbers_and_verdict():
    found = rows([6.0, 7.0, 8.0, 9.0, 10.0], [4.0, 4.5, 6.0, 7.5, 7.0])
    stated = (WORSE, dataclasses.replace(WORSE, kind="equal", claim="LARS ties"))
    shown = tables.verdict(result(found, claims=claims.judge(stated, found, stated_before=True)))
    one, other, together = shown[-3:]
    assert re.fullmatch(r"agrees: LARS holds \(SGD - LARS: \+2\.20 points \[.*\], n = 5\)", one)
    assert other.startswith("contradicts: LARS ties (")
    assert together == "together: contradicts"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_row_of_a_miniature_stands_for_a_row_that_the_module_has(name):
    module = MODULES[name]
    known = {None, *getattr(module, "ROWS", {})}
    of = [one.of for one in module.MINIATURE.rows]
    assert set(of) <= known
    stood_for = [row for row in of if row is not None]
    assert len(stood_for) == len(set(stood_for))
    for one in module.MINIATURE.rows:
        if one.of is not None:
            assert one.published == module.ROWS[one.of].expected


def test_rows_without_a_part_in_the_miniature_wear_no_verdict():
    mlperf = MODULES["mlperf"]
    about = {row for row, recipe in mlperf.ROWS.items() if mlperf.MINIATURE.about(recipe)}
    assert len(mlperf.ROWS) >= 21 and about == {"google-v0.7-65536-jax"}
    for recipe in load_recipes():
        stated = MODULES[recipe.name].MINIATURE
        line = recipe_list.describe(recipe, stated)
        wears = recipe_list.miniature_record(recipe.name) is not None and stated.about(recipe)
        assert line["verdict"] in (VERDICTS if wears else (None,))
        assert line["rung"] == ("mini" if wears else "plan")


def test_the_verdict_in_the_list_is_that_of_the_errors_in_the_record(capsys):
    with pytest.raises(SystemExit):
        main(["list", "--json"])
    shown = {
        (line["name"], line["row"]): line["verdict"] for line in json.loads(capsys.readouterr().out)
    }
    for recipe in load_recipes():
        stated = MODULES[recipe.name].MINIATURE
        record = recipe_list.miniature_record(recipe.name)
        about = stated.about(recipe)
        if record is None or not about:
            assert shown[recipe.name, recipe.row] is None
            continue
        found = claims.judge(about, record[1].rows, stated_before=False)
        assert shown[recipe.name, recipe.row] == claims.combined(found)


def test_the_list_reads_verdicts_and_computes_none():
    code = (
        "import sys; from tf_largebatch.__main__ import main\n"
        "try: main(['list'])\n"
        "finally: print('loaded', sorted(set(sys.modules) & {'numpy', 'scipy', 'tensorflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("loaded []\n")


def test_the_plan_says_before_the_run_what_would_agree_and_what_would_contradict(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "smith_16k"])
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "a growing batch ends" in x]
    assert (
        "batch doubles - rate decays: agrees where the interval lies within 1 points of 0" in line
    )
    assert "contradicts where" in line and "fewer than 5 seeds, cannot tell" in line
