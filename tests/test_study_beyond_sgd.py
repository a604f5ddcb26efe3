"""The study of the optimizers' critical batches: plan, verdicts by formula, and the updates."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import NO_TENSORFLOW

from tf_largebatch.studies import beyond_sgd_plan as plans
from tf_largebatch.studies.beyond_sgd import STUDY
from tf_largebatch.studies.study import Scale

SCALE = Scale(5)
LEAST_UPDATES = 30.0
CRITICAL = {"sgd": 400.0, "lars": 440.0, "lamb": 1_600.0, "muon": 3_200.0, "kfac": 1_600.0}


def make_law(critical=CRITICAL, least=LEAST_UPDATES):
    """A training by formula: S = S_min (1 + B_crit / B), more off the best point."""

    def law(settings):
        optimizer, point = settings["optimizer"], settings["point"]
        low, high = plans.DESIGN["spaces"][optimizer]["rate"]
        off = abs(math.log(point["rate"] / math.sqrt(low * high)))
        noise = 1 + 0.02 * math.sin(settings["seed"] + settings["batch"] + len(optimizer))
        best = least * (1 + critical[optimizer] / settings["batch"])
        steps = round(best * noise * (1 + 0.02 * off))
        reached = steps <= settings["updates"]
        return {
            "steps": steps if reached else None,
            "updates": min(steps, settings["updates"]),
            "error_pct": settings["target_pct"] + (0 if reached else off),
        }

    return law


def run_all(scale, law, order=None):
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
    return run_all(SCALE, make_law())


def test_every_optimizer_has_the_same_number_of_trials_at_every_batch(done):
    _, trials = done
    counts = {}
    for trial in trials.values():
        s = trial.settings
        cell = counts.setdefault((s["optimizer"], s["batch"]), {"tune": 0, "final": 0})
        cell[s["stage"]] += 1
    assert len(counts) == 5 * 4
    assert {tuple(cell.items()) for cell in counts.values()} == {(("tune", 16), ("final", 10))}


def test_the_ranges_are_of_one_width_and_the_points_the_same_share_of_each():
    """Damping and rate over a factor of 100, 1 - momentum over that to plain SGD."""
    shares = set()
    for optimizer, space in plans.DESIGN["spaces"].items():
        (low, high), (other_low, other_high) = space.values()
        assert high / low == pytest.approx(100)
        assert other_high / other_low == pytest.approx(100 if optimizer == "kfac" else 1 / 0.03)
        rates = [point["rate"] for point in plans.points(optimizer)]
        shares.add(tuple(round(math.log(rate / low, 100), 3) for rate in rates))
        for point in plans.points(optimizer):
            (other,) = set(point) - {"rate"}
            assert 0 <= point[other] <= (0.97 if optimizer != "kfac" else 0.3)
    assert len(shares) == 1


def test_the_order_in_which_trials_end_changes_nothing():
    scale, law = Scale(2, quick=True), make_law()
    wanted = run_all(scale, law)
    for seed in range(2):
        assert run_all(scale, law, np.random.default_rng(seed)) == wanted


def test_whole_seeds_come_first(done):
    results, _ = done
    kept, known = {}, 0
    while missing := [t for t in plans.plan(kept, SCALE) if t.name not in kept]:
        if "-s1-" in missing[0].name:
            break
        kept[missing[0].name] = results[missing[0].name]
        known += 1
    numbers = STUDY.conclude(kept, Scale(1)).numbers
    assert all(row["critical_batch"][0] is not None for row in numbers.values())


def test_the_conclusion_finds_the_laws_that_the_trials_follow(done):
    results, _ = done
    found = STUDY.conclude(results, SCALE)
    for optimizer, row in found.numbers.items():
        assert row["critical_batch"] == pytest.approx([CRITICAL[optimizer]] * 5, rel=0.15)
        assert row["steps_min"] == pytest.approx([LEAST_UPDATES] * 5, rel=0.15)
    findings = {a.claim: a.finding for a in found.answers}
    assert findings["C19a"].mean == pytest.approx(2, abs=0.2)  # log2(1,600 / 400)
    assert findings["C19b"].mean == pytest.approx(2, abs=0.2)
    # 1 + B_crit / 8,192 of both.
    fewer = math.log2((1 + 400 / 8_192) / (1 + 1_600 / 8_192))
    assert findings["C20"].mean == pytest.approx(fewer, abs=0.1)
    # (512 + B_crit) / (8,192 + B_crit) of both.
    kept = math.log2((8_192 + 1_600) / (512 + 1_600)) - math.log2((8_192 + 3_200) / (512 + 3_200))
    assert findings["C21"].mean == pytest.approx(kept, abs=0.15)
    verdicts = {claim.id: STUDY.verdict(found.answers, claim.id) for claim in STUDY.claims}
    assert verdicts == {
        "C19a": "agrees",
        "C19b": "agrees",
        "C20": "contradicts",
        "C21": "agrees",
        "C22": "contradicts",
    }
    assert found.figures[0].png.startswith(b"\x89PNG")
    assert len(found.tuning) == 20


def test_a_curve_that_does_not_bend_counts_as_four_times_the_largest_batch():
    endless, bent = make_law({"kfac": 1e7}, least=0.01), make_law()

    def either(settings):
        return (endless if settings["optimizer"] == "kfac" else bent)(settings)

    results, _ = run_all(SCALE, either)
    # 0.01 (1 + 1e7 / B): 1,562 updates at 64, 12 at 8,192.
    c19a = next(a for a in STUDY.conclude(results, SCALE).answers if a.claim == "C19a")
    assert c19a.finding.mean == pytest.approx(math.log2(4 * 8_192 / 400), abs=0.2)


def test_where_nothing_arrives_a_search_has_a_longer_budget():
    """LARS needs 30 (1 + 8,000 / B) updates: 3,780 of 2,580 at 64, and 499 of 324 at 512."""
    results, trials = run_all(SCALE, make_law({**CRITICAL, "lars": 8_000.0}))
    longer = {name for name in trials if name.endswith("-long")}
    assert {name.partition("-")[0] for name in longer} == {"lars/b0064", "lars/b0512"}
    assert sum("search" in name for name in longer) == 2 * 16
    assert {trials[n].settings["updates"] for n in longer if "search-p00" in n} == {6_876, 860}
    assert STUDY.conclude(results, SCALE).numbers["lars"]["critical_batch"] == pytest.approx(
        [8_000] * 5, rel=0.15
    )


def test_a_seed_that_does_not_arrive_has_a_longer_budget(done):
    law, first = make_law(), done[1]

    def slow_seed(settings):
        found = law(settings)
        if (settings["optimizer"], settings["batch"], settings["seed"]) != ("sgd", 512, 2):
            return found
        steps = 500  # of 324, and of 860
        reached = steps <= settings["updates"]
        return {"steps": steps if reached else None, "updates": steps, "error_pct": 13.5}

    results, trials = run_all(SCALE, slow_seed)
    more = {name: t.settings["updates"] for name, t in trials.items() if name not in first}
    assert sorted(name.partition("-p")[0] for name in more) == ["sgd/b0512-s2"] * 2
    assert all(name.endswith("-long") for name in more)
    assert sorted(more.values()) == [500, 860]  # the second cannot be faster than the first
    assert STUDY.conclude(results, SCALE).numbers["sgd"]["steps"][2]["512"] == 500


def test_what_is_missing_is_said(done):
    results, _ = done
    some = {n: r for n, r in results.items() if "-s4-" not in n}
    found = STUDY.conclude(some, SCALE)
    assert {STUDY.verdict(found.answers, claim.id) for claim in STUDY.claims} == {"cannot tell"}
    assert any("of seed 4 the target was not reached" in note for note in found.notes)
    assert STUDY.conclude({}, SCALE).figures == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lars", "lamb", "muon"])
def test_a_training_is_that_of_the_optimizer_with_its_numbers(name):
    """After another one, since the network and its compiled update are kept."""
    from tf_largebatch import LAMB, LARS, Muon
    from tf_largebatch.studies import fitting
    from tf_largebatch.studies.target_optimizers import contender
    from tf_largebatch.studies.target_training import (
        TargetTraining,
        first_weights,
        make_network,
    )

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (256, 12)).astype(np.uint8), rng.integers(0, 10, 256)
    knob = "beta_1" if name == "lamb" else "momentum"
    make = {"lars": lambda **own: LARS(trust_coefficient=0.1, **own), "lamb": LAMB, "muon": Muon}
    one, seen = TargetTraining(12, (6,), 64, contender(name)), []

    def visit(update, model):
        seen.append(model.get_weights())
        return False

    for value in (0.0, 0.7):
        point = {"rate": 0.02, "seed": 3, knob: value}
        one.run(x, y, updates=8, next_place=lambda done: 8, visit=visit, **point)
    model = make_network(12, (6,))
    model.set_weights(first_weights(model, 3))
    optimizer = make[name](learning_rate=0.02, **{knob: 0.7})
    fitting.fit(model, optimizer, x, y, batch=64, updates=8, seed=3)
    other, got = seen
    for a, b, want in zip(other, got, model.get_weights(), strict=True):
        np.testing.assert_allclose(b, want, atol=2e-6)
        # Muon's biases are Adam's, which have no such number.
        assert want.ndim == 1 or not np.allclose(a, want, atol=1e-3)


RULE = {"momentum": 0.8, "damping": 0.05, "statistics_decay": 0.7, "refresh_updates": 3}
RATE, UPDATES, EXAMPLES = 0.05, 10, 16
# Prints the weights of a short `fit` on Keras's JAX backend, before and after.
PROGRAM = f"""
import json, sys
import keras
import numpy as np
from tf_largebatch import KFAC
from tf_largebatch.studies.natural_gradient import NaturalGradientNetwork
from tf_largebatch.studies.target_training import first_weights

