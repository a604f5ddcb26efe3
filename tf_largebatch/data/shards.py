"""TFRecord shards: which there are, whether all are there, and where each record starts.

A record is its length (8 bytes, little endian), a checksum of the length (4), the payload, and a
checksum of the payload (4). Checksums are masked CRC-32C. The index reads the lengths alone, never
a payload, so it costs one small read per record; a file cut short is found to the byte.

Folders may be local or of any file system that `tf.io.gfile` knows. Where the walk takes long
(`tf_largebatch.data.shard_index`), its result is kept for the next time.
"""

import json
import os
import re
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from tf_largebatch.data.shard_index import load_lengths, save_lengths
from tf_largebatch.records.errors import InputError

HEADER_BYTES = 12
FOOTER_BYTES = 4
NOTES = "dataset.json"  # of `prepare`, beside its shards
# A class a line, from the first label on; `prepare` and TensorFlow Datasets write one each.
LABELS = ("labels.txt", "label.labels.txt")
SPLITS = ("train", "validation")
# One family is train-00000-of-01024, the other imagenet2012-train.tfrecord-00000-of-01024.
_SHARD_NAME = re.compile(
    r"(?P<prefix>(?:.+-)?)(?P<split>train|validation)(?:\.tfrecord)?"
    r"-(?P<number>\d+)-of-(?P<total>\d+)(?:\.tfrecord)?"
)
# A class's folder of pictures, and the archives that ImageNet is handed out in.
_PICTURES = re.compile(r"n\d{8}/?|ILSVRC2012_\w+\.tar")
_READERS = 16
# A walk that takes longer is kept, so that the next start takes less.
_SLOW_WALK_SECONDS = 2.0
_CHECK_EVERY = 4096
_AGAIN = "Copy or prepare it again"
_WANTED = (
    "TFRecord shards named train-00000-of-01024 and validation-00000-of-00128, or "
    "imagenet2012-train.tfrecord-00000-of-01024 and so on"
)


@dataclass(frozen=True)
class ShardIndex:
    """Where the records of one split are, in the order of their shards."""

    paths: tuple[str, ...]
    shards: np.ndarray  # int32 [records], the place of each record's file in `paths`
    offsets: np.ndarray  # int64 [records], the byte where each record starts in its file
    lengths: np.ndarray  # int64 [records], bytes of each payload

    def __len__(self) -> int:
        return len(self.offsets)

    def place(self, record: int) -> str:
        """Returns "record 17 of <file>", counted from 0 within its file."""
        shard = self.shards[record]
        first = int(np.searchsorted(self.shards, shard))
        return f"record {record - first} of {self.paths[shard]}"

    def payload(self, record: int) -> bytes:
        """Returns the bytes of one record, unchecked."""
        with tf.io.gfile.GFile(self.paths[self.shards[record]], "rb") as file:
            file.seek(int(self.offsets[record]) + HEADER_BYTES)
            return file.read(int(self.lengths[record]))


def find_shards(folder: str | os.PathLike) -> dict[str, tuple[str, ...]]:
    """Returns the files of the training and the validation split, each complete and in order.

    Looks in `folder` and in its `train` and `validation` subfolders. InputError: no folder, no
    shards, shards missing from the numbering, or two sets of shards.
    """
    root = os.fspath(folder)
    try:
        names = _list_folder(root)
        inner = {split: _list_folder(_join(root, split)) for split in SPLITS if split in names}
    except (tf.errors.OpError, OSError) as error:
        raise InputError(
            f"the data folder {root} cannot be read: {_reason(error)}. Pass one that can"
        ) from error
    places = [(root, names), *((_join(root, split), inner[split]) for split in inner)]
    found: dict[str, dict] = {split: {} for split in SPLITS}
    for place, files in places:
        for name in files:
            if match := _SHARD_NAME.fullmatch(name):
                key = (place, match["prefix"], int(match["total"]))
                found[match["split"]].setdefault(key, {})[int(match["number"])] = _join(place, name)
    if not any(found.values()):
        held, remedy = _contents(root, names, inner.get("train", []))
        raise InputError(
            f"the data folder has no shards. Received: {root}, which holds {held}. {remedy}"
        )
    return {split: _complete(root, split, sets) for split, sets in found.items()}


def is_shard(name: str) -> bool:
    """Whether a file is a shard of either family by its name."""
    return _SHARD_NAME.fullmatch(name) is not None


