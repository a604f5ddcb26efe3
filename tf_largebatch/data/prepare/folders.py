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
from tf_largebatch.data.prepare.labels import (
    KAGGLE_NAMES,
    find_validation_labels,
    read_kaggle_names,
)
from tf_largebatch.records.errors import InputError

VALIDATION_FOLDERS = ("val", "validation")
_KAGGLE_PLACES = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")


def kaggle_folder(folder: Path) -> Path | None:
    """Returns the folder of Kaggle's train and val below `folder`; None where there is none."""
    places = (folder / place for place in _KAGGLE_PLACES)
    return next((place for place in places if (place / "train").is_dir()), None)


def open_folders(
    folder: Path, labels: Path | None, note: Callable[[str], None], *, layout: str = "imagefolder"
) -> Collection:
    """Returns the pictures of a tree.

    Args:
        folder: holds train and val, or for "kaggle" the tree that does.
        labels: of flat validation pictures; None to look for them in `folder`.
        note: told what is going on, in a few words.
        layout: "imagefolder" or "kaggle".

    Raises:
        InputError: a folder is missing or empty, or flat validation pictures have no labels.
    """
    root = kaggle_folder(folder) if layout == "kaggle" else folder
    if root is None:
        raise InputError(
            f"Kaggle's layout must have {_KAGGLE_PLACES[0]}/train. Received: {folder}. Pass the "
            f"folder that the archive was unpacked in"
        )
    held_out = [root / name for name in VALIDATION_FOLDERS if (root / name).is_dir()]
    if not (root / "train").is_dir() or len(held_out) != 1:
        raise InputError(
            f"an ImageFolder tree must have train/ and one of val/ and validation/. Received: "
            f"{root}, with {', '.join(_folders(root)) or 'no folder'}"
        )
    ignored: list[str] = []
    found = _read_classes(root / "train", ignored, note)
    classes = rank_classes(found, root / "train")
    ranks = {wnid: rank for rank, wnid in enumerate(classes)}
    names = read_kaggle_names(folder / KAGGLE_NAMES)
    flat = _pictures(held_out[0], ignored)
    if flat and _folders(held_out[0]):
        raise InputError(
            f"validation pictures must lie in class folders or beside each other, not both. "
            f"Received: {held_out[0]}, with {flat[0].name} and {_folders(held_out[0])[0]}/"
        )
    if flat:
        known = find_validation_labels(folder, labels, sorted(p.name for p in flat), classes)
        validation = [picture._replace(label=ranks[known.wnids[picture.name]]) for picture in flat]
        names = {**known.names, **names}
    else:
        validation = _validation_classes(held_out[0], ranks, ignored, note)
    train = [
        picture._replace(label=ranks[wnid])
        for wnid, pictures in found.items()
        for picture in pictures
    ]
    return Collection(
        layout, classes, {"train": train, "validation": validation}, names, tuple(ignored)
    )


def _validation_classes(folder: Path, ranks, ignored, note) -> list[Picture]:
    found = _read_classes(folder, ignored, note)
    strange = sorted(set(found) - set(ranks))
    if strange:
        raise InputError(
            f"the validation classes must be among the training classes. Received: {folder}, with "
            f"{strange[0]}"
        )
    return [
        picture._replace(label=ranks[wnid])
        for wnid, pictures in found.items()
        for picture in pictures
    ]


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _read_classes(folder: Path, ignored: list[str], note) -> dict[str, list[Picture]]:
    found = {}
    for number, wnid in enumerate(_folders(folder)):
        if number % 50 == 0:
            note(f"listing {folder}, {wnid}")
        found[wnid] = _pictures(folder / wnid, ignored)
        for picture in found[wnid]:
            check_class_of(picture.name, wnid, folder / wnid)
    return found


def _pictures(folder: Path, ignored: list[str]) -> list[Picture]:
    """Returns the pictures of one folder, without label; notes the other files as ignored."""
    found = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if not entry.is_file():
                continue
            if is_picture(entry.name):
                found.append(Picture(entry.name, -1, entry.path, 0, entry.stat().st_size))
            else:
                ignored.append(entry.path)
    return found
