"""The array work shared by the optimizers: norms, clipping, momentum steps.

Everything is written in `keras.ops`. On the TensorFlow backend the same numbers come from kernels
without temporaries: `tf.nn.l2_loss` for a norm, `ResourceApplyMomentum` and
`ResourceApplyKerasMomentum` for a step, `ResourceApplyAdam` for two moments.
"""

import keras
from keras import ops

_HALF_DTYPES = ("float16", "bfloat16")


def on_tensorflow() -> bool:
    """Whether Keras runs on TensorFlow in this process."""
    return keras.backend.backend() == "tensorflow"


def compute_dtype(variable) -> str:
    """The dtype of the arithmetic on a variable: its own, but float32 for 16 bits."""
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return "float32" if dtype in _HALF_DTYPES else dtype


def to_dense(gradient, variable):
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
    if keras.backend.standardize_dtype(gradient.dtype) in _HALF_DTYPES:
        return ops.cast(gradient, "float32")
    return gradient


def norm(x):
    """2-norm over all elements, a scalar of the dtype of `x`."""
    if on_tensorflow():
        import tensorflow as tf

        return tf.sqrt(2.0 * tf.nn.l2_loss(x))
    return ops.sqrt(ops.sum(ops.square(x)))


def poison(x, *norms):
    """`x`, but NaN where one of the norms is not finite.

    An infinite gradient norm would otherwise give a step of zero, and one broken element would
    freeze its tensor without a sign.
    """
    for value in norms:
        x = x + (value - value)
    return x


def clip_each(gradients, limit):
    """Each gradient scaled down to a norm of at most `limit`."""
    clipped = []
    for gradient in gradients:
        size = norm(gradient)
        clipped.append(gradient * poison(limit / ops.maximum(size, limit), size))
    return clipped


def clip_together(gradients, limit):
    """All gradients scaled by one factor, to a joint norm of at most `limit`."""
    squares = [ops.square(ops.cast(norm(gradient), "float32")) for gradient in gradients]
    size = ops.sqrt(ops.sum(ops.stack(squares)))
    factor = poison(limit / ops.maximum(size, limit), size)
    return [gradient * ops.cast(factor, gradient.dtype) for gradient in gradients]


def step_outside(optimizer, variable, velocity, direction, rate, momentum, nesterov):
    """v = momentum v + d;  w = w - rate v,  Nesterov: w = w - rate (d + momentum v)."""
    if _fuses(variable):
        _tensorflow_step(
            "ResourceApplyMomentum", variable, velocity, direction, rate, momentum, nesterov
        )
        return
    v = momentum * ops.convert_to_tensor(velocity) + direction
    step = direction + momentum * v if nesterov else v
    optimizer.assign(velocity, v)
    optimizer.assign(variable, _wide(variable) - rate * step)


def step_inside(optimizer, variable, velocity, direction, rate, momentum, nesterov):
    """v = momentum v - rate d;  w = w + v,  Nesterov: w = w + momentum v - rate d."""
    if _fuses(variable):
        _tensorflow_step(
            "ResourceApplyKerasMomentum", variable, velocity, direction, rate, momentum, nesterov
        )
        return
    direction = rate * direction
    v = momentum * ops.convert_to_tensor(velocity) - direction
    optimizer.assign(velocity, v)
    optimizer.assign(variable, _wide(variable) + (momentum * v - direction if nesterov else v))


def _wide(variable):
    return ops.cast(variable, compute_dtype(variable))


def _fuses(variable) -> bool:
    # The kernels want weight and slot of one dtype; 16-bit weights have float32 slots.
    return on_tensorflow() and compute_dtype(variable) == keras.backend.standardize_dtype(
        variable.dtype
    )


def _tensorflow_step(kernel, variable, velocity, direction, rate, momentum, nesterov):
    import tensorflow as tf

    dtype = variable.dtype
    getattr(tf.raw_ops, kernel)(
        var=variable.handle,
        accum=velocity.value.handle,
        lr=tf.cast(rate, dtype),
        grad=direction,
        momentum=tf.cast(momentum, dtype),
        use_nesterov=nesterov,
    )
