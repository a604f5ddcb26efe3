"""K-FAC under plain `fit` on Keras's JAX backend, for the dense network of the studies.

The output gradient of a layer is the gradient by a zero that is added to its output. The engine's
way, `training/layer_statistics.py`, knows more layers, and needs TensorFlow's tape.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tf_largebatch.optimizers import KFAC, kronecker
from tf_largebatch.optimizers.kfac import FisherBlock
from tf_largebatch.studies import fitting


class NaturalGradientNetwork(keras.Model):
    """Dense layers with ReLU between them on flat uint8 images, whose `fit` feeds a `KFAC`.

    Args:
        inputs: of an image.
        hidden: widths of the layers before the ten logits.
    """

    def __init__(self, inputs: int, hidden: Sequence[int]):
        super().__init__()
        self._pixels = fitting.pixels()
        self._dense = [keras.layers.Dense(width) for width in (*hidden, 10)]
        self(ops.zeros((1, inputs), "uint8"))

    def call(self, images: Any) -> Any:
        """Returns logits."""
        return self._forward(images, [0.0] * len(self._dense))[0]

    def compile(self, optimizer: KFAC, *arguments: Any, **options: Any) -> None:
        """As Keras does; the optimizer is told the layers, and built."""
        super().compile(optimizer, *arguments, **options)
        blocks = []
        for number, layer in enumerate(self._dense):
            rows, columns = layer.kernel.shape
            sizes = ((rows + 1, rows + 1), (columns, columns))
            blocks.append(FisherBlock(layer.name, (2 * number, 2 * number + 1), sizes))
        optimizer.offer(blocks)
        optimizer.build(self.trainable_variables)

    def train_step(self, state: tuple, data: tuple) -> tuple[dict, tuple]:
        """One update, as Keras's JAX trainer asks for it: from values to values."""
        import jax

        weights, others, slots, metrics = state
        images, labels = data
        examples = images.shape[0]

        def loss_of(weights: Any, probes: Any) -> Any:
            pairs = list(zip(self.trainable_variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=pairs):
                logits, inputs = self._forward(images, probes)
                return self.compute_loss(y=labels, y_pred=logits), inputs

        probes = [ops.zeros((examples, layer.units)) for layer in self._dense]
        gradients_of = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (loss, inputs), (gradients, outputs) = gradients_of(weights, probes)

        def refreshed() -> list:
            with self._scope(slots) as scope:
                self.optimizer.refresh(
                    [
                        factor
                        for a, g in zip(inputs, outputs, strict=True)
                        for factor in (
                            kronecker.input_factor(a, examples, bias=True),
                            kronecker.output_factor(g, examples),
                        )
                    ]
                )
            return [scope.get_current_value(v) for v in self.optimizer.variables]

        with self._scope(slots):
            due = self.optimizer.refreshes()
        slots = refreshed() if due is True else ops.cond(due, refreshed, lambda: list(slots))
        weights, slots = self.optimizer.stateless_apply(slots, gradients, weights)
        return {"loss": loss}, (weights, others, slots, metrics)

    def _scope(self, slots: Sequence[Any]) -> keras.StatelessScope:
        pairs = list(zip(self.optimizer.variables, slots, strict=True))
        return keras.StatelessScope(state_mapping=pairs)

    def _forward(self, images: Any, probes: Sequence[Any]) -> tuple[Any, list[Any]]:
        """The logits, and what came into each layer."""
        x, inputs = self._pixels(images), []
        for layer, probe in zip(self._dense, probes, strict=True):
            inputs.append(x)
            outputs = layer(x) + probe
            x = ops.relu(outputs)
        return outputs, inputs
