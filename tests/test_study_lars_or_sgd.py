"""The study of LARS against SGD: its searches, its rules, its norms by layer."""

import itertools
import math

import numpy as np
import pytest

from tf_largebatch.studies import lars_or_sgd_page as page
from tf_largebatch.studies import lars_or_sgd_plan as plan
from tf_largebatch.studies.lars_or_sgd import STUDY, make_optimizer
from tf_largebatch.studies.lars_or_sgd_plan import LAMB, LARS, NORMED, PLAIN, SGD, Row
from tf_largebatch.studies.study import Scale

SCALE = Scale(5)
BEST = {SGD: 0.2, LARS: 0.32, LAMB: 0.02}  # rates of the arithmetic below, at every batch


def arithmetic(settings):
    """A result without training: the error grows with the distance from the best rate."""
    if settings["kind"] == "ratios":
        return {
            "layers": ["hidden1", "hidden2", "head"],
            "weight_norms": [[20.0, 16.0, 4.0]] * 3,
            "gradient_norms": [[0.2, 0.2, 0.5]] * 3,
        }
    best = BEST[settings["optimizer"]] * (4.0 if settings["network"] == NORMED else 1.0)
    speed = settings["rate"]
    if settings["optimizer"] != LAMB:
        speed *= 0.1 / (1.0 - settings["momentum"]) if settings["momentum"] < 1 else 1.0
    off = abs(math.log2(speed / best))
    loses = settings["optimizer"] == SGD and settings["batch"] > 128
    base = 10.0 + (2.0 if loses and settings["network"] == PLAIN else 0.0)
    error = 90.0 if speed > 8.1 * best else base + 0.1 * off + 0.01 * settings["seed"]
    return {"held_out_error_pct": error, "test_error_pct": error, "train_loss": [1.0]}


@pytest.fixture(scope="module")
def finished():
    """All trials of the whole study, by arithmetic."""
    results = {}
    while missing := [t for t in plan.plan(results, SCALE) if t.name not in results]:
        results |= {t.name: arithmetic(t.settings) for t in missing}
    return results


def test_every_search_starts_with_as_many_rates_and_only_finals_read_the_test_set(finished):
    rows = plan.rows(SCALE)
    assert len(rows) == len(set(rows)) == 2 * (1 + 3 * 3)
    assert {len(plan.search(row, {}, SCALE).points) for row in rows} == {5}
    last = [row for row in rows if row.batch == 8_192]
    points = [plan.tuned(row, finished, SCALE) for row in last]
    assert {len(found.trials) for found in points} == {16 + 4}
    stages = {t.settings["stage"] for t in plan.plan(finished, SCALE) if "final/" in t.name}
    assert stages == {"final"}
    others = [t for t in plan.plan(finished, SCALE) if "final/" not in t.name]
    assert {t.settings["stage"] for t in others} == {"tune"}


def test_the_search_finds_the_best_rate_also_beyond_the_grid(finished):
    assert plan.search(Row(PLAIN, SGD, 8_192), finished, SCALE).best == pytest.approx(0.2)
    # 0.8 lies beyond the grid of 512, which ends at 0.4: one step more, and one to see the rise.
    found = plan.search(Row(NORMED, SGD, 512), finished, SCALE)
    assert found.best == pytest.approx(0.8) and len(found.points) == 7


def test_the_linear_rule_takes_the_rate_of_the_small_batch(finished):
    small = plan.search(Row(PLAIN, SGD, 128), finished, SCALE).best
    assert plan.linear_rate(Row(PLAIN, SGD, 8_192), finished, SCALE) == 64 * small
    assert plan.linear_rate(Row(PLAIN, SGD, 8_192), {}, SCALE) is None


def test_a_point_keeps_how_far_an_update_goes():
    # rate / (1 - momentum) is 2 * 0.4 / 0.1 = 8 whatever the momentum; LAMB's is the rate.
    point = {"speed": 2.0, "one_minus_momentum": 0.05}
    assert plan._pair(Row(PLAIN, LARS, 8_192), 0.4, point) == (0.4, 0.95)
    assert plan._pair(Row(PLAIN, LAMB, 8_192), 0.4, point) == (0.8, 0.95)


