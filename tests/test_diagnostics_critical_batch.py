"""Steps to target and the critical batch, on curves and trainings that are known."""

import math

import numpy as np
import pytest

from tf_largebatch.diagnostics.critical_batch import fit_tradeoff
from tf_largebatch.diagnostics.steps_to_target import (
    BatchResult,
    Range,
    Trial,
    fit_results,
    quasi_random,
)

BATCHES = [2**i for i in range(4, 14)]
S_MIN, E_MIN = 200.0, 100_000.0  # critical batch 500


def steps_at(batch):
    """Solves (S / S_MIN - 1)(B S / E_MIN - 1) = 1 for S by bisection, on its branch above both."""
    low, high = max(S_MIN, E_MIN / batch) * (1 + 1e-12), 10 * (S_MIN + E_MIN / batch)
    for _ in range(200):
        middle = 0.5 * (low + high)
        product = (middle / S_MIN - 1) * (batch * middle / E_MIN - 1)
        low, high = (middle, high) if product < 1 else (low, middle)
    return low


def test_the_fit_gives_back_the_hyperbola_that_made_the_points():
    fit = fit_tradeoff(BATCHES, [steps_at(b) for b in BATCHES])
    assert fit.steps_min == pytest.approx(S_MIN, rel=1e-6)
    assert fit.examples_min == pytest.approx(E_MIN, rel=1e-6)
    assert fit.critical_batch == pytest.approx(500.0, rel=1e-6)
    assert fit.log_error < 1e-6


def test_at_the_critical_batch_both_are_twice_their_least():
    fit = fit_tradeoff(BATCHES, [steps_at(b) for b in BATCHES])
    assert fit.steps(500) == pytest.approx(2 * S_MIN, rel=1e-5)
    assert 500 * fit.steps(500) == pytest.approx(2 * E_MIN, rel=1e-5)


def test_steps_with_an_error_of_5_percent_give_the_critical_batch_within_20():
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(len(BATCHES)))
    fit = fit_tradeoff(BATCHES, [steps_at(b) * n for b, n in zip(BATCHES, noise, strict=True)])
    assert fit.critical_batch == pytest.approx(500, rel=0.2)
    assert 0.01 < fit.log_error < 0.1


def test_the_regimes_have_the_names_of_the_paper():
    fit = fit_tradeoff(BATCHES, [steps_at(b) for b in BATCHES])
    assert fit.regime(16) == "perfect scaling"
    assert fit.regime(500) == "diminishing returns"
    assert fit.regime(8192) == "maximal data parallelism"
    # The line is 25 %: E / E_min = 1 + B / 500 = 1.25 at 125, S / S_min = 1.25 at 2000.
    assert [fit.regime(b) for b in (124, 126)] == ["perfect scaling", "diminishing returns"]
    assert [fit.regime(b) for b in (1990, 2010)] == [
        "diminishing returns",
        "maximal data parallelism",
    ]


def test_a_critical_batch_outside_of_the_measured_ones_says_so():
    small = [1, 2, 4, 8]
    fit = fit_tradeoff(small, [steps_at(b) for b in small])
    assert not fit.measured
    assert "extrapolated" in fit.text()
    assert "extrapolated" not in fit_tradeoff(BATCHES, [steps_at(b) for b in BATCHES]).text()


@pytest.mark.parametrize(
    ("batches", "steps", "message"),
    [
        ([8, 16], [10, 5], "three different ones"),
        ([8, 8, 16], [10, 10, 5], "three different ones"),
        ([8, 16, 32], [10, 5, 0], "`steps` must be above 0"),
        ([8, 16, 32], [10, 5, math.nan], "`steps` must be above 0"),
    ],
)
def test_too_little_to_fit_is_refused(batches, steps, message):
    with pytest.raises(ValueError, match=message):
        fit_tradeoff(batches, steps)


