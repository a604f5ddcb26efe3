"""An update of Keras's `fit`: the engine's, with the model's own losses and metrics.

Forward pass, losses and metrics of a micro-batch are one pure function of tensors
(`keras.StatelessScope`), so that micro-steps can run in a loop, XLA can compile them, and batch
normalisation, metrics and random layers behave as in the recipes.
"""

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.eager import context

from tf_largebatch.training.apply import LossScale
from tf_largebatch.training.step import Update, norms


@dataclass(frozen=True)
class Watched:
    """What the newest update showed, for callbacks that watch: review/tensorboard/fit_logs.py.

    `seen` is float32 [4]: the norm of the gradient, the root mean square of those of its pieces'
    own, and the examples of a piece and of all. `waited` are the seconds until they were there.
    """

    seen: tf.Tensor
    waited: tf.Tensor


class FitStep(Update):
    """One update of a compiled and built model; `update(data)` in the replica context.

    The loss is what `compile` and the model's layers say it is, a mean over examples: that of a
    micro-batch is divided by the number of micro-batches, as Keras divides it by the replicas.
    Metrics see each micro-batch once, and keep to their replica.

    A `LossScaleOptimizer`, which `compile` puts around the optimizer for float16, only holds the
    scale: when it changes, and for whom, is decided here.

    Args:
        model: compiled and built in the strategy's scope.
        micro_batch: examples of a replica that go through the model at once, or None for all. It
            must divide the replica's part of the batch.

    Attributes:
        seen: once traced, as in `Watched`.
    """

    totals = 1

    def __init__(self, model: keras.Model, micro_batch: int | None = None):
        optimizer, scale = model.optimizer, None
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            growth = optimizer.dynamic_growth_steps
            scale = LossScale(optimizer.dynamic_scale, optimizer.step_counter, growth)
            optimizer = optimizer.inner_optimizer
        seed = context.global_seed() or 0
        # Keras compiles the whole step of one device without micro-batches.
        several = model.distribute_strategy.num_replicas_in_sync > 1 or micro_batch is not None
        compiled = bool(model.jit_compile) and several
        super().__init__(
            model,
            optimizer,
            loss_scale=scale,
            seed=seed,
            compiled=compiled,
            statistics=model.layer_statistics,
        )
        self._micro_batch = micro_batch

    def update(self, data: Any) -> dict[str, tf.Tensor]:
        """Takes a replica's part of the batch, (x, y, weights) or less; returns the logs."""
        # Without the weights, or labels, that are not there: the rest has rows.
        packed = keras.utils.pack_x_y_sample_weight(*keras.utils.unpack_x_y_sample_weight(data))
        if self._statistics is None:
            return self._update(packed)
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        if replicas > 1 or self._micro_batch is not None:  # then the condition is around the step
            return self._update(packed, refresh=self._statistics.taken)
        return self._statistics.where_due(lambda refresh: self._update(packed, refresh=refresh))

    def _split(self, batch):
        examples = _count(batch)
        steps, size = 1, examples
        if self._micro_batch is not None:
            steps, size = examples // self._micro_batch, self._micro_batch
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        self._sizes = [tf.cast(n, tf.float32) for n in (size, examples * replicas)]
        return steps, size

    def _start(self, examples):
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        update = tf.cast(self.optimizer.iterations.value, tf.int64)
        return update * tf.cast(examples, tf.int64) * replicas

    def _carried(self):
        """(the metrics' variables, the logs of the newest micro-step where there is only one)."""
        return [tf.convert_to_tensor(v.value) for v in self.model.metrics_variables], {}

    def _forward(self, weights, state, carried, steps, data):
        model = self.model
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        held = [
            *zip(model.trainable_variables, weights, strict=True),
            *zip(model.non_trainable_variables, state, strict=True),
            *zip(model.metrics_variables, carried[0], strict=True),
        ]
        with keras.StatelessScope(state_mapping=held, collect_losses=True) as scope:
            training = {"training": True} if model._call_has_training_arg else {}
            y_pred = model(x, **training)
            loss = model._compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
            )
            # Keras has divided it by the replicas, which each count their own.
            replicas = tf.distribute.get_replica_context().num_replicas_in_sync
            model._loss_tracker.update_state(loss * replicas, sample_weight=_count(x))
            logs = model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        new_state = [scope.get_current_value(v) for v in model.non_trainable_variables]
        metrics = [
            tf.convert_to_tensor(scope.get_current_value(v)) for v in model.metrics_variables
        ]
        loss = self.optimizer.scale_loss(loss) / tf.cast(steps, loss.dtype)
        return loss, (loss,), new_state, (metrics, logs if self._micro_batch is None else {})

    def _end(self, totals, squares, rate, scale, first_bad, carried):
        metrics, logs = carried
        micro_batch, global_batch = self._sizes
        found = norms(squares, totals[-1], global_batch / micro_batch, scale)
        self.seen = tf.stack([*found, *self._sizes])
        for variable, value in zip(self.model.metrics_variables, metrics, strict=True):
            variable.assign(value)
        return logs or self.model.get_metrics_result()


def _count(data: Any) -> Any:
    """Examples in a batch: a number where it is known before it runs, else a tensor."""
    part = next(leaf for leaf in keras.tree.flatten(data) if leaf is not None)
    return tf.shape(part)[0] if part.shape[0] is None else part.shape[0]
