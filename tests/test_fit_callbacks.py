"""The package's callbacks under plain `compile` and `fit`, against float64 NumPy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import NO_TENSORFLOW
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_largebatch.optimizers import LARS
from tf_largebatch.review.noise_scale import from_two_batches
from tf_largebatch.review.tensorboard import NoiseScaleScalars, TensorBoardScalars
from tf_largebatch.schedules import Polynomial
from tf_largebatch.training.fit_resume import ExactResume
from tf_largebatch.training.keras_fit import DistributedFit
from tf_largebatch.training.large_batch import LargeBatch
from tf_largebatch.training.workers.strategy import make_strategy

EXAMPLES, BATCH, STEPS, EPOCHS, FEATURES, CLASSES = 32, 8, 4, 2, 3, 4
RATE = Polynomial(0.5, power=1.0, decay_updates=20)


class Net(DistributedFit, keras.Model):
    pass


def examples():
    rng = np.random.default_rng(0)
    return rng.normal(size=(EXAMPLES, FEATURES)).astype("float32"), rng.integers(
        0, CLASSES, EXAMPLES
    )


def batches():
    return tf.data.Dataset.from_tensor_slices(examples()).batch(BATCH, drop_remainder=True)


def compiled(kind=keras.Model):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((FEATURES,))
    model = kind(inputs, keras.layers.Dense(CLASSES, name="head")(inputs))
    optimizer = LARS(RATE, trust_coefficient=0.02, weight_decay=0.01, record_trust_ratio=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


class Weights(keras.callbacks.Callback):
    """The weights before each update and after the last."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append([np.array(v, np.float64) for v in self.model.trainable_variables])

    def on_train_end(self, logs=None):
        self.on_train_batch_begin(0)


def loss_and_gradients(weights, number, part=slice(None)):
    """Of one batch, or a part of it: the mean loss, and the gradients of kernel and bias."""
    x, y = (a[number % STEPS * BATCH :][:BATCH][part] for a in examples())
    x = x.astype(np.float64)
    logits = x @ weights[0] + weights[1]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    loss = -np.log(odds[np.arange(len(y)), y]).mean()
    slope = (odds - np.eye(CLASSES)[y]) / len(y)
    return loss, [x.T @ slope, slope.sum(axis=0)]


