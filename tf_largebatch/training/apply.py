"""How a gradient that is summed over replicas changes the weights, and the scale of float16.

In float16 the loss is scaled up before the backward pass and the reduced gradient down again, in
float32. An overflow on any replica makes the sum not finite on all of them, so all skip the same
update and halve the scale; after a number of updates without one it doubles. Keras's own
`LossScaleOptimizer` checks each replica's gradient before the sum: there, one replica's overflow
ends in NaN or in a deadlock.
"""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

FIRST_SCALE, LEAST_SCALE, GROWTH_UPDATES = 2.0**15, 1.0, 2000

_SUM = "_all_reduce_sum_gradients"


class LossScale:
    """The scale and the updates since it changed, in variables that their owner saves.

    Args:
        scale: float32 scalar variable, above 0.
        good: scalar variable of any dtype, 0 at first.
        growth_updates: finite updates after which the scale doubles.
    """

    def __init__(
        self, scale: keras.Variable, good: keras.Variable, growth_updates: int = GROWTH_UPDATES
    ):
        self.scale, self.good, self.growth_updates = scale, good, growth_updates

    def adjust(self, finite: tf.Tensor) -> None:
        """Halves the scale where the update was not finite, doubles it after enough that were."""
        scale, good = (tf.convert_to_tensor(v.value) for v in (self.scale, self.good))
        good = tf.where(finite, good + 1, tf.zeros_like(good))
        grow = good >= tf.cast(self.growth_updates, good.dtype)
        higher = tf.where(grow, 2.0 * scale, scale)
        lower = tf.maximum(0.5 * scale, LEAST_SCALE)
        self.scale.assign(tf.where(finite, higher, lower))
        self.good.assign(tf.where(grow, tf.zeros_like(good), good))


def apply(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    gradients: list[tf.Tensor],
    state: list[tf.Tensor],
    squares: tf.Tensor,
    loss_scale: LossScale | None,
    factors: Sequence[tf.Tensor] = (),
) -> tf.Tensor:
    """Updates the weights; returns the first tensor that is not finite, -1 if none is.

    With a loss scale, an update that is not finite is skipped and the scale lowered, and no tensor
    counts until the scale is at its least.

    Args:
        model: changes.
        optimizer: changes the model; its own sum over replicas is left out.
        gradients: summed over replicas and unscaled.
        state: the new values of the model's other variables.
        squares: of the gradients, one each.
        loss_scale: None where there is no overflow to mend.
        factors: K-FAC's statistics, in an update that refreshes them.
    """
    bad = tf.logical_not(tf.math.is_finite(squares))
    first_bad = tf.where(tf.reduce_any(bad), tf.argmax(bad, output_type=tf.int32), -1)
    if not loss_scale:
        _apply(model, optimizer, gradients, state, factors)
        return first_bad
    finite, scale = first_bad < 0, tf.identity(loss_scale.scale.value)
    # Everything is updated and then put back: the optimizer merges replicas, which TensorFlow
    # forbids inside a condition.
    of_model = [*model.trainable_variables, *model.non_trainable_variables]
    variables = [*of_model, *optimizer.variables]
    before = [tf.identity(v.value) for v in variables]
    _apply(model, optimizer, gradients, state, factors)
    for variable, old in zip(variables, before, strict=True):
        variable.assign(tf.where(finite, tf.convert_to_tensor(variable.value), old))
    loss_scale.adjust(finite)
    return tf.where(scale > LEAST_SCALE, -1, first_bad)


def _apply(model, optimizer, gradients, state, factors) -> None:
    """Updates the weights, and writes the state that the forward pass moved."""
    if factors:
        optimizer.refresh(factors)
    with _summed_already(optimizer):
        optimizer.apply(gradients, model.trainable_variables)
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        variable.assign(value)


@contextlib.contextmanager
def _summed_already(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Keeps Keras from summing gradients over replicas a second time inside the block.

    The name is Keras's own and private; tests check that it works and that nothing stays behind.
    Under a mirrored strategy every replica's thread comes here, and the first leaves before the
    last: all have passed the sum by then, since they wait for each other at the update.
    """
    vars(optimizer)[_SUM] = list
    try:
        yield
    finally:
        vars(optimizer).pop(_SUM, None)
