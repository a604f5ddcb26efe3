"""The IDX files of the MNIST family, plain or compressed.

An IDX file is 0, 0, type (8 is uint8), rank, then rank big-endian sizes, then the values
(Y. LeCun, "The MNIST database of handwritten digits").
"""

import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tf_largebatch.records.errors import InputError

_OPENERS: dict[str, Callable[..., Any]] = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def read_idx(path: Path) -> np.ndarray:
    """Returns the array of one IDX file, plain, .gz or .xz; InputError unless it is a whole one."""
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


def find_idx(folder: Path, stem: str) -> Path:
    """Returns the file `stem` of `folder`, plain, .gz or .xz; InputError where there is none."""
    for suffix in _OPENERS:
        if (folder / (stem + suffix)).is_file():
            return folder / (stem + suffix)
    raise InputError(
        f"the data folder has no {stem} (plain, .gz or .xz). Received: {folder}. Pass a folder "
        f"with the four IDX files"
    )
