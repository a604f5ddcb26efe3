"""Keras's own `fit`, `evaluate` and `predict` on several replicas and several workers.

    class Net(DistributedFit, keras.Model): ...

    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        model = Net(inputs, outputs)
        model.compile(optimizer=LARS(10.0), loss="sparse_categorical_crossentropy")
    model.fit(dataset, epochs=90)

Keras 3 does not run there by itself: it averages the first batch over workers to learn its shape,
reduces the logs along an axis that scalars do not have, and hides the collectives of several steps
in a nested function. Three private methods of its trainer are written anew here; what they cannot
repair is refused before training. `tf_largebatch.training.step` has none of these limits.
"""

import keras
import tensorflow as tf

from tf_largebatch.training.keras_fit_checks import (
    check_batches,
    check_compiled,
    check_scope,
    check_seed,
    check_steps,
    is_dataset,
)
from tf_largebatch.training.step import GOLDEN


class DistributedFit:
    """Mixin that lets a Keras model train with `fit` under a `tf.distribute` strategy.

    Put it before the Keras class: `class Net(DistributedFit, keras.Model)`, or
    `keras.Sequential`. A class with an empty body also builds functional models,
    `Net(inputs, outputs)`, and so takes in a finished one, `Net(other.inputs, other.outputs)`.
    Make the model, the optimizer and the metrics inside `strategy.scope()`, and call `compile`
    there too; `fit`, `evaluate` and `predict` must be called by every worker, with equal
    arguments. Without a strategy, or with one replica, everything is Keras's own.

    One update equals that of one device on the same global batch: Keras divides the mean loss of
    each replica's batch by the number of replicas and the optimizer sums the gradients, which is
    the gradient of the mean over the global batch when all replicas have equally many examples.
    Batch sizes are global: arrays and data sets are cut into replicas by TensorFlow.

    Logs of a training batch are the running means of the replicas, averaged; those of an epoch
    and of an evaluation count every example once. All workers get the same numbers.

    Batch normalisation takes its statistics from each replica's own examples, and its moving
    averages drift apart. They are averaged over replicas at the end of each epoch before any
    callback sees them, and before each evaluation and prediction. Averaging is linear, so this is
    what averaging at every update would give. The mean of the replicas' variances does not
    contain the variance between their means, as in arXiv:1706.02677 §2.3.

    Dropout and random augmentation layers draw other numbers on every replica.

    Raises, all from `fit` before the first update and all for several replicas unless noted:
        ValueError: the model, optimizer or a metric was made outside the scope (also when the
            model was, and `fit` is called inside a scope); `jit_compile=True`;
            `run_eagerly=True`; `gradient_accumulation_steps`; a `LossScaleOptimizer`, which
            `mixed_float16` brings; clipping by an optimizer that clips before the sum over
            replicas, as Keras's do; a loss whose reduction is a sum or weighted mean; batches that
            are not all full, or that the number of replicas does not divide; arrays shuffled with
            another seed on each worker; on one replica too, steps that `steps_per_execution` does
            not divide, in `fit`, `evaluate` and `predict`. `train_on_batch` and `test_on_batch`
            raise too.
    """

    def fit(
        self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **options
    ):
        """Trains as `keras.Model.fit` does; `batch_size` is that of the global batch."""
        self._assert_compile_called("fit")
        check_steps(self, "steps_per_epoch", options.get("steps_per_epoch"))
        check_steps(self, "validation_steps", options.get("validation_steps"))
        check_scope(self)
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync > 1:
            check_compiled(self)
            check_batches(strategy, x, batch_size, options.get("validation_split", 0.0))
            if not is_dataset(x) and options.get("shuffle", True):
                check_seed(strategy)
            if isinstance(callbacks, keras.callbacks.CallbackList):
                raise ValueError(
                    f"`callbacks` must be a list. Received: callbacks={callbacks!r}. "
                    "Give the callbacks themselves."
                )
            callbacks = [_AverageStatistics(), *keras.tree.flatten(callbacks or [])]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **options)

    def evaluate(self, x=None, y=None, batch_size=None, verbose="auto", **options):
        """Evaluates as `keras.Model.evaluate` does, each example once."""
        check_steps(self, "steps", options.get("steps"))
        self.average_statistics()
        return super().evaluate(x, y, batch_size, verbose, **options)

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """Predicts as `keras.Model.predict` does, in the order of `x`, all of it on all workers."""
        check_steps(self, "steps", steps)
        self.average_statistics()
        return super().predict(x, batch_size, verbose, steps, callbacks)

    def average_statistics(self) -> None:
        """Averages the moving statistics of batch normalisation over all replicas.

        `fit`, `evaluate` and `predict` do it themselves. It is a collective: every worker must
        call it, for instance before the chief saves in the middle of an epoch.
        """
        strategy = self.distribute_strategy  # type: ignore[attr-defined]  # the model's own
        norms = (
            layer
            for layer in self._flatten_layers()  # type: ignore[attr-defined]
            if isinstance(layer, keras.layers.BatchNormalization)
        )
        moving = (norm for norm in norms if norm.trainable and norm.built)
        statistics = [v.value for norm in moving for v in norm.non_trainable_variables]
        if strategy.num_replicas_in_sync == 1 or not statistics:
            return

        def average():
            # `identity`: an all-reduce of what a distributed variable reads as finds no devices.
            values = [tf.identity(v) for v in statistics]
            means = tf.distribute.get_replica_context().all_reduce("MEAN", values)
            for variable, mean in zip(statistics, means, strict=True):
                variable.assign(mean)

        tf.function(lambda: strategy.run(average))()

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras takes the mean of the first batch over the replicas, eagerly, which fails on
        # several workers. One replica's part has the shapes and dtypes that are wanted.
        strategy = self._distribute_strategy
        if strategy is None:
            return
        if self.train_function or self.test_function:
            return  # built since `compile`: no need to start the data and drop a batch again
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = next(batches)
        local = keras.tree.map_structure(
            lambda v: strategy.experimental_local_results(v)[0], data_batch
        )
        with strategy.scope():
            self._symbolic_build(data_batch=local)
            check_scope(self)  # metrics have got their variables

    def _make_function(self, step_function):
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync == 1:
            return super()._make_function(step_function)
        logs = _PackedLogs()
        _give_replicas_their_own_numbers(self)

        # Keras does not put the user's `train_step` through autograph either.
        @tf.autograph.experimental.do_not_convert
        def run_step(data):
            packed = strategy.run(lambda batch: logs.pack(step_function(batch)), args=(data,))
            parts = strategy.experimental_local_results(packed)
            return tf.reduce_mean(tf.stack(parts), axis=0)

        # One function around the loop: nested ones lose the collectives' inputs.
        @tf.function(reduce_retracing=True)
        def run_steps(iterator):
            # Explicit loop and condition: AutoGraph converts neither on Python 3.13.
            def step(i, last):
                batch = iterator.get_next_as_optional()
                there = batch.has_value()  # agreed between the workers
                return i + 1, tf.cond(there, lambda: run_step(batch.get_value()), lambda: last)

            _, last = tf.while_loop(
                lambda i, _: i < self.steps_per_execution,
                step,
                (tf.constant(0), tf.zeros([0])),
                shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
            )
            return strategy.reduce("MEAN", last, axis=None)

        def function(iterator):
            if not isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
                raise ValueError(
                    "`train_on_batch` and `test_on_batch` must not be used on several replicas, "
                    "each of which would take the whole batch. Use `fit` and `evaluate`."
                )
            packed = run_steps(iterator)
            if packed.shape[0] == 0:
                raise StopIteration
            return logs.unpack(packed)

        return function


