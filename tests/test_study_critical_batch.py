"""The study of the critical batch: its plan, and what it concludes from trainings by formula."""

import math

import numpy as np
import pytest

from tf_largebatch.studies import critical_batch_plan as plans
from tf_largebatch.studies.critical_batch import STUDY
from tf_largebatch.studies.study import Scale

STEPS_MIN, CRITICAL = 100.0, 400.0
SCALE = Scale(5)


def law(settings):
    """A training by formula: S = S_min (1 + B_crit / B), more off the best rate."""
    match settings["kind"]:
        case "noise":
            seed = settings["seed"]
            return {"grad_sq": 1.0, "trace": 800.0, "b_simple": 800.0 * 1.1**seed, "places": 20}
        case "ladder":
            loss = {"lamb": 0.02, "sgd": 0.4}[settings["optimizer"]]
            error = 11 + loss * math.log2(settings["batch"] / 64) + 0.1 * settings["seed"]
            return {
                "held_out_error_pct": abs(math.log(settings["rate"] / 0.05)),
                "test_error_pct": error,
            }
    best = STEPS_MIN * (1 + CRITICAL / settings["batch"])
    off = abs(math.log(settings["rate"] / (1 - settings["momentum"]) / 0.5))
    noise = 1 + 0.02 * math.sin(settings["seed"] + settings["batch"])
    steps = round(best * noise * (1 + 0.05 * off))
    reached = steps <= settings["updates"]
    done = steps if reached else settings["updates"]
    error = settings["target_pct"] if reached else settings["target_pct"] + off
    return {"steps": steps if reached else None, "updates": done, "error_pct": error}


def run_all(scale, order=None):
    """Runs the plan to its end; `order` draws the next trial, the first of the plan without it."""
    results, trials = {}, {}
    while missing := [t for t in plans.plan(results, scale) if t.name not in results]:
        wave = missing if order is None else [missing[order.integers(len(missing))]]
        for trial in wave:
            results[trial.name] = law(trial.settings)
            trials[trial.name] = trial
    return results, trials


@pytest.fixture(scope="module")
def done():
    return run_all(SCALE)


def test_every_batch_has_the_same_points_and_number_of_trials(done):
    _, trials = done
    searches, finals = {}, {}
    for trial in trials.values():
        s = trial.settings
        if s["kind"] == "target":
            kind = searches if s["stage"] == "tune" else finals
            kind.setdefault((s["data"], s["batch"]), []).append((s["rate"], s["momentum"]))
    assert len(searches) == len(finals) == 20
    assert {tuple(points) for points in searches.values()} == {
        tuple((p["rate"], p["momentum"]) for p in plans.points())
    }
    assert {len(points) for points in finals.values()} == {4 * 5}
    rates, momenta = np.array([(p["rate"], p["momentum"]) for p in plans.points()]).T
    assert (
        0.002 <= rates.min() and rates.max() <= 1 and 0 <= momenta.min() and momenta.max() <= 0.97
    )


def test_a_trial_ends_where_the_waves_before_it_were_faster(done):
    results, trials = done
    for data in ("mnist", "fashion_mnist"):
        for batch in plans.DESIGN["batches"]:
            names = [f"{data}/b{batch:04d}-search-p{p:02d}" for p in range(24)]
            limits = [trials[name].settings["updates"] for name in names]
            steps = [results[name]["steps"] or math.inf for name in names]
            assert set(limits[:4]) == {plans.budget(batch, SCALE)}
            assert set(limits[4:8]) == {min(plans.budget(batch, SCALE), *steps[:4])}
            assert set(limits[8:]) == {min(plans.budget(batch, SCALE), *steps[:8])}


def test_the_order_in_which_trials_end_changes_nothing():
    scale = Scale(2, quick=True)
    wanted = run_all(scale)
    for seed in range(3):
        assert run_all(scale, np.random.default_rng(seed)) == wanted


def test_seeds_of_the_search_are_none_of_the_final_ones(done):
    _, trials = done
    by_stage = {"tune": set(), "final": set()}
    for trial in trials.values():
        by_stage[trial.settings["stage"]].add(trial.settings["seed"])
    assert by_stage["final"] == set(range(5))
    assert not by_stage["tune"] & by_stage["final"]


