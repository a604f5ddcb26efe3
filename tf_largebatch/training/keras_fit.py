"""Keras's own `fit`, `evaluate` and `predict` with the engine's update, on any number of devices.

    class Net(DistributedFit, keras.Model): ...

    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        model = Net(inputs, outputs)
        model.compile(optimizer=LARS(10.0), loss="sparse_categorical_crossentropy")
    model.fit(dataset, epochs=90, micro_batch=64)

`train_step` is the recipes' update (`step.py`). The rest is there because Keras 3 does not run on
several workers by itself: it averages the first batch over workers to learn its shape, reduces the
logs along an axis that scalars do not have, and hides the collectives of several steps in a nested
function. Three private methods of its trainer are written anew; what remains is refused before
training.
"""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from tf_largebatch.optimizers.kfac import KFAC
from tf_largebatch.records import stream_position
from tf_largebatch.records.batch_schedule import BatchSizeSchedule
from tf_largebatch.training.batch_growth import fit_phases
from tf_largebatch.training.fit_step import FitStep, Watched
from tf_largebatch.training.keras_fit_checks import (
    check_backend,
    check_batches,
    check_compiled,
    check_growth,
    check_measured,
    check_no_resume,
    check_own_step,
    check_rank,
    check_scope,
    check_seed,
    check_split,
    check_steps,
    inner_optimizer,
    is_dataset,
)
from tf_largebatch.training.layer_statistics import LayerStatistics
from tf_largebatch.training.step import GOLDEN, time_after


