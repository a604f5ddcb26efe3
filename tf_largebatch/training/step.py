"""One update of the weights, the same on one device and on many.

    micro-steps without communication -> one packed all-reduce -> unscale -> finite check
    -> clipping, decay, LARS or LAMB, update (all in the optimizer)

The loss is the sum over examples divided by the *global* batch (arXiv:1706.02677 §3), and the
all-reduce sums, so the gradient is that of the whole batch however it was split over replicas and
micro-batches. Batch-norm statistics and every other floating state that the forward pass moves are
taken at the start of the update, moved by each micro-step on its own, and averaged over micro-steps
and replicas: they move once per update whatever the accumulation, and agree on every replica.

Forward and backward are one pure function of tensors (`Model.stateless_call`), so nothing but the
optimizer writes variables inside the loop. Keras's random layers (seed generators) draw other
numbers in every micro-step of every replica; `models.stream_dropout` draws what the example's place
in the stream says, whatever the split.

A label of -1, or a row of zeros where labels are probabilities, marks an image that could not be
read: it adds nothing to the loss, counts as wrong, and is counted.

`Update` is all of this for any loss; `TrainingStep` is it for the recipes' classifiers, with a loop
over updates, and `fit_step.FitStep` for Keras's `fit`. What follows the sum is in `apply.py`.
"""

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_largebatch.records import stream_position
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.settings import Settings
from tf_largebatch.training.apply import FIRST_SCALE, LossScale, apply
from tf_largebatch.training.finite import FiniteCheck
from tf_largebatch.training.layer_statistics import LayerStatistics, statistics_of

# The columns of what `TrainingStep.run` returns, one row per update.
COLUMNS = (
    "loss",
    "accuracy",
    "learning_rate",
    "grad_norm",
    "loss_scale",
    "first_bad_tensor",
    "unread",
    "micro_grad_norm",
)

GOLDEN = 0x9E3779B9  # odd, so that no two pieces of an update share a seed

# For the body of the inner loop. Where memory is short, TensorFlow's graph optimizer sums three and
# more tensors in a temporary variable. In a loop within a loop, the turn that only finds the inner
# one at its end makes the variable too, never frees it, and the next call of the whole ends in
# AlreadyExistsError. Inside a function that stays one there is no such turn.
NOT_INLINED = {"autograph": False, "experimental_attributes": {"_noinline": True}}