@pytest.mark.parametrize(
    ("errors", "largest"),
    [
        ([12, 11, 12, 16, 90], 8.0),  # 16 is 5 above 11
        ([12, 11, 17, 12, 90], 2.0),  # what works again beyond a failure does not count
        ([11, 12, 13, 14, 15], 16.0),
        ([90, 90, 90, 90, 11], 16.0),
    ],
)
def test_the_largest_usable_rate(errors, largest):
    points = list(zip([1.0, 2.0, 4.0, 8.0, 16.0], errors, strict=True))
    assert page.largest_usable(points[::-1]) == largest


def test_the_answers_are_those_of_the_arithmetic(finished):
    conclusion = STUDY.conclude(finished, SCALE)
    answers = {a.claim: a for a in conclusion.answers}
    means = {name: a.finding.mean for name, a in answers.items()}
    assert means["C5b"] == pytest.approx(2.0)  # SGD loses 2 points, LARS none
    assert means["C6a"] == pytest.approx(2.0)  # the normed network takes 4 times the rate
    assert means["C6b"] == pytest.approx(2.0)
    assert means["C7"] == pytest.approx(math.log10(100 / 8))  # 20 / 0.2 and 4 / 0.5
    assert means["C17a"] == pytest.approx(0.0, abs=0.1)
    verdicts = {name: a.verdict for name, a in answers.items()}
    assert verdicts["C5b"] == verdicts["C17a"] == "agrees"
    assert verdicts["C17b"] == "contradicts"  # there SGD is 2 points behind
    assert {f.name for f in conclusion.figures} == {"ladder.png", "rates.png", "ratios.png"}
    assert all(f.png.startswith(b"\x89PNG") for f in conclusion.figures)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_a_study_that_has_only_begun_cannot_tell(finished, share):
    names = sorted(finished)[:: round(1 / share)] if share else []
    conclusion = STUDY.conclude({name: finished[name] for name in names}, SCALE)
    assert {a.verdict for a in conclusion.answers if a.claim != "C7"} == {"cannot tell"}


def test_the_course_rises_and_falls_to_zero():
    settings = {"optimizer": SGD, "rate": 0.4, "momentum": 0.9, "epochs": 12}
    optimizer = make_optimizer(settings, updates_of_epoch=6)
    rate = [float(optimizer._learning_rate(u)) for u in range(72)]
    assert rate[0] == 0.0 and rate[6] == pytest.approx(0.2) and rate[12] == pytest.approx(0.4)
    assert rate[42] == pytest.approx(0.1) and 0 < rate[71] < 1e-3  # half-way down: (1/2)^2


def test_norms_by_layer_are_those_of_numpy():
    from tf_largebatch.studies import fitting
    from tf_largebatch.studies.lars_or_sgd import make_network, measure_ratios

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (32, 28, 28, 1), np.uint8)
    labels = random.integers(0, 10, 32)
    model = make_network(PLAIN, seed=0)
    weights = [np.asarray(w, np.float64) for w in model.get_weights()]
    settings = {"batch": 16, "rate": 0.05, "seed": 3}
    found = measure_ratios(model, images, labels, settings)
    places = next(itertools.islice(fitting.batches(32, 16, seed=3), 1))
    kernels, gradients = kernel_gradients(weights, images[places], labels[places])
    assert found["layers"] == ["hidden1", "hidden2", "head"] and len(found["weight_norms"]) == 2
    for own, tensors in (("weight_norms", kernels), ("gradient_norms", gradients)):
        np.testing.assert_allclose(found[own][0], [np.linalg.norm(t) for t in tensors], rtol=1e-5)


def kernel_gradients(weights, images, labels):
    """The kernels and their gradients of 784-256-256-10 with ReLU, in float64."""
    kernels, biases = weights[0::2], weights[1::2]
    mean, deviation = plan.PIXELS
    x = [(images.reshape(len(images), -1).astype(np.float64) - mean) / deviation]
    for kernel, bias in zip(kernels, biases, strict=True):
        z = x[-1] @ kernel + bias
        x.append(np.maximum(z, 0))
    shifted = np.exp(z - z.max(axis=1, keepdims=True))
    delta = shifted / shifted.sum(axis=1, keepdims=True)
    delta[np.arange(len(labels)), labels] -= 1
    delta /= len(labels)
    gradients = []
    for layer in (2, 1, 0):
        gradients.append(x[layer].T @ delta)
        delta = (delta @ kernels[layer].T) * (x[layer] > 0)
    return kernels, gradients[::-1]
