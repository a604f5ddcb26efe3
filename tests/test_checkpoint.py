"""Checkpoints: what is in one, which is chosen, and what older and damaged ones lead to."""

import dataclasses
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_loop import losses, make_step, run

from tf_largebatch.records.curve import EpochRecord
from tf_largebatch.records.errors import InputError, NonFiniteError
from tf_largebatch.training.checkpoint import FORMAT, Checkpoints, Progress
from tf_largebatch.training.step import COLUMNS


def checkpoints(folder, **options):
    """Of a fresh step, which is returned too."""
    step = make_step(100, 8)
    return Checkpoints(folder, step.model, step.optimizer, **options), step


def indices(folder):
    return sorted(p.name for p in folder.glob("*.index"))


def record(epoch, **fields):
    values = {f.name: 1 / (3 + n) for n, f in enumerate(dataclasses.fields(EpochRecord))}
    whole = {"epoch": epoch, "update": 5 * epoch, "images_seen": 115_200_000, "unread": 2}
    return EpochRecord(**values | whole | {"validation_unread": 0, "bytes_sent": 2**40} | fields)


def save_two(folder):
    """Checkpoints 10 and 15, whose weights differ by 1; returns the weights of each."""
    saver, step = checkpoints(folder)
    kept = {}
    for update in (10, 15):
        step.model.set_weights([w + 1 for w in step.model.get_weights()])
        saver.save(Progress(update, [record(n + 1) for n in range(update // 5)]))
        kept[update] = step.model.get_weights()
    return kept


def assert_restored(folder, update, weights):
    saver, step = checkpoints(folder)
    progress = saver.restore()
    assert progress.update == update
    for a, b in zip(step.model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)
    return saver, progress


def test_epochs_and_updates_since_come_back_to_the_bit(tmp_path):
    saver, _ = checkpoints(tmp_path)
    rows = np.full((3, len(COLUMNS)), 1 / 3, np.float32)
    rows[1, 3] = np.inf  # a gradient norm of an update that float16 skipped
    records = [record(1), record(2, validation_loss=float("inf"))]
    saver.save(Progress(13, records, rows, 1 / 3))
    again, _ = checkpoints(tmp_path)
    progress = again.restore()
    assert progress.records == records
    assert [type(v) for v in dataclasses.astuple(progress.records[0])] == [
        type(v) for v in dataclasses.astuple(records[0])
    ]
    assert (progress.update, progress.seconds) == (13, 1 / 3)
    np.testing.assert_array_equal(progress.rows, rows)


def test_a_folder_without_checkpoints_has_none_to_restore(tmp_path):
    assert checkpoints(tmp_path)[0].restore() is None
    assert checkpoints(tmp_path / "absent")[0].restore() is None


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    saver, _ = checkpoints(tmp_path)
    for update in (5, 10, 15):
        saver.save(Progress(update=update))
    assert indices(tmp_path) == ["ckpt-10.index", "ckpt-15.index"]
    assert not list(tmp_path.glob("ckpt-5*"))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "zeroed", "garbled", "foreign"])
def test_tensorflows_own_list_decides_nothing(tmp_path, damage):
    kept = save_two(tmp_path)
    state = tmp_path / "checkpoint"
    text = state.read_bytes()
    damaged = {
        "empty": b"",
        "cut": text[: len(text) // 2],
        "zeroed": bytes(len(text)),
        "garbled": b"\xff{" + text[2:],
        "foreign": b'model_checkpoint_path: "ckpt-900"\n',
    }
    state.unlink() if damage == "missing" else state.write_bytes(damaged[damage])
    saver, progress = assert_restored(tmp_path, 15, kept[15])
    assert saver.damaged == []
    saver.save(Progress(20, progress.records))
    assert indices(tmp_path) == ["ckpt-15.index", "ckpt-20.index"]
    assert tf.train.latest_checkpoint(tmp_path).endswith("ckpt-20")  # for other readers


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "zeroed", "flipped", "of another"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, suffix, damage):
    kept = save_two(tmp_path)
    path = tmp_path / f"ckpt-15{suffix}"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[random.Random(0).randrange(len(content))] ^= 1
    damaged = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "zeroed": bytes(len(content)),
        "flipped": content,
        "of another": (tmp_path / f"ckpt-10{suffix}").read_bytes(),
    }
    path.unlink() if damage == "missing" else path.write_bytes(damaged[damage])
    saver, progress = assert_restored(tmp_path, 10, kept[10])
    assert [r.epoch for r in progress.records] == [1, 2]
    # Without its index it is none, as where a process is killed while it writes one.
    named = not (suffix == ".index" and damage == "missing")
    assert len(saver.damaged) == named and all("ckpt-15" in line for line in saver.damaged)
    # It does not push out the whole ones.
    for update in (12, 14):
        saver.save(Progress(update))
    assert {"ckpt-12.index", "ckpt-14.index"} <= set(indices(tmp_path))


def test_where_none_is_whole_nothing_is_trained(tmp_path):
    save_two(tmp_path)
    for path in tmp_path.glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="ckpt-15 cannot be restored .*Remove .* or choose"):
        checkpoints(tmp_path)[0].restore()


