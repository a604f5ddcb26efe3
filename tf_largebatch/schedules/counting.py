"""Integers in, fractions out: the only place where an update number becomes a float."""

import numbers

import keras
from keras import ops


def integer(update):
    """Returns `update` as a tensor of the backend's widest default integer.

    Args:
        update: int, or an integer tensor, array or Keras variable of any shape.

    Raises:
        ValueError: not of an integer type: a float32 count stops at 2**24.
    """
    if isinstance(update, numbers.Integral) and not isinstance(update, bool):
        return ops.convert_to_tensor(int(update), dtype="int")
    tensor = ops.convert_to_tensor(update)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if not keras.backend.is_int_dtype(dtype):
        raise ValueError(
            f"`update` must be of an integer type. Received: update={update!r} of {dtype}. "
            "Pass the optimizer's `iterations`."
        )
    return ops.cast(tensor, "int")


def done_and_left(count, begin: int, length: int):
    """Returns the fractions of the span [begin, begin + length] behind and ahead of `count`.

    Both are float32 in [0, 1] and each comes from its own integer, so that the small one keeps its
    relative accuracy: `1 - done` near the end of a span would not.
    """
    done = ops.minimum(ops.maximum(count - begin, 0), length)
    left = length - done
    return (ops.cast(part, "float32") / float(length) for part in (done, left))