class Update:
    """One replica's part of an update, whatever the loss; called in the replica context.

    A subclass says with `_split` how the batch is cut, with `_forward` what the loss is, and with
    `_end` what becomes of an update's numbers. It may carry tensors from one micro-step to the
    next, where `_carried` is what the first one gets.

    Args:
        model: built inside the strategy's scope.
        optimizer: built Keras optimizer, made in the scope. Its `apply` sees gradients that are
            already summed over replicas, so clipping acts on the gradient of the global batch.
        loss_scale: for float16.
        seed: of the random layers.
        wire_dtype, pack_bytes: as in `TrainingStep`.
        compiled: XLA compiles the forward and backward pass; sums over replicas stay outside.
        statistics: of layers, for K-FAC.
    """

    totals = 0  # how many `_forward` returns

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        loss_scale: LossScale | None = None,
        seed: int = 0,
        wire_dtype: str | None = None,
        pack_bytes: int = Settings.pack_mb << 20,
        compiled: bool = False,
        statistics: LayerStatistics | None = None,
    ):
        self.model, self.optimizer, self.loss_scale = model, optimizer, loss_scale
        self.wire_dtype, self.pack_bytes = wire_dtype, pack_bytes
        self._seed, self._compiled = seed, compiled
        self._statistics: Any = statistics  # K-FAC's; None for every other optimizer
        paths = [variable.path for variable in model.non_trainable_variables]
        self._generators = [i for i, p in enumerate(paths) if p.endswith("seed_generator_state")]

    def _split(self, batch: tuple) -> tuple[Any, Any]:
        """(micro-steps, examples in each): numbers, or tensors; 1 micro-step takes all."""
        raise NotImplementedError

    def _start(self, examples: Any) -> tf.Tensor:
        """The place of the update's first example in the stream; `examples` in a replica's part."""
        raise NotImplementedError

    def _carried(self) -> Any:
        return ()

    def _forward(self, weights, state, carried, steps, *batch):
        """(loss, totals, new state, carried) of a micro-batch, its part of the global mean."""
        raise NotImplementedError

    def _end(self, totals, squares, rate, scale, first_bad, carried) -> Any:
        raise NotImplementedError

    def _update(self, *batch: Any, share: tf.Tensor | None = None, refresh: bool = False) -> Any:
        """Micro-steps, all-reduce, weights; returns what `_end` makes of it.

        The batch is that `share` of the global one, the replica's own if left out. `refresh` takes
        K-FAC's statistics too: they are sums over the batch, and travel behind the gradients.
        """
        if share is None:
            share = tf.distribute.get_replica_context().replica_id_in_sync_group
        scaled = self.loss_scale
        scale = tf.convert_to_tensor(scaled.scale.value) if scaled else tf.constant(1.0)
        weights = [tf.convert_to_tensor(v.value) for v in self.model.trainable_variables]
        state = [tf.convert_to_tensor(v.value) for v in self.model.non_trainable_variables]
        steps, size = self._split(batch)
        # Read out here: what reads a variable is no pure loop.
        start = self._start(steps * size), share * steps
        micro_step = functools.partial(
            self._micro_step, weights, state, scale, start, steps, size, refresh
        )
        if self._compiled:
            micro_step = tf.function(micro_step, autograph=False, jit_compile=True)
        if isinstance(steps, int) and steps == 1:  # not a tensor
            *sums, carried = micro_step(0, self._carried(), *batch)
        else:
            if not self._compiled:
                micro_step = tf.function(micro_step, **NOT_INLINED)

            def body(step, sums, carried):
                rows = functools.partial(take_rows, first=step * size, size=size)
                *new, carried = micro_step(step, carried, *tf.nest.map_structure(rows, batch))
                return step + 1, tf.nest.map_structure(_add_or_take, sums, new), carried

            zeros = [[tf.zeros_like(t) for t in tensors] for tensors in (weights, state)]
            zeros[0] += self._statistics.zeros() if refresh else []
            begin = tf.constant(0), [*zeros, tf.zeros([self.totals + 1])], self._carried()
            # One turn at a time: micro-batches are there to save memory.
            _, sums, carried = tf.while_loop(
                lambda i, *_: i < steps, body, begin, parallel_iterations=1
            )
        gradients, state, totals = self._reduce(steps, *sums)
        gradients, factors = gradients[: len(weights)], gradients[len(weights) :]
        if scaled:
            gradients = [g / tf.cast(scale, g.dtype) for g in gradients]
        rate = tf.cast(self.optimizer.learning_rate, tf.float32)
        squares = tf.stack([2.0 * tf.nn.l2_loss(tf.cast(g, tf.float32)) for g in gradients])
        first_bad = apply(self.model, self.optimizer, gradients, state, squares, scaled, factors)
        return self._end(totals, squares, rate, scale, first_bad, carried)

    def _micro_step(
        self, weights, state, scale, start, steps, size, refresh, step, carried, *batch
    ):
        """One forward and backward: (scaled gradients, new state, totals, carried).

        The last of the totals is the gradient's square.
        """
        # Counted over all replicas: the pieces of one update, in the order of the stream.
        of_update, of_share = start
        piece = of_share + step
        first = of_update + tf.cast(piece, tf.int64) * tf.cast(size, tf.int64)
        position = stream_position.Position(self._seed, first)
        seeing = self._statistics.watched() if refresh else contextlib.nullcontext([])
        with stream_position.standing_at(position), seeing as seen, tf.GradientTape() as tape:
            tape.watch(weights)
            spread = self._spread_generators(state, piece)
            loss, totals, new_state, carried = self._forward(
                weights, spread, carried, steps, *batch
            )
            scaled = loss * scale
        wanted = [*weights, *(call.outputs for call in seen)]
        gradients = tape.gradient(scaled, wanted, unconnected_gradients="zero")
        gradients = [tf.convert_to_tensor(g) for g in gradients]  # of an embedding: sparse
        gradients, of_outputs = gradients[: len(weights)], gradients[len(weights) :]
        new_state = [tf.convert_to_tensor(s) for s in new_state]
        for i in self._generators:  # the seed as it was, the count as it is now
            new_state[i] = tf.stack([state[i][0], new_state[i][1]])
        square = tf.add_n([2.0 * tf.nn.l2_loss(tf.cast(g, tf.float32)) for g in gradients])
        if refresh:
            examples = steps * size * tf.distribute.get_replica_context().num_replicas_in_sync
            gradients += self._statistics.of(seen, of_outputs, examples, scale)
        return gradients, new_state, tf.stack([*totals, square]), carried

    def _reduce(self, steps, gradients, state, totals):
        """Sums over replicas, packed; averages the floating state."""
        floats = [i for i, s in enumerate(state) if s.dtype.is_floating]
        sent = [tf.cast(g, self.wire_dtype or g.dtype) for g in gradients]
        totals, *sums = self._sum_over_replicas([totals, *(state[i] for i in floats), *sent])
        share = steps * tf.distribute.get_replica_context().num_replicas_in_sync
        for i, total in zip(floats, sums, strict=False):
            state[i] = total / tf.cast(share, total.dtype)
        received = sums[len(floats) :]
        reduced = [tf.cast(r, g.dtype) for r, g in zip(received, gradients, strict=True)]
        return reduced, state, totals

    def _sum_over_replicas(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """One all-reduce for each dtype: TensorFlow packs tensors by joining them."""
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync == 1:
            return tensors
        options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=self.pack_bytes)
        summed = list(tensors)
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            places = [i for i, t in enumerate(tensors) if t.dtype == dtype]
            group = [tensors[i] for i in places]
            group = context.all_reduce(tf.distribute.ReduceOp.SUM, group, options=options)
            for i, total in zip(places, group, strict=True):
                summed[i] = total
        return summed

    def _spread_generators(self, state: list[tf.Tensor], piece) -> list[tf.Tensor]:
        """Gives each piece of an update its own seed, the first one the generator's own.

        Keras would draw the same mask on every replica and in every micro-step.
        """
        spread = list(state)
        for i in self._generators:
            golden = tf.constant(GOLDEN, state[i].dtype)
            seed = state[i][0] + tf.cast(piece, state[i].dtype) * golden
            spread[i] = tf.stack([seed, state[i][1]])
        return spread