def test_a_checkpoint_of_another_run_is_not_restored(tmp_path):
    saver, _ = checkpoints(tmp_path, run={"seed": "1", "data": "abc"})
    saver.save(Progress(10))
    assert checkpoints(tmp_path, run={"seed": "1", "data": "abc"})[0].restore().update == 10
    with pytest.raises(InputError, match="of another run: seed 1 there, 2 here"):
        checkpoints(tmp_path, run={"seed": "2", "data": "abc"})[0].restore()


def test_a_checkpoint_under_another_number_is_not_restored(tmp_path):
    kept = save_two(tmp_path)
    for path in list(tmp_path.glob("ckpt-10.*")):
        path.rename(path.with_name(path.name.replace("ckpt-10", "ckpt-30")))
    saver, _ = assert_restored(tmp_path, 15, kept[15])
    assert "it is of update 10" in saver.damaged[0]


def save_as(folder, step, number, **more):
    """A checkpoint as the version before wrote it, with TensorFlow's own manager."""
    rows = np.zeros((0, len(COLUMNS)), np.float32)
    checkpoint = tf.train.Checkpoint(
        model=step.model,
        optimizer=step.optimizer,
        others=[],
        update=tf.Variable(number, dtype=tf.int64),
        seconds=tf.Variable(0.5, dtype=tf.float64),
        rows=tf.Variable(rows, shape=tf.TensorShape([None, len(COLUMNS)])),
        **more,
    )
    tf.train.CheckpointManager(checkpoint, str(folder), 2).save(checkpoint_number=number)


def test_one_of_format_1_opens_and_says_that_it_has_no_epochs(tmp_path):
    step = make_step(100, 8)
    save_as(tmp_path, step, 13)
    saver, again = checkpoints(tmp_path, run={"seed": "1"})
    again.model.set_weights([w + 1 for w in again.model.get_weights()])
    progress = saver.restore()
    assert (progress.update, progress.records, saver.format) == (13, [], 1)
    for a, b in zip(again.model.get_weights(), step.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_of_a_later_format_is_refused_by_its_number(tmp_path):
    step = make_step(100, 8)
    save_as(tmp_path, step, 13, format=tf.Variable(FORMAT + 1, dtype=tf.int64))
    rule = f"format {FORMAT + 1}. This version reads formats 1 to {FORMAT}"
    with pytest.raises(InputError, match=rule):
        checkpoints(tmp_path)[0].restore()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["weights", "velocity"])
def test_what_is_not_finite_is_not_saved(tmp_path, value, where):
    saver, step = checkpoints(tmp_path)
    variables = step.model.weights if where == "weights" else step.optimizer.variables
    variable = [v for v in variables if len(v.shape) == 2][0]
    variable.assign(np.full(variable.shape, value))
    with pytest.raises(NonFiniteError, match=f"update 6: {variable.path} is not finite after it"):
        saver.save(Progress(7))
    assert not indices(tmp_path)


def test_one_whose_weights_are_not_finite_is_named_and_the_one_before_it_used(tmp_path):
    step = make_step(100, 8)
    save_as(tmp_path, step, 5)  # the version before did not look
    good = step.model.get_weights()
    step.model.weights[0].assign(np.full(step.model.weights[0].shape, np.nan))
    save_as(tmp_path, step, 10)
    saver, _ = assert_restored(tmp_path, 5, good)
    assert "head/kernel is not finite" in saver.damaged[0]


def test_a_loss_that_is_not_finite_stops_a_run_whose_gradients_are():
    def losses(labels, logits):
        plain = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        broken = tf.reduce_any(labels == 3)  # a constant: no gradient comes from it
        return plain + tf.where(broken, np.float32(np.nan), 0.0)

    step = make_step(100, 1)
    step.loss = losses
    with pytest.raises(NonFiniteError, match="the loss is not finite, with loss nan and") as caught:
        run(step, epochs=1)
    labels = [
        int(tf.random.stateless_uniform([1], [6, u], 0, 4, tf.int32)[0])
        for u in range(caught.value.update + 1)
    ]
    assert labels[-1] == 3 and 3 not in labels[:-1]


def test_weights_that_the_last_update_breaks_end_the_run():
    class Rate(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return tf.where(tf.cast(step, tf.int32) == 12, 3e38, 0.1)

    # 100 examples at 8: the thirteenth update is the epoch's and the run's last.
    step = make_step(100, 8)
    step.optimizer.learning_rate = Rate()
    step.loss = lambda labels, logits: 100 * losses(labels, logits)  # a gradient above 1
    with pytest.raises(NonFiniteError, match=r"update 12: .* is not finite after it") as caught:
        run(step, epochs=1)
    assert caught.value.update == 12
