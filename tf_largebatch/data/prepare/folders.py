"""Trees of picture files: an ImageFolder tree, and what Kaggle's archive unpacks to.

    ImageFolder   train/<class>/*.JPEG, val/<class>/*.JPEG or val/*.JPEG with a label file
    Kaggle        ILSVRC/Data/CLS-LOC/{train/<class>, val}/*.JPEG, LOC_val_solution.csv

Standard library only.
"""

from collections.abc import Callable
from pathlib import Path

from tf_largebatch.data.collection import (
    Collection,
    folders_in,
    pictures_in,
    read_held_out,
    read_train,
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
    ignored: list[str] = []
    train, classes, held_out = read_train(root, ignored, note)
    names = read_kaggle_names(folder)
    validation, inner = pictures_in(held_out, "", ignored), folders_in(held_out)
    if validation and inner:
        raise InputError(
            f"validation pictures must lie in class folders or beside each other, not both. "
            f"Received: {held_out}, with {validation[0].name} and {inner[0]}/"
        )
    if validation:
        validation, words = label_validation(folder, labels, validation, classes)
        names = words | names
    else:
        if labels is not None:
            rule = "--val-labels must be left out where validation has class folders"
            raise InputError(f"{rule}. Received: {labels}, beside {held_out}")
        validation = read_held_out(held_out, classes, ignored, note)
    splits = {"train": train, "validation": validation}
    return Collection(layout, classes, splits, names, tuple(ignored))
