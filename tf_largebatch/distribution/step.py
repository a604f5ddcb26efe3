"""One update of the weights, the same on one device and on many.

    micro-steps without communication -> one packed all-reduce -> finite check -> optimizer

The loss is the sum over examples divided by the *global* batch (arXiv:1706.02677 §3), and the
all-reduce sums, so the gradient is that of the whole batch however it was split over replicas and
micro-batches. Batch-norm statistics and every other floating state that the forward pass moves are
taken at the start of the update, moved by each micro-step on its own, and averaged over micro-steps
and replicas: they move once per update whatever the accumulation, and agree on every replica.

Forward and backward are one pure function of tensors (`Model.stateless_call`), so nothing but the
optimizer writes variables inside the loop.
"""

from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from tf_largebatch.batching import BatchPlan

PACK_BYTES = 25 << 20  # one pack of everything was 2.4 times slower than packs of 4 to 50 MB

# The columns of what `TrainingStep.run` returns, one row per update.
COLUMNS = ("loss", "accuracy", "learning_rate", "grad_norm", "first_bad_tensor")


class TrainingStep:
    """Runs updates of a model on the replicas of a strategy.

    Args:
        model: built inside the strategy's scope; its output are logits, shape [batch, classes].
        optimizer: a Keras optimizer, made in the scope. Its `apply` sees gradients that are
            already summed over replicas, so clipping acts on the gradient of the global batch.
        loss: (labels [n], logits [n, classes]) -> losses [n], without reduction.
        plan: how the global batch is split.
        strategy: the strategy in whose scope model and optimizer were made.

    Attributes:
        run: (iterator, updates) -> rows. Runs `updates` updates (a scalar tensor, so that another
            number does not retrace) on what a distributed data set yields; float32
            [updates, len(COLUMNS)]: per update the mean loss and accuracy of the global batch
            before it, the rate used, the norm of the reduced gradient, and the index of the first
            variable whose gradient is not finite, -1 if all are.
        weight_norm: () -> the 2-norm of all trainable weights together, a float32 scalar.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        plan: BatchPlan,
        strategy: tf.distribute.Strategy,
    ):
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.plan, self.strategy = plan, strategy
        with strategy.scope():
            optimizer.build(model.trainable_variables)
        # The base class would sum over replicas a second time (private, checked by a test).
        optimizer._all_reduce_sum_gradients = list
        # One function per object: as decorated methods, the runs of one process would count as
        # retracings of a single function.
        self.run = tf.function(self._run)
        self.weight_norm = tf.function(self._weight_norm)

    def _run(self, iterator: Iterator, updates: tf.Tensor) -> tf.Tensor:
        rows = tf.TensorArray(tf.float32, size=updates, element_shape=[len(COLUMNS)])
        for i in tf.range(updates):
            row = self.strategy.run(self._update, args=next(iterator))
            rows = rows.write(i, self.strategy.experimental_local_results(row)[0])
        return rows.stack()

    def _weight_norm(self) -> tf.Tensor:
        return _norm([tf.cast(v.value, tf.float32) for v in self.model.trainable_variables])

    def _update(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        gradients, state, loss, correct = self._accumulate(images, labels)
        floats = [i for i, s in enumerate(state) if s.dtype.is_floating]
        parts = self._reduce([loss, correct, *gradients, *(state[i] for i in floats)])
        loss, correct, gradients = parts[0], parts[1], parts[2 : 2 + len(gradients)]
        share = self.plan.accumulation * self.plan.replicas
        for i, total in zip(floats, parts[2 + len(gradients) :], strict=True):
            state[i] = total / tf.cast(share, total.dtype)

        rate = tf.cast(self.optimizer.learning_rate, tf.float32)
        squares = tf.stack([2.0 * tf.nn.l2_loss(tf.cast(g, tf.float32)) for g in gradients])
        bad = tf.logical_not(tf.math.is_finite(squares))
        first_bad = tf.where(tf.reduce_any(bad), tf.argmax(bad, output_type=tf.int32), -1)

        self.optimizer.apply(gradients, self.model.trainable_variables)
        for variable, value in zip(self.model.non_trainable_variables, state, strict=True):
            variable.assign(value)
        norm = tf.sqrt(tf.reduce_sum(squares))
        accuracy = correct / self.plan.global_batch
        return tf.stack([loss, accuracy, rate, norm, tf.cast(first_bad, tf.float32)])

    def _reduce(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Sums each tensor over the replicas."""
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync == 1:
            return tensors
        options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=PACK_BYTES)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors, options=options)

    def _accumulate(self, images: tf.Tensor, labels: tf.Tensor):
        """Sums gradient, state, loss and correct answers over this replica's micro-steps."""
        trainable = [tf.convert_to_tensor(v.value) for v in self.model.trainable_variables]
        state = [tf.convert_to_tensor(v.value) for v in self.model.non_trainable_variables]
        steps, size = self.plan.accumulation, self.plan.micro_batch
        if steps == 1:
            return self._micro_step(trainable, state, images, labels)

        def body(step, sums):
            part = slice(step * size, (step + 1) * size)
            # Static shapes inside the loop, which slicing by a tensor loses.
            x = tf.ensure_shape(images[part], [size, *images.shape[1:]])
            y = tf.ensure_shape(labels[part], [size])
            new = self._micro_step(trainable, state, x, y)
            return step + 1, tf.nest.map_structure(_add_or_take, sums, new)

        zeros = (
            [tf.zeros_like(t) for t in trainable],
            [tf.zeros_like(s) for s in state],
            tf.constant(0.0),
            tf.constant(0.0),
        )
        _, sums = tf.while_loop(
            lambda step, _: step < steps,
            body,
            (tf.constant(0), zeros),
            parallel_iterations=1,  # micro-batches are there to save memory
        )
        return sums

    def _micro_step(self, trainable, state, images, labels):
        """One forward and backward: (gradients, new state, loss, correct answers)."""
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            logits, new_state = self.model.stateless_call(trainable, state, images, training=True)
            logits = tf.cast(logits, tf.float32)
            loss = tf.reduce_sum(self.loss(labels, logits)) / self.plan.global_batch
        gradients = tape.gradient(
            loss, trainable, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        hits = tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels)
        new_state = [tf.convert_to_tensor(s) for s in new_state]
        return list(gradients), new_state, loss, tf.reduce_sum(tf.cast(hits, tf.float32))


def _add_or_take(total: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """Adds floating state; takes the newest of the rest (counters, generator states)."""
    return total + new if new.dtype.is_floating else new


def _norm(tensors: list[tf.Tensor]) -> tf.Tensor:
    """2-norm over all elements; `l2_loss` makes no temporary, and is half the sum of squares."""
    return tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(t) for t in tensors]))
