"""Trees of picture files: an ImageFolder tree, and what Kaggle's archive unpacks to.

    ImageFolder   train/<class>/*.JPEG, val/<class>/*.JPEG or val/*.JPEG with a label file
    Kaggle        ILSVRC/Data/CLS-LOC/{train/<class>, val}/*.JPEG, LOC_val_solution.csv

Standard library only.
"""

import os
from collections.abc import Callable
from pathlib import Path

from tf_largebatch.data.prepare.collection import (
    Collection,
    Picture,
    check_class_of,
    is_picture,
    rank_classes,
)
from tf_largebatch.data.prepare.labels import label_validation, read_kaggle_names
from tf_largebatch.records.errors import InputError

_KAGGLE_PLACES = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")


def kaggle_folder(folder: Path) -> Path | None:
    """Returns the folder of Kaggle's train and val below `folder`; None where there is none."""
    places = (folder / place for place in _KAGGLE_PLACES)
    return next((place for place in places if (place / "train").is_dir()), None)


def open_folders(
    folder: Path, labels: Path | None, note: Callable[[str], None], layout: str
) -> Collection:
    """Returns the pictures of a tree, "imagefolder" or "kaggle"; else as `open_collection`."""
    root = kaggle_folder(folder) if layout == "kaggle" else folder
    if root is None:
        raise InputError(
            f"Kaggle's layout must have {_KAGGLE_PLACES[0]}/train. Received: {folder}. Pass the "
            f"folder that the archive was unpacked in"
        )
    held_out = [root / name for name in ("val", "validation") if (root / name).is_dir()]
    if not (root / "train").is_dir() or len(held_out) != 1:
        raise InputError(
            f"an ImageFolder tree must have train/ and one of val/ and validation/. Received: "
            f"{root}, with {', '.join(_folders(root)) or 'no folder'}"
        )
    ignored: list[str] = []
    train = _read_classes(root / "train", ignored, note)
    classes = rank_classes(_folders(root / "train"), root / "train")
    names = read_kaggle_names(folder)
    validation, inner = _pictures(held_out[0], "", ignored), _folders(held_out[0])
    if validation and inner:
        raise InputError(
            f"validation pictures must lie in class folders or beside each other, not both. "
            f"Received: {held_out[0]}, with {validation[0].name} and {inner[0]}/"
        )
    if validation:
        validation, words = label_validation(folder, labels, validation, classes)
        names = words | names
    else:
        if labels is not None:
            rule = "--val-labels must be left out where validation has class folders"
            raise InputError(f"{rule}. Received: {labels}, beside {held_out[0]}")
        validation = _read_classes(held_out[0], ignored, note)
        if strange := sorted(set(inner) - set(classes)):
            raise InputError(
                f"the validation classes must be among the training classes. Received: "
                f"{held_out[0]}, with {strange[0]}"
            )
    splits = {"train": train, "validation": validation}
    return Collection(layout, classes, splits, names, tuple(ignored))


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _read_classes(folder: Path, ignored: list[str], note) -> list[Picture]:
    found = []
    for number, wnid in enumerate(_folders(folder)):
        if number % 50 == 0:
            note(f"listing {folder}, {wnid}")
        place = folder / wnid
        found += [check_class_of(picture, place) for picture in _pictures(place, wnid, ignored)]
    return found


def _pictures(folder: Path, wnid: str, ignored: list[str]) -> list[Picture]:
    """Returns the pictures of one folder by name; notes the other files as ignored."""
    found = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_file() and is_picture(entry.name):
                found.append(Picture(entry.name, wnid, entry.path, 0, entry.stat().st_size))
            elif not entry.is_dir():  # links that lead nowhere, pipes and sockets too
                ignored.append(entry.path)
    return found
