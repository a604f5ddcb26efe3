"""`fit` gives what the engine gives, whatever is switched on and wherever it runs."""

import numpy as np
import pytest
from fit_split import BATCH, EPOCHS, EXAMPLES, SECOND, Case, both, by_engine, by_fit
from workers import run_workers

from tf_largebatch.training.workers.strategy import make_strategy

UPDATES = EPOCHS * EXAMPLES // BATCH


def assert_equal(engine, fit, case):
    assert fit["updates"] == UPDATES == 20
    for name in ("weights", "statistics"):
        for a, b in zip(fit[name], engine[name], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(fit["losses"], engine["losses"], rtol=2e-6)
    # Equal runs would mean nothing if the weights stood still.
    moved = [np.abs(a - b).max() for a, b in zip(engine["weights"], engine["before"], strict=True)]
    assert max(moved) > 0.05
    if case.scored:
        assert_scores(fit, case)


def assert_scores(fit, case):
    """`evaluate` against the loss of what `predict` returns, in float64, each example once."""
    losses = []
    for logits in fit["predicted"]:
        logits = logits.astype("float64")
        total = np.log(np.exp(logits).sum(axis=1))
        losses.append(np.mean(total - logits[np.arange(len(logits)), fit["labels"]]))
    tolerance = 1e-5 if case.precision == "float32" else 1e-3  # batches and rows of 16 bits
    expected = losses[0] + SECOND * sum(losses[1:])
    assert fit["scores"]["loss"] == pytest.approx(expected, rel=tolerance)
    name = "accuracy" if len(losses) == 1 else "head_accuracy"
    accuracy = np.mean(fit["predicted"][0].argmax(axis=1) == fit["labels"])
    assert fit["scores"][name] == pytest.approx(accuracy, rel=1e-6)


def matrix():
    """(replicas, case) of this process; those that cross most run always, the rest when asked."""
    always = [
        (1, Case("ghost", "float16", 8)),
        (1, Case("compiled", micro_batch=8)),
        (1, Case("two outputs", scored=True)),
        (2, Case("joined", micro_batch=4)),
        (2, Case("keras, clipped", "bfloat16")),
        (2, Case("averaged", "float16", 4)),
        (2, Case("sample weights", micro_batch=4)),
        (2, Case("4 a call", "bfloat16", 4, scored=True)),
    ]
    asked = [
        (replicas, Case("ghost", precision, micro_batch))
        for replicas, micro_batch in ((1, None), (2, 4))
        for precision in ("float32", "bfloat16", "float16")
    ]
    asked += [
        (2, Case("compiled", scored=True)),
        (2, Case("norm", micro_batch=4)),
        (2, Case("synchronized")),
        (2, Case("lamb", "float16")),
        (2, Case("clipped each", micro_batch=4)),
        (2, Case("two outputs", micro_batch=4)),
        (2, Case("class weights", micro_batch=4)),
        (2, Case("dropout", micro_batch=4)),
    ]
    slow = [pytest.param(*one, marks=pytest.mark.slow) for one in asked]
    return [*always, *slow]


@pytest.mark.parametrize(("replicas", "case"), matrix())
def test_fit_in_this_process_gives_the_weights_of_the_engine(replicas, case):
    engine = by_engine(make_strategy(replicas), case)
    assert_equal(engine, by_fit(make_strategy(replicas), case), case)


ON_WORKERS = [
    Case("ghost", "float16", 4, scored=True),
    Case("joined", micro_batch=4),
    Case("keras, clipped"),
    Case("compiled", micro_batch=4),
    Case("4 a call", "bfloat16"),
    Case("class weights", "float16"),
]


@pytest.mark.slow
def test_fit_on_two_workers_gives_the_weights_of_the_engine():
    results = run_workers(both, cases=ON_WORKERS, timeout_seconds=900)
    for case in ON_WORKERS:
        for worker in results:
            assert_equal(*worker[case], case)
