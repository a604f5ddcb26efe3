"""The study of warmups: its trials are the miniature of goyal_8k, and its verdicts its rules'."""

import statistics
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tf_largebatch.data import digits
from tf_largebatch.recipes import goyal_8k
from tf_largebatch.records.files import read_json
from tf_largebatch.review.recipe_list import miniature_record
from tf_largebatch.schedules import trace
from tf_largebatch.studies import warmup
from tf_largebatch.studies import warmup_trials as trials
from tf_largebatch.studies.sets import Sets
from tf_largebatch.studies.study import Scale
from tf_largebatch.training.build import make_model, make_schedule

ROOT = Path(__file__).parents[1]
WHOLE = Scale(seeds=10)
RECIPES = {row.label: row.recipe for row in goyal_8k.MINIATURE.rows}
SAME = {  # rows of the study that the miniature has too
    "small batch": trials.small(),
    "large, same rate": trials.unscaled(),
    "linear, no warmup": trials.linear(0),
    "linear, warmup": trials.linear(trials.GOYALS),
}


def settings_of(row):
    return row.trial(0, trials.EPOCHS).settings


@pytest.mark.parametrize("label", SAME)
def test_a_row_has_the_rate_of_the_miniature_at_every_update(label):
    recipe = RECIPES[label]
    updates = np.arange(recipe.updates)
    course = trials.make_course(settings_of(SAME[label]), 1280)
    ours, theirs = (trace(c, updates) for c in (course, make_schedule(recipe, recipe.phases())))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_update_rule_and_data_are_those_of_the_miniature():
    recipe = RECIPES["linear, warmup"]
    rule = trials.make_optimizer(settings_of(SAME["linear, warmup"]), 1280).get_config()
    for name, value in asdict(recipe.optimizer).items():
        assert rule[name] == value, name
    assert (recipe.data.shift, recipe.data.noise) == (1, 0.3)
    assert (trials.DESIGN["shift"], trials.DESIGN["noise"]) == (1, 0.3)


