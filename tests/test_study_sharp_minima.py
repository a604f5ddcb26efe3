"""The study of sharp minima: its loss as a function of weights, its rules, its measurements."""

import dataclasses
import math

import keras
import numpy as np
import pytest

from tf_largebatch.diagnostics.sharpness import measure_sharpness
from tf_largebatch.studies import sharp_minima_page as page
from tf_largebatch.studies import sharp_minima_runs as runs
from tf_largebatch.studies.flat_loss import FlatLoss, read_weights
from tf_largebatch.studies.sharp_minima import STUDY
from tf_largebatch.studies.sharp_minima_plan import DECAYS, QUICK, SIDES, make_trial, plan
from tf_largebatch.studies.study import Scale

SCALE = Scale(5)
TINY = dataclasses.replace(
    QUICK,
    examples=128,
    hidden=(8,),
    epochs=1,
    batches=(32, 64),
    sharpness_examples=64,
    landscape_examples=64,
    plane_examples=64,
    plane_points=3,
)


def pictures(count, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 28, 28, 1), np.uint8)
    return images, random.integers(0, 10, count).astype(np.int32)


@pytest.fixture(scope="module")
def model():
    return runs.make_network((8,), 0.0, seed=0)


def reference(model, images, labels):
    """The mean cross-entropy of 784-8-10 in inference, in float64."""
    w1, gamma, beta, mean, variance, w2, b2 = (np.asarray(w, np.float64) for w in by_name(model))
    z = images.reshape(len(images), -1) / 255.0 @ w1
    z = np.maximum(gamma * (z - mean) / np.sqrt(variance + 1e-5) + beta, 0) @ w2 + b2
    z -= z.max(axis=1, keepdims=True)
    picked = z[np.arange(len(labels)), labels] - np.log(np.exp(z).sum(axis=1))
    return -picked.mean()


def by_name(model):
    dense, norm, head = (layer for layer in model.layers if layer.weights)
    return [*dense.get_weights(), *norm.get_weights(), *head.get_weights()]


def test_the_loss_is_that_of_numpy_however_it_is_cut(model):
    images, labels = pictures(50)
    expected = reference(model, images, labels)
    for chunk in (50, 20):  # 20, 20 and 10
        flat = FlatLoss(model, images, labels, chunk=chunk)
        assert flat.value(flat.vector) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_the_slope_of_the_loss(model):
    flat = FlatLoss(model, *pictures(50), chunk=30)
    loss, gradient = flat.value_and_gradient(flat.vector)
    assert loss == pytest.approx(flat.value(flat.vector), rel=1e-6)
    direction = gradient / np.linalg.norm(gradient)
    steps = [flat.value(flat.vector + sign * 1e-2 * direction) for sign in (1, -1)]
    assert (steps[0] - steps[1]) / 2e-2 == pytest.approx(np.linalg.norm(gradient), rel=1e-2)


def test_other_images_and_the_statistics_of_the_batch(model):
    images, labels = pictures(40, seed=1)
    flat = FlatLoss(model, *pictures(50))
    flat.read(images, labels)
    expected = reference(model, images, labels)
    assert flat.value(flat.vector) == pytest.approx(expected, rel=1e-5)
    trained = FlatLoss(model, images, labels, training=True)
    assert abs(trained.value(trained.vector) - expected) > 1e-3
    before = model.get_weights()
    trained.value_and_gradient(trained.vector)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)  # moving statistics too


def test_decay_is_the_gradient_that_adam_sees():
    model = runs.make_network((8,), 0.1, seed=0)
    kernels = [w for w in model.get_weights() if w.ndim == 2]
    penalty = 0.1 / 2 * sum(np.sum(np.square(k)) for k in kernels)  # its gradient is 0.1 w
    assert float(sum(model.losses)) == pytest.approx(penalty, rel=1e-5)
    assert not runs.make_network((8,), 0.0, seed=0).losses


