"""What K-FAC asks of a backward pass: inputs and output gradients of layers, as Fisher factors."""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import layers, ops

from tf_largebatch.optimizers import kronecker
from tf_largebatch.optimizers.kfac import KFAC, FisherBlock
from tf_largebatch.records.errors import InputError


class Seen(NamedTuple):
    """One call of a layer: what came in (batch norm: what gamma multiplies), and what went out."""

    block: int
    units: tuple[bool, ...]  # of a batch norm: whether it has gamma, and beta
    inputs: tf.Tensor
    outputs: tf.Tensor


class LayerStatistics:
    """The layers of a model that have Fisher factors, and their statistics of a backward pass.

        with statistics.watched() as seen, tf.GradientTape() as tape:
            loss = ...                                   # of the model's outputs
        outputs = [call.outputs for call in seen]
        *gradients, = tape.gradient(loss, [*weights, *outputs])
        optimizer.refresh(statistics.of(seen, gradients[len(weights):], examples))

    Dense (of any rank), Conv2D without groups and batch normalisation over the last axis, in models
    of every kind, also one in the other. Layers with other trainable weights take momentum SGD.

    Args:
        model: built; it is changed within `watched` alone.
        optimizer: as below.

    Attributes:
        optimizer: is told the layers, and built.
        taken: whether the update that is being traced takes statistics.
        untreated: name and class of the layers that have trainable weights and no factors.

    Raises:
        ValueError: no layer has factors.
    """

    def __init__(self, model: keras.Model, optimizer: KFAC):
        if not model.built:
            raise ValueError(
                "`model` must be built before K-FAC can know its layers. Received: built=False. "
                "Make it of inputs and outputs, or call it on a batch"
            )
        own = [layer for layer in model._flatten_layers() if layer.trainable_variables]
        leaves = [layer for layer in own if not list(layer._flatten_layers(include_self=False))]
        places = {id(v): i for i, v in enumerate(model.trainable_variables)}
        offered = {layer: block for layer in leaves if (block := _block(layer, places))}
        rest = [layer for layer in leaves if layer not in offered]
        self.untreated = tuple(f"{layer.name} ({type(layer).__name__})" for layer in rest)
        if not offered:
            have = ", ".join(self.untreated) or "no trainable layer"
            raise ValueError(
                "`model` must have a Dense, Conv2D or batch-norm layer for KFAC. Received: "
                f"{model.name} with {have}. Use MomentumSGD or LARS"
            )
        optimizer.offer(list(offered.values()))
        optimizer.build(model.trainable_variables)
        # The place of each layer among those that have factors.
        self._layers = {
            layer: optimizer.blocks.index(block)
            for layer, block in offered.items()
            if block in optimizer.blocks
        }
        self.optimizer = optimizer
        self.taken = False
        self._now = threading.local()  # replicas are threads
        self._lock, self._users = threading.Lock(), 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[Seen]]:
        """Lists the calls of layers within it, on this thread."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                for layer in self._layers:
                    # Not by the layer's own `__setattr__`, which would keep it.
                    vars(layer)["call"] = self._watch(layer, layer.call)
        self._now.seen = []
        try:
            yield self._now.seen
        finally:
            del self._now.seen
            with self._lock:
                self._users -= 1
                if not self._users:
                    for layer in self._layers:
                        del vars(layer)["call"]

    def of(
        self,
        seen: Sequence[Seen],
        gradients: Sequence[tf.Tensor],
        examples: tf.Tensor,
        scale: tf.Tensor = 1.0,
    ) -> list[tf.Tensor]:
        """The statistics, as `KFAC.refresh` takes them: this part's share of the batch's.

        Args:
            seen: the calls.
            gradients: of `scale` times the mean loss of the batch, by the output of each.
            examples: of the whole batch, over replicas and micro-batches.
            scale: of the loss.
        """
        found: dict[int, list[tf.Tensor]] = {}
        for (place, units, inputs, _), gradient in zip(seen, gradients, strict=True):
            block, gradient = self.optimizer.blocks[place], tf.cast(gradient, tf.float32) / scale
            if len(block.sizes) == 1:
                found[place] = [kronecker.unit_factor(inputs, gradient, examples, units=units)]
            else:
                bias = len(block.tensors) > 1
                a = kronecker.input_factor(inputs, examples, bias=bias)
                found[place] = [a, kronecker.output_factor(gradient, examples)]
        return [factor for place in sorted(found) for factor in found[place]]

    def zeros(self) -> list[tf.Tensor]:
        """Sums of no statistics."""
        return [tf.zeros(size) for block in self.optimizer.blocks for size in block.sizes]

    def where_due(self, update: Callable[[bool], Any]) -> Any:
        """What `update(True)` returns where the coming update takes statistics, else of False.

        On several replicas, around all of them: TensorFlow forbids a sum over replicas inside a
        condition of one.
        """

        def branch(taken: bool) -> Any:
            self.taken = taken
            return update(taken)

        due = self.optimizer.refreshes()
        if due is True:
            return branch(True)
        return tf.cond(due, lambda: branch(True), lambda: branch(False))

    def bytes_sent(self, first: int, end: int, dtype: str | None = None) -> int:
        """What a replica sends of statistics and inverses in the updates `first` to `end` - 1.

        Statistics in `dtype`, inverses, of one size with them, always in float32.
        """
        every = self.optimizer.refresh_updates
        refreshes = -(-end // every) - -(-first // every)
        numbers = sum(math.prod(size) for block in self.optimizer.blocks for size in block.sizes)
        return refreshes * numbers * (tf.as_dtype(dtype or tf.float32).size + tf.float32.size)

    def explained(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function; InputError where a factor in it is singular."""

        def run(*arguments, **options):
            try:
                return function(*arguments, **options)
            except tf.errors.InvalidArgumentError as error:
                known = self.optimizer.explain(error)
                raise (InputError(str(known)) if known else error) from None

        return run

    def _watch(self, layer: layers.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        place = self._layers[layer]

        def watched(inputs, *arguments, **options):
            seen = getattr(self._now, "seen", None)
            if seen is None:
                return call(inputs, *arguments, **options)
            if any(other.block == place for other in seen):
                raise ValueError(
                    "`model` must call a layer that has Fisher factors once. Received: "
                    f"{layer.name} called again. Pass no_adaptation=['(^|/){layer.name}/'] to KFAC"
                )
            if isinstance(layer, layers.BatchNormalization):
                with _changed(layer, scale=False, center=False):
                    normalized = call(inputs, *arguments, **options)
                outputs = _scaled(layer, normalized)
                seen.append(Seen(place, _units(layer), normalized, outputs))
                return outputs
            with _changed(layer, activation=lambda x: x):
                outputs = call(inputs, *arguments, **options)
            seen.append(Seen(place, (), _inputs(layer, inputs), outputs))
            return layer.activation(outputs)

        return watched


def statistics_of(
    model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> LayerStatistics | None:
    """What the optimizer needs of the model's layers; None, but for K-FAC."""
    return LayerStatistics(model, optimizer) if isinstance(optimizer, KFAC) else None


def _block(layer: layers.Layer, places: dict[int, int]) -> FisherBlock | None:
    """The block of a layer, None where it has no factors."""
    if isinstance(layer, layers.BatchNormalization):
        (axis,) = layer.input_spec.axes
        if axis not in (-1, layer.input_spec.ndim - 1):
            return None
        units = [v for v in (layer.gamma, layer.beta) if v is not None]
        unit_wise = ((units[0].shape[0], len(units), len(units)),)
        return FisherBlock(layer.name, tuple(places[id(v)] for v in units), unit_wise)
    # Exactly these: a subclass may do anything with its kernel.
    plain = type(layer) is layers.Conv2D and layer.groups == 1
    plain = plain and layer.data_format == "channels_last"
    if not (plain or type(layer) is layers.Dense) or layer.quantization_mode or layer.lora_enabled:
        return None
    tensors = [v for v in (layer.kernel, layer.bias) if v is not None]
    *rows, columns = layer.kernel.shape
    size = math.prod(rows) + len(tensors) - 1
    sizes = ((size, size), (columns, columns))
    return FisherBlock(layer.name, tuple(places[id(v)] for v in tensors), sizes)


def _units(layer: layers.BatchNormalization) -> tuple[bool, bool]:
    return layer.gamma is not None, layer.beta is not None


def _inputs(layer: layers.Layer, inputs: tf.Tensor) -> tf.Tensor:
    if isinstance(layer, layers.Dense):
        return inputs
    return kronecker.patches(
        inputs, layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate
    )


def _scaled(layer: layers.BatchNormalization, normalized: tf.Tensor) -> tf.Tensor:
    y = normalized
    if layer.gamma is not None:
        y = y * ops.cast(layer.gamma, y.dtype)
    if layer.beta is not None:
        y = y + ops.cast(layer.beta, y.dtype)
    return y


@contextlib.contextmanager
def _changed(layer: layers.Layer, **values: Any) -> Iterator[None]:
    """The attributes have these values within it."""
    before = {name: vars(layer)[name] for name in values}
    vars(layer).update(values)
    try:
        yield
    finally:
        vars(layer).update(before)
