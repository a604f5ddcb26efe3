"""The loss of any Keras model as a function of one vector of weights, on JAX or TensorFlow.

What `diagnostics.objective` is to a finished run of the engine, without TensorFlow where Keras runs
on JAX: the instruments take plain functions of NumPy vectors, and do not know which it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any


class FlatLoss:
    """Mean cross-entropy over fixed images, with its gradient.

    Args:
        model: built; its output are logits [n, classes]. It is read and never written.
        images: [n, ...] as the model takes them.
        labels: integers [n].
        chunk: images at a time; all chunks should be of one size, or two are compiled.
        training: whether batch norm takes the statistics of the chunk in place of its moving ones.
    """

    def __init__(
        self,
        model: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        chunk: int = 5_000,
        training: bool = False,
    ) -> None:
        self._model, self._training, self._chunk = model, training, chunk
        self.names = [v.path for v in model.trainable_variables]
        self._shapes = [tuple(v.shape) for v in model.trainable_variables]
        self._losses, self._gradients = _compile(self._sum)
        self.read(images, labels)

    def read(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Takes other images, and reads the model's variables again."""
        self._examples = len(images)
        ends = range(self._chunk, len(images) + self._chunk, self._chunk)
        parts = [slice(end - self._chunk, end) for end in ends]
        self._chunks = [
            (ops.convert_to_tensor(images[p]), ops.convert_to_tensor(labels[p], "int32"))
            for p in parts
        ]
        self.vector, self.state = read_weights(self._model)

    def tensors(self, vector: np.ndarray) -> list[np.ndarray]:
        """Returns the vector as tensors of the model's shapes."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])[:-1]
        return [p.reshape(s) for p, s in zip(np.split(vector, ends), self._shapes, strict=True)]

    def value(self, vector: np.ndarray, state: Sequence[np.ndarray] | None = None) -> float:
        """Returns the mean loss at `vector`, with the model's own state or another."""
        weights, state = self._to_backend(vector, state)
        return self._mean(self._losses(weights, state, *chunk) for chunk in self._chunks)

    def value_and_gradient(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the mean loss at `vector` and its gradient, float64 [n]."""
        weights, state = self._to_backend(vector, None)
        losses, total = [], np.zeros(vector.size)
        for chunk in self._chunks:
            loss, gradients = self._gradients(weights, state, *chunk)
            losses.append(loss)
            total += _flat([np.asarray(g) for g in gradients])
        return self._mean(losses), total / self._examples

    def _to_backend(self, vector, state) -> tuple[list[Tensor], list[Tensor]]:
        weights = [ops.convert_to_tensor(t, "float32") for t in self.tensors(vector)]
        state = self.state if state is None else state
        return weights, [ops.convert_to_tensor(s) for s in state]

    def _mean(self, losses) -> float:
        return sum(float(loss) for loss in losses) / self._examples

    def _sum(self, weights: list[Tensor], state: list[Tensor], images, labels) -> Tensor:
        logits, _ = self._model.stateless_call(weights, state, images, training=self._training)
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return ops.sum(losses)


def read_weights(model: keras.Model) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the trainable weights as one float64 vector [n], and the other variables."""
    vector = _flat([np.asarray(v) for v in model.trainable_variables])
    return vector, [np.asarray(v) for v in model.non_trainable_variables]


def _compile(total: Callable) -> tuple[Callable, Callable]:
    """Compiles `total(weights, ...)` and (total, its gradient by the weights)."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(total), jax.jit(jax.value_and_grad(total))
    import tensorflow as tf

    def gradient(weights, *rest):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = total(weights, *rest)
        return loss, tape.gradient(loss, weights)

    return tf.function(total), tf.function(gradient)


def _flat(tensors: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(t, np.float64).ravel() for t in tensors])