def count_classes(folder: str | os.PathLike) -> int | None:
    """Returns how many classes a folder of shards says that it has; None where it says nothing.

    `prepare` notes them; of other tools' shards a file of `LABELS` beside them is read.
    """
    root = os.fspath(folder)
    classes = _read_notes(root).get("classes")
    if isinstance(classes, int) and classes >= 2:
        return classes
    for name in LABELS:
        try:
            with tf.io.gfile.GFile(_join(root, name)) as file:
                lines = [line for line in file.read().splitlines() if line.strip()]
        except (tf.errors.OpError, OSError, ValueError):
            continue
        count = sum(not line.startswith("#") for line in lines)
        if count >= 2:
            return count
        raise InputError(
            f"{_join(root, name)} must have a line for each of at least 2 classes. Received: "
            f"{count}. Complete it, or remove it where the classes are ImageNet's"
        )
    return None


def index_shards(paths: tuple[str | os.PathLike, ...]) -> ShardIndex:
    """Returns the place of every record; InputError names the file and byte that is damaged."""
    names = tuple(os.fspath(path) for path in paths)
    started = time.monotonic()
    with ThreadPoolExecutor(_READERS) as pool:
        sizes = list(pool.map(_size, names))
        _check_noted(names, sizes)
        lengths = load_lengths(names, sizes)
        if lengths is None:
            lengths = list(pool.map(_record_lengths, names, sizes))
            if time.monotonic() - started > _SLOW_WALK_SECONDS:
                save_lengths(names, lengths)
    frames = [each + (HEADER_BYTES + FOOTER_BYTES) for each in lengths]
    return ShardIndex(
        paths=names,
        shards=np.repeat(np.arange(len(names), dtype=np.int32), [len(each) for each in lengths]),
        offsets=np.concatenate([np.cumsum(each) - each for each in frames]),
        lengths=np.concatenate(lengths),
    )


