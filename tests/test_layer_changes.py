"""What one update did to each tensor, against float64 NumPy, however it was split."""

import functools
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_split import EXAMPLES
from test_step import BATCH, CLASSES, half, losses, make_step, train
from workers import run_workers

from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD
from tf_largebatch.review.tensorboard.layer_changes import LayerChanges
from tf_largebatch.training.checkpoint import Progress
from tf_largebatch.training.evaluation import Scores
from tf_largebatch.training.train import fit

SCORES = Scores(loss=1.0, top1_error_pct=50.0, top5_error_pct=10.0, examples=4)
SPLITS = [(1, None), (1, 6), (2, None), (2, 3)]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(EXAMPLES, 6, 6, 2)).astype("float32")
    return images, rng.integers(0, CLASSES, EXAMPLES).astype("int32")


def lars():
    return LARS(
        0.5, momentum=0.9, weight_decay=0.01, trust_coefficient=0.02, record_trust_ratio=True
    )


def lamb():
    return LAMB(0.01, weight_decay=0.01, record_trust_ratio=True)


def sgd():
    return MomentumSGD(0.1, momentum=0.9, weight_decay=0.01)


def gradients(step, images, labels):
    """Of the mean loss of these images, float64, by a model in float64."""
    twin = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, dtype="float64"),
            keras.layers.ReLU(dtype="float64"),
            keras.layers.Flatten(dtype="float64"),
            keras.layers.Dense(CLASSES, dtype="float64"),
        ]
    )
    twin.set_weights(step.model.get_weights())
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(losses(labels, twin(tf.cast(images, tf.float64))))
    values = [v.value for v in twin.trainable_variables]
    return [g.numpy() for g in tape.gradient(loss, values)]


def norm(x):
    return np.linalg.norm(np.asarray(x, np.float64).ravel())


def expected(step, data, rule):
    """(trust ratios, update ratios) of the first update, by hand in float64."""
    grads = gradients(step, data[0][:BATCH], data[1][:BATCH])
    trust, update = {}, {}
    for variable, g in zip(step.model.trainable_variables, grads, strict=True):
        w = variable.numpy().astype(np.float64)
        adapted = w.ndim > 1
        decay = 0.01 * adapted
        if rule == "sgd":
            change = 0.1 * (g + decay * w)
        elif rule == "lars":
            r = 0.02 * norm(w) / (norm(g) + decay * norm(w)) if adapted else 1.0
            change = 0.5 * r * (g + decay * w)
        else:
            u = g / (np.abs(g) + 1e-6) + decay * w
            r = norm(w) / norm(u) if adapted else 1.0
            change = 0.01 * r * u
        if adapted and rule != "sgd":
            trust[variable.path] = r
        if norm(w) > 0:
            update[variable.path] = norm(change) / norm(w)
    return trust, update


def look(step, data, updates=1):
    """What `LayerChanges` sees of one update."""
    layers = LayerChanges(step.model, step.optimizer)
    layers.keep()
    train(step, data, updates)
    return layers.compare()


@pytest.mark.parametrize(("replicas", "micro_batch"), SPLITS)
@pytest.mark.parametrize("make", [lars, lamb, sgd])
def test_ratios_are_those_of_an_independent_computation(data, make, replicas, micro_batch):
    step = make_step(replicas, micro_batch, optimizer=make)
    trust, update = expected(step, data, make.__name__)
    seen = look(step, data)
    assert ("trust_ratio" in seen) == (make is not sgd)
    assert dict(seen.get("trust_ratio", {})) == pytest.approx(trust, rel=1e-4)
    assert dict(seen["update_ratio"]) == pytest.approx(update, rel=1e-4)
    # Biases start at zero and have no ratio; both kernels are there.
    assert sorted(p.split("/")[-1] for p in seen["update_ratio"]) == ["kernel", "kernel"]


def test_an_update_that_float16_skipped_shows_nothing(data):
    images = data[0].copy()
    images[0] = np.inf
    half()
    step = make_step(1, scale_loss=True, optimizer=lars)
    assert look(step, (images, data[1])) == {}


def run(data, look_every, updates, make=lars):
    """Trains in the loop; returns the updates looked at, counted from 1, and the weights."""
    step, seen = make_step(optimizer=make), {}

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if "update_ratio" in logs:
                seen[batch + 1] = logs["update_ratio"]

    batches = tf.data.Dataset.from_tensor_slices(data).repeat().batch(BATCH)
    fit(
        step,
        batches=lambda plan, update: iter(batches),
        evaluate=lambda: SCORES,
        epochs=updates * BATCH / EXAMPLES,
        progress=Progress(),
        callbacks=[Keep()],
        look_every=look_every,
    )
    return seen, step.model.get_weights()


# Epochs are 4 updates, and so are blocks.
@pytest.mark.parametrize(
    ("look_every", "updates", "at"),
    [(4, 8, [4, 8]), (3, 12, [4, 8, 12]), (6, 12, [8, 12]), (5, 14, [8, 12]), (20, 12, [])],
)
def test_the_last_update_of_a_block_that_reaches_a_multiple_is_looked_at(
    data, look_every, updates, at
):
    assert list(run(data, look_every, updates)[0]) == at


@functools.cache
def _unwatched():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(EXAMPLES, 6, 6, 2)).astype("float32")
    return run((images, rng.integers(0, CLASSES, EXAMPLES).astype("int32")), None, 10)[1]


@pytest.mark.parametrize("look_every", [1, 3])
def test_looking_changes_no_bit_of_the_weights(data, look_every):
    for a, b in zip(_unwatched(), run(data, look_every, 10)[1], strict=True):
        np.testing.assert_array_equal(a, b)


def look_in_the_loop() -> dict:
    """One worker's run of six updates: what it saw of the layers, by update."""
    from tf_largebatch.records.batching import BatchPlan
    from tf_largebatch.training.step import TrainingStep
    from tf_largebatch.training.workers.strategy import make_strategy

    strategy = make_strategy(None if "TF_CONFIG" in os.environ else 1)
    plan = BatchPlan(global_batch=8, train_examples=24, replicas=strategy.num_replicas_in_sync)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        layers = [keras.Input((6,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(CLASSES)]
        model = keras.Sequential(layers)
        step = TrainingStep(model, lars(), loss=losses, plan=plan, strategy=strategy)
    rng = np.random.default_rng(2)
    images, labels = rng.normal(size=(24, 6)).astype("float32"), np.arange(24) % CLASSES

    def share(context):
        count, rank = context.num_input_pipelines, context.input_pipeline_id
        batches = tf.data.Dataset.from_tensor_slices((images, labels.astype("int32"))).repeat()
        return batches.batch(8 // count, drop_remainder=True).shard(count, rank)

    seen = {}

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if "update_ratio" in logs:
                kinds = ("update_ratio", "trust_ratio")
                # Names of layers count up in a process: their order stands for them.
                seen[batch + 1] = [value for kind in kinds for value in logs[kind].values()]

    fit(
        step,
        batches=lambda plan, update: iter(strategy.distribute_datasets_from_function(share)),
        evaluate=lambda: SCORES,
        epochs=2,
        progress=Progress(),
        callbacks=[Keep()],
        look_every=2,
    )
    return seen


@pytest.mark.slow
@pytest.mark.xdist_group("engine workers")
def test_every_worker_sees_what_one_process_sees():
    alone = look_in_the_loop()
    assert list(alone) == [3, 6]
    for seen in run_workers(look_in_the_loop, 2):
        assert list(seen) == [3, 6]
        for update, ratios in alone.items():
            assert seen[update] == pytest.approx(ratios, rel=1e-4)
