"""The lengths of all records of a set of shards, kept between runs.

A restart at full size should not read 1.3 million headers again. The file lies beside the shards,
or in the user's cache folder where that place cannot be written; where neither can, the next start
walks the shards again. It holds the shards' names and the lengths of their records; it counts only
if the names are the same and every shard's records fill its file to the byte. A record that moved
all the same is not taken for another: each record has checksums of its own.
"""

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf

# Of one record besides its payload: the length and two checksums.
_FRAME_BYTES = 16
_FAILURES = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, tf.errors.OpError)


def load_lengths(paths: tuple[str, ...], sizes: list[int]) -> list[np.ndarray] | None:
    """Returns each shard's payload lengths, int64; None where no kept file fits paths and bytes."""
    for place in index_places(paths):
        try:
            if not tf.io.gfile.exists(place):
                continue
            with tf.io.gfile.GFile(place, "rb") as file:
                kept = np.load(io.BytesIO(file.read()), allow_pickle=False)
            names, counts, lengths = kept["names"], kept["counts"], kept["lengths"]
            lengths = np.split(lengths.astype(np.int64), np.cumsum(counts)[:-1])
        except _FAILURES:
            continue
        filled = [int(each.sum()) + _FRAME_BYTES * len(each) for each in lengths]
        if names.tolist() == _names(paths) and filled == list(sizes):
            return lengths
    return None


def save_lengths(paths: tuple[str, ...], lengths: list[np.ndarray]) -> str | None:
    """Keeps the payload lengths of each shard; returns where, or None where nothing is writable."""
    content = io.BytesIO()
    np.savez(
        content,
        names=np.array(_names(paths)),
        counts=np.array([len(each) for each in lengths], np.int64),
        lengths=np.concatenate(lengths).astype(np.int64),
    )
    for place in index_places(paths):
        draft = f"{place}.{os.getpid()}.tmp"
        try:
            tf.io.gfile.makedirs(os.path.dirname(place))
            with tf.io.gfile.GFile(draft, "wb") as file:
                file.write(content.getvalue())
            # Workers that start together may all do this; each file is whole.
            tf.io.gfile.rename(draft, place, overwrite=True)
            return place
        except _FAILURES:
            continue
    return None


def index_places(paths: tuple[str, ...]) -> tuple[str, str]:
    """Returns where the lengths of these shards are kept: beside the first, or in the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256("\n".join(paths).encode()).hexdigest()[:32]
    return f"{paths[0]}.index.npz", str(cache / "tf_largebatch" / f"shards-{digest}.npz")


def _names(paths: tuple[str, ...]) -> list[str]:
    return [path.replace("\\", "/").rsplit("/", 1)[-1] for path in paths]