def test_the_conclusion_finds_the_law_that_the_trials_follow(done):
    results, _ = done
    found = STUDY.conclude(results, SCALE)
    for seed in found.numbers["mnist"]:
        assert seed["critical_batch"] == pytest.approx(CRITICAL, rel=0.1)
        assert seed["noise_scale"] == pytest.approx(800, rel=0.5)
    verdicts = {claim.id: STUDY.verdict(found.answers, claim.id) for claim in STUDY.claims}
    assert verdicts == {"C9": "agrees", "C10": "agrees", "C8a": "agrees", "C8b": "agrees"}
    prediction = next(a for a in found.answers if a.claim == "C10").finding
    # 800 * 1.1^seed over about 400: log10 2 and 2 steps of log10 1.1 in the mean.
    assert prediction.mean == pytest.approx(math.log10(2) + 2 * math.log10(1.1), abs=0.05)
    assert all(figure.png.startswith(b"\x89PNG") for figure in found.figures)


def test_one_straight_line_is_no_three_regimes():
    """Updates as B ** -0.5 everywhere: neither perfect scaling nor flat."""
    from tf_largebatch.studies.critical_batch_report import halvings

    steps = {b: round(1e6 * b**-0.5) for b in plans.DESIGN["batches"]}
    assert halvings(steps, 16, 128) == pytest.approx(0.5, abs=1e-3)
    assert halvings(steps, 2_048, 8_192) == pytest.approx(0.5, abs=1e-3)
    assert halvings({16: 1}, 16, 128) is None


def test_a_study_that_was_interrupted_says_what_it_lacks(done):
    results, _ = done
    some = {n: r for n, r in results.items() if "-s4-" not in n and not n.endswith("-s4")}
    found = STUDY.conclude(some, SCALE)
    assert STUDY.verdict(found.answers, "C9") == "cannot tell"
    assert any("of seed 4 the target was not reached" in note for note in found.notes)
    STUDY.conclude({}, SCALE)  # nothing at all


def test_whole_seeds_come_first():
    results = {}
    while missing := [t for t in plans.plan(results, SCALE) if t.name not in results]:
        if missing[0].name.startswith("mnist/b0016-s1-"):
            break
        results[missing[0].name] = law(missing[0].settings)
    first = STUDY.conclude(results, Scale(1)).numbers["mnist"][0]
    assert first["critical_batch"] is not None and first["noise_scale"] is not None


@pytest.mark.slow
def test_a_training_reaches_its_target_and_again_the_same():
    from tf_largebatch.studies.sets import Sets
    from tf_largebatch.studies.target_training import TargetTraining

    split = Sets().load("digits", "tune")
    train, held_out = ((x.reshape(len(x), -1), y) for x, y in (split.train, split.held_out))
    one = TargetTraining(64, (32,), 64)
    point = {"rate": 0.1, "momentum": 0.9, "seed": 1}
    first = one.to_target(train, held_out, target_pct=10.0, updates=400, **point)
    one.to_target(train, held_out, target_pct=10.0, updates=40, rate=0.9, momentum=0.0, seed=2)
    assert one.to_target(train, held_out, target_pct=10.0, updates=400, **point) == first
    assert first["steps"] and first["error_pct"] <= 10.0
    far = one.to_target(
        train, held_out, target_pct=1.0, updates=40, rate=1e30, momentum=0.9, seed=1
    )
    assert far["steps"] is None and far["updates"] < 40  # not finite: it ended


@pytest.mark.slow
def test_the_gradient_of_the_probe_is_the_gradient():
    from tf_largebatch.studies import target_training as trainings

    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (96, 5)).astype(np.uint8)
    y = rng.integers(0, 10, 96)
    model = trainings.make_network(5, ())
    weights = trainings.first_weights(model, 3)
    probe = trainings.GradientProbe(model)
    probe.take(weights)
    logits = (x / 255.0) @ weights[0].astype(float) + weights[1]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(96), y] -= 1
    wanted = np.concatenate([((x / 255.0).T @ shares / 96).ravel(), shares.mean(axis=0)])
    for _ in range(2):  # it stands still between two calls
        np.testing.assert_allclose(probe.gradient(x, y), wanted, atol=1e-6)
