"""The array work shared by the optimizers, in `keras.ops`: dtypes, norms, clipping."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

# A tensor or variable of Keras's backend.
Tensor = Any

_HALF_DTYPES = ("float16", "bfloat16")


def on_tensorflow() -> bool:
    """Whether Keras runs on TensorFlow in this process."""
    return bool(keras.backend.backend() == "tensorflow")


def compute_dtype(variable: Tensor) -> str:
    """The dtype of the arithmetic on a variable: its own, but float32 for 16 bits."""
    dtype = str(keras.backend.standardize_dtype(variable.dtype))
    return "float32" if dtype in _HALF_DTYPES else dtype


def to_dense(gradient: Tensor, variable: Tensor) -> Tensor:
    """A dense gradient of at least 32 bits: rows of repeated indices summed.

    A norm needs the whole tensor, and the square of a sum is not the sum of the squares.
    """
    if gradient is None:
        return None
    if on_tensorflow():
        import tensorflow as tf

        if isinstance(gradient, tf.IndexedSlices):
            gradient = tf.math.unsorted_segment_sum(
                gradient.values, gradient.indices, variable.shape[0]
            )
    else:
        gradient = ops.convert_to_tensor(gradient, sparse=False)
    return ops.cast(gradient, compute_dtype(gradient))


def as_written(x: Tensor) -> Tensor:
    """`x`, kept apart from the sum or product around it.

    TensorFlow's graph optimizer else adds and multiplies in an order of its own: the last digits
    would differ from those of the equation and of eager mode.
    """
    if on_tensorflow():
        import tensorflow as tf

        return tf.ensure_shape(x, x.shape)
    return x


def together(values: Sequence[Tensor]) -> list[Tensor]:
    """The same, none of them there before all are: what fails, fails before anything is written."""
    if on_tensorflow():
        import tensorflow as tf

        with tf.control_dependencies(values):
            return [tf.identity(value) for value in values]
    return list(values)


def this_replica() -> tuple[int, int]:
    """(the number of this replica, how many there are); (0, 1) where there is no telling.

    Outside of a strategy's replicas, and on a TPU, where one program is traced for all.
    """
    if on_tensorflow():
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        number = context and tf.get_static_value(context.replica_id_in_sync_group)
        if number is not None:
            return int(number), context.num_replicas_in_sync
    return 0, 1


def sum_over_replicas(values: Sequence[Tensor]) -> list[Tensor]:
    """The sum of each over all replicas; TensorFlow's alone, in the replica context."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(values)))


def norm(x: Tensor) -> Tensor:
    """2-norm over all elements, a scalar of the dtype of `x`."""
    if on_tensorflow():
        import tensorflow as tf

        return tf.sqrt(2.0 * tf.nn.l2_loss(x))  # sum(square(x)) without a copy of x
    return ops.sqrt(ops.sum(ops.square(x)))


def quotient(above: Tensor, below: Tensor, usable: Tensor) -> Tensor:
    """Above / below, and 1 where that is not usable."""
    one = ops.ones_like(above)
    return ops.where(usable, above / ops.where(usable, below, one), one)


def poison(x: Tensor, value: Tensor) -> Tensor:
    """`x`, but NaN where `value` is not finite.

    An infinite gradient norm would otherwise give a step of zero, and one broken element would
    freeze its tensor without a sign.
    """
    return x + (value - value)


def clip_each(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    """Each gradient scaled down to a norm of at most `limit`."""
    norms = [norm(gradient) for gradient in gradients]
    return [
        gradient * poison(limit / ops.maximum(size, limit), size)
        for gradient, size in zip(gradients, norms, strict=True)
    ]


def clip_together(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    """All gradients scaled by one factor, to a joint norm of at most `limit`."""
    squares = [ops.square(ops.cast(norm(gradient), "float32")) for gradient in gradients]
    size = ops.sqrt(ops.sum(ops.stack(squares)))
    factor = poison(limit / ops.maximum(size, limit), size)
    return [gradient * ops.cast(factor, gradient.dtype) for gradient in gradients]