def test_sharpness_of_a_bowl_in_closed_form():
    # f = sum a x^2 / 2 around 0: the worst corner of |z| <= eps is sum a eps^2 / 2.
    a, epsilon = np.array([1.0, 4.0, 9.0]), 1e-2

    def bowl(x):
        return 0.5 * float(np.sum(a * x**2)), a * x

    expected = 100 * 0.5 * a.sum() * epsilon**2
    found = measure_sharpness(bowl, np.zeros(3), epsilon=epsilon).sharpness
    assert found == pytest.approx(expected, rel=1e-6)
    # At the minimum itself there is no slope to climb; beside it the scaled climb finds the corner.
    assert runs.climb_from_minimum(bowl, np.zeros(3), epsilon, 10, scaled=True) == 0.0
    beside = np.full(3, 1e-9)
    found = runs.climb_from_minimum(bowl, beside, epsilon, 10, scaled=True)
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_rise_at_an_end_is_the_mean_around_it_less_the_loss_there():
    places = [-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    losses = [9.0, 4.0, 1.0, 4.0, 5.0, 3.0, 2.0, 7.0, 9.0]
    small, large = page.rises(places, losses)
    assert (small, large) == (3.0 - 1.0, 4.0 - 2.0)
    assert page.rises(places, [None, None, *losses[2:]])[0] == 2.5 - 1.0  # 1 and 4 are left
    assert page.share(1.0, 3.0) == 0.5
    assert page.share(-1.0, 1.0) == 1.0
    assert page.share(0.0, 0.0) == 0.0
    one = {"places": [-1, 0, 1], "lines": [[4.0, 1.0, 1.0], [1.0, 1.0, 7.0]]}
    assert page.line_rise(one) == pytest.approx((2.0 - 1.0 + 3.0 - 1.0) / 2)


def test_the_ends_of_the_line_are_the_two_solutions():
    models = [runs.make_network((8,), 0.0, seed=seed) for seed in (0, 1)]
    train, test = pictures(64), pictures(30, seed=1)
    found = runs.measure_between(models, train, test, TINY)
    for name, part in (("train", train), ("test", test)):
        at = {round(float(x), 6): y for x, y in zip(found["places"], found[name], strict=True)}
        for end, model in zip((0.0, 1.0), models, strict=True):
            assert at[end] == pytest.approx(reference(model, *part), rel=1e-5)


def test_every_measurement_of_a_solution(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.tempfile, "gettempdir", lambda: str(tmp_path))
    train, test = pictures(128), pictures(64, seed=1)
    trained = runs.solution(train, TINY, 0.0, SIDES[0], seed=0)
    again = runs.solution(train, TINY, 0.0, SIDES[0], seed=0)  # read, not trained
    np.testing.assert_array_equal(read_weights(trained)[0], read_weights(again)[0])
    assert len(list(tmp_path.rglob("*.npz"))) == 1

    for damage in (b"", b"PK", b"weights"):
        next(tmp_path.rglob("*.npz")).write_bytes(damage)
        whole = runs.solution(train, TINY, 0.0, SIDES[0], seed=0)  # trained again
        for a, b in zip(trained.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    found = runs.measure_solution(trained, train, test, TINY)
    assert set(found["sharpness"]) == {"0.001", "0.0005"}
    middle = found["lines"][0][TINY.line_points // 2]
    assert middle == pytest.approx(found["train_loss"], rel=1e-6)
    flat = runs.measure_plane(trained, train, TINY)
    assert flat["losses"][1][1] == pytest.approx(middle, rel=1e-6)
    # The first direction of the plane is that of the first line, whose ends are -1 and 1.
    np.testing.assert_allclose(flat["losses"][1][::2], found["lines"][0][:: TINY.line_points - 1])
    varied = runs.measure_variations(trained, train, TINY)
    assert varied["as in the study"] == found["sharpness"]["0.001"]["sharpness"]
    assert varied["1 iteration"] <= varied["30 iterations"]
    assert all(math.isfinite(value) and value >= 0 for value in varied.values())


def result_of(settings):
    """Arithmetic in place of training: the large batch is sharper, its picture flips with decay."""
    large, decay = settings["side"] == "large", settings["decay"]
    if settings["kind"] == "solution":
        bend, noise = (2.0 if large else 1.0), 0.01 * settings["seed"]
        sharp = {
            e: {"sharpness": (4_000.0 if large else 40.0) + noise} for e in ("0.001", "0.0005")
        }
        places = np.linspace(-1, 1, 21)
        return {
            "test_error_pct": (2.2 if large else 2.0) + noise,
            "train_error_pct": 0.0,
            "test_loss": 0.1,
            "train_loss": 0.01,
            "kernel_norm": 50.0,
            "sharpness": sharp,
            "places": places.tolist(),
            "lines": [(0.01 + bend * places**2).tolist()] * 2,
        }
    if settings["kind"] == "between":
        places = np.linspace(-0.5, 1.5, 41)
        left, right = (1.0, 3.0) if decay == 0 else (3.0, 1.0)
        losses = np.minimum(left * places**2, right * (places - 1) ** 2).tolist()
        return {"places": places.tolist(), "train": losses, "test": losses}
    if settings["kind"] == "plane":
        places = np.linspace(-1, 1, 21)
        losses = (0.01 + places[:, None] ** 2 + places[None] ** 2).tolist()
        return {"places": places.tolist(), "losses": losses}
    return {"as in the study": 60.0, "1 iteration": 20.0}


def test_the_answers_are_those_of_the_arithmetic():
    results = {}
    while missing := [t for t in plan(results, SCALE) if t.name not in results]:
        results |= {t.name: result_of(t.settings) for t in missing}
    assert len(results) == 5 * 2 * 2 + 5 * 2 + 2 + 4
    conclusion = STUDY.conclude(results, SCALE)
    found = {(a.claim, a.part): a for a in conclusion.answers}
    assert found["C11a", ""].finding.mean == pytest.approx(0.2)
    assert found["C11b", "epsilon 0.001"].finding.mean == pytest.approx(2.0, abs=1e-3)
    for decay in DECAYS:
        assert found["C12a", f"decay {decay:g}"].finding.mean == pytest.approx(0.5, abs=1e-6)
        assert found["C12b", f"decay {decay:g}"].finding.mean == pytest.approx(1 / 3)
    assert {a.verdict for a in conclusion.answers} == {"agrees"}


def test_nothing_is_measured_between_solutions_that_are_missing():
    names = {t.name for t in plan({}, SCALE)}
    assert names == {t.name for t in plan({}, SCALE) if t.name.startswith("solution/")}
    assert len(names) == 20
    ends = {make_trial("solution", 0.0, 3, SCALE, side).name: {} for side in SIDES}
    more = {t.name for t in plan(ends, SCALE)} - names
    assert more == {"between/decay0-s3"}
    assert {a.verdict for a in STUDY.conclude({}, SCALE).answers} == {"cannot tell"}
    assert keras.backend.backend() in STUDY.backends
