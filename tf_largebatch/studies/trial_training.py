"""One network trained again and again at one batch, with other rates and momenta: compiled once."""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.optimizers import MomentumSGD
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.model_spec import LossSpec
from tf_largebatch.training.build import make_loss
from tf_largebatch.training.step import COLUMNS, TrainingStep

EVERY_UPDATE = 32  # evaluate after each of the first updates, then at every GROWTH-th part more
GROWTH = 1.03


class TrialTraining:
    """Trains a network on one device with Nesterov momentum at a constant rate.

    Every trial starts from the weights that the model came with; its output are logits. Rate and
    momentum are variables of one compiled step.
    """

    def __init__(self, model: keras.Model, dataset, *, global_batch: int):
        self._model, self._dataset = model, dataset
        self._plan = BatchPlan(global_batch=global_batch, train_examples=dataset.train_examples)
        # Any rate and momentum: each trial sets its own.
        self._optimizer = MomentumSGD(0.1, momentum=0.9, nesterov=True)
        self._momentum = tf.Variable(0.9, trainable=False)
        self._optimizer.momentum = self._momentum
        loss, strategy = make_loss(LossSpec()), tf.distribute.get_strategy()
        self._step = TrainingStep(
            model, self._optimizer, loss=loss, plan=self._plan, strategy=strategy
        )
        images, labels, _ = next(iter(dataset.eval_batches(dataset.eval_examples)))
        self._error = tf.function(lambda: _error_pct(model(images, training=False), labels))
        self._first = self._model.get_weights()

    def curve(
        self, *, rate: float, momentum: float, seed: int, updates: int
    ) -> Iterator[tuple[int, float]]:
        """Trains anew and yields (updates done, validation error in percent) as it goes.

        Evaluation is after every update at first and after every 3 % more updates later: no number
        of updates is known more exactly than that. A loss that is not finite ends it with NaN.
        `seed` is of order and augmentation.
        """
        self._reset(rate, momentum)
        batches = iter(self._dataset.train_batches(self._plan, seed=seed))
        done = 0
        while done < updates:
            pause = min(next_evaluation(done), updates)
            rows = self._step.run(batches, tf.constant(pause - done)).numpy()
            done = pause
            if not np.all(np.isfinite(rows[:, COLUMNS.index("loss")])):
                yield done, float("nan")
                return
            yield done, float(self._error())

    def _reset(self, rate: float, momentum: float) -> None:
        self._model.set_weights(self._first)
        for variable in self._optimizer.variables:
            variable.assign(tf.zeros_like(variable))
        self._optimizer.learning_rate = rate
        self._momentum.assign(momentum)


def next_evaluation(done: int) -> int:
    """Returns the update after which to evaluate next."""
    return done + 1 if done < EVERY_UPDATE else max(done + 1, round(done * GROWTH))


def _error_pct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Share of wrong answers; a row that is not finite is wrong."""
    right = tf.argmax(logits, axis=-1, output_type=tf.int32) == labels
    right &= tf.reduce_all(tf.math.is_finite(logits), axis=-1)
    return 100.0 * (1.0 - tf.reduce_mean(tf.cast(right, tf.float32)))