def square(tensors):
    return sum(float(np.sum(np.square(t))) for t in tensors)


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: {e.step: tf.make_ndarray(e.tensor_proto)[()] for e in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def fit(model, folder, *more, data=None, epochs=EPOCHS, every=1, **options):
    scalars = TensorBoardScalars(folder, every=every, global_batch=BATCH)
    weights = Weights()
    model.fit(
        batches() if data is None else data,
        epochs=epochs,
        shuffle=False,
        validation_data=examples(),
        validation_batch_size=EXAMPLES,
        callbacks=[scalars, weights, *more],
        verbose=0,
        **options,
    )
    return weights.seen


def check(train, seen):
    """Every update's points against what NumPy makes of the weights before it."""
    updates = range(1, len(seen))
    for tag in ("step/loss", "optimizer/learning_rate", "optimizer/weight_norm", "images_seen"):
        assert list(train[tag]) == list(updates), tag
    for update, before, after in zip(updates, seen, seen[1:], strict=False):
        loss, gradients = loss_and_gradients(before, update - 1)
        assert train["step/loss"][update] == pytest.approx(loss, rel=1e-5)
        assert train["optimizer/learning_rate"][update] == pytest.approx(
            0.5 * (1 - (update - 1) / 20), rel=1e-6
        )
        assert train["optimizer/weight_norm"][update] == pytest.approx(square(after) ** 0.5)
        assert train["images_seen"][update] == BATCH * update
        w, g = np.linalg.norm(before[0]), np.linalg.norm(gradients[0])
        trust = np.log10(0.02 * w / (g + 0.01 * w))
        assert train["trust_ratio/head/kernel"][update] == pytest.approx(trust, rel=1e-4)
        moved = np.linalg.norm(after[0] - before[0]) / w
        assert train["update_ratio/head/kernel"][update] == pytest.approx(np.log10(moved), rel=1e-4)


def test_on_one_device_every_update_is_as_numpy_has_it(tmp_path):
    model = compiled()
    seen = fit(model, tmp_path)
    train, validation = read(tmp_path / "train"), read(tmp_path / "validation")
    assert len(seen) == STEPS * EPOCHS + 1
    check(train, seen)
    assert {*train["throughput/step_ms"]} == {*range(2, 9)}  # the first window compiles
    assert all(0 <= v <= 100 for v in train["throughput/input_wait_pct"].values())
    assert len(train["throughput/input_wait_pct"]) >= 6
    scored = model.evaluate(*examples(), batch_size=EXAMPLES, verbose=0, return_dict=True)
    assert validation["epoch/loss"][2] == pytest.approx(scored["loss"])
    assert validation["epoch/top1"][2] == pytest.approx(scored["accuracy"])
    assert validation["epoch/error_pct"][2] == pytest.approx(100 * (1 - scored["accuracy"]))
    assert list(train["epoch/accuracy"]) == [1, 2]
    assert {"config", "custom_scalars__config__"} <= set(train)
    assert "_hparams_/session_start_info" in validation
    # Measuring changes nothing.
    other = compiled()
    other.fit(batches(), epochs=EPOCHS, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("replicas", [1, 2])
def test_with_parts_of_a_batch_the_noise_scale_and_gradients_are_numpys(tmp_path, replicas):
    micro_batch = 4 // replicas
    with make_strategy(replicas).scope():
        model = compiled(Net)
        noise = NoiseScaleScalars(tmp_path / "noise", every=1)
        seen = fit(model, tmp_path, noise, micro_batch=micro_batch, epochs=1)
    train = read(tmp_path / "train")
    check(train, seen)
    estimates = []
    for update in range(1, STEPS + 1):
        before = seen[update - 1]
        whole = square(loss_and_gradients(before, update - 1)[1])
        assert train["optimizer/grad_norm"][update] == pytest.approx(whole**0.5, rel=1e-5)
        parts = [slice(i, i + micro_batch) for i in range(0, BATCH, micro_batch)]
        small = np.mean([square(loss_and_gradients(before, update - 1, p)[1]) for p in parts])
        estimates.append(from_two_batches(small, whole, small_batch=micro_batch, big_batch=BATCH))
    decayed = 0.95 ** np.arange(STEPS)[::-1]
    trace = np.average([e.trace for e in estimates], weights=decayed)
    points = read(tmp_path / "noise")
    assert points["noise/trace"][STEPS] == pytest.approx(trace, rel=1e-4)
    text = points["noise/advice"][STEPS].decode()
    assert text == noise.advice and "B_simple" in text
    assert set(train["throughput/input_wait_pct"]) == {2, 3, 4}


def test_the_noise_scale_of_one_gradient_is_refused_with_what_to_use(tmp_path):
    noise = NoiseScaleScalars(tmp_path / "noise")
    for kind, options in ((keras.Model, {}), (Net, {})):
        with pytest.raises(ValueError, match=r"Received: `fit` of .*put tf_largebatch.Dist") as e:
            compiled(kind).fit(batches(), shuffle=False, callbacks=[noise], verbose=0, **options)
        assert "micro_batch" in str(e.value) and "\n" not in str(e.value)
    assert not list(tmp_path.iterdir())


class Killed(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 3:
            raise RuntimeError("killed")


def test_a_training_that_goes_on_draws_one_curve(tmp_path):
    seen = []
    for killed in ([Killed()], []):
        resume = ExactResume(tmp_path / "checkpoints", checkpoint_updates=2)
        model, scalars = compiled(), TensorBoardScalars(tmp_path, every=1, look_every=1)
        weights = Weights()
        try:
            model.fit(
                resume.data(batches()),
                steps_per_epoch=STEPS,
                epochs=EPOCHS,
                shuffle=False,
                callbacks=[scalars, resume, weights, *killed],
                verbose=0,
            )
        except RuntimeError:
            pass
        # Of the second process's batches, the first two are passed over.
        seen = seen[:2] + weights.seen[2 if not killed else 0 :]
    train = read(tmp_path / "train")
    assert list(train["step/loss"]) == list(range(1, STEPS * EPOCHS + 1))
    for update, before in enumerate(seen[:-1], start=1):
        loss, _ = loss_and_gradients(before, update - 1)
        assert train["step/loss"][update] == pytest.approx(loss, rel=1e-5)
    once = EventAccumulator(str(tmp_path / "train"))
    once.Reload()
    assert len(once.Tensors("config")) == 1


def test_the_plan_is_the_text_and_says_the_batch(tmp_path):
    model = compiled()
    sizes = {"global_batch": BATCH, "train_examples": EXAMPLES, "epochs": 2, "warmup_epochs": 1}
    plan = LargeBatch(model, **sizes, reference_rate=0.1)
    scalars = TensorBoardScalars(tmp_path, every=3, plan=plan, hparams={"name": "mine"})
    model.fit(batches(), shuffle=False, callbacks=[scalars], verbose=0)
    text = read(tmp_path / "train")["config"][0].decode()
    assert "| learning rate | " in text and "linear" in text
    assert read(tmp_path / "train")["global_batch"] == {3: 8, 4: 8}
    for wrong in ({"plan": 3}, {"global_batch": 0}, {"look_every": 0}, {"every": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            TensorBoardScalars(tmp_path, **wrong)


JAX = """
import json, sys
import keras
import numpy as np
from tf_largebatch import LARS, Cosine, ExactResume, NoiseScaleScalars, TensorBoardScalars
from tf_largebatch.review.tensorboard.summaries import read_scalars
from pathlib import Path

folder, BATCH, STEPS = Path(sys.argv[1]), 8, 4
rng = np.random.default_rng(0)
x, y = rng.normal(size=(32, 3)).astype("float32"), rng.integers(0, 4, 32)


def data(first):
    while True:
        rows = slice(first % STEPS * BATCH, (first % STEPS + 1) * BATCH)
        yield x[rows], y[rows]
        first += 1


class Killed(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 3:
            raise RuntimeError("killed")


def train(name, *more, resumes=True):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dropout(0.3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(4, name="head")(hidden))
    optimizer = LARS(Cosine(0.5, decay_updates=20), trust_coefficient=0.1, record_trust_ratio=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    resume = ExactResume(folder / name / "checkpoints", checkpoint_updates=2)
    scalars = TensorBoardScalars(folder / name, every=1, global_batch=BATCH)
    history = model.fit(
        resume.data(data) if resumes else data(0), steps_per_epoch=STEPS, epochs=2, verbose=0,
        callbacks=[*([scalars, resume] if resumes else []), *more],
    )
    found = [np.asarray(v).tolist() for v in [*model.variables, *model.optimizer.variables]]
    return found, history.history


plain, whole = train("plain", resumes=False), train("whole")
try:
    train("killed", Killed())
except RuntimeError:
    pass
tags = ["step/loss", "optimizer/learning_rate", "optimizer/weight_norm", "images_seen",
        "throughput/input_wait_pct", "trust_ratio/head/kernel", "update_ratio/head/kernel"]
ended = train("killed")
points = {}
for name in ("whole", "killed"):
    points[name] = dict(zip(tags, read_scalars(folder / name / "train", *tags)))
try:
    train("noise", NoiseScaleScalars(folder / "noise"), resumes=False)
except ValueError as error:
    refused = str(error)
print(json.dumps({"plain": plain == whole, "killed": ended == whole, "points": points,
                  "refused": refused, "tensorflow": "tensorflow" in sys.modules}))
"""


@pytest.mark.slow
def test_on_jax_without_tensorflow_they_watch_and_resume(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NO_TENSORFLOW)
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}",
    }
    command = [sys.executable, "-c", JAX, str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert not told["tensorflow"]
    assert told["plain"], "watching changed the training"
    assert told["killed"], "resumed is not as never stopped"
    assert "Received: the jax backend. On TensorFlow, put" in told["refused"]
    points = told["points"]["whole"]
    for tag in ("step/loss", "optimizer/learning_rate", "optimizer/weight_norm", "images_seen"):
        assert list(points[tag]) == [str(u) for u in range(1, 9)], tag
        assert list(told["points"]["killed"][tag].values()) == pytest.approx(
            list(points[tag].values()), rel=1e-5
        )
    assert len(points["update_ratio/head/kernel"]) == len(points["trust_ratio/head/kernel"]) >= 7
    assert points["throughput/input_wait_pct"]
