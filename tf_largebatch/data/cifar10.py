"""CIFAR-10 (Krizhevsky, 2009, "Learning multiple layers of features from tiny images").

50,000 training and 10,000 test pictures, 32 x 32, colour, 10 classes.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_largebatch.data import augment, downloads
from tf_largebatch.data.arrays import ArraySource, pixel_statistics
from tf_largebatch.records.errors import InputError

CLASSES = 10
_BATCHES = {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}
_PIXELS = 32 * 32 * 3


def load(
    folder: str | os.PathLike | None = None, *, shift: int = 4, flip: bool = True
) -> ArraySource:
    """Returns CIFAR-10, uint8 [32, 32, 3].

    Training pictures are padded by `shift` zeros and cropped at random, and mirrored with
    probability 1/2: the customary augmentation (He et al. 2016, arXiv:1512.03385, section 4.2).

    Args:
        folder: of the authors' Python pickles (`data_batch_1` to 5 and `test_batch`, or the
            `cifar-10-batches-py` folder that holds them), or of lossless WebP strips
            (`train_*.webp`, `test_*.webp`, pictures one under another, and `labels.npz` with
            train_labels and test_labels); None asks `keras.datasets`.
        shift: pixels of padding, 0 to 31.
        flip: mirror half of the pictures.

    Raises:
        InputError: files missing or damaged, an argument out of range, or no network.
    """
    if not isinstance(shift, int) or not 0 <= shift < 32:
        raise InputError(f"`shift` must be 0 to 31. Received: shift={shift!r}")
    train, test = downloads.fetch("cifar10") if folder is None else _read_folder(Path(folder))
    mean, std = pixel_statistics(train[0])
    return ArraySource(
        "cifar10",
        classes=CLASSES,
        train=train,
        evaluation=test,
        pixel_mean=mean,
        pixel_std=std,
        augment=augment.shift_and_flip(shift, flip=flip),
        augmentation=augment.describe_shift_and_flip(shift, flip=flip),
    )


def _read_folder(folder: Path):
    for place in (folder, folder / "cifar-10-batches-py"):
        if (place / "test_batch").is_file():
            return tuple(_read_pickles(place, _BATCHES[split]) for split in ("train", "test"))
    if (folder / "labels.npz").is_file():
        return tuple(_read_strips(folder, split) for split in ("train", "test"))
    raise InputError(
        f"the data folder must hold CIFAR-10. Received: {folder}, with neither test_batch nor "
        f"labels.npz. Pass the authors' cifar-10-batches-py or a folder of WebP strips"
    )


def _read_strips(folder: Path, split: str):
    paths = sorted(str(path) for path in folder.glob(f"{split}_*.webp"))
    try:
        with np.load(folder / "labels.npz") as stored:
            labels = stored[f"{split}_labels"]
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise InputError(
            f"the file {folder / 'labels.npz'} has no readable {split}_labels: {error}"
        ) from error

    def decode(path):
        return tf.io.decode_webp(tf.io.read_file(path), channels=3)

    strips = []
    try:
        for strip in tf.data.Dataset.from_tensor_slices(paths or [""]).map(decode, 4):
            strips.append(strip.numpy().reshape(-1, 32, 32, 3))
    except (tf.errors.OpError, ValueError) as error:
        path = paths[len(strips)] if paths else folder / f"{split}_000.webp"
        raise InputError(
            f"the strip {path} is missing or is not 32-pixel-wide WebP. Copy it again"
        ) from error
    images = np.concatenate(strips)
    if len(images) != len(labels):
        raise InputError(
            f"the {split} strips and labels must be one to one. Received: {len(images):,} pictures "
            f"and {len(labels):,} labels in {folder}. Copy the missing strips"
        )
    return images, labels


def _read_pickles(folder: Path, names: tuple[str, ...]):
    images, labels = [], []
    for name in names:
        path = folder / name
        try:
            with open(path, "rb") as file:
                content = _ArrayUnpickler(file, encoding="bytes").load()
            pixels = np.asarray(content[b"data"]).reshape(-1, _PIXELS)
            images.append(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            labels.append(np.asarray(content[b"labels"]))
        except (
            OSError,
            EOFError,
            pickle.UnpicklingError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            raise InputError(
                f"the file {path} is not a batch of CIFAR-10: {error}. Copy it again"
            ) from error
    return np.concatenate(images), np.concatenate(labels)


class _ArrayUnpickler(pickle.Unpickler):
    """Loads NumPy arrays and plain containers, and refuses anything that could run code."""

    def find_class(self, module, name):
        if name == "_reconstruct" and module.endswith("multiarray"):
            return np.zeros(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")
