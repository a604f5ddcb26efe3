"""The loop over epochs: what it records, what it tells callbacks, where it stops."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.optimizers import MomentumSGD
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.errors import NonFiniteError
from tf_largebatch.schedules import Steps
from tf_largebatch.training.blocks import BLOCK
from tf_largebatch.training.checkpoint import Checkpoints, Progress
from tf_largebatch.training.evaluation import Scores
from tf_largebatch.training.step import TrainingStep
from tf_largebatch.training.train import fit
from tf_largebatch.training.workers.strategy import make_strategy

SCORES = Scores(loss=1.0, top1_error_pct=50.0, top5_error_pct=10.0, examples=4)


def losses(labels, logits):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def make_step(examples, batch, rate=0.1):
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="head")])
    plan = BatchPlan(global_batch=batch, train_examples=examples)
    optimizer = MomentumSGD(Steps(rate, (7,), factor=0.5), momentum=0.9)
    return TrainingStep(model, optimizer, loss=losses, plan=plan, strategy=make_strategy(1))


def batches_from(update, batch, poison=None):
    """Batch `u` is a function of `u`, as the data sources promise."""

    def make(u):
        images = tf.random.stateless_normal([batch, 3], [5, tf.cast(u, tf.int32)])
        if poison is not None:
            images = tf.where(u == poison, np.nan, images)
        labels = tf.random.stateless_uniform([batch], [6, tf.cast(u, tf.int32)], 0, 4, tf.int32)
        return images, labels

    return iter(tf.data.Dataset.counter(update).map(make))


def run(step, *, epochs, progress=None, poison=None, **options):
    """Trains on batches that follow from where `progress` stands, and returns it."""
    progress = progress or Progress()

    def batches(plan, update):
        return batches_from(update, plan.global_batch, poison)

    fit(step, batches=batches, evaluate=lambda: SCORES, epochs=epochs, progress=progress, **options)
    return progress


class StopAt:
    """A keeper that ends the training after an update, and calls `save` there."""

    def __init__(self, update, save=lambda progress: None):
        self.update, self.save = update, save

    def after_block(self, progress):
        if progress.update == self.update:
            self.save(progress)
        return progress.update == self.update

    def after_epoch(self, progress):
        pass


class Log(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.updates, self.epochs, self.with_norm = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.updates.append(batch)
        if "weight_norm" in logs:
            self.with_norm.append(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((epoch, logs["update"], logs["epoch"]))


def test_epochs_end_at_the_first_update_past_them_and_every_update_is_told_once():
    # 100 examples at 8: epochs end after ceil(12.5), ceil(25), ceil(37.5) updates.
    step, log = make_step(100, 8), Log()
    progress = run(step, epochs=3, callbacks=[log])
    assert log.updates == list(range(38))
    assert log.epochs == [(0, 13, 1), (1, 25, 2), (2, 38, 3)]
    assert [r.images_seen for r in progress.records] == [104, 200, 304]
    # The last update of a block carries the weight norm: blocks end with the epochs.
    assert log.with_norm == [12, 24, 37]


def test_an_epoch_longer_than_a_block_is_told_whole():
    step, log = make_step(2 * BLOCK + 3, 1), Log()
    run(step, epochs=1, callbacks=[log])
    assert log.updates == list(range(2 * BLOCK + 3))
    assert log.with_norm == [BLOCK - 1, 2 * BLOCK - 1, 2 * BLOCK + 2]


def test_a_batch_larger_than_the_data_ends_several_epochs_at_once():
    # 10 examples at 25: 4 epochs are 40 examples, two updates; epochs 1 and 2 end with the first.
    progress = run(make_step(10, 25), epochs=4)
    assert [(r.epoch, r.update) for r in progress.records] == [(1, 1), (3, 2)]


def test_the_record_holds_the_means_of_its_epoch_and_the_rate_of_its_last_update():
    seen = []

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs)

    progress = run(make_step(5, 1), epochs=2, callbacks=[Keep()])
    for n, record in enumerate(progress.records):
        part = seen[5 * n : 5 * n + 5]
        assert record.train_loss == pytest.approx(np.mean([p["loss"] for p in part]), rel=1e-6)
        error = 100 * (1 - np.mean([p["accuracy"] for p in part]))
        assert record.train_error_pct == pytest.approx(error, abs=1e-4)
    # Updates 0 to 9 with a drop at 7: the first epoch ends before it, the second after.
    assert [r.learning_rate for r in progress.records] == pytest.approx([0.1, 0.05])


def without_time(records):
    return [dataclasses.replace(record, seconds=0.0) for record in records]


# 50 examples at 1: an epoch is 50 updates in blocks of 20, 20 and 10. Stops in the first epoch, at
# its very end before the evaluation, and in the second.
@pytest.mark.parametrize("stop", [20, 50, 70])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, stop):
    whole = make_step(50, 1)
    expected = run(whole, epochs=2)

    first = make_step(50, 1)
    halted = run(first, epochs=2, keepers=[StopAt(stop)])
    assert halted.update == stop
    Checkpoints(tmp_path, first.model, first.optimizer).save(halted)

    second = make_step(50, 1)
    restored = Checkpoints(tmp_path, second.model, second.optimizer).restore()
    assert restored.update == stop
    resumed = run(second, epochs=2, progress=restored)
    for a, b in zip(whole.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert without_time(resumed.records) == without_time(expected.records)


def test_a_value_that_is_not_finite_stops_the_run_with_update_tensor_and_rate():
    with pytest.raises(NonFiniteError) as caught:
        run(make_step(100, 8), epochs=3, poison=9)
    assert caught.value.update == 9
    message = str(caught.value)
    assert message.startswith("update 9: ")
    assert "head/kernel" in message
    assert "rate 0.05" in message
    assert "\n" not in message
