"""The statistics of batch normalisation, taken afresh from training data before an evaluation.

The moving statistics of training mix those of many past weights. Goyal et al. 2017,
arXiv:1706.02677, measure them anew with the weights as they are: in mid-training the validation
curve of a large batch then meets that of a small one earlier; the final error is the same.
"""

from collections.abc import Iterator

import keras
import tensorflow as tf

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.training.step import take_rows


class StatisticsStep:
    """Replaces the moving statistics of a model by averages over training batches.

    With `mean_i` and `var_i` of group `i` of examples as the layers group them in training, every
    layer behind layers that normalise by the statistics of their own group too,

        moving_mean = average of mean_i,    moving_variance = average of var_i

    over the groups of all micro-batches, replicas and batches: what moving statistics of training
    tend to when the weights stand still. The variance between group means is in neither. What they
    were before has no influence, and nothing else of the model changes.

    The model, made in the strategy's scope, calls each layer once; `plan.micro_batch` examples go
    through it at once. ValueError where training moves the statistics of no batch normalisation.
    """

    def __init__(self, model: keras.Model, *, plan: BatchPlan, strategy: tf.distribute.Strategy):
        self.model, self.plan, self.strategy = model, plan, strategy
        # `Model.layers` has no layers within layers (private, checked by a test).
        norms = [
            layer
            for layer in model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
            and layer.trainable
            and layer.momentum < 1.0
        ]
        if not norms:
            raise ValueError(
                "`model` must have a batch normalisation that training moves. Received: "
                f"model={model.name!r}. Leave its statistics as they are."
            )
        places = {id(v): i for i, v in enumerate(model.non_trainable_variables)}
        self._moving, self._shares = [], []  # (place in the model's state, 1 - momentum)
        for layer in norms:
            self._moving += [places[id(v)] for v in (layer.moving_mean, layer.moving_variance)]
            self._shares += 2 * [1.0 - layer.momentum]
        self._run = tf.function(self._recompute)

    def __call__(self, batches: Iterator, *, number: int) -> None:
        """Takes `number` >= 1 global batches: tuples of a distributed data set, images first."""
        if number < 1:
            raise ValueError(f"`number` must be at least 1. Received: number={number}")
        self._run(batches, tf.constant(number))

    def _recompute(self, iterator: Iterator, number: tf.Tensor) -> None:
        variables = [self.model.non_trainable_variables[i] for i in self._moving]
        totals = [tf.zeros(v.shape, v.dtype) for v in variables]

        # An explicit loop: AutoGraph does not convert a Python one on Python 3.13.
        def body(i, totals):
            sums = self.strategy.run(self._sum_of_batch, args=next(iterator))
            # Those of any replica of this worker: all are equal.
            sums = [self.strategy.experimental_local_results(s)[0] for s in sums]
            return i + 1, [total + s for total, s in zip(totals, sums, strict=True)]

        _, totals = tf.while_loop(lambda i, _: i < number, body, (tf.constant(0), totals))
        groups = number * self.plan.accumulation * self.plan.replicas
        for variable, total, share in zip(variables, totals, self._shares, strict=True):
            variable.assign(total / (share * tf.cast(groups, total.dtype)))

    def _sum_of_batch(self, images: tf.Tensor, *rest: tf.Tensor) -> list[tf.Tensor]:
        """Sums what one batch moves the statistics to from 0, over micro-steps and replicas."""
        trainable = [tf.convert_to_tensor(v.value) for v in self.model.trainable_variables]
        state = [tf.convert_to_tensor(v.value) for v in self.model.non_trainable_variables]
        for i in self._moving:
            state[i] = tf.zeros_like(state[i])
        size = self.plan.micro_batch

        def body(step, sums):
            part = take_rows(images, step * size, size)
            _, new = self.model.stateless_call(trainable, state, part, training=True)
            new = [tf.convert_to_tensor(new[i]) for i in self._moving]
            return step + 1, [total + moved for total, moved in zip(sums, new, strict=True)]

        _, sums = tf.while_loop(
            lambda step, _: step < self.plan.accumulation,
            body,
            (tf.constant(0), [state[i] for i in self._moving]),
            parallel_iterations=1,  # micro-batches are there to save memory
        )
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync == 1:
            return sums
        return context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
