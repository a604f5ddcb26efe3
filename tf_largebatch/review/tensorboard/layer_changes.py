"""How far one update moved each tensor: the weights before and after it, compared.

Only updates that are looked at pay: for one copy of the weights and two norms of each tensor. The
training step is the same one, run for that update by itself, so that nothing is compiled twice. For
the training loop and for Keras's `fit`, on any backend.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import ops


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
        self._compiled_norms = _compiled(self._norms)
        self._before: list = []
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
        # On TensorFlow no copy yet: the update makes one of each tensor that is still held here.
        self._before = [ops.copy(v.value) for v in self._variables]
        self._updates = int(np.asarray(self._optimizer.iterations))

    def forget(self) -> None:
        """Drops what was kept: no update came."""
        self._before = []

    def compare(self) -> dict[str, Mapping[str, float]]:
        """Returns, after the update, what it did; nothing if float16 skipped it or none was kept.

        `update_ratio`: |w' - w| / |w| of every tensor by path, without those of zeros.
        `trust_ratio`: what the optimizer applied to each tensor that it adapts, where it has one.
        """
        if not self._before:
            return {}
        norms = np.asarray(self._compiled_norms(self._before), np.float64)
        self._before = []
        if int(np.asarray(self._optimizer.iterations)) == self._updates:
            return {}
        pairs = zip(self._variables, norms.tolist(), strict=True)
        seen = {"update_ratio": {v.path: new / norm for v, (norm, new) in pairs if norm > 0}}
        if getattr(self._optimizer, "record_trust_ratio", False):
            seen["trust_ratio"] = self._optimizer.trust_ratios()
        # Keras merges a plain dictionary in the logs into the logs themselves.
        return {name: MappingProxyType(ratios) for name, ratios in seen.items()}

    def _norms(self, before: list) -> Any:
        """Rows (|w|, |w' - w|) in float32."""
        rows = []
        for old, variable in zip(before, self._variables, strict=True):
            old, new = ops.cast(old, "float32"), ops.cast(variable.value, "float32")
            rows.append(ops.stack([_square(old), _square(new - old)]))
        return ops.sqrt(ops.stack(rows))


def _compiled(function: Callable) -> Callable:
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, autograph=False)


def _square(tensor: Any) -> Any:
    """The square of the 2-norm."""
    if keras.backend.backend() != "tensorflow":
        return ops.sum(ops.square(tensor))
    import tensorflow as tf

    return 2.0 * tf.nn.l2_loss(tensor)  # without a temporary
