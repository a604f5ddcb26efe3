"""The loss over a data set as a function of one vector of weights, with two derivatives.

The model's own variables are read once and never written: every evaluation is a pure function of
the weights (`Model.stateless_call`), in float32; sums over batches are in float64.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.records.checks import check
from tf_largebatch.records.errors import InputError

Batch = tuple[tf.Tensor, tf.Tensor]


class Objective:
    """Mean loss of a model over fixed batches: inference mode, no augmentation, no weight decay.

    A label of -1 marks an image that could not be read; it does not count. `vector` are the model's
    trainable weights, float64 [n]; `state` its other variables, as it came.

    Args:
        model: built; its output are logits, shape [n, classes].
        loss: (labels [n], logits [n, classes]) -> losses [n], 0 for a label of -1.
        batches: (images, labels int32), held in memory and used in this order; best all equally
            long.
        after_batch: called after every batch that was evaluated, to show progress.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        batches: Sequence[Batch],
        *,
        after_batch: Callable[[], None] = lambda: None,
    ):
        self.model, self._loss, self._after_batch = model, loss, after_batch
        self.batches = [
            (tf.convert_to_tensor(x), tf.convert_to_tensor(y, tf.int32)) for x, y in batches
        ]
        self.counts = [int(np.sum(y.numpy() >= 0)) for _, y in self.batches]
        self.examples = sum(self.counts)
        if not self.examples:
            raise InputError("the data must have at least one image that can be read")
        _check_fit(model, self.batches)
        self.names = [v.path for v in model.trainable_variables]
        self.shapes = [tuple(v.shape) for v in model.trainable_variables]
        self.state = [tf.convert_to_tensor(v.value) for v in model.non_trainable_variables]
        self.vector = self.flat([v.numpy() for v in model.trainable_variables])
        self._losses = tf.function(self._sum)
        self._gradients = tf.function(self._sum_and_gradient)
        self._products = tf.function(self._hessian_vector)
        self._moved = tf.function(self._moved_state)

    def flat(self, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """Returns one float64 vector of the tensors, in the model's order."""
        return np.concatenate([np.asarray(t, np.float64).ravel() for t in tensors])

    def tensors(self, vector: np.ndarray) -> list[np.ndarray]:
        """Returns the vector as tensors of the model's shapes, float64."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        check(vector.shape == (ends[-1],), "vector", f"of {ends[-1]} elements", vector.shape)
        return [p.reshape(s) for p, s in zip(np.split(vector, ends[:-1]), self.shapes, strict=True)]

    def value(self, vector: np.ndarray, state: list[tf.Tensor] | None = None) -> float:
        """Returns the mean loss at `vector`, with the model's own state or another."""
        weights, state = self._to_model(vector), self.state if state is None else state
        total = 0.0
        for images, labels in self.batches:
            total += float(self._losses(weights, state, images, labels))
            self._after_batch()
        return total / self.examples

    def value_and_gradient(
        self, vector: np.ndarray, *, training: bool = False
    ) -> tuple[float, np.ndarray]:
        """Returns the mean loss and its gradient, float64 [n].

        `training` has batch norm by the statistics of each batch.
        """
        weights = self._to_model(vector)
        total, gradient = 0.0, np.zeros_like(self.vector)
        for images, labels in self.batches:
            loss, parts = self._gradients(weights, self.state, images, labels, training=training)
            total += float(loss)
            gradient += self.flat([p.numpy() for p in parts])
            self._after_batch()
        return total / self.examples, gradient / self.examples

    def batch_gradients(self, vector: np.ndarray, *, micro_batch: int):
        """Yields the mean gradient, float64 [n], of each whole `micro_batch` examples in turn."""
        weights = self._to_model(vector)
        images, labels = (tf.concat(part, axis=0) for part in zip(*self.batches, strict=True))
        read = tf.where(labels >= 0)[:, 0]
        for first in range(0, len(read) - micro_batch + 1, micro_batch):
            rows = read[first : first + micro_batch]
            x, y = tf.gather(images, rows), tf.gather(labels, rows)
            _, parts = self._gradients(weights, self.state, x, y)
            yield self.flat([p.numpy() for p in parts]) / micro_batch
            self._after_batch()

    def hessian_vector(self, vector: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Returns the Hessian of the mean loss at `vector` times `direction`, float64 [n].

        The gradient of (gradient . direction): two backward passes, no matrix.
        """
        weights, along = self._to_model(vector), self._to_model(direction)
        total = np.zeros_like(self.vector)
        for images, labels in self.batches:
            parts = self._products(weights, along, self.state, images, labels)
            total += self.flat([p.numpy() for p in parts])
            self._after_batch()
        return total / self.examples

    def recomputed_state(self, vector: np.ndarray) -> list[tf.Tensor]:
        """Returns the state with batch-norm statistics taken afresh at `vector`.

        The mean over the batches of each batch's mean and variance, with every layer behind others
        fed as in training; each batch here is one group. The rest of the state stays as it is.
        """
        weights, places = self._to_model(vector), self._moving_places()
        state = list(self.state)
        for place in places:
            state[place] = tf.zeros_like(state[place])  # what is left is the batch's share alone
        sums = {place: 0.0 for place in places}
        for (images, _), count in zip(self.batches, self.counts, strict=True):
            moved = self._moved(weights, state, images)
            for place, share in places.items():
                sums[place] += count * moved[place].numpy().astype(np.float64) / share
            self._after_batch()
        for place, total in sums.items():
            state[place] = tf.constant(total / self.examples, self.state[place].dtype)
        return state

    @property
    def has_statistics(self) -> bool:
        """Whether the model has batch norms whose statistics can be taken afresh."""
        return bool(self._moving_places())

    def _moving_places(self) -> dict[int, float]:
        """Place in the state -> share of a batch's statistics in the moved ones."""
        numbers = {id(v): i for i, v in enumerate(self.model.non_trainable_variables)}
        return {
            numbers[id(variable)]: 1.0 - layer.momentum
            for layer in self.model._flatten_layers()  # `layers` lacks layers within layers
            if isinstance(layer, keras.layers.BatchNormalization)
            and layer.trainable
            and layer.momentum < 1.0
            for variable in (layer.moving_mean, layer.moving_variance)
        }

    def _to_model(self, vector: np.ndarray) -> list[tf.Tensor]:
        return [tf.constant(t, tf.float32) for t in self.tensors(np.asarray(vector))]

    def _sum(self, weights, state, images, labels, *, training=False):
        logits, _ = self.model.stateless_call(weights, state, images, training=training)
        return tf.reduce_sum(self._loss(labels, tf.cast(logits, tf.float32)))

    def _sum_and_gradient(self, weights, state, images, labels, *, training=False):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = self._sum(weights, state, images, labels, training=training)
        return loss, tape.gradient(loss, weights, unconnected_gradients="zero")

    def _hessian_vector(self, weights, along, state, images, labels):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            _, gradient = self._sum_and_gradient(weights, state, images, labels)
        return tape.gradient(
            gradient, weights, output_gradients=along, unconnected_gradients="zero"
        )

    def _moved_state(self, weights, state, images):
        return self.model.stateless_call(weights, state, images, training=True)[1]


def _check_fit(model: keras.Model, batches: Sequence[Batch]) -> None:
    images, _ = batches[0]
    wanted, given = tuple(model.input_shape[1:]), tuple(images.shape[1:])
    alike = len(wanted) == len(given)
    if not alike or any(w not in (None, g) for w, g in zip(wanted, given, strict=True)):
        raise InputError(
            f"the model must take the data's images. Received: a model for {_text(wanted)}, "
            f"images of {_text(given)}"
        )
    classes = int(model.output_shape[-1])
    highest = max(int(tf.reduce_max(labels)) for _, labels in batches)
    if highest >= classes:
        raise InputError(
            f"the model must have a logit for every class of the data. Received: {classes} "
            f"logits, a label of {highest}"
        )


def _text(shape: tuple) -> str:
    return "x".join("any" if side is None else str(side) for side in shape)