def _give_replicas_their_own_numbers(model: keras.Model) -> None:
    """For dropout and random augmentation: seed generators return one seed on all replicas."""
    for layer in model._flatten_layers():
        for generator in layer._seed_generators:
            if not isinstance(generator.next, _ReplicaSeed):
                generator.next = _ReplicaSeed(generator.next)


class _ReplicaSeed:
    """`SeedGenerator.next` with the replica mixed in; replica 0 draws what one device would.

    What is returned is changed, not the state that is kept, which stays equal.
    """

    def __init__(self, plain):
        self._plain = plain

    def __call__(self, ordered=True):
        seed = tf.convert_to_tensor(self._plain(ordered))
        context = tf.distribute.get_replica_context()
        if context is None:  # the model is being built
            return seed
        replica = tf.cast(context.replica_id_in_sync_group, seed.dtype)
        return tf.stack([seed[0] + replica * tf.constant(GOLDEN, seed.dtype), seed[1]])


class _AverageStatistics(keras.callbacks.Callback):
    """Comes first in the list, so that other callbacks see and save averaged statistics."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.average_statistics()


class _PackedLogs:
    """Turns the logs of a step into one float32 vector, for one all-reduce, and back."""

    def pack(self, logs) -> tf.Tensor:
        values = [tf.cast(v, tf.float32) for v in tf.nest.flatten(logs)]
        self._structure = tf.nest.map_structure(lambda _: 0, logs)
        self._shapes = [v.shape for v in values]
        return tf.concat([tf.reshape(v, [-1]) for v in values], axis=0)

    def unpack(self, packed: tf.Tensor):
        parts = tf.split(packed, [shape.num_elements() for shape in self._shapes])
        values = [tf.reshape(p, s) for p, s in zip(parts, self._shapes, strict=True)]
        return tf.nest.pack_sequence_as(self._structure, values)
