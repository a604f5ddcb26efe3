"""Trials of one compiled step: rate and momentum as variables, the same start each time."""

import numpy as np
import pytest

from tf_largebatch.data import digits
from tf_largebatch.models.fully_connected import make_fully_connected
from tf_largebatch.studies.trial_training import TrialTraining, next_evaluation


def network(source, hidden=(), seed=3):
    return make_fully_connected(source.facts, hidden=hidden, seed=seed)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def by_hand(source, first, batches, rate, momentum):
    """Nesterov momentum on a linear softmax model, in float64: the validation errors."""
    mean, std = source.pixel_mean[0], source.pixel_std[0]
    weights = [np.asarray(w, np.float64) for w in first]
    speeds = [np.zeros_like(w) for w in weights]
    test, truth = (np.asarray(part) for part in source._eval)
    errors = []
    for images, labels in batches:
        x = ((np.asarray(images, np.float64) - mean) / std).reshape(len(images), -1)
        wrong = softmax(x @ weights[0] + weights[1])
        wrong[np.arange(len(x)), labels] -= 1.0
        gradients = [x.T @ wrong / len(x), wrong.mean(axis=0)]
        for i, g in enumerate(gradients):
            speeds[i] = momentum * speeds[i] + g
            weights[i] = weights[i] - rate * (g + momentum * speeds[i])
        logits = ((test - mean) / std).reshape(len(test), -1) @ weights[0] + weights[1]
        errors.append(100 * np.mean(logits.argmax(axis=1) != truth))
    return errors


def test_a_trial_is_nesterov_momentum_at_its_own_rate_from_the_same_start():
    from tf_largebatch.records.batching import BatchPlan

    source = digits.load()
    model = network(source)
    first = model.get_weights()
    training = TrialTraining(model, source, global_batch=64)
    plan = BatchPlan(global_batch=64, train_examples=1280)
    # The second trial must show nothing of the first: weights, velocity, rate, momentum.
    for rate, momentum, seed in ((0.5, 0.9, 1), (0.02, 0.0, 1), (0.1, 0.6, 2)):
        found = list(training.curve(rate=rate, momentum=momentum, seed=seed, updates=6))
        batches = [(x.numpy(), y.numpy()) for x, y in source.train_batches(plan, seed=seed).take(6)]
        expected = by_hand(source, first, batches, rate, momentum)
        assert [update for update, _ in found] == [1, 2, 3, 4, 5, 6]
        # One image of 517 is 0.19 %: float32 may turn a tie.
        np.testing.assert_allclose([e for _, e in found], expected, atol=0.2)


def test_a_rate_that_is_far_too_high_ends_with_nan():
    source = digits.load()
    training = TrialTraining(network(source, (16,)), source, global_batch=64)
    curve = list(training.curve(rate=1e30, momentum=0.9, seed=0, updates=40))
    assert np.isnan(curve[-1][1])
    assert len(curve) < 40
    # The next trial starts afresh.
    assert np.isfinite(
        [e for _, e in training.curve(rate=0.1, momentum=0.5, seed=0, updates=3)]
    ).all()


def test_evaluations_are_at_most_3_percent_apart_once_they_are_not_at_every_update():
    places, done = [], 0
    while done < 5000:
        done = next_evaluation(done)
        places.append(done)
    assert places[:32] == list(range(1, 33))
    gaps = [b / a for a, b in zip(places[32:], places[33:], strict=False)]
    assert max(gaps) <= 1.03 + 0.5 / 33
    assert len(places) < 250


def test_the_networks_layers_and_its_repeated_start():
    source = digits.load()
    model = network(source, (16, 8))
    assert [w.shape for w in model.get_weights() if w.ndim == 2] == [(64, 16), (16, 8), (8, 10)]
    for a, b in zip(model.get_weights(), network(source, (16, 8)).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    other = network(source, (16, 8), seed=4).get_weights()
    assert not np.array_equal(model.get_weights()[0], other[0])
    with pytest.raises(ValueError, match="widths of at least 1"):
        network(source, (0,))
