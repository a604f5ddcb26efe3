"""How far one update moved each tensor: the weights before and after it, compared.

Only updates that are looked at pay: for one copy of the weights and two norms of each tensor. The
training step is the same one, run for that update by itself, so that nothing is compiled twice.
"""

import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf


class LayerChanges:
    """Looks at one of `every` updates of a built model. Every worker may, and sees the same.

    Not at those from `end` on, where the model is not what every worker has.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        every: int | None = None,
        end: int = sys.maxsize,
    ):
        self._end = end
        self._variables, self._optimizer, self._every = model.trainable_variables, optimizer, every
        self._compiled_norms = tf.function(self._norms)
        self._before: list[tf.Tensor] = []
        self._updates = 0

    def parts(self, first: int, size: int) -> Iterator[int]:
        """Splits a block where a multiple of `every` is reached: its last update runs alone."""
        last = first + size
        if not self._every or last > self._end or last % self._every >= size:
            yield size
            return
        if size > 1:
            yield size - 1
        self.keep()
        yield 1

    def keep(self) -> None:
        """Keeps the weights as they are before the update."""
        # No copy yet: the update makes one of each tensor that is still held here.
        self._before = [tf.identity(v.value) for v in self._variables]
        self._updates = int(self._optimizer.iterations.numpy())

    def compare(self) -> dict[str, Mapping[str, float]]:
        """Returns, after the update, what it did; nothing if float16 skipped it or none was kept.

        `update_ratio`: |w' - w| / |w| of every tensor by path, without those of zeros.
        `trust_ratio`: what the optimizer applied to each tensor that it adapts, where it has one.
        """
        if not self._before:
            return {}
        norms = self._compiled_norms(self._before).numpy().astype(np.float64)
        self._before = []
        if int(self._optimizer.iterations.numpy()) == self._updates:
            return {}
        pairs = zip(self._variables, norms.tolist(), strict=True)
        seen = {"update_ratio": {v.path: new / norm for v, (norm, new) in pairs if norm > 0}}
        if getattr(self._optimizer, "record_trust_ratio", False):
            seen["trust_ratio"] = self._optimizer.trust_ratios()
        # Keras merges a plain dictionary in the logs into the logs themselves.
        return {name: MappingProxyType(ratios) for name, ratios in seen.items()}

    def _norms(self, before: list[tf.Tensor]) -> tf.Tensor:
        """Rows (|w|, |w' - w|) in float32."""
        rows = []
        for old, variable in zip(before, self._variables, strict=True):
            old, new = tf.cast(old, tf.float32), tf.cast(variable.value, tf.float32)
            rows.append(tf.stack([tf.nn.l2_loss(old), tf.nn.l2_loss(new - old)]))
        return tf.sqrt(2.0 * tf.stack(rows))
