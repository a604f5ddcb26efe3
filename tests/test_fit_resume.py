"""A `fit` that is killed and started again ends as one that was not, or says why not."""

import functools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.optimizers import LAMB, LARS
from tf_largebatch.records.errors import InputError, NonFiniteError, StorageError
from tf_largebatch.training.fit_resume import ExactResume
from tf_largebatch.training.fit_state import StateFiles

ROOT = Path(__file__).parents[1]
EXAMPLES, BATCH, STEPS, EPOCHS, FEATURES, CLASSES = 48, 8, 6, 2, 6, 5


def examples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES, FEATURES)).astype("float32")
    return x, rng.integers(0, CLASSES, EXAMPLES)


def shuffled(resume, seed=0, batch=BATCH):
    """Each epoch in another order."""
    data = tf.data.Dataset.from_tensor_slices(examples())

    def epoch(number):
        return data.shuffle(EXAMPLES, seed=number + seed).batch(batch, drop_remainder=True)

    return resume.epochs(epoch)


def plain(resume):
    """Each epoch in the order of the arrays."""
    return resume.data(tf.data.Dataset.from_tensor_slices(examples()).batch(BATCH))


def counted(resume):
    return resume.data(from_batch)


def reshuffled():
    data = tf.data.Dataset.from_tensor_slices(examples())
    return data.shuffle(EXAMPLES, seed=3).batch(BATCH)


def from_batch(first, size=BATCH):
    """Endless batches as a function of their number."""
    x, y = examples()

    def batch(number):
        keys = tf.range(number * size, (number + 1) * size, dtype=tf.int64) % EXAMPLES
        chosen = tf.random.experimental.index_shuffle(keys, [1, 2], EXAMPLES - 1)
        return tf.gather(x, chosen), tf.gather(y, chosen)

    return tf.data.Dataset.counter(first).map(batch)


def compiled(optimizer=None, policy="float32", width=8, rate=0.3, **options):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((FEATURES,))
    x = keras.layers.Dense(width, dtype=policy)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.8, dtype=policy)(x)
    x = keras.layers.Dropout(0.3, dtype=policy)(x)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, dtype="float32")(x))
    model.compile(
        optimizer=optimizer() if optimizer else LARS(rate, trust_coefficient=0.02),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model


def scaled():
    """Keras's loss scale, lowered and raised again within the run, around accumulation and EMA."""
    inner = LAMB(0.02, weight_decay=1e-2, gradient_accumulation_steps=2, use_ema=True)
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**30, dynamic_growth_steps=3)


class Killed(keras.callbacks.Callback):
    """Ends training before a batch, counted from 0 over all epochs, as far as one process can."""

    def __init__(self, at, how=None):
        super().__init__()
        self.at, self.how, self.epoch = at, how, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        now = self.epoch * STEPS + batch
        if now == self.at and self.how:
            os.kill(os.getpid(), self.how)
        elif now >= self.at and not self.how:
            raise RuntimeError("killed")


def train(folder, killed=None, data=shuffled, updates=2, minutes=10.0, scored=False, **model):
    model = compiled(**model)
    resume = ExactResume(folder, checkpoint_updates=updates, checkpoint_minutes=minutes)
    history = model.fit(
        data(resume),
        steps_per_epoch=STEPS,
        shuffle=False,
        epochs=EPOCHS,
        validation_data=examples() if scored else None,
        validation_batch_size=BATCH,
        callbacks=[resume, *([killed] if killed else [])],
        verbose=0,
    )
    variables = [*model.variables, *model.optimizer.variables]
    return [np.asarray(v) for v in variables], history.history, history.epoch


