"""Simulated training against closed forms: constant times, order statistics, Daly's model."""

import itertools
import math
import statistics

import pytest

from tf_largebatch.planning.failures import daly_interval, expected_seconds, young_interval
from tf_largebatch.planning.simulation import Cluster, StepTime, simulate, slowest_rounds


def constant(**changes):
    return Cluster(**({"devices": 256, "step": StepTime("constant", 0.25)} | changes))


def test_constant_times_give_the_closed_form():
    cluster = constant(communication=0.01, local_steps=4)
    found = simulate(cluster, updates=1_000, checkpoint_updates=100, checkpoint_cost=2.0)
    assert found.seconds == pytest.approx(1_000 * 0.25 + 250 * 0.01 + 10 * 2.0)
    assert (found.waiting, found.lost, found.failures) == (pytest.approx(0.0, abs=1e-9), 0.0, 0)
    assert found.efficiency == pytest.approx(250 / 272.5)


@pytest.mark.parametrize("backups", [0, 1, 8])
def test_slowest_exponential_is_the_harmonic_sum(backups):
    # E max of K exponentials of mean d is d H_K; without the b slowest, d (H_K - H_b).
    cluster = constant(
        devices=64, step=StepTime("exponential", 0.30, 0.05), backups=backups, communication=0.0
    )
    found = slowest_rounds(cluster, 4_000, seed=1)
    harmonic = sum(1 / k for k in range(backups + 1, 65))
    assert sum(found) / len(found) == pytest.approx(0.25 + 0.05 * harmonic, rel=0.01)


def test_local_steps_wait_less():
    # The deviation of a sum of H is sqrt(H) of one: per update the slowest loses sqrt(H) less.
    alone, local = (
        simulate(
            constant(devices=512, step=StepTime("lognormal", 0.25, 0.02), local_steps=steps),
            updates=1_600,
        )
        for steps in (1, 16)
    )
    assert local.waiting == pytest.approx(alone.waiting / 4, rel=0.15)
    assert alone.seconds == pytest.approx(alone.compute + alone.waiting)


@pytest.mark.parametrize(
    ("every", "restart"), [*itertools.product((40, 200), (0.0, 60.0))], ids=lambda v: f"{v:g}"
)
def test_failures_cost_what_dalys_model_says(every, restart):
    cluster = constant(device_between_failures=256 * 100.0)  # one in 100 s on 256 devices
    costs = {"checkpoint_cost": 5.0, "restart": restart}
    found = [
        simulate(cluster, updates=400_000, checkpoint_updates=every, seed=seed, **costs)
        for seed in range(5)  # one has a deviation of 1.7 %
    ]
    want = expected_seconds(
        400_000 * 0.25, interval=every * 0.25, cost=5.0, restart=restart, between_failures=100.0
    )
    assert statistics.fmean(one.seconds for one in found) == pytest.approx(want, rel=0.03)
    for one in found:
        parts = one.compute + one.checkpoints + one.lost + one.restarts
        assert one.seconds == pytest.approx(parts + one.communication + one.waiting)


def test_best_interval_is_near_the_formulas():
    cost, mean = 5.0, 1_000.0
    assert young_interval(cost, mean) == pytest.approx(100.0)

    def total(interval):
        return expected_seconds(
            1.0, interval=interval, cost=cost, restart=30.0, between_failures=mean
        )

    best = min((i / 10 for i in range(500, 2_000)), key=total)
    assert daly_interval(cost, mean) == pytest.approx(best, rel=0.01)
    assert abs(young_interval(cost, mean) - best) > abs(daly_interval(cost, mean) - best)
    assert daly_interval(3_000.0, mean) == mean


def test_the_simulations_own_best_interval_is_dalys():
    cluster = constant(device_between_failures=256 * 500.0)
    costs = {"checkpoint_cost": 4.0, "restart": 20.0}
    seconds = {
        every: sum(
            simulate(cluster, updates=60_000, checkpoint_updates=every, seed=s, **costs).seconds
            for s in range(6)
        )
        for every in (30, 60, 120, 240, 480, 960)
    }
    best = min(seconds, key=seconds.get)
    assert best / 2 <= daly_interval(4.0, 500.0) / 0.25 <= best * 2  # 235 updates


def test_without_failures_only_the_checkpoints_cost():
    want = expected_seconds(100.0, interval=10.0, cost=1.0, restart=5.0, between_failures=math.inf)
    assert want == pytest.approx(110.0)


def test_the_same_seed_is_the_same_training():
    cluster = constant(step=StepTime("lognormal", 0.25, 0.02), device_between_failures=256 * 500.0)
    once, twice, other = (
        simulate(cluster, updates=2_000, checkpoint_updates=100, seed=s) for s in (0, 0, 1)
    )
    assert once == twice != other


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepTime("normal", 1.0), "`kind` must be one of 'constant'"),
        (lambda: StepTime("constant", 0.0), "`mean` must be a number in"),
        (lambda: StepTime("constant", 1.0, 0.1), "`deviation` must be 0 for constant"),
        (lambda: StepTime("exponential", 1.0, 2.0), "`deviation` must be at most the mean"),
        (lambda: constant(devices=0), "`devices` must be"),
        (lambda: constant(backups=256), "`backups` must be below"),
        (lambda: constant(device_between_failures=0.0), "`device_between_failures` must be above"),
        (lambda: simulate(constant(), updates=0), "`updates` must be"),
        (
            lambda: simulate(constant(device_between_failures=256.0), updates=10_000),
            "`checkpoint_updates` must be reached between two failures",
        ),
        (lambda: young_interval(0.0, 1.0), "`cost` must be a number in"),
    ],
)
def test_bad_input_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
