"""The noise scale that a run measured while training, read back from its events."""

import json

import numpy as np
import pytest

from tf_largebatch.review.findings import read_findings
from tf_largebatch.review.tensorboard.noise import NoiseScaleScalars, keep_noise


def train(run, updates, *, every=10, trace=300.0, grad_sq=2.0, first=0, place="train"):
    """Feeds the callback gradient norms whose noise scale is trace / grad_sq examples."""
    callback = NoiseScaleScalars(run / place, every=every)
    callback.on_train_begin()
    for update in range(first, updates):
        logs = {
            "grad_norm": (grad_sq + trace / 64) ** 0.5,
            "micro_grad_norm": (grad_sq + trace / 8) ** 0.5,
            "micro_batch": 8,
            "global_batch": 64,
        }
        callback.on_train_batch_end(update, logs)
    callback.on_train_end()


def keep(run):
    """Has the noise of a run kept; returns its record and its arrays."""
    keep_noise(run, global_batch=64)
    path = run / "diagnostics" / "noise_while_training.json"
    return json.loads(path.read_text()), np.load(path.with_suffix(".npz"))


def test_the_last_average_and_its_advice_are_kept_next_to_the_instruments(tmp_path):
    train(tmp_path, 47)
    kept, arrays = keep(tmp_path)
    measured = kept["measured"]
    assert measured["b_simple"] == pytest.approx(150, rel=1e-5)  # 300 / 2
    assert measured["updates"] == 40  # the last multiple of 10
    assert arrays["updates"].tolist() == [10, 20, 30, 40]
    np.testing.assert_allclose(arrays["trace"], 300.0, rtol=1e-5)
    # The callback gives a scale from the twentieth update on: a gap before, no zero.
    assert np.isnan(arrays["b_simple"][0])
    np.testing.assert_allclose(arrays["b_simple"][1:], 150.0, rtol=1e-5)
    [finding] = read_findings(tmp_path)
    [(label, text)] = finding.lines
    assert text.startswith("measured B_simple 150 after 40 updates")
    # (1 + 150 / 128) / (1 + 150 / 64) = 0.650 of the updates, twice the images of each: 1.299.
    assert text.endswith(
        "doubling the batch of 64 saves 35 % of the updates and costs 30 % more images"
    )
    assert finding.figure.startswith(b"\x89PNG")


def test_of_an_update_that_a_restart_did_again_the_newer_value_counts(tmp_path):
    # Earlier versions had a folder of their own for it.
    train(tmp_path, 30, trace=100.0, place="noise")
    train(tmp_path, 60, trace=300.0, first=20)
    _, arrays = keep(tmp_path)
    assert arrays["updates"].tolist() == [10, 20, 30, 40, 50, 60]
    np.testing.assert_allclose(arrays["trace"], [100, 100, 300, 300, 300, 300], rtol=1e-4)


def test_a_mean_gradient_below_its_noise_gives_words_and_no_number(tmp_path):
    train(tmp_path, 20, grad_sq=-0.5)
    kept, _ = keep(tmp_path)
    assert kept["measured"]["b_simple"] is None
    assert "could not be told" in kept["lines"][0][1]


def test_a_run_without_such_events_gets_nothing(tmp_path):
    keep_noise(tmp_path, global_batch=64)
    (tmp_path / "noise").mkdir()
    keep_noise(tmp_path, global_batch=64)
    assert not (tmp_path / "diagnostics").exists()
