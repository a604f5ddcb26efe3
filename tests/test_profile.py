"""Traces of chosen updates, and the wait for data."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import keras
import pytest
import tensorflow as tf
from test_loop import StopAt, make_step, run

from tf_largebatch.records.console import Parser, span
from tf_largebatch.records.errors import InputError
from tf_largebatch.training.profile import Profile
from tf_largebatch.training.rows import check_profile
from tf_largebatch.training.step import waiting


@pytest.mark.parametrize(
    ("update", "size", "limited"), [(0, 20, 5), (3, 20, 2), (5, 20, 1), (7, 20, 1), (8, 20, 20)]
)
def test_blocks_end_before_the_traced_updates_which_run_one_by_one(update, size, limited):
    assert Profile(5, 8).limit(update, size) == limited
    assert Profile().limit(update, size) == size


def test_every_update_is_told_once_and_the_trace_lies_where_the_plugin_looks(tmp_path):
    told = []

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            told.append((batch, "weight_norm" in logs))

    step = make_step(100, 8)
    run(step, epochs=1, callbacks=[Keep()], profile=Profile(3, 5, tmp_path))
    assert [batch for batch, _ in told] == list(range(13))
    # A block's last update has the norm: 0-2, 3, 4, 5-12.
    assert [batch for batch, last in told if last] == [2, 3, 4, 12]
    (trace,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    data = trace.read_bytes()
    assert b"train" in data and b"step_num" in data


def test_a_training_that_ends_inside_writes_its_trace(tmp_path):
    step = make_step(100, 8)
    run(
        step,
        epochs=1,
        profile=Profile(3, 50, tmp_path),
        keepers=[StopAt(5)],
    )
    assert len(list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))) == 1


def test_a_worker_that_does_not_write_runs_the_same_blocks(tmp_path):
    profile = Profile(3, 5)
    run(make_step(100, 8), epochs=1, profile=profile)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["5", "5:", ":5", "5:5", "6:5", "-1:5", "a:b", "1:2:3", "1.5:2"])
def test_a_span_that_is_none_is_one_line_and_status_2(text, capsys):
    parser = Parser(prog="recipe")
    parser.add_argument("--profile", type=span)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([f"--profile={text}"])
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert "FIRST:END" in line and f"Received: {text}" in line and line.count("\n") == 1
    assert parser.parse_args(["--profile", "0:2"]).profile == (0, 2)


def test_an_update_waits_from_its_end_until_the_next_batch_is_there():
    assert float(waiting(tf.constant(10.0), tf.constant(12.5))) == 2.5
    assert float(waiting(tf.constant(10.0), tf.constant(9.0))) == 0.0


NAP = 0.2  # seconds; the update itself takes a few milliseconds


def sleeping(batches):
    def nap(images):
        time.sleep(NAP)
        return images

    def change(images, labels):
        slow = tf.numpy_function(nap, [images], tf.float32)
        slow.set_shape(images.shape)
        return slow, labels

    return batches.map(change)


def test_the_time_in_which_no_data_came_is_counted_and_no_other():
    from tf_largebatch.training.workers.strategy import make_strategy

    step, updates = make_step(100, 8), 4
    images, labels = tf.zeros([updates + 1, 8, 3]), tf.zeros([updates + 1, 8], tf.int32)
    # Finite: a data set that still calls Python when the process ends holds it up.
    batches = tf.data.Dataset.from_tensor_slices((images, labels))
    waits = {}
    for name, dataset in (("quick", batches), ("slow", sleeping(batches))):
        iterator = iter(make_strategy(1).experimental_distribute_dataset(dataset))
        step.run_timed(iterator, tf.constant(1))
        start = time.perf_counter()
        rows, waited = step.run_timed(iterator, tf.constant(updates))
        waits[name] = float(waited)
        assert 0 <= waits[name] <= time.perf_counter() - start
        assert rows.shape[0] == updates
    # Bounds that hold on a busy machine: half of the naps, and more than without them.
    assert waits["slow"] > 0.5 * updates * NAP
    assert waits["quick"] < waits["slow"]


@pytest.mark.parametrize(
    ("profile", "fine"), [(None, True), ((148, 150), True), ((148, 151), False)]
)
def test_a_profile_must_end_within_the_run(profile, fine):
    plan = SimpleNamespace(updates=150, recipe=SimpleNamespace(label="goyal_8k"))
    with (
        nullcontext()
        if fine
        else pytest.raises(
            InputError, match="within the 150 updates of goyal_8k. Received: 148:151"
        )
    ):
        check_profile(profile, plan)
