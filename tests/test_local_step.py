"""Local SGD: against NumPy and trainings of their own, over devices and workers, and resumed."""

import numpy as np
import pytest
from local_split import (
    BATCH,
    EXAMPLES,
    Local,
    make_source,
    make_step,
    run,
    train,
)

from tf_largebatch.training.workers.strategy import make_strategy


def batches(updates):
    """The images and labels of each update, as the data source gives them."""
    from tf_largebatch.records.batching import BatchPlan

    plan = BatchPlan(global_batch=BATCH, train_examples=EXAMPLES)
    data = make_source().train_batches(plan, seed=7).take(updates)
    return [(x.numpy().reshape(BATCH, 4).astype(np.float64), y.numpy()) for x, y in data]


def by_hand(kernel, bias, *, workers, steps, start, updates, slots):
    """Softmax regression by Goyal's Eq. 9 with decay on the kernel, K workers, in float64."""
    w = [[kernel.astype(np.float64), bias.astype(np.float64)] for _ in range(workers)]
    v = [[np.zeros_like(part) for part in of] for of in w]
    for update, (x, y) in enumerate(batches(updates)):
        rate = 0.3 if update < 7 else 0.15
        gradients = []
        for k in range(workers):
            rows = slice(k * BATCH // workers, (k + 1) * BATCH // workers)
            z = x[rows] @ w[k][0] + w[k][1]
            p = np.exp(z - z.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            p[np.arange(len(p)), y[rows]] -= 1.0
            gradients.append([x[rows].T @ p / len(p), p.mean(axis=0)])
        if update < start:
            mean = [np.mean([g[i] for g in gradients], axis=0) for i in range(2)]
            gradients = [mean] * workers
        for k in range(workers):
            for i, decay in enumerate((1e-2, 0.0)):
                v[k][i] = 0.9 * v[k][i] + gradients[k][i] + decay * w[k][i]
                w[k][i] = w[k][i] - rate * v[k][i]
        done = update + 1
        if done > start and (done % steps == 0 or done == updates):
            for i in range(2):
                mean = np.mean([w[k][i] for k in range(workers)], axis=0)
                mean_v = np.mean([v[k][i] for k in range(workers)], axis=0)
                for k in range(workers):
                    w[k][i] = mean
                    v[k][i] = {"kept": v[k][i], "averaged": mean_v, "reset": 0 * mean}[slots]
    return w[0]


@pytest.mark.parametrize(
    ("workers", "steps", "start", "slots"),
    [(2, 3, 0, "kept"), (4, 5, 6, "kept"), (4, 5, 6, "averaged"), (2, 3, 0, "reset")],
)
def test_workers_are_trained_apart_and_averaged_as_by_hand(workers, steps, start, slots):
    local = Local(workers, steps, start, slots, updates=13, norm=False)
    strategy = make_strategy(1)
    step = make_step(local, strategy)
    kernel, bias = (np.array(w) for w in step.model.get_weights())
    run(step, strategy, epochs=13 * BATCH / EXAMPLES)
    expected = by_hand(
        kernel, bias, workers=workers, steps=steps, start=start, updates=13, slots=slots
    )
    assert np.abs(expected[0] - kernel).max() > 0.1
    for a, b in zip(expected, step.model.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6)


def test_one_worker_that_averages_with_nobody_is_synchronous_to_the_bit():
    expected = train(Local())
    for steps in (1, 3):
        got = train(Local(workers=1, local_steps=steps))
        for a, b in zip(expected["weights"], got["weights"], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(expected["loss"], got["loss"])


@pytest.mark.parametrize("slots", ["kept", "averaged"])
def test_averages_after_every_update_are_synchronous_training(slots):
    # A linear rule averages as its gradients do. Eight updates: batch norm makes rounding grow.
    expected = train(Local(updates=8))
    got = train(Local(workers=4, local_steps=1, slots=slots, updates=8))
    assert np.abs(expected["weights"][0] - expected["before"][0]).max() > 0.1
    for a, b in zip(expected["weights"], got["weights"], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(expected["loss"], got["loss"], rtol=1e-5)


def test_several_devices_give_what_one_simulates():
    local = Local(workers=4, local_steps=5, start_update=4)
    expected, got = train(local), train(Local(**vars(local) | {"devices": 2}))
    apart = train(Local())
    assert np.abs(apart["weights"][0] - expected["weights"][0]).max() > 1e-3
    for name in ("weights", "loss", "sent"):
        for a, b in zip(expected[name], got[name], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    for one, two in zip(expected["evaluated"], got["evaluated"], strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
