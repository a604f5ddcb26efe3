"""`--set field=value`: one door through which a run departs from its recipe.

The value is read as the type that the record declares.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, Union

from tf_largebatch.records.errors import InputError
from tf_largebatch.records.recipe import Recipe

# A recipe under another name, or with another published result, would be a false claim.
FIXED = ("name", "row", "title", "paper", "expected", "notes", "data.name")


# What the fields are called elsewhere.
_ALIASES = {"lr": "reference_rate", "learning_rate": "reference_rate", "batch": "global_batch"}
_ALIASES |= {"batch_size": "global_batch", "warmup": "schedule.warmup_epochs"}
_ALIASES |= {"wd": "optimizer.weight_decay", "eta": "optimizer.trust_coefficient"}


def fields(record: Any, prefix: str = "") -> dict[str, Any]:
    """Returns every field that can be set: dotted name -> value, in the record's order."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        name, value = prefix + field.name, getattr(record, field.name)
        if name in FIXED:
            continue
        if dataclasses.is_dataclass(value):
            found |= fields(value, name + ".")
        else:
            found[name] = value
    return found


def apply(recipe: Recipe, settings: list[str]) -> tuple[Recipe, tuple[str, ...]]:
    """Returns the recipe with each `field=value` of `settings`, and the departures in words.

    A setting that repeats the recipe's own value is no departure; a wrong one is an InputError.
    """
    known, values = fields(recipe), {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise InputError(f"--set must be field=value. Received: {setting!r}")
        if name not in known:
            raise InputError(
                f"--set {setting}: {recipe.name} has no field {name!r}. {_near(name, known)}"
            )
        try:
            values[name] = parse(_hint(recipe, name), text)
        except ValueError as error:
            raise InputError(f"--set {setting}: {error}") from None
    try:
        changed = _rebuild(recipe, values)
    except ValueError as error:
        why = f"--set {' '.join(settings)}: {error}"
        if "epochs" in values and "schedule" in str(error):
            why += f" --scale-epochs {values['epochs'] / recipe.epochs:.3g} shortens all of it"
        raise InputError(why) from None
    return changed, differences(recipe, changed)


def differences(recipe: Recipe, changed: Recipe) -> tuple[str, ...]:
    """Returns each field that has changed, in words."""
    before, after = fields(recipe), fields(changed)
    differ = [(name, old, after[name]) for name, old in before.items() if old != after[name]]
    return tuple(f"{name} {_show(old)} -> {_show(new)}" for name, old, new in differ)


def _hint(record: Any, name: str) -> Any:
    """The declared type of a dotted field."""
    first, _, rest = name.partition(".")
    if rest:
        return _hint(getattr(record, first), rest)
    return typing.get_type_hints(type(record))[first]


def _rebuild(record: Any, values: dict[str, Any]) -> Any:
    """Replaces all fields at once, so that records check the whole and not each step to it."""
    changes = {name: value for name, value in values.items() if "." not in name}
    for part in dict.fromkeys(name.partition(".")[0] for name in values if "." in name):
        own = {n.removeprefix(part + "."): v for n, v in values.items() if n.startswith(part + ".")}
        changes[part] = _rebuild(getattr(record, part), own)
    return dataclasses.replace(record, **changes)


def parse(hint: Any, text: str) -> Any:
    """Returns `text` as a value of type `hint`; ValueError where it is none."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        (hint,) = (a for a in arguments if a is not type(None))
        return parse(hint, text)
    if origin is Literal:
        if text not in arguments:
            raise ValueError(f"must be one of {', '.join(arguments)}. Received: {text!r}")
        return text
    if origin is tuple:
        return tuple(_parse_item(arguments[0], p) for p in text.split(",") if p.strip())
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"must be true or false. Received: {text!r}")
        return text.lower() == "true"
    if hint in (int, float):
        try:
            value = hint(text)
        except ValueError:
            kind = "a whole number" if hint is int else "a number"
            raise ValueError(f"must be {kind}. Received: {text!r}") from None
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"must be finite. Received: {text!r}")
        return value
    return text


def _parse_item(hint: Any, text: str) -> Any:
    """One of several values; one that has parts itself is written 30:16384."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) is tuple else ()
    parts = text.split(":")
    if kinds and len(kinds) != len(parts):
        form = ":".join("N" for _ in kinds)
        raise ValueError(f"must be of the form {form},{form} and so on. Received: {text!r}")
    return tuple(map(parse, kinds, parts)) if kinds else parse(hint, text)


def _near(name: str, known: Iterable[str]) -> str:
    """Which fields were probably meant: by the whole name, or by its last part."""
    last = {field.rpartition(".")[2]: field for field in known}
    meant = _ALIASES.get(name.rpartition(".")[2], "")
    close = [meant] if meant in last.values() else difflib.get_close_matches(name, known, n=3)
    close = close or [last[n] for n in difflib.get_close_matches(name.rpartition(".")[2], last)]
    return f"Nearest: {', '.join(close)}" if close else "--set help shows all"


def describe(recipe: Recipe) -> str:
    """Returns every field that `--set` takes, with its value, a line each."""
    return "\n".join(f"{name}={_show(value)}" for name, value in fields(recipe).items())


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(
            ":".join(map(_show, v)) if isinstance(v, tuple) else _show(v) for v in value
        )
    return f"{value:g}" if isinstance(value, float) else str(value)
