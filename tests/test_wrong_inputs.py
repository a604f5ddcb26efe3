"""Sixty of the wrong inputs of `tools/wrong_inputs.py`, of all kinds; its record says of all."""

import json
import sys

import pytest
from commands import ROOT

sys.path.append(str(ROOT / "tools"))

import wrong_inputs

EVERY = wrong_inputs.every()
KINDS = {wrong.kind for wrong in EVERY}
DRAWN = wrong_inputs.draw(EVERY, 60, seed=0)
RECORD = json.loads((ROOT / "tools" / "records" / "wrong_inputs.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def loaded():
    wrong_inputs.warm()


@pytest.mark.parametrize("number", range(len(DRAWN)))
def test_a_wrong_input_is_refused_in_one_line_before_anything_is_written(number):
    assert wrong_inputs.give(DRAWN[number]) is None, DRAWN[number].text


def test_the_sixty_are_of_every_kind():
    assert {wrong.kind for wrong in DRAWN} == KINDS


def test_the_record_holds_five_hundred_of_every_kind_and_no_failure():
    assert RECORD["inputs"] >= 500
    assert set(RECORD["kinds"]) == KINDS
    assert RECORD["failures"] == []
    assert sum(kind["inputs"] for kind in RECORD["kinds"].values()) == RECORD["inputs"]


def test_urls_stay_text_and_a_run_folder_is_of_this_machine():
    from tf_largebatch.recipes.goyal_8k import RECIPE
    from tf_largebatch.training.options import make_parser

    parser = make_parser(RECIPE)
    assert parser.parse_args(["--data", "gs://bucket/x"]).data == "gs://bucket/x"
    with pytest.raises(SystemExit):
        parser.parse_args(["--run-dir", "gs://bucket/run"])