class TrainingStep(Update):
    """Runs updates of a model on the replicas of a strategy.

    Args:
        model: built inside the strategy's scope; its output are logits, shape [batch, classes].
        optimizer: a Keras optimizer, made in the scope. Its `apply` sees gradients that are
            already summed over replicas, so clipping acts on the gradient of the global batch.
        loss: (labels [n] or [n, classes], logits [n, classes]) -> losses [n], without reduction; 0
            for a label of -1.
        plan: how the global batch is split.
        strategy: the strategy in whose scope model and optimizer were made.
        scale_loss: for float16; see above.
        seed: of the random layers.
        wire_dtype: "bfloat16" or "float16" sends the gradients in half the bytes; sums lose digits.
        pack_bytes: of the gradients sent at a time.

    Attributes:
        local: the `LocalStep` over the same model, where there are local updates; None elsewhere.
        variables: what a checkpoint must hold besides model and optimizer.
        run: (iterator, updates) -> rows. Runs `updates` updates (a scalar tensor, so that another
            number does not retrace) on what a distributed data set yields; float32
            [updates, len(COLUMNS)]: per update the mean loss and accuracy of the global batch
            before it, the rate used, the norm of the reduced gradient, the loss scale, and the
            index of the first variable whose gradient is not finite, -1 if all are or if the
            update was skipped to lower the scale, the number of images that were not read, and the
            root mean square of the norms of the micro-batches' own mean gradients, over micro-steps
            and replicas: with `grad_norm` it gives the gradient noise scale.
        run_timed: the same, and the seconds for which these updates waited for data, float64. An
            update that is done before the next batch is there waits until then. It counts as done
            when its loss and gradient are known on the host, some of the optimizer's work before.
        weight_norm: () -> the 2-norm of all trainable weights together, a float32 scalar.
        finite: looks at all that the updates have written.
    """

    totals = 3

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        plan: BatchPlan,
        strategy: tf.distribute.Strategy,
        scale_loss: bool = False,
        seed: int = 0,
        wire_dtype: str | None = None,
        pack_bytes: int = Settings.pack_mb << 20,
    ):
        scale = None
        with strategy.scope():
            statistics = statistics_of(model, optimizer)
            optimizer.build(model.trainable_variables)
            if scale_loss:
                self._scale = keras.Variable(FIRST_SCALE, dtype="float32", trainable=False)
                good = keras.Variable(0.0, dtype="float32", trainable=False)
                scale = LossScale(self._scale, good)
        super().__init__(
            model,
            optimizer,
            loss_scale=scale,
            seed=seed,
            wire_dtype=wire_dtype,
            pack_bytes=pack_bytes,
            statistics=statistics,
        )
        self.loss, self.plan, self.strategy = loss, plan, strategy
        self.variables = [scale.scale.value, scale.good.value] if scale else []
        self.local: Any = None
        self._compile()
        self.weight_norm = tf.function(self._weight_norm, autograph=False)
        self.finite = FiniteCheck(model, optimizer)

    def for_plan(self, plan: BatchPlan) -> "TrainingStep":
        """Returns the step of another batch over the same model, optimizer and loss scale."""
        other = copy.copy(self)
        other.plan = plan
        other._compile()
        return other

    def bytes_sent(self, first: int, end: int) -> int:
        """What a replica hands to the all-reduces of the updates `first` to `end` - 1."""
        state = [v for v in self.model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating]
        each = nbytes(self.model.trainable_variables, self.wire_dtype) + nbytes(state)
        each += (self.totals + 1) * tf.float32.size
        more = self._statistics.bytes_sent(first, end, self.wire_dtype) if self._statistics else 0
        return (end - first) * each + more

    def _compile(self) -> None:
        # Without AutoGraph, which converts no loop on Python 3.13 and hides every call elsewhere.
        self.run_timed = tf.function(self._run, autograph=False)
        if self._statistics:
            self.run_timed = self._statistics.explained(self.run_timed)
        self.run = tf.function(lambda *arguments: self._run(*arguments)[0], autograph=False)

    def _run(self, iterator: Iterator, updates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        strategy = self.strategy
        rows = tf.TensorArray(tf.float32, size=updates, element_shape=[len(COLUMNS)])

        def body(i, rows, done, waited):
            batch = next(iterator)
            ready = time_after(tf.nest.flatten(batch, expand_composites=True))
            row = self._row_of(batch) if self._row_of else strategy.run(self._update, args=batch)
            row = strategy.experimental_local_results(row)[0]
            with tf.device("CPU:0"):  # an accelerator's row arrives only when it is computed
                now = time_after([tf.identity(row)])
            return i + 1, rows.write(i, row), now, waited + waiting(done, ready)

        start = (tf.constant(0), rows, tf.timestamp(), tf.zeros([], tf.float64))
        _, rows, _, waited = tf.while_loop(lambda i, *_: i < updates, body, start)
        return rows.stack(), waited

    @property
    def _row_of(self) -> Any:
        """Another way from a batch to its row than one update of all replicas; None for that."""
        return self._with_statistics if self._statistics else None

    def _with_statistics(self, batch: tuple) -> tf.Tensor:
        """One update on all replicas, with K-FAC's statistics where they are due."""

        def update(refresh: bool = False) -> tf.Tensor:
            row = self.strategy.run(self._update, args=batch, kwargs={"refresh": refresh})
            return self.strategy.experimental_local_results(row)[0]

        return self._statistics.where_due(update)

    def _weight_norm(self) -> tf.Tensor:
        # `l2_loss` makes no temporary, and is half the sum of squares.
        weights = (tf.cast(v.value, tf.float32) for v in self.model.trainable_variables)
        return tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(w) for w in weights]))

    def _split(self, batch):
        return self.plan.accumulation, self.plan.micro_batch

    def _start(self, examples):
        return self.plan.position_at(tf.cast(self.optimizer.iterations.value, tf.int64))

    def _forward(self, weights, state, carried, steps, images, labels):
        """The totals are the loss, the correct answers and the unread images."""
        logits, new_state = self.model.stateless_call(weights, state, images, training=True)
        logits = tf.cast(logits, tf.float32)
        loss = tf.reduce_sum(self.loss(labels, logits)) / self.plan.global_batch
        return loss, (loss, *_correct_and_unread(labels, logits)), new_state, carried

    def _end(self, totals, squares, rate, scale, first_bad, carried) -> tf.Tensor:
        """The numbers of `COLUMNS`."""
        loss, correct, unread, micro_squares = tf.unstack(totals)
        pieces = self.plan.accumulation * self.plan.replicas
        norm, micro_norm = norms(squares, micro_squares, pieces, scale)
        accuracy = correct / self.plan.global_batch
        first_bad = tf.cast(first_bad, tf.float32)
        return tf.stack([loss, accuracy, rate, norm, scale, first_bad, unread, micro_norm])


