"""SLURM's shorthand for nodes and tasks, written out. Standard library only."""

import itertools
import json
import re

from tf_largebatch.records.errors import InputError

_LONGEST_RANGE = 65_536  # of a node list; more is a damaged variable
_ITEM = re.compile(r"(?:[^\[\],\s]+|\[[0-9,-]+\])+")


def expand_hosts(text: str, name: str = "SLURM_STEP_NODELIST") -> list[str]:
    """Expands a SLURM node list: "r[1-2]n[08-09,11],gpu5" names r1n08 r1n09 r1n11 r2n08 ... gpu5.

    A range keeps the zeros in front of its first number. InputError names the variable `name`.
    """
    hosts, at = [], 0
    while item := _ITEM.match(text, at):
        parts = re.split(r"\[([0-9,-]+)\]", item.group())  # text, list, text, list, ..., text
        choices = [
            _expand_numbers(part, name, text) if i % 2 else [part] for i, part in enumerate(parts)
        ]
        hosts += ["".join(choice) for choice in itertools.product(*choices)]
        at = item.end() + 1
        if item.end() == len(text):
            return hosts
        if text[item.end()] != ",":
            break
    raise _malformed(name, text, "r[1-2]n[01-03,7],gpu5")


def expand_tasks(text: str, name: str = "SLURM_STEP_TASKS_PER_NODE") -> list[int]:
    """Expands SLURM's tasks per node: "2(x3),1" is [2, 2, 2, 1]; InputError if malformed."""
    counts = []
    for item in text.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?", item)
        if not match:
            raise _malformed(name, text, "2(x3),1")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _expand_numbers(text: str, name: str, whole: str) -> list[str]:
    numbers = []
    for item in text.split(","):
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", item)
        first, last = (match[1], match[2] or match[1]) if match else ("1", "0")
        if not 0 <= int(last) - int(first) < _LONGEST_RANGE:
            raise _malformed(name, whole, "r[1-2]n[01-03,7],gpu5")
        numbers += [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return numbers


def _malformed(name: str, text: str, example: str) -> InputError:
    return InputError(f"{name} must look like {example}. Received: {name}={json.dumps(text[:120])}")
