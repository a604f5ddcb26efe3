"""Checks of constructor arguments that several schedules share, and of their saved configs."""

import inspect
import math
import numbers

import keras


def check_rate(name: str, value) -> float:
    """Returns `value` as a float, or raises unless it is a finite number of at least 0."""
    if not _is_real(value) or not math.isfinite(value) or value < 0:
        raise ValueError(
            f"`{name}` must be a finite number of at least 0. Received: {name}={value!r}"
        )
    return float(value)


def check_positive(name: str, value) -> float:
    """Returns `value` as a float, or raises unless it is a finite number above 0."""
    if not _is_real(value) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"`{name}` must be a finite number above 0. Received: {name}={value!r}")
    return float(value)


def check_end_rate(end_rate, rate: float) -> float:
    """Returns `end_rate`, or raises unless it is a rate that a decay from `rate` can reach."""
    value = check_rate("end_rate", end_rate)
    if value > rate:
        raise ValueError(
            f"`end_rate` must be at most `rate`. Received: end_rate={end_rate!r}, rate={rate!r}. "
            "For a rate that rises, use `Warmup`."
        )
    return value


def check_count(name: str, value, minimum: int) -> int:
    """Returns `value` as an int, or raises unless it is a whole number of at least `minimum`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < minimum:
        raise ValueError(
            f"`{name}` must be a whole number of at least {minimum}. Received: {name}={value!r}"
        )
    return int(value)


def check_rising(name: str, values) -> tuple[int, ...]:
    """Returns `values` as a tuple, or raises unless they are update numbers that rise from 1 on."""
    numbers_ = tuple(check_count(name, value, 1) for value in check_sequence(name, values))
    if any(a >= b for a, b in zip(numbers_, numbers_[1:], strict=False)):
        raise ValueError(
            f"`{name}` must rise strictly. Received: {name}={numbers_}. Sort them; two changes at "
            "one update are one change."
        )
    return numbers_


def check_sequence(name: str, values) -> tuple:
    """Returns `values` as a tuple, or raises unless it is a list or a tuple."""
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"`{name}` must be a list or a tuple. Received: {name}={values!r}")
    return tuple(values)


def check_schedule(name: str, value) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns `value`, or raises unless it is a Keras schedule."""
    if not isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        raise ValueError(
            f"`{name}` must be a LearningRateSchedule. Received: {name}={value!r}. "
            "For a fixed rate, pass `Constant(rate)`."
        )
    return value


def config_arguments(cls, config: dict) -> dict:
    """Returns the constructor arguments in a saved config, nested schedules rebuilt.

    Raises:
        ValueError: keys that this version of `cls` does not have, or lacks: a config from another
            version would otherwise be read as a different schedule.
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
    return {
        name: keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
        for name, value in config.items()
    }


def _is_real(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
