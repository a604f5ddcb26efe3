"""Whether a training's state is finite: looked at before anything is built on it."""

import keras
import tensorflow as tf

from tf_largebatch.records.errors import NonFiniteError


class FiniteCheck:
    """Looks at a model's weights and statistics and its optimizer's state, all that floats."""

    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer):
        of_model = [*model.trainable_variables, *model.non_trainable_variables]
        self._variables = [
            v for v in (*of_model, *optimizer.variables) if tf.as_dtype(v.dtype).is_floating
        ]
        self._flags = tf.function(self._are_finite, autograph=False)

    def first_bad(self) -> str | None:
        """Returns the path of the first tensor that is not finite, None where all are."""
        flags = self._flags().numpy().tolist()
        bad = (v.path for v, finite in zip(self._variables, flags, strict=True) if not finite)
        return next(bad, None)

    def check(self, update: int) -> None:
        """NonFiniteError where a tensor is not finite after so many updates."""
        if bad := self.first_bad():
            raise NonFiniteError(
                f"update {update - 1}: {bad} is not finite after it. Lower the rate or lengthen "
                "the warmup",
                update - 1,
            )

    def _are_finite(self) -> tf.Tensor:
        values = (tf.convert_to_tensor(v.value) for v in self._variables)
        return tf.stack([tf.reduce_all(tf.math.is_finite(value)) for value in values])
