"""Which layout a folder has, and its pictures."""

from collections.abc import Callable
from pathlib import Path

from tf_largebatch.data.collection import Collection, check_filled
from tf_largebatch.data.prepare import folders, tars, tfds
from tf_largebatch.records.errors import InputError

LAYOUTS = ("tars", "imagefolder", "kaggle", "tfds")
_FORMS = (
    f"{tars.TRAIN_TAR} and {tars.VALIDATION_TAR}; train/<class>/ and val/; ILSVRC/Data/CLS-LOC/ "
    "of Kaggle; or imagenet2012-train.tfrecord-* of TensorFlow Datasets"
)


def recognise(folder: Path) -> str:
    """Returns the one layout of `folder`, of `LAYOUTS`."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"SOURCE {what}. Received: {folder}. Pass the folder that holds {_FORMS}")
    train = folder / "train"
    marks = {
        "tars": any((folder / name).is_file() for name in (tars.TRAIN_TAR, tars.VALIDATION_TAR)),
        "imagefolder": train.is_dir() and any(path.is_dir() for path in train.iterdir()),
        "kaggle": folders.kaggle_folder(folder) is not None,
        "tfds": any(tfds.SHARD.fullmatch(path.name) for path in folder.iterdir()),
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
    """Returns the pictures of `folder`; `note` is told what is going on, in a few words.

    `labels` are of validation pictures that lie in no class folders; None to look for them.
    """
    if layout == "tars":
        collection = tars.open_tars(folder, labels, note)
    elif layout == "tfds":
        collection = tfds.open_tfds(folder, note)
    else:
        collection = folders.open_folders(folder, labels, note, layout)
    check_filled(collection, folder)
    return collection