def assert_equal(got, expected):
    for a, b in zip(got[0], expected[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert got[1:] == expected[1:]


CASES = {
    "shuffled anew each epoch": {"scored": True},
    "in one order": {"data": plain},
    "scaled, accumulated, two a call": {
        "optimizer": scaled,
        "policy": "mixed_float16",
        "data": counted,
        "steps_per_execution": 2,
    },
}


@pytest.mark.parametrize("name", CASES)
def test_killed_at_random_again_and_again_it_ends_as_if_never(name, tmp_path, capsys):
    case, dice, places = CASES[name], random.Random(name), ""
    expected = train(tmp_path / "undisturbed", **case)
    for least, most in ((3, 4), (6, 8), (9, 10)):
        with pytest.raises(RuntimeError):
            train(tmp_path / "killed", Killed(dice.randint(least, most)), **case)
        places += capsys.readouterr().err
    assert_equal(train(tmp_path / "killed", **case), expected)
    places += capsys.readouterr().err
    assert places.count("continues") == 3 and places.count("batch 0 of") <= 1, places
    # Once it has ended, the same program trains nothing and says the same.
    assert_equal(train(tmp_path / "killed", **case), expected)
    assert "at its end, epoch 2" in capsys.readouterr().err


def test_sigterm_ends_it_after_a_checkpoint_of_that_update(tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        train(tmp_path, Killed(3, signal.SIGTERM), updates=None)
    assert end.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert [p.name for p in tmp_path.iterdir()] == ["fit-4.npz"]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Killed(8, signal.SIGINT), updates=None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit-6.npz", "fit-9.npz"]
    err = capsys.readouterr().err
    assert "SIGTERM: stopped after epoch 1, batch 4; the same program continues" in err
    assert "at epoch 1, batch 4 of 6" in err


def test_by_time(tmp_path):
    with pytest.raises(RuntimeError):
        train(tmp_path, Killed(3), updates=None, minutes=1e-9)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit-2.npz", "fit-3.npz"]


def test_another_training_is_refused_by_what_is_other(tmp_path):
    with pytest.raises(RuntimeError):
        train(tmp_path, Killed(5))
    files = {p: p.read_bytes() for p in tmp_path.iterdir()}
    for case, words in (
        ({"width": 9}, "of shape (6, 8) and float32 there"),
        ({"rate": 0.4}, "optimizer.learning_rate 0.3 there, 0.4 here"),
        ({"optimizer": lambda: LAMB(0.3)}, "optimizer LARS there, LAMB here"),
        ({"policy": "mixed_bfloat16"}, "precision float32 there, float32 mixed_bfloat16 here"),
        ({"data": functools.partial(shuffled, seed=4)}, "the first batch of the data"),
        ({"data": functools.partial(shuffled, batch=6)}, "must be the batches of an epoch"),
        ({"data": lambda r: r.data(lambda n: from_batch(n, 4))}, "batch 8 there, 4 here"),
        ({"data": lambda r: r.data(3)}, "`data` must be a tf.data.Dataset, or a function"),
        ({"data": lambda r: r.data(reshuffled())}, "the same at every reading. Received: data"),
    ):
        with pytest.raises(ValueError, match=r".") as error:
            train(tmp_path, **case)
        assert words in str(error.value) and "\n" not in str(error.value), case
        if "of another training" in str(error.value):
            assert str(error.value).endswith("or give ExactResume another folder")
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == files


def test_what_fit_must_be_given(tmp_path):
    model, resume = compiled(), ExactResume(tmp_path)
    with pytest.raises(InputError, match=r"`x` of `fit` must come from ExactResume"):
        model.fit(reshuffled(), shuffle=False, callbacks=[resume], verbose=0)
    with pytest.raises(InputError, match=r"`steps_per_epoch` must be given.* no end"):
        model.fit(plain(resume), shuffle=False, callbacks=[resume], verbose=0)
    with pytest.raises(ValueError, match=r"`initial_epoch` must be left out. Received: .*=1"):
        fits = {"steps_per_epoch": 6, "initial_epoch": 1, "epochs": 2, "shuffle": False}
        model.fit(plain(resume), **fits, callbacks=[resume], verbose=0)
    for wrong in ({"checkpoint_updates": 0}, {"checkpoint_minutes": 0}, {"keep": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ExactResume(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_damage_costs_the_newest_and_is_named(tmp_path, capsys):
    with pytest.raises(RuntimeError):
        train(tmp_path, Killed(5))
    newest = tmp_path / "fit-4.npz"
    whole = newest.read_bytes()
    kernel = np.load(newest)["0"].tobytes()
    changed = bytearray(whole)
    changed[whole.index(kernel) + 17] ^= 1  # one bit of a weight
    newest.write_bytes(changed)
    with pytest.raises(RuntimeError):
        train(tmp_path, Killed(3))
    err = capsys.readouterr().err
    assert f"checkpoint {newest} cannot be read (" in err and "goes on from fit-2.npz" in err
    assert "at epoch 1, batch 2 of 6" in err
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"^[^\n]*to begin again, or choose another folder$"):
        plain(ExactResume(tmp_path))


def test_a_later_format_is_refused_by_its_number(tmp_path):
    StateFiles(tmp_path, keep=1).save(3, {"batches": 3, "variables": [], "format": 9}, [])
    with pytest.raises(InputError, match="fit-3.npz is of format 9. This version reads format 1"):
        plain(ExactResume(tmp_path))


def test_what_is_not_finite_is_not_kept(tmp_path):
    with pytest.raises(NonFiniteError, match=r"update \d+: .*kernel is not finite"):
        train(tmp_path, rate=1e30)
    assert all("inf" not in str(np.load(p)["0"]) for p in tmp_path.iterdir())


def test_a_disk_that_takes_nothing_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        train(tmp_path / "file")


PROGRAM = """
import os, sys, time
import keras
import numpy as np
import tensorflow as tf
from tf_largebatch import LARS, DistributedFit, ExactResume, report_ready

folder = sys.argv[1]


class Net(DistributedFit, keras.Model):
    pass


class Slow(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        open(f"{folder}/pid{strategy.cluster_resolver.task_id}", "w").write(str(os.getpid()))

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.02)


strategy = tf.distribute.MultiWorkerMirroredStrategy()
report_ready()
keras.utils.set_random_seed(1)
with strategy.scope():
    inputs = keras.Input((6,))
    x = keras.layers.BatchNormalization(momentum=0.8)(keras.layers.Dense(8)(inputs))
    model = Net(inputs, keras.layers.Dense(5)(keras.layers.Dropout(0.3)(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(LARS(0.3, trust_coefficient=0.02), loss, metrics=["accuracy"])
rng = np.random.default_rng(0)
x, y = rng.normal(size=(96, 6)).astype("float32"), rng.integers(0, 5, 96)
data = tf.data.Dataset.from_tensor_slices((x, y))
resume = ExactResume(f"{folder}/checkpoints", checkpoint_updates=7)
history = model.fit(
    resume.epochs(lambda number: data.shuffle(96, seed=number).batch(8, drop_remainder=True)),
    steps_per_epoch=12, epochs=8, shuffle=False,
    validation_data=(x, y), validation_batch_size=8, callbacks=[resume, Slow()], verbose=0,
).history
if strategy.cluster_resolver.task_id == 0:
    arrays = [np.asarray(v) for v in [*model.variables, *model.optimizer.variables]]
    np.savez(f"{folder}/end.npz", *arrays, **history)
"""


def newest(folder):
    names = [p.stem for p in (folder / "checkpoints").glob("fit-*.npz")]
    return max((int(name[4:]) for name in names), default=-1)


def launch(folder, kills):
    """Runs the program with two workers, and ends one of them by each of these signals."""
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "tf_largebatch", "launch", "--workers=2", "--restarts=9"]
    command += ["--grace=10", "--", str(folder / "program.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**environment, "CUDA_VISIBLE_DEVICES": "-1"}
        )
    try:
        dice, deadline = random.Random(7), time.monotonic() + 900
        for rank, number in kills:
            before, pid = newest(folder), folder / f"pid{rank}"
            wanted = time.monotonic() + 900
            while newest(folder) <= before or not pid.exists():
                assert process.poll() is None and time.monotonic() < wanted, log_of(folder)
                time.sleep(0.02)
            time.sleep(dice.uniform(0.0, 0.3))
            os.kill(int(pid.read_text()), number)
            pid.unlink()
        assert process.wait(deadline - time.monotonic()) == 0, log_of(folder)
    finally:
        process.terminate()
        process.wait()
    with np.load(folder / "end.npz") as end:
        return dict(end), log_of(folder)


def log_of(folder):
    return (folder / "log").read_text(errors="replace")[-20000:]


@pytest.mark.slow
def test_two_workers_killed_at_random_end_as_if_never(tmp_path):
    expected, _ = launch(tmp_path / "a", [])
    kills = [(0, signal.SIGKILL), (1, signal.SIGTERM), (1, signal.SIGKILL)]
    got, log = launch(tmp_path / "b", kills)
    assert log.count(f"continues {tmp_path}") == 3 and "SIGTERM: stopped after" in log
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_an_exception_in_fit_the_first_signal_acts_as_ever(tmp_path, number):
    def stop(*_):
        raise InterruptedError

    default = signal.signal(number, stop)
    try:
        with pytest.raises(RuntimeError):
            train(tmp_path, Killed(2))
        with pytest.raises(InterruptedError):  # Keras has told no callback that `fit` ended
            signal.raise_signal(number)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, default)
