"""The study of Hoffer et al.'s table: published settings, fits of the walks, distances."""

import numpy as np
import pytest

from tf_largebatch.studies import generalization_gap as study
from tf_largebatch.studies import generalization_gap_training as training
from tf_largebatch.studies.study import Scale


def settings(row: study.Row) -> dict:
    return study.row_trial(study.FULL, row, 0).settings


def test_rows_have_the_published_settings():
    # 0.1 x sqrt(4,096 / 128) = 0.5657; 4,096 / 128 = 32 times the epochs.
    got = {
        row.label: [settings(row)[name] for name in ("batch", "rate", "bn_batch", "epochs")]
        for row in study.ROWS
    }
    assert got == {
        "small batch": [128, 0.1, 128, 50],
        "large batch": [4_096, 0.1, 4_096, 50],
        "+ root rate": [4_096, pytest.approx(0.565685), 4_096, 50],
        "+ ghost batch norm": [4_096, pytest.approx(0.565685), 128, 50],
        "+ as many updates": [4_096, pytest.approx(0.565685), 128, 1_600],
    }
    assert settings(study.ADAPTED)["drops"] == [320, 640, 960]


def test_rate_falls_to_a_tenth_at_the_updates_of_the_drops():
    # 60,000 // 4,096 = 14 updates an epoch; drops at 140, 280, 420.
    rate = training.make_optimizer(settings(study.LARGE))._learning_rate
    got = [float(rate(u)) for u in (0, 139, 140, 279, 280, 420)]
    np.testing.assert_allclose(got, [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-4], rtol=1e-6)


def test_long_trials_come_last():
    names = [trial.name for trial in study.plan({}, Scale(seeds=3))]
    assert len(names) == len(set(names)) == 3 * (5 + 3)
    assert [n for n in names if "updates" in n] == names[-3:]


def test_places_are_even_in_the_logarithm():
    at = training.places(2_000)
    assert at[0] == 1 and at[-1] == 2_000 and at == sorted(set(at))
    late = np.diff(np.log(at[-8:]))
    np.testing.assert_allclose(late, np.log(2_000) / 23, rtol=0.02)


def test_a_walk_in_the_logarithm_and_one_in_the_root_are_told_apart():
    at = training.places(2_000)
    log = study.fit_walk(at, [1.0 + 2.0 * np.log(t) for t in at])
    assert (log.slope, log.intercept) == (pytest.approx(2.0), pytest.approx(1.0))
    assert log.by_log == pytest.approx(1.0) and log.by_root < 0.95
    root = study.fit_walk(at, [3.0 * np.sqrt(t) for t in at])
    assert root.by_root == pytest.approx(1.0) and root.by_log < 0.95


def test_distances_are_those_of_the_weights_at_that_update():
    import keras

    # One weight, loss w x with x = 1, rate 0.5: w falls by 0.5 an update, whatever it is.
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    walk = training.make_distances([1, 3])
    model.compile(keras.optimizers.SGD(0.5), lambda y, p: keras.ops.mean(p), jit_compile=False)
    ones = np.ones((4, 1), np.float32)
    model.fit(ones, ones, batch_size=1, verbose=0, callbacks=[walk])
    assert walk.updates == [1, 3]
    np.testing.assert_allclose(walk.distances, [0.5, 1.5], rtol=1e-5)


def test_gains_are_seed_by_seed_and_small_ones_do_not_count():
    scale, results = Scale(seeds=5), {}
    for seed in range(5):
        for row, accuracy in zip(study.ROWS, (98.3, 97.0, 97.5, 97.51, 98.5), strict=True):
            result = {training.ACCURACY: accuracy + 0.01 * seed}
            results[study.row_trial(study.FULL, row, seed).name] = result
    found = {a.part: a for a in study.conclude(results, scale).answers if a.claim == "C13"}
    assert found["root rate"].finding.mean == pytest.approx(0.5)
    assert [a.verdict for a in found.values()] == ["agrees", "contradicts", "agrees"]
