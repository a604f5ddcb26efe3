"""The study on CIFAR-10: what is planned when, a trial's course by hand, pictures as a layer."""

import numpy as np
import pytest

from tf_largebatch.studies import cifar10
from tf_largebatch.studies import cifar10_rows as planned
from tf_largebatch.studies import cifar10_training as training
from tf_largebatch.studies.study import Scale
from tf_largebatch.studies.tuning import HELD_OUT_ERROR

SCALE = Scale(seeds=2)
BEST = {
    "128 no start": 0.2,
    "2048 no start": 1.6,
    "2048 warmup": 3.2,
    "2048 RMSprop start": 1.6,
}


def result(trial, error: float = 20.0) -> dict:
    name = training.TEST_ERROR if trial.settings["stage"] == "final" else HELD_OUT_ERROR
    return {name: error, "loss": [2.0, 1.0], "updates": [10, 20]}


def finish(results: dict, best: dict[str, float]) -> list:
    """Runs the plan to its end; the held-out error grows with the distance from the best rate."""
    while True:
        trials = planned.plan(results, SCALE)
        missing = [t for t in trials if t.name not in results]
        if not missing:
            return trials
        for trial in missing:
            s = trial.settings
            row = f"{s['batches'][0]} {s['start']}"
            far = abs(np.log2(s["rate"] / best.get(row, s["rate"])))
            results[trial.name] = result(trial, 20.0 + far)


def test_nothing_but_the_searches_is_planned_before_a_rate_is_known():
    trials = planned.plan({}, SCALE)
    assert {t.settings["stage"] for t in trials} == {"tune"}
    assert len(trials) == 4 * 4 * 2  # rows, rates, tuning seeds


def test_rows_of_the_linear_rule_take_the_small_batchs_best_rate():
    results: dict = {}
    trials = finish(results, BEST)
    rows = planned.rows(planned.FULL, planned.search(planned.FULL, results))
    rates = {label: row.rate for label, row in rows.items()}
    assert rates == {
        planned.SMALL: 0.2,
        planned.SAME: 0.2,
        planned.LINEAR: pytest.approx(3.2),
        planned.LINEAR_WARMUP: pytest.approx(3.2),
        planned.GROWING: 0.2,
        planned.BEST: pytest.approx(1.6),
        planned.BEST_WARMUP: pytest.approx(3.2),
        planned.BEST_RMSPROP: pytest.approx(1.6),
    }
    finals = [t for t in trials if t.settings["stage"] == "final"]
    # Eight rows, two of which are one training: the linear rule's rate is the best with warmup.
    assert len(finals) == 7 * SCALE.seeds
    assert [t.settings["seed"] for t in finals[:10]] == [0] * 5 + [1] * 5


def test_a_best_rate_at_an_end_widens_the_search_there():
    results: dict = {}
    finish(results, {"128 no start": 0.8})
    assert planned.search(planned.FULL, results)[planned.SMALL].best == pytest.approx(0.8)


def settings(batches: tuple[int, ...], start: str = planned.NONE) -> dict:
    row = planned.Row("a row", batches, start, 0.2)
    return planned.make_trial(planned.FULL, row, "final", 0).settings


def test_course_of_a_batch_that_grows_by_hand():
    # 45,000 // 128 = 351, // 640 = 70, // 3,200 = 14 updates an epoch.
    growing = settings((128, 640, 3_200))
    assert training.phases(growing) == [(128, 6), (640, 6), (3_200, 8)]
    at = [training.updates_before(growing, epoch) for epoch in (0, 6, 12, 16, 20)]
    assert at == [0, 6 * 351, 6 * 421, 6 * 421 + 4 * 14, 6 * 421 + 8 * 14]


def test_rates_by_hand():
    rate = training.make_optimizer(settings((2_048,), planned.WARMUP))._learning_rate
    # 45,000 // 2,048 = 21 updates an epoch; from 0.2 / 16 to 0.2 in 63, a fifth after 6 epochs.
    got = [float(rate(u)) for u in (0, 21, 63, 125, 126, 251, 252, 336)]
    want = [0.0125, 0.0125 + 0.1875 / 3, 0.2, 0.2, 0.04, 0.04, 0.008, 0.0016]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    grown = training.make_optimizer(settings((128, 640, 3_200)))._learning_rate
    np.testing.assert_allclose([float(grown(u)) for u in (2_581, 2_582)], [0.2, 0.04], rtol=1e-6)


def test_pictures_are_windows_of_the_padded_picture_mirrored_or_not():
    from tf_largebatch.studies.pictures import Pictures

    layer = Pictures(10.0, 4.0, shift=2, flip=True, seed=0)
    images = np.random.default_rng(0).integers(1, 255, (64, 6, 5, 3), dtype=np.uint8)
    np.testing.assert_allclose(layer(images), (images.astype(float) - 10) / 4, rtol=1e-6)
    seen = set()
    moved = np.asarray(layer(images, training=True)) * 4 + 10
    for image, got in zip(images, moved, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        windows = {
            (y, x, step): padded[y : y + 6, x : x + 5][:, ::step]
            for y in range(5)
            for x in range(5)
            for step in (1, -1)
        }
        (place,) = [p for p, window in windows.items() if np.allclose(window, got, atol=1e-3)]
        seen.add(place)
    assert {step for *_, step in seen} == {1, -1}
    assert {y for y, *_ in seen} == {x for _, x, _ in seen} == set(range(5))


def test_conclusion_of_finished_trials_has_differences_tables_and_figures():
    results: dict = {}
    trials = finish(results, BEST)
    for trial in trials:
        s = trial.settings
        if s["stage"] == "final" and s["batches"] == [2_048] and s["rate"] == 0.2:
            results[trial.name][training.TEST_ERROR] = 50.0 + s["seed"]
    found = cifar10.conclude(results, SCALE)
    first = found.answers[0]
    assert first.claim == "C1" and first.finding.differences == pytest.approx((30.0, 31.0))
    assert first.verdict == "cannot tell"  # two seeds
    assert {f.name for f in found.figures} == {"differences.png", "rates.png", "growing.png"}
    assert cifar10.conclude({}, SCALE).answers[0].verdict == "cannot tell"
