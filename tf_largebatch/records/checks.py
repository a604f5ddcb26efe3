"""The checks of arguments and values: each returns the value to keep, or raises in one line."""

import difflib
import math
import numbers
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

# A rule in the words of the error, and its test.
_RULES: dict[str, Callable[[Any], bool]] = {
    "at least 0": lambda value: value >= 0,
    "at least 1": lambda value: value >= 1,
    "above 0": lambda value: value > 0,
    "above 0 or none": lambda value: value is None or value > 0,
    "above 0, at most 1": lambda value: 0 < value <= 1,
    "in [0, 1)": lambda value: 0 <= value < 1,
    "finite": math.isfinite,
    "a whole number of at least 1": lambda value: type(value) is int and value >= 1,
}


def check(ok: bool, name: str, rule: str, value: object, fix: str = "") -> None:
    """Raises ValueError unless `ok`; `fix` says what to do."""
    if not ok:
        remedy = f". {fix}" if fix else ""
        raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}{remedy}")


def check_fields(record: object, prefix: str, rule: str, *names: str) -> None:
    """The same for fields of a record and one of `_RULES`; `prefix` stands before their names."""
    for name in names:
        value = getattr(record, name)
        check(_RULES[rule](value), prefix + name, rule, value)


def check_known(record: object, prefix: str, **known: Iterable[str]) -> None:
    """The same for fields of which each is one of the known texts."""
    for name, choices in known.items():
        value = getattr(record, name)
        check(value in choices, prefix + name, f"one of {', '.join(choices)}", value)


def check_number(
    name: str,
    value: object,
    *,
    low: float = 0.0,
    high: float = math.inf,
    low_open: bool = False,
    fix: str = "",
) -> float:
    """The value as a float in [low, high), or in (low, high)."""
    rule = f"a number in {'(' if low_open else '['}{low:g}, {high:g})"
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    number = float(value) if real else math.nan  # type: ignore[arg-type]
    check((low < number if low_open else low <= number) and number < high, name, rule, value, fix)
    return number


def check_count(name: str, value: object, least: int, fix: str = "") -> int:
    """The value as an int of at least `least`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    number = int(value) if whole else least - 1  # type: ignore[call-overload]
    check(number >= least, name, f"a whole number of at least {least}", value, fix)
    return number


def check_flag(name: str, value: object) -> bool:
    """The value, which is True or False."""
    check(isinstance(value, bool), name, "True or False", value)
    return bool(value)


def check_choice(name: str, value: object, choices: Mapping[str, str] | Collection[str]) -> str:
    """The value, one of `choices`; the error shows what a mapping says of each."""
    meaning = ""
    if isinstance(choices, Mapping):
        meaning = "; ".join(f"{key!r}: {text}" for key, text in choices.items())
    known = isinstance(value, str) and value in choices
    check(known, name, f"one of {', '.join(map(repr, choices))}", value, meaning)
    return str(value)


def check_sequence(name: str, values: object, fix: str = "") -> tuple[object, ...]:
    """The values of a list or tuple as a tuple."""
    check(isinstance(values, list | tuple), name, "a list or a tuple", values, fix)
    return tuple(values)  # type: ignore[arg-type]


def check_rising(name: str, values: object) -> tuple[int, ...]:
    """The values as a tuple of update numbers that rise from 1 on."""
    counts = tuple(check_count(name, value, 1) for value in check_sequence(name, values))
    fix = "Sort them; two changes at one update are one change."
    check(list(counts) == sorted(set(counts)), name, "rising strictly", counts, fix)
    return counts


def check_patterns(name: str, values: object) -> tuple[str, ...]:
    """The values as a tuple of regular expressions."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        fix = f"For one pattern write {name}=({str(values)!r},)."
        check(False, name, "a list or tuple of regular expressions", values, fix)
    patterns: tuple[str, ...] = tuple(values)  # type: ignore[arg-type]
    for pattern in patterns:
        usable = isinstance(pattern, str) and bool(pattern)
        check(usable, name, "a list of non-empty regular expressions", patterns)
        try:
            re.compile(pattern)
        except re.error as error:
            fix = f"{pattern!r} does not compile: {error}."
            check(False, name, "a list of regular expressions", patterns, fix)
    return patterns


def did_you_mean(name: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """A question with the name that was probably meant, "" where none is near."""
    known = list(known)
    other = (aliases or {}).get(name)
    near = [other] if other in known else difflib.get_close_matches(name, known, n=1)
    return f"Did you mean `{near[0]}`?" if near else ""
