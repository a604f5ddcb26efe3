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


def step_outside(
    optimizer, variable, velocity, direction, rate, momentum, *, nesterov=False, measure=False
):
    """Momentum step with the rate outside the velocity; returns the step's norm if `measure`.

    v = momentum v + d;  w = w - rate v.  Nesterov: w = w - rate (d + momentum v).
    """
    if _fuses(variable):
        _momentum_kernel(
            "ResourceApplyMomentum", variable, velocity, direction, rate, momentum, nesterov
        )
        if not measure:
            return None
        v = ops.convert_to_tensor(velocity)
        return rate * norm(direction + momentum * v if nesterov else v)
    v = momentum * ops.convert_to_tensor(velocity) + direction
    step = direction + momentum * v if nesterov else v
    optimizer.assign(velocity, v)
    optimizer.assign(variable, widened(variable) - rate * step)
    return rate * norm(step) if measure else None


def step_inside(
    optimizer, variable, velocity, direction, rate, momentum, *, nesterov=False, measure=False
):
    """Momentum step with the rate inside the velocity; returns the step's norm if `measure`.

    v = momentum v - rate d;  w = w + v.  Nesterov: w = w + momentum v - rate d.
    """
    if _fuses(variable):
        _momentum_kernel(
            "ResourceApplyKerasMomentum", variable, velocity, direction, rate, momentum, nesterov
        )
        if not measure:
            return None
        v = ops.convert_to_tensor(velocity)
        return norm(momentum * v - rate * direction if nesterov else v)
    v = momentum * ops.convert_to_tensor(velocity) - rate * direction
    step = momentum * v - rate * direction if nesterov else v
    optimizer.assign(velocity, v)
    optimizer.assign(variable, widened(variable) + step)
    return norm(step) if measure else None


def update_moments(optimizer, variable, first, second, gradient, beta_1, beta_2):
    """Moves both moments of Adam and returns them.

    m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2.
    """
    # The kernel adds (1 - beta) (g^2 - v), which loses digits where v falls fast.
    if _fuses(variable) and beta_2 >= 0.5:
        _adam_kernel(variable, first, second, gradient, beta_1, beta_2)
        return ops.convert_to_tensor(first), ops.convert_to_tensor(second)
    m = beta_1 * ops.convert_to_tensor(first) + (1.0 - beta_1) * gradient
    v = beta_2 * ops.convert_to_tensor(second) + (1.0 - beta_2) * ops.square(gradient)
    optimizer.assign(first, m)
    optimizer.assign(second, v)
    return m, v


def subtract_scaled(optimizer, variable, rate, step):
    """Takes the step: w = w - rate step."""
    if _fuses(variable):
        import tensorflow as tf

        tf.raw_ops.ResourceApplyGradientDescent(
            var=variable.handle, alpha=tf.cast(rate, variable.dtype), delta=step
        )
        return
    optimizer.assign(variable, widened(variable) - rate * step)


def widened(variable):
    """The value of a variable in the dtype of the arithmetic on it."""
    return ops.cast(variable, compute_dtype(variable))


def _fuses(variable) -> bool:
    # The kernels want weight and slot of one dtype; 16-bit weights have float32 slots.
    return on_tensorflow() and compute_dtype(variable) == keras.backend.standardize_dtype(
        variable.dtype
    )


def _momentum_kernel(kernel, variable, velocity, direction, rate, momentum, nesterov):
    import tensorflow as tf

    getattr(tf.raw_ops, kernel)(
        var=variable.handle,
        accum=velocity.value.handle,
        lr=tf.cast(rate, variable.dtype),
        grad=direction,
        momentum=tf.cast(momentum, variable.dtype),
        use_nesterov=nesterov,
    )


def _adam_kernel(variable, first, second, gradient, beta_1, beta_2):
    """Adam at rate 0: moves both moments in one pass and leaves the weight as it is."""
    import tensorflow as tf

    zero, one = tf.zeros((), variable.dtype), tf.ones((), variable.dtype)
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=first.value.handle,
        v=second.value.handle,
        beta1_power=zero,
        beta2_power=zero,
        lr=zero,
        beta1=tf.cast(beta_1, variable.dtype),
        beta2=tf.cast(beta_2, variable.dtype),
        epsilon=one,  # keeps the kernel's unused quotient away from 0 / 0
        grad=gradient,
    )