def test_the_network_starts_with_the_weights_of_the_miniature():
    data = digits.load()
    theirs = make_model(RECIPES["small batch"], data, 3)
    split = Sets().load("digits", "final")
    images, labels = trials.pixels_of(*split.all_train)
    ours = trials.make_model(images, 1.0, 3)
    pairs = zip(ours.get_weights(), theirs.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    # The same network, the same scale of the pixels.
    batch = images[:16]
    np.testing.assert_allclose(ours(batch), theirs(batch), rtol=1e-4, atol=1e-6)
    assert (len(images), len(split.test[0])) == (digits.TRAIN_EXAMPLES, digits.EVAL_EXAMPLES)
    evaluation = np.stack([image for image, *_ in data.eval_batches(517)][0])
    assert np.array_equal(trials.pixels_of(*split.test)[0], evaluation)


def test_images_move_by_up_to_a_pixel_and_are_blurred(monkeypatch):
    draws = np.random.default_rng(0)
    image = draws.random((8, 8, 1), dtype=np.float32) + 1.0
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    nine = [padded[i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    many = np.repeat(image[None], 400, axis=0)
    noise = trials.move_and_blur(np.zeros_like(many), draws)
    assert noise.std() == pytest.approx(0.3, rel=0.02)  # 25,600 values: 0.4 % standard error
    monkeypatch.setitem(trials.DESIGN, "noise", 0.0)
    moved = trials.move_and_blur(many, draws)
    found = [[np.array_equal(one, shifted) for shifted in nine].index(True) for one in moved]
    counts = np.bincount(found, minlength=9)
    assert counts.min() > 400 / 9 - 4 * np.sqrt(400 / 9)  # four standard errors


def test_the_plan_goes_by_whole_seeds_and_reads_the_test_set_in_final_trials_only():
    planned = warmup.plan({}, WHOLE)
    names = [trial.name for trial in planned]
    assert len(set(names)) == len(names) == 370
    assert {trial.settings["stage"] for trial in planned} == {"final"}
    # Five seeds of the rows that decide come first: 13 of gamma 1, 4 of gamma 0.
    deciding = [(t.settings["gamma"], t.settings["seed"]) for t in planned[: 5 * 17]]
    assert deciding == [(1.0, s) for s in range(5) for _ in range(13)] + [
        (0.0, s) for s in range(5) for _ in range(4)
    ]
    assert all(t.settings["seed"] < 5 for t in planned[: 5 * 37])
    assert sum(t.settings["batch"] == 8 for t in planned) == 2 * 3 * 10
    # More seeds add trials and change none.
    assert {t.name for t in warmup.plan({}, Scale(3))} < set(names)


def errors_of(rows, seeds=10):
    """Results with these mean errors and a little noise; all other rows 50 %."""
    draws = np.random.default_rng(0)
    known = {row: error for row, error in rows.items()}
    every = [row for gamma in trials.GAMMAS for row in trials.rows_of(gamma)]
    return {
        row.name(seed): {"error_pct": known.get(row, 50.0) + float(draws.normal(0, 0.2))}
        for row in every
        for seed in range(seeds)
    }


def as_published():
    """Errors as the papers have it: warmup gives the small batch's, longer for the larger batch."""
    rows = {}
    for gamma in trials.GAMMAS:
        rows[trials.small(gamma=gamma)] = 4.0
        rows[trials.linear(trials.GOYALS, gamma=gamma)] = 4.2
        rows[trials.linear(0, gamma=gamma)] = 90.0
        rows[trials.unscaled(gamma=gamma)] = 18.0
    for batch, best in ((64, 5), (256, 15)):
        for length in trials.LENGTHS[1:]:
            rows[trials.linear(length, batch=batch)] = 4.2 + abs(length - best) / 2
    rows[trials.linear(0, batch=64)] = 13.0
    rows[trials.unscaled(batch=64)] = 6.7
    return rows


def verdicts(results, scale=WHOLE):
    answers = warmup.conclude(results, scale).answers
    return {claim.id: warmup.STUDY.verdict(answers, claim.id) for claim in warmup.CLAIMS}


def test_errors_as_published_agree_and_the_two_claims_on_scaling_exclude_each_other():
    assert verdicts(errors_of(as_published())) == {
        "C2": "agrees",
        "C3": "agrees",
        "C3b": "agrees",
        "C4": "agrees",
        "C4b": "contradicts",
    }


def test_each_claim_can_be_contradicted():
    rows = as_published()
    for gamma in trials.GAMMAS:
        rows[trials.small(gamma=gamma)] = 2.0  # C2
        rows[trials.unscaled(gamma=gamma)] = 4.2  # C4
    rows[trials.linear(0, batch=64)] = 3.0  # C3: none is best at 64
    for length in trials.LENGTHS[1:]:  # C3b: and the shortest at 256
        rows[trials.linear(length, batch=256)] = 4.2 + length / 2
        rows[trials.linear(length, batch=64)] = 20.0 - length
    found = verdicts(errors_of(rows))
    assert {found[name] for name in ("C2", "C3", "C4")} == {"contradicts"}
    assert found["C4b"] == "contradicts"  # 64 images differ


def test_what_is_missing_or_quick_cannot_be_told():
    rows = errors_of(as_published())
    few = {name: result for name, result in rows.items() if name[-2:] in ("00", "01")}
    assert set(verdicts(few).values()) == {"cannot tell"}
    assert set(verdicts(rows, Scale(2, quick=True)).values()) == {"cannot tell"}
    empty = warmup.conclude({}, WHOLE)
    assert all("too few" in a.effect for a in empty.answers)


def test_of_equal_lengths_the_shortest_is_best():
    assert warmup.best_length([4.0, 3.0, 3.0, 5.0, 3.0]) == 5


def test_tables_and_figures_show_every_row():
    found = warmup.conclude(errors_of(as_published()), WHOLE)
    assert [figure.png[:4] for figure in found.figures] == [b"\x89PNG"] * 2
    base, lengths, rates = found.tables
    assert base.rows[1][:2] == ["1", "0.05 to 1.6 (the claims)"]
    means = [float(cell.split()[0]) for cell in base.rows[1][2:]]
    assert means == pytest.approx([4.0, 18.0, 90.0, 4.2], abs=0.2)  # three standard errors
    assert "not run" not in str(found.tables)
    assert len(base.rows) == 6 and len(lengths.rows) == 2 and len(rates.rows) == 4


@pytest.mark.parametrize("label", SAME)
def test_fit_and_our_own_loop_agree_within_the_seeds_deviation(label):
    path, result = miniature_record("goyal_8k")
    (row,) = [row for row in result.rows if row.label == label]
    theirs = [run.top1_error_pct for run in row.runs]
    numbers = read_json(ROOT / "docs" / "claims" / "warmup" / "record.json")["numbers"]
    ours = numbers["errors_pct"][SAME[label].label]
    spread = sum(statistics.variance(errors) / len(errors) for errors in (ours, theirs)) ** 0.5
    gap = statistics.fmean(ours) - statistics.fmean(theirs)
    assert abs(gap) < 3 * spread, f"{gap:+.2f} points, standard error {spread:.2f}"