class DistributedFit:
    """Mixin that gives a Keras model's `fit` the recipes' update, on one device or on many.

        class Net(DistributedFit, keras.Model): ...       # or keras.Sequential

        model.fit(x, y, batch_size=4096, micro_batch=64)

    Put it before the Keras class. A class with an empty body also builds functional models,
    `Net(inputs, outputs)`, and so takes in a finished one, `Net(other.inputs, other.outputs)`.
    Under a `tf.distribute` strategy, make the model, the optimizer and the metrics inside
    `strategy.scope()`, and call `compile` there too; `fit`, `evaluate` and `predict` must be called
    by every worker, with equal arguments. Without one, all but the update is Keras's own.

    An update is that of `tf_largebatch.training.step`, whatever the split: gradients of
    micro-batches are summed, then those of replicas in one all-reduce, then clipped and applied.
    With means over examples as losses that is the gradient of the mean over the global batch.
    Batch sizes are global: arrays and data sets are cut into replicas by TensorFlow, and the part
    of a replica into micro-batches here. Rates, averages of weights and `iterations` count updates.

    Under the policy `mixed_float16` one loss scale holds for all replicas, and all skip the same
    update; `compile` puts it into a Keras `LossScaleOptimizer`, which saves it. `jit_compile=True`
    compiles the forward and backward pass where there are replicas or micro-batches, the whole
    update where not.

    Logs of a training batch are the running means of the replicas, averaged; those of an epoch
    and of an evaluation count every example once. All workers get the same numbers.

    Batch normalisation takes its statistics from each micro-batch of each replica; its moving
    averages move once an update, by the mean over them, and agree on all replicas. That mean does
    not contain the variance between the parts' means, as in arXiv:1706.02677 §2.3. For statistics
    of fewer or more examples see `GhostBatchNormalization`. Keras's random layers draw other
    numbers in every micro-batch of every replica; `StreamDropout` does not depend on the split.

    A `train_step` of the model's own should call `super().train_step(data)`. One that does not has
    none of this: it is Keras's, its moving averages are averaged at the end of each epoch, and
    what would be wrong on several replicas is refused.

    Raises, all from `fit` before the first update, and all for several replicas or micro-batches
    unless noted:
        ValueError: the model, optimizer or a metric was made outside the scope (also when the
            model was, and `fit` is called inside a scope); `run_eagerly=True`,
            `gradient_accumulation_steps` or `ema_overwrite_frequency` on several replicas; batch
            normalisation that joins replicas together with `jit_compile=True`, or Keras's with
            micro-batches; a loss whose reduction is a sum or weighted mean; batches that are not
            all full, or that replicas times `micro_batch` do not divide; arrays shuffled with
            another seed on each worker; always, steps that `steps_per_execution` does not divide,
            in `fit`, `evaluate` and `predict`. `train_on_batch` and `test_on_batch` raise too.

    Example:
        >>> import keras, numpy as np
        >>> from tf_largebatch import LARS, DistributedFit
        >>> class Net(DistributedFit, keras.Sequential):
        ...     pass
        >>> net = Net([keras.Input((4,)), keras.layers.Dense(1)])
        >>> net.compile(LARS(1.0), loss="mse")
        >>> x, y = np.ones((64, 4), "float32"), np.ones((64, 1), "float32")
        >>> history = net.fit(x, y, batch_size=32, verbose=0)
        >>> int(net.optimizer.iterations)
        2
    """

    sums_micro_batches = True  # for those that must not import this module: it needs TensorFlow
    _micro_batch: int | None = None
    _took_update = False
    _newest_step: FitStep
    watched: Watched | None = None  # with several replicas or micro-batches
    _averaging: tuple[tuple[int, ...], Callable] | None = None
    layer_statistics: LayerStatistics | None = None  # for K-FAC

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        *,
        micro_batch=None,
        **options,
    ):
        """Trains as `keras.Model.fit` does; `batch_size` is that of the global batch.

        `micro_batch` examples of a replica go through the model at once, all of its part if None.
        With a `BatchSizeSchedule` as `batch_size` the batch changes between epochs.
        """
        check_backend()
        self._assert_compile_called("fit")
        check_steps(self, "steps_per_epoch", options.get("steps_per_epoch"))
        check_steps(self, "validation_steps", options.get("validation_steps"))
        check_scope(self)
        strategy = self.distribute_strategy
        replicas = strategy.num_replicas_in_sync
        growing = isinstance(batch_size, BatchSizeSchedule)
        if growing:
            check_no_resume(batch_size, callbacks)
        examples = check_growth(batch_size, x, options) if growing else None
        if replicas > 1 or micro_batch is not None:
            split = check_split(replicas, micro_batch)
            check_compiled(self, micro_batch)
            for size in batch_size.sizes if growing else [batch_size]:
                check_batches(split, x, size, options.get("validation_split", 0.0))
        if growing and batch_size.noise_ladder:
            check_measured(batch_size, replicas, micro_batch)
        if replicas > 1 and not is_dataset(x) and options.get("shuffle", True):
            check_seed(strategy)
        if replicas > 1 or growing:
            if isinstance(callbacks, keras.callbacks.CallbackList):
                raise ValueError(
                    f"`callbacks` must be a list. Received: callbacks={callbacks!r}. "
                    "Give the callbacks themselves."
                )
            callbacks = [_AverageStatistics(), *keras.tree.flatten(callbacks or [])]
        if micro_batch != self._micro_batch:
            self._micro_batch, self.train_function = micro_batch, None
        self._know_layers(verbose)
        train = super().fit
        if self.layer_statistics:
            train = self.layer_statistics.explained(train)
        if not growing:
            return train(x, y, batch_size, epochs, verbose, callbacks, **options)
        initial_epoch = options.pop("initial_epoch", 0)
        return fit_phases(
            self,
            batch_size,
            functools.partial(train, y=y, verbose=verbose, **options),
            x,
            examples=examples,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            initial_epoch=initial_epoch,
        )

    def _know_layers(self, verbose):
        """Tells K-FAC the layers, and the user those that it cannot treat."""
        optimizer = inner_optimizer(self)
        if not isinstance(optimizer, KFAC):
            self.layer_statistics = None
            return
        self.jit_compile = False  # XLA's Cholesky says nothing where it fails
        known = self.layer_statistics
        if known is None or known.optimizer is not optimizer:
            with self.distribute_strategy.scope():
                self.layer_statistics = LayerStatistics(self, optimizer)
            if verbose and self.layer_statistics.untreated:
                print("KFAC has no factors for", ", ".join(self.layer_statistics.untreated))

    def train_step(self, data):
        """Updates the weights by a replica's part of the batch; the logs."""
        if not self.trainable_variables and self.built:
            return super().train_step(data)
        if self._distribute_strategy is None:
            check_rank(data)
            with tf.init_scope():
                self._symbolic_build(data_batch=data)
        self._took_update = True
        step = FitStep(self, self._micro_batch)
        logs = step.update(data)
        self._newest_step = step  # not before: replicas are traced in turns up to the update's end
        return logs

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
        of = tuple(id(v) for v in statistics)
        if self._averaging is None or self._averaging[0] != of:
            self._averaging = of, _make_average(strategy, statistics)
        self._averaging[1]()

    def make_predict_function(self, force=False):
        """Makes what `predict` calls; XLA compiles it on one replica only."""
        compiled = self.jit_compile
        self.jit_compile = compiled and self.distribute_strategy.num_replicas_in_sync == 1
        try:
            super().make_predict_function(force)
        finally:
            self.jit_compile = compiled

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
        trains = step_function == self.train_step
        micro_batches = trains and self._micro_batch is not None
        if strategy.num_replicas_in_sync == 1 and not micro_batches:
            return super()._make_function(step_function)
        logs, watched = _PackedLogs(), []
        _give_replicas_their_own_numbers(self)

        def run_replica(batch):
            told = step_function(batch)
            if not trains or not self._took_update:
                return logs.pack((told, tf.zeros([4])))
            watched.append(True)
            return logs.pack((told, self._newest_step.seen))

        # Keras does not put the user's `train_step` through autograph either.
        @tf.autograph.experimental.do_not_convert
        def run_step(data):
            self._took_update = False

            def run(refresh=False):
                packed = strategy.run(run_replica, args=(data,))
                parts = strategy.experimental_local_results(packed)
                return tf.reduce_mean(tf.stack(parts), axis=0)

            natural = self.layer_statistics if trains else None
            mean = natural.where_due(run) if natural else run()
            if trains and not self._took_update:
                check_own_step(self, self._micro_batch)
            return mean

        # One function around the loop: nested ones lose the collectives' inputs.
        @tf.function(reduce_retracing=True, autograph=False)
        def run_steps(iterator):
            def step(i, last, waited):
                begun = time_after([last])
                with tf.control_dependencies([begun]):
                    batch = iterator.get_next_as_optional()
                there = batch.has_value()  # agreed between the workers
                waited += time_after([there]) - begun
                last = tf.cond(there, lambda: run_step(batch.get_value()), lambda: last)
                return i + 1, last, waited

            start = tf.constant(0), tf.zeros([0]), tf.zeros([], tf.float64)
            shapes = tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([])
            _, last, waited = tf.while_loop(
                lambda i, *_: i < self.steps_per_execution, step, start, shape_invariants=shapes
            )
            return strategy.reduce("MEAN", last, axis=None), waited

        def function(iterator):
            if not isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
                raise ValueError(
                    "`train_on_batch` and `test_on_batch` must not be used on several replicas, "
                    "each of which would take the whole batch, or with micro-batches. Use `fit` "
                    "and `evaluate`."
                )
            packed, waited = run_steps(iterator)
            if packed.shape[0] == 0:
                raise StopIteration
            told, seen = logs.unpack(packed)
            if watched:
                self.watched = Watched(seen, waited)
            return told

        return function


def _make_average(strategy: tf.distribute.Strategy, statistics: list) -> Callable:
    def average():
        # `identity`: an all-reduce of what a distributed variable reads as finds no devices.
        values = [tf.identity(v) for v in statistics]
        means = tf.distribute.get_replica_context().all_reduce("MEAN", values)
        for variable, mean in zip(statistics, means, strict=True):
            variable.assign(mean)

    return tf.function(lambda: strategy.run(average), autograph=False)


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
        # None while the model is being built; a position where `FitStep` has spread the seeds.
        if context is None or stream_position.current() is not None:
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
