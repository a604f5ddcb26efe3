"""Local SGD: against NumPy and trainings of their own, over devices and workers, and resumed."""

import functools
import re
import signal
from pathlib import Path

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
    train_all,
)
from workers import run_workers

from tf_largebatch.optimizers import LAMB, MomentumSGD
from tf_largebatch.training.checkpoint import Checkpoints, Progress
from tf_largebatch.training.evaluation import Scores
from tf_largebatch.training.step import COLUMNS
from tf_largebatch.training.workers.preemption import StopNotice
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
    # On the devices the shares of 8 go through in two micro-batches.
    local = Local(workers=2, local_steps=5, start_update=4)
    expected, got = train(local), train(Local(**vars(local) | {"devices": 2, "micro_batch": 4}))
    apart = train(Local())
    assert np.abs(apart["weights"][0] - expected["weights"][0]).max() > 1e-3
    for name in ("weights", "loss", "sent"):
        for a, b in zip(expected[name], got[name], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    for one, two in zip(expected["evaluated"], got["evaluated"], strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_two_workers_give_what_one_process_simulates_and_send_a_fifteenth():
    """Also with two workers a process, for all three rules of the slots, and between averages."""
    wide = {"updates": 48, "width": 256, "examples": 48 * BATCH}  # of one epoch: 11 kB of weights
    cases = {
        "in step": Local(**wide),
        "kept": Local(2, 16, 0, "kept", **wide),
        "averaged": Local(4, 4, 3, "averaged"),
        "reset": Local(4, 4, 3, "reset"),
        "every update": Local(4, 1, 0, "kept", updates=8),
        "every update, in step": Local(updates=8),
    }
    apart = run_workers(train_all, 2, timeout_seconds=500, locals_=cases)
    alone = train_all(cases)
    for name, local in cases.items():
        for result in apart if local.width == Local.width else ():  # rounding grows in the others
            for a, b in zip(alone[name]["weights"], result[name]["weights"], strict=True):
                np.testing.assert_allclose(a, b, atol=1e-6)
    by_step = [result["weights"] for name, result in apart[1].items() if name.startswith("every")]
    for a, b in zip(*by_step, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert sum(apart[0]["kept"]["sent"]) <= sum(apart[0]["in step"]["sent"]) / 15


def test_what_is_counted_is_what_is_handed_to_the_all_reduces(monkeypatch):
    handed = []

    def count(step):
        summed = step._sum_over_replicas

        def spy(tensors):
            handed.append(sum(t.shape.num_elements() * t.dtype.size for t in tensors))
            return summed(tensors)

        monkeypatch.setattr(step, "_sum_over_replicas", spy)

    step = make_step(Local(workers=2, local_steps=4, updates=8, slots="averaged"), make_strategy(1))
    count(step), count(step.local)
    progress = run(step, make_strategy(1), epochs=8 * BATCH / EXAMPLES)
    average, shown = sorted(set(handed), reverse=True)
    rows = 8 * len(COLUMNS) * 4
    # The first epoch ends with update 6, between the averages after 4 and 8.
    assert sum(r.bytes_sent for r in progress.records) == 2 * average + shown + rows
    assert step.local.bytes_shown == shown

    handed.clear()
    step = make_step(Local(), make_strategy(1))
    count(step)
    step._compile()
    progress = run(step, make_strategy(1), epochs=1)
    assert step.bytes_sent(3, 5) == 2 * handed[0]
    assert progress.records[0].bytes_sent == 0  # one replica, alone


@pytest.mark.parametrize(("save", "devices"), [(12, 1), (2, 1), (12, 2)])
def test_a_run_that_was_stopped_at_an_average_goes_on_bit_for_bit(tmp_path, save, devices):
    """And to rounding on other devices: the velocities that each worker keeps are in it."""
    local = Local(workers=4, local_steps=4, start_update=2, updates=18)
    strategy = make_strategy(1)
    whole = make_step(local, strategy)
    expected = run(whole, strategy, epochs=18 * BATCH / EXAMPLES)

    class Halt:
        def after_block(self, progress):
            return progress.update >= save and progress.resumable

        def after_epoch(self, progress):
            pass

    first = make_step(local, strategy)
    halted = run(first, strategy, epochs=3, keepers=[Halt()])
    assert halted.update == save
    first.local.collect(save)
    Checkpoints(tmp_path, first.model, first.optimizer, first.local.kept).save(halted)

    strategy = make_strategy(devices)
    second = make_step(local, strategy)
    restored = Checkpoints(tmp_path, second.model, second.optimizer, second.local.kept).restore()
    resumed = run(second, strategy, epochs=3, progress=restored)
    for a, b in zip(whole.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=0 if devices == 1 else 1e-6)
    assert [r.bytes_sent for r in resumed.records] == [r.bytes_sent for r in expected.records]


def test_a_run_between_two_averages_is_not_resumable_and_is_evaluated_as_their_mean():
    local = Local(workers=2, local_steps=4, updates=12)
    strategy, seen, stood = make_strategy(1), [], []

    def evaluate():
        seen.append([np.array(w) for w in step.model.get_weights()])
        copies = {v.path: np.array(c) for v, c in step.local._copies}
        each = [copies[v.path] for v in step.model.weights]
        stood.append(([c.mean(axis=0) for c in each], np.ptp(each[0], axis=0).max()))
        return Scores(loss=1.0, top1_error_pct=50.0, top5_error_pct=10.0, examples=8)

    class Watch:
        def __init__(self):
            self.blocks = []

        def after_block(self, progress):
            self.blocks.append((progress.update, progress.resumable))

        def after_epoch(self, progress):
            pass

    step, watch = make_step(local, strategy), Watch()
    run(step, strategy, epochs=2, evaluate=evaluate, keepers=[watch])
    # Epochs end with updates 6 and 12.
    assert watch.blocks == [(6, False), (12, True)]
    assert stood[0][1] > 1e-3 and stood[1][1] == 0  # the workers still differ after the first
    for means, weights in zip([s[0] for s in stood], seen, strict=True):
        for a, b in zip(means, weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_signal_waits_for_an_average():
    class Alone:
        def any(self, number):
            return number

    notice, progress = StopNotice(Alone()), Progress()
    notice.received = signal.SIGTERM
    progress.add(np.zeros((3, len(COLUMNS)), np.float32), 1.0, resumable=False)
    assert not notice.after_block(progress)
    progress.add(np.zeros((1, len(COLUMNS)), np.float32), 1.0)
    assert notice.after_block(progress)


@pytest.mark.parametrize(
    ("make", "slots", "says"),
    [
        (LAMB, "reset", '"kept" or "averaged" with LAMB'),
        (functools.partial(MomentumSGD, use_ema=True), "kept", "`use_ema` must be off"),
    ],
)
def test_an_optimizer_whose_state_cannot_be_shared_so_is_refused(make, slots, says):
    with pytest.raises(ValueError, match=says):
        make_step(Local(workers=2, local_steps=4, slots=slots), make_strategy(1), make)


def test_the_example_of_the_page_runs_and_says_what_was_sent(capsys):
    page = (Path(__file__).parents[1] / "docs" / "beyond.md").read_text(encoding="utf-8")
    section = page.partition("### A model of your own")[2]
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], {})
    # Six averages of 18 weights, and eight numbers of each of 40 updates.
    assert "1,712 bytes a worker" in capsys.readouterr().out
