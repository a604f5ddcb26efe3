"""Argument checks of the optimizers: each returns the value to keep or raises ValueError."""

import math
import numbers
import re
from collections.abc import Callable, Iterable

import keras

_KERAS_ARGUMENTS = (
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
    "name",
)


def check_number(
    name: str,
    value: object,
    *,
    low: float = 0.0,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = True,
    fix: str,
) -> float:
    """The value as a float inside its interval."""
    brackets = ("(" if low_open else "[", ")" if high_open else "]")
    rule = f"a number in {brackets[0]}{low:g}, {high:g}{brackets[1]}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(value):
        raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}. {fix}")
    above = value > low if low_open else value >= low
    below = value < high if high_open else value <= high
    if not (above and below):
        raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}. {fix}")
    return float(value)


def check_flag(name: str, value: object) -> bool:
    """The value, which is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}.")
    return value


def check_choice(name: str, value: object, choices: dict[str, str]) -> str:
    """The value, one of the keys of `choices`; the error explains each."""
    if not isinstance(value, str) or value not in choices:
        meaning = "; ".join(f"{key!r}: {text}" for key, text in choices.items())
        raise ValueError(
            f"`{name}` must be one of {sorted(choices)}. Received: {name}={value!r}. {meaning}."
        )
    return value


def check_patterns(name: str, value: object) -> tuple[str, ...]:
    """The regular expressions as a tuple."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(
            f"`{name}` must be a list or tuple of regular expressions. Received: {name}={value!r}. "
            f"For one pattern write {name}=({str(value)!r},)."
        )
    patterns = tuple(value)
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise ValueError(
                f"`{name}` must hold non-empty strings. Received: {name}={patterns!r}. "
                "Give regular expressions that are searched in `variable.path`."
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"`{name}` must hold regular expressions. Received: {name}={patterns!r}. "
                f"{pattern!r} does not compile: {error}."
            ) from error
    return patterns


def check_rank(name: str, value: object) -> int:
    """The value as an integer that counts dimensions."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(
            f"`{name}` must be an integer >= 0. Received: {name}={value!r}. "
            "2 exempts scalars and vectors (biases, batch-norm scales), 0 exempts nothing."
        )
    return value


def check_learning_rate(value: object) -> float | Callable:
    """The rate: a float, a LearningRateSchedule or a callable without arguments."""
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule) or callable(value):
        return value
    # Keras itself takes no integer and no float32 scalar; both mean one thing only here.
    return check_number(
        "learning_rate", value, fix="Give a float, a LearningRateSchedule or a callable."
    )


def check_keras_arguments(optimizer: str, kwargs: dict) -> dict:
    """The arguments for the Keras base class, which ignores a clipping limit that is not > 0."""
    unknown = sorted(set(kwargs) - set(_KERAS_ARGUMENTS))
    if unknown:
        received = ", ".join(f"{key}={kwargs[key]!r}" for key in unknown)
        raise ValueError(
            f"Arguments of `{optimizer}` must be its own or one of {list(_KERAS_ARGUMENTS)}. "
            f"Received: {received}. Remove them; a config that has them is of another version."
        )
    checked = dict(kwargs)
    for name in ("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor"):
        if checked.get(name) is not None:
            checked[name] = check_number(
                name, checked[name], low_open=True, fix="Give a positive number, or None for none."
            )
    return checked