def masked_crc32c(words: np.ndarray) -> np.ndarray:
    """Returns the masked CRC-32C of each row of bytes: uint8 [n, width] to uint32 [n].

    CRC-32C is the Castagnoli polynomial (RFC 3720, appendix B.4); the mask is TFRecord's, a
    rotation by 15 bits plus 0xA282EAD8.
    """
    table = _crc_table()
    crc = np.full(len(words), 0xFFFFFFFF, np.uint32)
    for column in words.T:
        crc = table[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
    crc ^= np.uint32(0xFFFFFFFF)
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


@lru_cache(maxsize=1)
def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


def _size(path: str) -> int:
    try:
        size = tf.io.gfile.stat(path).length
    except (tf.errors.OpError, OSError) as error:
        raise InputError(f"the shard {path} cannot be read: {_reason(error)}") from error
    if size == 0:
        raise InputError(f"the shard {path} is empty (0 bytes). {_AGAIN}")
    return size


def _check_noted(paths: tuple[str, ...], sizes: list[int]) -> None:
    """Holds the sizes against those that `prepare` noted: a cut between two records is not seen.

    Folders of other tools have no such note.
    """
    noted: dict[str, dict[str, int]] = {}
    for path, size in zip(paths, sizes, strict=True):
        folder, _, name = path.rpartition("/")
        if folder not in noted:
            noted[folder] = _read_noted(folder)
        if noted[folder].get(name, size) != size:
            raise InputError(
                f"the shard {path} must have the {noted[folder][name]:,} bytes that {NOTES} says. "
                f"Received: {size:,} bytes. {_AGAIN}"
            )


def _read_noted(folder: str) -> dict[str, int]:
    try:
        splits = _read_notes(folder)["splits"]
        return {row["name"]: row["bytes"] for split in splits.values() for row in split["shards"]}
    except (KeyError, TypeError, AttributeError):
        return {}


def _read_notes(folder: str) -> dict[str, Any]:
    try:
        with tf.io.gfile.GFile(_join(folder, NOTES)) as file:
            notes = json.loads(file.read())
    except (tf.errors.OpError, OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _record_lengths(path: str, size: int) -> np.ndarray:
    """Walks one file's headers; returns the payload lengths, int64."""
    try:
        if "://" not in path:
            with open(path, "rb", buffering=0) as file:
                return _walk(path, lambda at: os.pread(file.fileno(), HEADER_BYTES, at), size)
        with tf.io.gfile.GFile(path, "rb") as file:

            def header(at):
                file.seek(at)
                return file.read(HEADER_BYTES)

            return _walk(path, header, size)
    except (tf.errors.OpError, OSError) as error:
        raise InputError(f"the shard {path} cannot be read: {_reason(error)}") from error


def _walk(path: str, header: Callable[[int], bytes], size: int) -> np.ndarray:
    """Goes from length to length; `header` returns the bytes of the one at an offset."""
    offsets, headers, checked, end = [], [], 0, 0
    while end + HEADER_BYTES <= size:
        offsets.append(end)
        headers.append(header(end))
        end += struct.unpack_from("<Q", headers[-1])[0] + HEADER_BYTES + FOOTER_BYTES
        # A wrong length sends the walk astray, so the checksums decide before the end does.
        if len(headers) - checked == _CHECK_EVERY or end + HEADER_BYTES > size:
            _check_lengths(path, offsets[checked:], headers[checked:], first=checked)
            checked = len(headers)
    if end != size:
        start = offsets[-1] if end > size else end
        record = len(offsets) - 1 if end > size else len(offsets)
        raise InputError(
            f"the shard {path} is cut short: record {record} starts at byte {start:,} and the file "
            f"ends within it, at byte {size:,}. {_AGAIN}"
        )
    lengths = np.frombuffer(b"".join(headers), [("length", "<i8"), ("crc", "<u4")])["length"]
    return lengths.astype(np.int64)


def _check_lengths(path: str, offsets: list[int], headers: list[bytes], *, first: int) -> None:
    """Raises InputError where a length does not have its checksum."""
    rows = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, HEADER_BYTES)
    stored = np.ascontiguousarray(rows[:, 8:]).view("<u4")[:, 0]
    wrong = np.flatnonzero(masked_crc32c(rows[:, :8]) != stored)
    if len(wrong) and first + wrong[0] == 0:
        raise InputError(
            f"the file {path} is not a TFRecord file, or a compressed one. Received: first bytes "
            f"{headers[0].hex()}. Pass a folder with {_WANTED}, not compressed"
        )
    if len(wrong):
        raise InputError(
            f"the shard {path} is damaged at byte {offsets[wrong[0]]:,}: the length of record "
            f"{first + wrong[0]} does not have its checksum. {_AGAIN}"
        )


def _complete(root: str, split: str, sets: dict) -> tuple[str, ...]:
    """Returns the shards of one split in order; InputError unless there is one complete set."""
    if not sets:
        raise InputError(
            f"the data folder has no {split} shards. Received: {root}. Both splits are needed: "
            f"{_WANTED}"
        )
    if len(sets) > 1:
        names = [next(iter(shards.values())) for shards in sets.values()]
        raise InputError(
            f"the data folder has two sets of {split} shards. Received: {names[0]} and {names[1]}. "
            f"Keep one"
        )
    ((_, _, total), shards) = next(iter(sets.items()))
    missing = [number for number in range(total) if number not in shards]
    if missing:
        raise InputError(
            f"{len(missing)} of {total} {split} shards are missing. Received: {root}, without "
            f"number {missing[0]:05d}. Copy or prepare them again"
        )
    if len(shards) > total:
        extra = shards[max(shards)]
        raise InputError(
            f"a {split} shard has a number above its total. Received: {extra}. Remove it"
        )
    return tuple(shards[number] for number in range(total))


def _contents(root: str, names: list[str], inner: list[str]) -> tuple[str, str]:
    """What is there in the place of shards, and what to do."""
    remedy = f"Pass a folder with {_WANTED}; or of pictures in train/<class>/ and val/<class>/"
    if not names:
        return "nothing", remedy
    known = sorted(name for name in inner + names if _PICTURES.fullmatch(name))
    train = _join(root, "train")
    classes = known or [name for name in inner if tf.io.gfile.isdir(_join(train, name))]
    if classes:
        any_set = "" if known else " --expect any"
        remedy = f"Make them: python -m tf_largebatch prepare {root} --out DIR{any_set}"
        return f"the pictures themselves ({classes[0]} ...), not records made of them", remedy
    shown = [name + "/" * tf.io.gfile.isdir(_join(root, name)) for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else ""), remedy


def _list_folder(root: str) -> list[str]:
    """Returns the sorted names in a folder, without trailing slashes."""
    if not tf.io.gfile.isdir(root):
        what = "is not a folder" if tf.io.gfile.exists(root) else "does not exist"
        raise InputError(f"the data folder {what}. Received: {root}. Pass a folder with {_WANTED}")
    return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(root))


def _join(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}" if "://" in root else os.path.join(root, name)


def _reason(error: Exception) -> str:
    words = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    return " ".join(words.split())[:300]
