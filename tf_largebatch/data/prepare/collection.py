"""What every layout is read into: pictures by place and label. Standard library only."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tf_largebatch.records.errors import InputError

SPLITS = ("train", "validation")
WNID = re.compile(r"n\d{8}")
_NAMED_AFTER_CLASS = re.compile(r"(n\d{8})_\d+\.[A-Za-z]+")
_SUFFIXES = (".jpeg", ".jpg", ".png")


class Picture(NamedTuple):
    """Where one picture's bytes are.

    Attributes:
        name: its file name, without folders.
        label: rank of its class among the sorted class names, from 0.
        path: the file that holds it.
        offset: bytes before it in that file.
        length: its bytes.
        record: whether the bytes are a tf.train.Example of TensorFlow Datasets, not the picture.
    """

    name: str
    label: int
    path: str
    offset: int
    length: int
    record: bool = False


@dataclass(frozen=True)
class Collection:
    """The pictures of a data set, before they are dealt to shards.

    Attributes:
        layout: "tars", "imagefolder", "kaggle" or "tfds".
        classes: WordNet ids (or folder names), sorted; a label is a place in it.
        splits: "train" and "validation" to their pictures.
        names: class to words for people, where known.
        ignored: files that are no pictures by their name.
    """

    layout: str
    classes: tuple[str, ...]
    splits: dict[str, list[Picture]]
    names: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def is_picture(name: str) -> bool:
    """Returns whether a file is a picture by its name: .JPEG, .jpg or .png, not hidden."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")


def check_class_of(name: str, wnid: str, place: str | Path) -> None:
    """Holds a name such as n01440764_10026.JPEG against the class it was found in.

    A label that is off by one class trains without any error, so where both are said they must
    agree. Other names say nothing and pass.

    Raises:
        InputError: they differ.
    """
    match = _NAMED_AFTER_CLASS.fullmatch(name)
    if match and match[1] != wnid and WNID.fullmatch(wnid):
        raise InputError(
            f"the picture {name} is named after class {match[1]} and lies in {wnid}. Received: "
            f"{place}. One of the two is wrong: put it where it belongs"
        )


def rank_classes(found, place: str | Path) -> tuple[str, ...]:
    """Returns the classes sorted; a class's rank is its label.

    Raises:
        InputError: fewer than two.
    """
    classes = tuple(sorted(found))
    if len(classes) < 2:
        raise InputError(
            f"the training pictures must be of two classes or more. Received: {place}, with "
            f"{', '.join(classes) or 'no class'}"
        )
    return classes
