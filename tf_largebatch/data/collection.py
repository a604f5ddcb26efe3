"""Pictures by place and class: what every layout is read into, and class folders themselves.

Standard library only.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
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


def read_train(
    root: Path, ignored: list[str], note: Callable[[str], None]
) -> tuple[list[Picture], tuple[str, ...], Path]:
    """The training pictures of a tree of class folders, its classes, and its validation folder.

    `ignored` gets the files that are no pictures by their name; `note` is told what is going on.
    """
    held_out = [root / name for name in ("val", "validation") if (root / name).is_dir()]
    if not (root / "train").is_dir() or len(held_out) != 1:
        raise InputError(
            f"an ImageFolder tree must have train/ and one of val/ and validation/. Received: "
            f"{root}, with {', '.join(folders_in(root)) or 'no folder'}"
        )
    train = _read_classes(root / "train", ignored, note)
    return train, rank_classes(folders_in(root / "train"), root / "train"), held_out[0]


def read_held_out(
    folder: Path, classes: Iterable[str], ignored: list[str], note: Callable[[str], None]
) -> list[Picture]:
    """The validation pictures of a folder of class folders, all of known classes."""
    if strange := sorted(set(folders_in(folder)) - set(classes)):
        raise InputError(
            f"the validation classes must be among the training classes. Received: "
            f"{folder}, with {strange[0]}"
        )
    return _read_classes(folder, ignored, note)


def check_filled(collection: Collection, folder: Path) -> None:
    """Refuses a split or a training class without pictures."""
    for split, pictures in collection.splits.items():
        rule = f"the source must have {split} pictures"
        if not pictures:
            raise InputError(f"{rule}. Received: {folder}, with none")
    # An empty class, or one listed twice, would still count as a label and shift all that follow.
    empty = Counter(collection.classes) - Counter({p.wnid for p in collection.splits["train"]})
    if empty:
        raise InputError(
            f"every class must have training pictures. Received: {folder}, with none in "
            f"{min(empty)}. Remove the class or restore its pictures"
        )


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in one, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def pictures_in(folder: Path, wnid: str, ignored: list[str]) -> list[Picture]:
    """Returns the pictures of one folder by name; notes the other files as ignored."""
    found = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_file() and is_picture(entry.name):
                found.append(Picture(entry.name, wnid, entry.path, 0, entry.stat().st_size))
            elif not entry.is_dir():  # links that lead nowhere, pipes and sockets too
                ignored.append(entry.path)
    return found


def _read_classes(folder: Path, ignored: list[str], note: Callable[[str], None]) -> list[Picture]:
    found = []
    for number, wnid in enumerate(folders_in(folder)):
        if number % 50 == 0:
            note(f"listing {folder}, {wnid}")
        place = folder / wnid
        found += [check_class_of(picture, place) for picture in pictures_in(place, wnid, ignored)]
    return found


def _is_utf8(name: str) -> bool:
    """Whether the bytes of a file's name are; Python keeps those that are not as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