def test_the_search_fills_every_part_of_the_space():
    space = {"rate": Range(1e-3, 10.0, log=True), "momentum": Range(0.5, 0.9)}
    points = quasi_random(space, 64, seed=0)
    for name, limits in space.items():
        shares = [limits.share(point[name]) for point in points]
        counts, _ = np.histogram(shares, bins=8, range=(0, 1))
        assert counts.min() >= 6  # 64 / 8 = 8; independent draws leave about 4 somewhere


def test_the_search_repeats_with_its_seed_and_differs_with_another():
    space = {"rate": Range(0.0, 1.0)}
    assert quasi_random(space, 5, seed=1) == quasi_random(space, 5, seed=1)
    assert quasi_random(space, 5, seed=1) != quasi_random(space, 5, seed=2)


def search(train, batches, space, *, target, trials):
    """Every batch on its own, each trial to the first update whose error is at most the target."""
    results = []
    for batch in batches:
        done = []
        for settings in quasi_random(space, trials, seed=batch):
            curve = train(batch, settings)
            steps = next((step for step, error in curve if error <= target), None)
            done.append(Trial(settings, steps))
        results.append(BatchResult(batch, tuple(done)))
    return results


def train_quadratic(batch, settings):
    """SGD on |x|^2 / 2 from |x|^2 = 1 with gradient noise of variance 1 / batch: the exact mean.

    E|x|^2 <- (1 - r)^2 E|x|^2 + r^2 / batch.
    """
    square, rate = 1.0, settings["rate"]
    for step in range(1, 3_000):
        square = (1 - rate) ** 2 * square + rate**2 / batch
        yield step, square


def test_noisy_descent_shows_the_three_regimes_and_its_critical_batch():
    batches = [2**i for i in range(0, 17, 2)]
    results = search(
        train_quadratic,
        batches,
        {"rate": Range(1e-3, 1.0, log=True)},
        target=0.01,
        trials=200,
    )
    steps = [r.best.steps for r in results]
    # Independent of the search: the best of 20,000 rates on a grid, at each batch.
    rates = np.geomspace(1e-3, 1.0, 20_000)
    for batch, found in zip(batches, steps, strict=True):
        square, first = np.ones_like(rates), np.full(rates.shape, 10**9)
        for step in range(1, found + 1):
            square = (1 - rates) ** 2 * square + rates**2 / batch
            first = np.where((square <= 0.01) & (first == 10**9), step, first)
        assert first.min() <= found <= 1.1 * first.min() + 1
    fit = fit_results(results)
    # At rate r both terms reach 0.01: noise r / (2 B) and decay in log(100) / (2 r) updates, so
    # S ~ c / B below B of some tens and a few updates above it.
    assert fit.regime(batches[0]) == "perfect scaling"
    assert fit.regime(batches[-1]) == "maximal data parallelism"
    assert 10 < fit.critical_batch < 1000


def test_a_batch_that_never_reaches_the_target_stays_out_of_the_fit():
    space = {"rate": Range(0.1, 1.0)}
    results = search(
        lambda batch, s: [(math.ceil(steps_at(batch)), 0.0 if batch > 8 else 1.0)],
        [8, 16, 64, 256, 1024, 4096],
        space,
        target=0.5,
        trials=3,
    )
    assert results[0].best is None
    assert fit_results(results).smallest_batch == 16


def test_a_best_trial_at_the_end_of_a_range_is_named():
    space = {"rate": Range(0.01, 1.0, log=True), "momentum": Range(0.0, 1.0)}
    trial = Trial({"rate": 0.95, "momentum": 0.5}, 10)
    assert BatchResult(8, (trial,)).at_edge(space) == ["rate"]


@pytest.mark.parametrize("ends", [(1.0, 1.0, False), (0.0, 1.0, True), (2.0, 1.0, False)])
def test_a_range_that_is_none_is_refused(ends):
    with pytest.raises(ValueError, match="`low` must be"):
        Range(ends[0], ends[1], log=ends[2])