def norms(
    squares: tf.Tensor, micro_squares: tf.Tensor, pieces: float | tf.Tensor, scale: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The norm of the reduced gradient, and the root mean square of those of the pieces' own.

    `squares` are of the reduced gradient's tensors, `micro_squares` the sum of the pieces', scaled.
    """
    # A micro-step's gradient is b / B of the mean gradient of its b images.
    micro_norm = pieces * tf.sqrt(micro_squares / pieces) / scale
    return tf.sqrt(tf.reduce_sum(squares)), micro_norm


def _correct_and_unread(labels: tf.Tensor, logits: tf.Tensor) -> list[tf.Tensor]:
    """How many answers are right, and how many images were not read, as float32 scalars."""
    answers = tf.argmax(logits, axis=-1, output_type=tf.int32)
    if labels.dtype.is_floating:  # probabilities, as mixed images have
        true = tf.argmax(labels, axis=-1, output_type=tf.int32)
        unread = tf.reduce_sum(labels, axis=-1) <= 0
    else:
        true, unread = tf.cast(labels, tf.int32), labels < 0
    correct = (answers == true) & ~unread
    return [tf.reduce_sum(tf.cast(rows, tf.float32)) for rows in (correct, unread)]


def waiting(done: tf.Tensor, ready: tf.Tensor) -> tf.Tensor:
    """Seconds between the end of an update and the next batch; 0 where that was there before."""
    return tf.maximum(ready - done, 0.0)


def time_after(tensors: list[tf.Tensor]) -> tf.Tensor:
    """The time, in seconds, at which all of these are there."""
    with tf.control_dependencies(tensors):
        return tf.timestamp()


def nbytes(variables: Iterable[keras.Variable], dtype: str | None = None) -> int:
    """Bytes of these, in a dtype other than their own where one is given."""
    return sum(math.prod(v.shape) * tf.as_dtype(dtype or v.dtype).size for v in variables)


def take_rows(tensor: tf.Tensor, first: tf.Tensor, size: int) -> tf.Tensor:
    """Returns rows first, ..., first + size - 1; their number is static, as XLA needs it.

    `tensor[first : first + size]` has a dynamic number of rows, which XLA refuses.
    """
    begin = tf.concat([[first], tf.zeros([tensor.shape.rank - 1], tf.int32)], axis=0)
    return tf.slice(tensor, begin, [size, *tensor.shape[1:]])


def _add_or_take(total: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """Adds floating state; takes the newest of the rest (counters, generator states)."""
    return total + new if new.dtype.is_floating else new
