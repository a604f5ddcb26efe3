"""Pictures in class folders, read as they lie: train/<class>/ and val/<class>/ (or validation/)."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_largebatch.data.collection import (
    Collection,
    check_filled,
    folders_in,
    read_held_out,
    read_train,
)
from tf_largebatch.data.shards import is_shard
from tf_largebatch.records.errors import InputError


@dataclass(frozen=True)
class PictureFiles:
    """The pictures of one split: class after class, each by name."""

    paths: tuple[str, ...]
    labels: np.ndarray  # int32 [pictures], the rank of the class among the training classes
    lengths: np.ndarray  # int64 [pictures], bytes

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class PictureTree:
    """Both splits, how many classes, and how many files are no pictures by their name."""

    splits: dict[str, PictureFiles]
    classes: int
    ignored: int


def is_tree(folder: str | os.PathLike) -> bool:
    """Whether a local folder has class folders of training pictures, and no shards beside them."""
    root = Path(folder)
    train = root / "train"
    if "://" in os.fspath(folder) or not train.is_dir():
        return False
    if any(is_shard(path.name) for place in (root, train) for path in place.iterdir()):
        return False
    return bool(folders_in(train))


def open_tree(folder: str | os.PathLike) -> PictureTree:
    """Lists the pictures; a label is the place of its class's name among those of training.

    InputError: no val or validation folder, no class folders in it or others than in training, a
    class without training pictures, fewer than two classes.
    """
    root = Path(folder)
    ignored: list[str] = []
    train, classes, held_out = read_train(root, ignored, lambda _: None)
    if not folders_in(held_out):
        raise InputError(
            f"the validation pictures must lie in class folders. Received: {held_out}, without "
            f"one. Sort them, or label them: python -m tf_largebatch prepare {root} --out DIR "
            "--expect any"
        )
    found = {
        "train": train,
        "validation": read_held_out(held_out, classes, ignored, lambda _: None),
    }
    check_filled(Collection("imagefolder", classes, found), root)
    ranks = {name: rank for rank, name in enumerate(classes)}
    splits = {
        split: PictureFiles(
            paths=tuple(picture.path for picture in pictures),
            labels=np.array([ranks[picture.wnid] for picture in pictures], np.int32),
            lengths=np.array([picture.length for picture in pictures], np.int64),
        )
        for split, pictures in found.items()
    }
    return PictureTree(splits, len(ranks), len(ignored))


def make_locator(files: PictureFiles):
    """Returns a function from pictures int64 [n] to their paths and labels."""
    with tf.device("CPU:0"):
        paths, labels = tf.constant(files.paths), tf.constant(files.labels)

    def locate(pictures):
        return tf.gather(paths, pictures), tf.gather(labels, pictures)

    return locate
