"""Which layout a folder has, and its pictures."""

from collections.abc import Callable
from pathlib import Path

from tf_largebatch.data.prepare import folders, tars, tfds
from tf_largebatch.data.prepare.collection import Collection
from tf_largebatch.records.errors import InputError

LAYOUTS = ("tars", "imagefolder", "kaggle", "tfds")
_FORMS = (
    f"{tars.TRAIN_TAR} and {tars.VALIDATION_TAR}; train/<class>/ and val/; ILSVRC/Data/CLS-LOC/ "
    "of Kaggle; or imagenet2012-train.tfrecord-* of TensorFlow Datasets"
)


def recognise(folder: Path) -> str:
    """Returns the layout of `folder`, one of `LAYOUTS`.

    Raises:
        InputError: no folder, no layout, or more than one.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"SOURCE {what}. Received: {folder}. Pass the folder that holds {_FORMS}")
    marks = {
        "tars": any((folder / name).is_file() for name in (tars.TRAIN_TAR, tars.VALIDATION_TAR)),
        "imagefolder": _has_class_folders(folder),
        "kaggle": folders.kaggle_folder(folder) is not None,
        "tfds": tfds.holds_tfds(folder),
    }
    found = [layout for layout in LAYOUTS if marks[layout]]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"SOURCE has more than one layout: {', '.join(found)}. Received: {folder}. Choose with "
            f"--layout"
        )
    raise InputError(f"SOURCE has no known layout. Received: {folder}. Pass a folder with {_FORMS}")


def open_collection(
    folder: Path, layout: str, labels: Path | None, note: Callable[[str], None]
) -> Collection:
    """Returns the pictures of `folder`.

    Args:
        folder: SOURCE of the command.
        layout: one of `LAYOUTS`.
        labels: of validation pictures that lie in no class folders; None to look for them.
        note: told what is going on, in a few words.

    Raises:
        InputError: see the module of the layout; or a class or a split without pictures.
    """
    if layout == "tars":
        collection = tars.open_tars(folder, labels, note)
    elif layout == "tfds":
        collection = tfds.open_tfds(folder, note)
    else:
        collection = folders.open_folders(folder, labels, note, layout=layout)
    for split, pictures in collection.splits.items():
        if not pictures:
            raise InputError(f"SOURCE must have {split} pictures. Received: {folder}, with none")
    # An empty class would still count as a label and shift all that follow.
    empty = set(range(len(collection.classes))) - {p.label for p in collection.splits["train"]}
    if empty:
        raise InputError(
            f"every class must have training pictures. Received: {folder}, with none in "
            f"{collection.classes[min(empty)]}. Remove the class or restore its pictures"
        )
    return collection


def _has_class_folders(folder: Path) -> bool:
    return (folder / "train").is_dir() and any(p.is_dir() for p in (folder / "train").iterdir())
