"""What every layout is read into: pictures by place and class. Standard library only."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tf_largebatch.records.errors import InputError

SPLITS = ("train", "validation")
WNID = re.compile(r"n\d{8}")
_NAMED_AFTER_CLASS = re.compile(r"(n\d{8})_\d+\.[A-Za-z]+")


class Picture(NamedTuple):
    """Where one picture's bytes are."""

    name: str  # of its file, without folders
    wnid: str  # its class
    path: str  # of the file that holds it
    offset: int  # bytes before it in that file
    length: int
    record: bool = False  # the bytes are a tf.train.Example of TensorFlow Datasets


@dataclass(frozen=True)
class Collection:
    """The pictures of a data set, before they are dealt to shards."""

    layout: str
    classes: tuple[str, ...]  # WordNet ids or folder names, sorted; a label is a place in it
    splits: dict[str, list[Picture]]
    names: dict[str, str] = field(default_factory=dict)  # class to words, where known
    ignored: tuple[str, ...] = ()  # files that are no pictures by their name


def is_picture(name: str) -> bool:
    """Returns whether a file is a picture by its name, and not hidden."""
    return name.lower().endswith((".jpeg", ".jpg", ".png")) and not name.startswith(".")


def check_class_of(picture: Picture, place: str | Path) -> Picture:
    """Holds a name such as n01440764_10026.JPEG against the class it was found in; returns it.

    A label that is off by one class trains without any error, so where both are said they must
    agree. Other names say nothing and pass.
    """
    match = _NAMED_AFTER_CLASS.fullmatch(picture.name)
    if match and match[1] != picture.wnid and WNID.fullmatch(picture.wnid):
        raise InputError(
            f"the picture {picture.name} is named after class {match[1]} and lies in "
            f"{picture.wnid}. Received: {place}. One of the two is wrong: put it where it belongs"
        )
    return picture


def rank_classes(found: Iterable[str], place: str | Path) -> tuple[str, ...]:
    """Returns the classes sorted, of which there must be two; a class's rank is its label."""
    classes = tuple(sorted(found))
    if strange := [name for name in classes if not _is_utf8(name)]:
        raise InputError(
            f"the name of a class must be UTF-8. Received: {place}, with {ascii(strange[0])}. "
            "Rename it: it goes into every record"
        )
    if len(classes) < 2:
        raise InputError(
            f"the training pictures must be of two classes or more. Received: {place}, with "
            f"{', '.join(classes) or 'no class'}"
        )
    return classes


def name_bytes(name: str) -> bytes:
    """Returns the bytes of a file's name, which need not be UTF-8: the same on every machine."""
    return name.encode("utf-8", "surrogateescape")


def _is_utf8(name: str) -> bool:
    """Whether the bytes of a file's name are; Python keeps those that are not as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
