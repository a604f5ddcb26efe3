"""The arguments that the optimizers share, their types, and their checks."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypedDict

import keras

from tf_largebatch.records.checks import check, check_count, check_flag, check_number, did_you_mean

# A LearningRateSchedule is a callable too.
Rate: TypeAlias = float | Callable[..., Any]

# What other libraries call the arguments.
_ALIASES = {
    "lr": "learning_rate",
    "eta": "trust_coefficient",
    "eeta": "trust_coefficient",
    "lars_coeff": "trust_coefficient",
    "eps": "epsilon",
    "weight_decay_rate": "weight_decay",
    "lars_weight_decay": "weight_decay",
    "use_nesterov": "nesterov",
    "max_grad_norm": "global_clipnorm",
    "exclude_from_weight_decay": "no_decay",
    "exclude_from_layer_adaptation": "no_adaptation",
}


class Options(TypedDict, total=False):
    """The keyword arguments of every optimizer here; `LargeBatchOptimizer` says what they do."""

    weight_decay: float | None
    no_decay: Iterable[str]
    exclude_rank_below: int
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None


class AdaptiveOptions(Options, total=False):
    """Those of an optimizer that has a trust ratio."""

    no_adaptation: Iterable[str]
    record_trust_ratio: bool


def check_rate(value: Rate) -> Rate:
    """The rate: a float, a LearningRateSchedule or a callable without arguments."""
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule) or callable(value):
        return value
    # Keras itself takes no integer and no float32 scalar; both mean one thing only here.
    fix = "Give a float, a LearningRateSchedule or a callable."
    return check_number("learning_rate", value, fix=fix)


def check_momentum(value: object) -> float:
    """The coefficient of a velocity."""
    return check_number("momentum", value, high=1.0, fix="0.9 is usual; 0 switches it off.")


def check_keras_options(
    optimizer: str, options: dict[str, Any], known: Iterable[str]
) -> dict[str, Any]:
    """The arguments for the Keras base class, which ignores a clipping limit that is not > 0."""
    names = ("learning_rate", *known)
    for name in sorted(set(options) - set(Options.__annotations__)):
        fix = did_you_mean(name, names, _ALIASES) or f"It has {', '.join(names)}."
        raise ValueError(
            f"`{name}` must be an argument of {optimizer}. Received: {name}={options[name]!r}, "
            f"which is none, or one of another version. {fix}"
        )
    for name in ("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor"):
        if options.get(name) is not None:
            fix = "Give a positive number, or None for none."
            options[name] = check_number(name, options[name], low_open=True, fix=fix)
    for name, least in (("ema_overwrite_frequency", 1), ("gradient_accumulation_steps", 2)):
        if options.get(name) is not None:
            fix = f"Give a whole number of at least {least}, or None for none."
            options[name] = check_count(name, options[name], least, fix)
    check_flag("use_ema", options.get("use_ema", False))
    if "ema_momentum" in options:
        share = options["ema_momentum"]
        check(0 <= check_number("ema_momentum", share) <= 1, "ema_momentum", "in [0, 1]", share)
    return options
