"""What the schedules share: their config, and how they read update numbers."""

import inspect
import numbers
from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import ops

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.checks import check, check_number

# A tensor of Keras's backend, or what becomes one.
Tensor = Any


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that is a pure function of the update, elementwise.

    Subclasses keep each argument of their constructor under its own name and write `__call__`.
    """

    # The update from which the rate no longer changes; None where there is none, or none is known.
    last_update: int | None = None

    def __call__(self, update: Tensor) -> Tensor:
        """The rate of update number `update`, float32, in its shape."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, schedules among them serialised."""
        names = inspect.signature(type(self)).parameters
        return {name: _plain(getattr(self, name)) for name in names}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Rebuilds the schedule.

        Raises:
            ValueError: keys that this version of the class does not have, or lacks: a config from
                another version would otherwise be read as a different schedule.
        """
        parameters = inspect.signature(cls).parameters
        required = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}
        unknown, missing = sorted(set(config) - set(parameters)), sorted(required - set(config))
        if unknown or missing:
            raise ValueError(
                f"`config` must have the arguments of {cls.__name__}: {', '.join(parameters)}. "
                f"Received: config with unknown keys {unknown}, without required keys {missing}. "
                "It was saved by another version: rebuild the schedule from its constructor."
            )
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(v) if isinstance(v, dict) else v
                for name, v in config.items()
            }
        )


def _plain(value: Any) -> Any:
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return keras.saving.serialize_keras_object(value)
    return list(value) if isinstance(value, tuple) else value


def check_schedule(name: str, value: Any) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns `value`, or raises unless it is a Keras schedule."""
    if not isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        raise ValueError(
            f"`{name}` must be a LearningRateSchedule. Received: {name}={value!r}. "
            "For a fixed rate, pass `Constant(rate)`."
        )
    return value


def first_update(name: str, epoch: Any, plan: BatchPlan) -> int:
    """The first update at or after an epoch."""
    check(isinstance(plan, BatchPlan), "plan", "a BatchPlan", plan)
    return plan.updates_at(check_number(name, epoch, fix="Epochs count from 0."))


def integer(update: Tensor) -> Tensor:
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


def done_and_left(count: Tensor, begin: int, length: int) -> tuple[Tensor, Tensor]:
    """Returns the fractions of the span [begin, begin + length] behind and ahead of `count`.

    Both are float32 in [0, 1] and each comes from its own integer, so that the small one keeps its
    relative accuracy: `1 - done` near the end of a span would not.
    """
    done = ops.minimum(ops.maximum(count - begin, 0), length)
    left = length - done
    return ops.cast(done, "float32") / float(length), ops.cast(left, "float32") / float(length)
