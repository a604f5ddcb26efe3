"""`--set field=value`: one door through which a run departs from its recipe.

The value is read as the type that the record declares.
"""

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal, Union

from tf_largebatch.records.errors import InputError
from tf_largebatch.records.recipe import Recipe

# A recipe under another name, or with another published result, would be a false claim.
FIXED = ("name", "row", "title", "paper", "expected", "notes", "data.name")


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
        if not equals:
            raise InputError(f"--set must be field=value. Received: {setting!r}")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or list(known)
            near = f"Nearest: {', '.join(close)}"
            raise InputError(f"--set: {recipe.name} has no field {name!r}. {near}")
        try:
            values[name] = parse(_hint(recipe, name), text)
        except ValueError as error:
            raise InputError(f"--set {setting}: {error}") from None
    try:
        changed = _rebuild(recipe, values)
    except ValueError as error:
        raise InputError(f"--set {' '.join(settings)}: {error}") from None
    differ = [(name, known[name], new) for name, new in values.items() if new != known[name]]
    return changed, tuple(f"{name} {_show(old)} -> {_show(new)}" for name, old, new in differ)


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
        return tuple(parse(arguments[0], part) for part in text.split(",") if part.strip())
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


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
