"""The IDX files of the MNIST family, plain or compressed, and the source made of four of them.

An IDX file is 0, 0, type (8 is uint8), rank, then rank big-endian sizes, then the values
(Y. LeCun, "The MNIST database of handwritten digits").
"""

from __future__ import annotations

import gzip
import lzma
import os
import zlib
from pathlib import Path

import numpy as np

from tf_largebatch.data import augment, downloads
from tf_largebatch.data.arrays import ArraySource, pixel_statistics
from tf_largebatch.records.errors import InputError

_OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open}
_PARTS = ("train", "t10k")


def load_mnist_like(
    name: str, folder: str | os.PathLike | None, *, shift: int, flip: bool
) -> ArraySource:
    """Returns the source of four IDX files, or of `keras.datasets.<name>` without a folder.

    Args:
        name: "mnist" or "fashion_mnist".
        folder: holds {train,t10k}-images-idx3-ubyte and -labels-idx1-ubyte, plain, .gz or .xz.
        shift: training images move by up to this many pixels along each axis; 0 to 27.
        flip: training images are mirrored with probability 1/2.

    Raises:
        InputError: files missing or damaged, an argument out of range, or no network.
    """
    if not isinstance(shift, int) or not 0 <= shift < 28:
        raise InputError(f"`shift` must be 0 to 27. Received: shift={shift!r}")
    if folder is None:
        train, test = downloads.fetch(name)
    else:
        train, test = (_read_part(Path(folder), part) for part in _PARTS)
    mean, std = pixel_statistics(train[0][..., np.newaxis])
    return ArraySource(
        name,
        classes=10,
        train=(train[0][..., np.newaxis], train[1]),
        evaluation=(test[0][..., np.newaxis], test[1]),
        pixel_mean=mean,
        pixel_std=std,
        augment=augment.shift_and_flip(shift, flip=flip),
        augmentation=augment.describe_shift_and_flip(shift, flip=flip),
    )


def read_idx(path: Path) -> np.ndarray:
    """Returns the array of one IDX file of uint8 values; .gz and .xz are decompressed.

    Raises:
        InputError: the file cannot be read, is damaged, or is no IDX file of uint8.
    """
    try:
        with _OPENERS[path.suffix if path.suffix in _OPENERS else ""](path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"the file {path} cannot be read: {error}. Copy it again") from error
    rank = content[3] if len(content) > 3 else 0
    header = 4 + 4 * rank
    if content[:3] != b"\x00\x00\x08" or not rank or len(content) < header:
        raise InputError(
            f"the file {path} must be an IDX file of uint8. Received: first bytes "
            f"{content[:4].hex() or 'none'}. Copy it again"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", rank, 4))
    values = np.frombuffer(content, np.uint8, offset=header)
    if len(values) != np.prod(shape):
        raise InputError(
            f"the file {path} is cut short or too long: {len(values):,} values for sizes {shape}. "
            f"Copy it again"
        )
    return values.reshape(shape)


def _read_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    return tuple(
        read_idx(_find(folder, f"{part}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1")
    )


def _find(folder: Path, stem: str) -> Path:
    for suffix in _OPENERS:
        if (folder / (stem + suffix)).is_file():
            return folder / (stem + suffix)
    raise InputError(
        f"the data folder has no {stem} (plain, .gz or .xz). Received: {folder}. Pass a folder "
        f"with the four IDX files"
    )
