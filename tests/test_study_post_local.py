"""The study of post-local SGD: what is planned when, which H is chosen, and a trial's halves."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_studies import write_digits

from tf_largebatch.records.files import read_json
from tf_largebatch.studies import cifar10, post_local
from tf_largebatch.studies import post_local_training as training
from tf_largebatch.studies.sets import Sets
from tf_largebatch.studies.study import Scale
from tf_largebatch.studies.tuning import HELD_OUT_ERROR

ROOT = Path(__file__).parents[1]
SCALE = Scale(seeds=5)
BEST = {(16, 1): 0.015, (256, 1): 0.08, (256, 16): 0.16, (256, 32): 0.08}
LEAST = {1: 15.0, 16: 14.0, 32: 14.5}  # held-out error of each H at its best rate


def finish(test_errors) -> dict:
    """Runs the plan to its end; the held-out error grows with the distance from the best rate."""
    results: dict = {}
    while True:
        missing = [t for t in post_local.plan(results, SCALE) if t.name not in results]
        if not missing:
            return results
        for trial in missing:
            s = trial.settings
            row = s["batch"], s["local_steps"]
            if s["stage"] == "tune":
                error = LEAST[row[1]] + abs(np.log2(s["rate"] / BEST[row]))
                results[trial.name] = {HELD_OUT_ERROR: error, "loss": [1.0]}
            else:
                error = test_errors(*row, s["seed"])
                results[trial.name] = {training.TEST_ERROR: error, "loss": [1.0]}


def test_nothing_but_the_searches_is_planned_before_a_rate_is_known():
    trials = post_local.plan({}, SCALE)
    assert {t.settings["stage"] for t in trials} == {"tune"}
    assert len({t.name for t in trials}) == len(trials) == 4 * 3 * 2  # rows, rates, tuning seeds
    assert {t.settings["batch"] for t in trials[:18]} == {256}  # what the claim is about first


def test_the_verdict_is_of_the_h_that_the_held_out_pictures_choose():
    def errors(batch, steps, seed):
        return {1: 16.0, 16: 15.2}[steps] + 0.1 * seed + 0.01 * (steps - 1) * seed

    results = finish(errors)
    assert len([n for n in results if n.startswith("final")]) == 3 * SCALE.seeds
    found = post_local.conclude(results, SCALE)
    (answered,) = found.answers
    # 16 - 15.2 - 0.15 a seed, of H = 16, whose held-out error is lower than that of H = 32.
    assert answered.finding.differences == pytest.approx([0.8, 0.65, 0.5, 0.35, 0.2])
    assert answered.verdict == "agrees" and "H = 16" in answered.effect
    # The small batch has 16 too: no gap, of which the page warns.
    assert found.notes[0] == post_local.SMALL_GAP
    assert {f.name for f in found.figures} == {"differences.png", "rates.png"}
    assert post_local.conclude({}, SCALE).answers[0].verdict == "cannot tell"


def test_the_claim_stands_in_one_study():
    assert "C16" not in {claim.id for claim in cifar10.CLAIMS}


def test_what_the_guide_says_is_in_the_record():
    guide = (ROOT / "docs" / "beyond.md").read_text()
    record = read_json(ROOT / "docs" / "claims" / "post_local" / "record.json")
    (claim,) = record["claims"]
    (found,) = claim["answers"]
    gap = record["tables"][0]["note"].split("small batch: ")[1]
    for effect in (found["effect"], gap):
        (numbers,) = re.findall(r"[+-][\d.]+ points \[.*?\]", effect)
        assert numbers in guide.replace("\n", " ")
    assert found["verdict"] == "contradicts" and "the claim contradicted" in guide


@pytest.mark.slow
def test_updates_are_local_from_the_first_drop_on(tmp_path):
    write_digits(tmp_path / "fashion_mnist")
    size, sets = post_local.QUICK, Sets(tmp_path)
    large = size.workers * size.share
    rows = [post_local.Row("", large, steps) for steps in (1, 2)]
    step, local = (
        training.run(post_local.make_trial(size, row, 0.1, "tune", 0).settings, sets)["loss"]
        for row in rows
    )
    first = size.drops[0]
    assert local[:first] == step[:first]
    # The first loss after the drop is of equal weights in every row but the first of the epoch.
    assert local[first] != step[first]
    np.testing.assert_allclose(local, step, rtol=0.2)
