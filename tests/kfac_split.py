"""One small training with K-FAC on the devices of one process, or on several workers.

Imported by the tests and, in a process of its own, by each of their workers.
"""

import contextlib
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from engine_split import _strategy
from keras import layers

from tf_largebatch import KFAC, BatchPlan
from tf_largebatch.optimizers import kfac
from tf_largebatch.training.step import TrainingStep

EXAMPLES, UPDATES = 12, 8


def train(*, alone: bool = False, strategy: tf.distribute.Strategy | None = None) -> dict:
    """Weights after eight updates, and whose factors were inverted: (replica, sizes) of each layer.

    Args:
        alone: every replica inverts every factor.
        strategy: of the replicas; that of the environment, one device a worker, by default.
    """
    strategy = strategy or _strategy(1)
    inverted, invert = [], KFAC._invert

    def seen(optimizer, factors):
        inverted.append((kfac.this_replica()[0], [f.shape[0] for f in factors]))
        return invert(optimizer, factors)

    changed = [mock.patch.object(KFAC, "_invert", seen)]
    if alone:
        changed.append(mock.patch.object(kfac, "this_replica", lambda: (0, 1)))
    with contextlib.ExitStack() as stack:
        for change in changed:
            stack.enter_context(change)
        weights = _train(strategy)
    return {"weights": weights, "inverted": inverted}


def _train(strategy: tf.distribute.Strategy) -> list[np.ndarray]:
    keras.utils.set_random_seed(4)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((5, 5, 2)),
                layers.Conv2D(3, 3, activation="tanh"),
                layers.Conv2D(4, 3, use_bias=False),
                layers.Flatten(),
                layers.Dense(4),
            ]
        )
        optimizer = KFAC(0.05, momentum=0.8, damping=0.05, statistics_decay=0.7, refresh_updates=3)
    plan = BatchPlan(
        global_batch=EXAMPLES,
        train_examples=UPDATES * EXAMPLES,
        replicas=strategy.num_replicas_in_sync,
    )
    step = TrainingStep(
        model,
        optimizer,
        loss=lambda y, z: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z),
        plan=plan,
        strategy=strategy,
    )
    rng = np.random.default_rng(5)
    images = np.float32(rng.standard_normal((UPDATES, EXAMPLES, 5, 5, 2)))
    labels = np.int32(rng.integers(0, 4, (UPDATES, EXAMPLES)))

    def batches(context):
        """The worker's examples of each update, a replica's after another."""
        own = EXAMPLES // context.num_input_pipelines
        rows = slice(context.input_pipeline_id * own, (context.input_pipeline_id + 1) * own)
        parts = [np.concatenate(part[:, rows]) for part in (images, labels)]
        data = tf.data.Dataset.from_tensor_slices(tuple(parts))
        return data.batch(plan.replica_batch, drop_remainder=True)

    step.run_timed(iter(strategy.distribute_datasets_from_function(batches)), tf.constant(UPDATES))
    return [np.array(w) for w in model.get_weights()]
