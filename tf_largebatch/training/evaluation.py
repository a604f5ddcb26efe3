"""Evaluation that counts every example exactly once, on one device and on many."""

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import tensorflow as tf


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Means over the whole evaluation set.

    Of `examples` that were counted, `unread` could not be read (label -1): they count as wrong,
    without a loss. Errors are 0 to 100.
    """

    loss: float  # nats per example
    top1_error_pct: float
    top5_error_pct: float
    examples: int
    unread: int = 0


class EvaluationStep:
    """Scores a model over padded batches of (images, labels, weights 0 or 1).

    The model's output are logits, shape [batch, classes]; it was made in the strategy's scope.
    """

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy):
        self.model, self.strategy = model, strategy
        self._run = tf.function(self._total, autograph=False)

    def __call__(self, iterator: Iterator, *, batches: int, examples: int) -> Scores:
        """Scores `batches` batches per replica, whose weights must add up to `examples`.

        Published results count every image once: RuntimeError where one was lost or doubled.
        """
        loss, wrong1, wrong5, counted, unread = self._run(iterator, tf.constant(batches)).numpy()
        if round(counted) != examples:
            raise RuntimeError(
                f"evaluation counted {counted:.0f} examples where the set has {examples}"
            )
        return Scores(
            loss=float(loss / (counted - unread)) if counted > unread else float("nan"),
            top1_error_pct=float(100.0 * wrong1 / counted),
            top5_error_pct=float(100.0 * wrong5 / counted),
            examples=examples,
            unread=round(unread),
        )

    def _total(self, iterator: Iterator, batches: tf.Tensor) -> tf.Tensor:
        # float64: 50,000 ones and losses are added one batch at a time.
        totals = tf.zeros([5], tf.float64)

        # An explicit loop: AutoGraph does not convert a Python one on Python 3.13.
        def body(i, totals):
            sums = self.strategy.run(self._score, args=next(iterator))
            total = self.strategy.reduce("SUM", sums, axis=None)
            return i + 1, totals + tf.cast(total, tf.float64)

        return tf.while_loop(lambda i, _: i < batches, body, (tf.constant(0), totals))[1]

    def _score(self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        logits = tf.cast(self.model(images, training=False), tf.float32)
        unread = labels < 0
        labels = tf.maximum(labels, 0)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        # The rank of the true class: one comparison gives top-1 and top-5. Ties count against the
        # model, and so does a row of NaN, whose rank is 0. (A negated `<` would give it the last
        # rank, but the graph optimizer turns that into `>=`.)
        true = tf.gather(logits, labels, axis=1, batch_dims=1)[:, None]
        rank = tf.reduce_sum(tf.cast(logits >= true, tf.float32), axis=1)
        wrong1 = tf.cast((rank < 1) | (rank > 1) | unread, tf.float32)
        wrong5 = tf.cast((rank < 1) | (rank > 5) | unread, tf.float32)
        # A padded row must add nothing even where its loss is not finite.
        losses = tf.where((weights > 0) & ~unread, losses, 0.0)
        unread = tf.cast(unread, tf.float32)
        parts = [losses, wrong1 * weights, wrong5 * weights, weights, unread * weights]
        return tf.stack([tf.reduce_sum(part) for part in parts])


def pad_to_multiple(dataset: tf.data.Dataset, batches: int, multiple: int) -> tf.data.Dataset:
    """Adds batches of weight 0 until their number is a multiple, so that no replica runs dry.

    `batches` is the length of the data set, whose elements (images, labels, weights) are of static
    shape; `multiple` replicas read from it in turn.
    """
    missing = -batches % multiple
    empty = tuple(tf.zeros(s.shape, s.dtype) for s in dataset.element_spec)
    return dataset.concatenate(tf.data.Dataset.from_tensors(empty).repeat(missing))