keras.config.set_floatx("float32")
data = np.load(sys.argv[1])
model = NaturalGradientNetwork(7, (5,))
model.set_weights(first_weights(model, 1))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(KFAC({RATE}, **{RULE}), loss, jit_compile=True)
model.fit(data["x"], data["y"], batch_size={EXAMPLES}, shuffle=False, verbose=0)
print(json.dumps([w.tolist() for w in model.get_weights()]))
"""


def natural_gradient(weights, batches):
    """Float64: Martens & Grosse 2015 with momentum, for two dense layers and cross-entropy."""
    weights = [w.astype(float) for w in weights]
    velocity = [np.zeros_like(w) for w in weights]
    means, inverses = [None] * 4, []
    for update, (x, labels) in enumerate(batches):
        first = x / 255.0
        before = first @ weights[0] + weights[1]
        second = np.maximum(before, 0)
        logits = second @ weights[2] + weights[3]
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        shares[np.arange(len(x)), labels] -= 1  # an example's own gradient by the logits
        hidden = (shares @ weights[2].T) * (before > 0)
        layers = [(np.c_[first, np.ones(len(x))], hidden), (np.c_[second, np.ones(len(x))], shares)]
        if update % RULE["refresh_updates"] == 0:
            inverses = []
            for number, (a, g) in enumerate(layers):
                new = [a.T @ a / len(x), g.T @ g / len(x)]
                share = RULE["statistics_decay"] if update else 1.0
                for place, factor in enumerate(new, start=2 * number):
                    old = means[place] if update else 0.0
                    means[place] = share * factor + (1 - share) * old
                of_a, of_g = means[2 * number : 2 * number + 2]
                pi = math.sqrt(np.trace(of_a) / len(of_a) / (np.trace(of_g) / len(of_g)))
                root = math.sqrt(RULE["damping"])
                inverses += [
                    np.linalg.inv(of_a + pi * root * np.eye(len(of_a))),
                    np.linalg.inv(of_g + root / pi * np.eye(len(of_g))),
                ]
        for number, (a, g) in enumerate(layers):
            d = inverses[2 * number] @ (a.T @ g / len(x)) @ inverses[2 * number + 1]
            for place, part in ((2 * number, d[:-1]), (2 * number + 1, d[-1])):
                velocity[place] = RULE["momentum"] * velocity[place] + part
                weights[place] = weights[place] - RATE * velocity[place]
    return weights


@pytest.mark.slow
def test_natural_gradients_on_jax_are_the_equations(tmp_path):
    from tf_largebatch.studies.target_training import first_weights, make_network

    rng = np.random.default_rng(2)
    x = rng.integers(0, 256, (UPDATES, EXAMPLES, 7)).astype(np.uint8)
    y = rng.integers(0, 10, (UPDATES, EXAMPLES))
    np.savez(tmp_path / "data.npz", x=x.reshape(-1, 7), y=y.reshape(-1))
    (tmp_path / "sitecustomize.py").write_text(NO_TENSORFLOW)
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}",
    }
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "data.npz")]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    got = json.loads(run.stdout.strip().splitlines()[-1])
    start = first_weights(make_network(7, (5,)), 1)
    expected = natural_gradient(start, list(zip(x, y, strict=True)))
    for one, want, begun in zip(got, expected, start, strict=True):
        np.testing.assert_allclose(one, want, atol=2e-5 * max(1.0, np.abs(want).max()))
        assert np.abs(want - begun).max() > 0.01


def test_what_the_page_on_optimizers_says_is_in_the_record():
    docs = Path(__file__).parents[1] / "docs"
    text = (docs / "beyond.md").read_text(encoding="utf-8")
    record = json.loads((docs / "claims" / "beyond_sgd" / "record.json").read_text("utf-8"))
    updates, fits = record["tables"]
    for row in (updates["header"], *updates["rows"]):
        assert f"| {' | '.join(row)} |" in text
    for row in fits["rows"]:
        assert row[1].partition(", n =")[0] in text
