"""One shard: read its pictures, look at each, write the records. Runs in a worker process."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tf_largebatch.data.prepare.collection import Picture
from tf_largebatch.data.prepare.options import Options
from tf_largebatch.data.prepare.pictures import PictureError, read_header
from tf_largebatch.data.prepare.reencode import decode, is_wanted, reencode
from tf_largebatch.data.prepare.tfds import read_record
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import DRAFT, read_json, write_text
from tf_largebatch.records.quiet import import_tensorflow


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What to write where.

    Attributes:
        name: of the file.
        split: "train" or "validation".
        pictures: in order.
        synsets: the class of each picture.
        folder: where it is written.
        final: where it may already have been moved.
        options: the user's.
    """

    name: str
    split: str
    pictures: tuple[Picture, ...]
    synsets: tuple[str, ...]
    folder: Path
    final: Path
    options: Options


def make_shard(shard: Shard) -> tuple[dict, bool]:
    """Writes a shard unless it is there already.

    The file gets its name when it is whole and on disk, and its entry after that, so an entry
    always speaks of a complete file.

    Returns:
        Its entry (name, split, records, bytes, sha256, counts of odd pictures, skipped names,
        whether all were decoded), and whether it was kept from before.

    Raises:
        InputError: a picture is broken, a file of pictures has changed, or the disk is full.
    """
    entry = _find(shard)
    if entry is not None:
        return entry, True
    # Written record by record and hashed on the disk: too large for `write_bytes`.
    draft = shard.folder / f"{shard.name}.{os.getpid()}{DRAFT}"
    tf = import_tensorflow()
    try:
        found = _write(draft, shard)
        size, checksum = _finish(draft)
        os.replace(draft, shard.folder / shard.name)
        entry = {"name": shard.name, "split": shard.split, "bytes": size, "sha256": checksum}
        entry |= found | {"decoded": shard.options.check_decode}
        # ASCII: names of pictures need not be valid UTF-8.
        write_text(entry_path(shard.folder, shard.name), json.dumps(entry))
    except (tf.errors.OpError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(
            f"the shard {shard.folder / shard.name} cannot be written: {reason}. Make room or pass "
            f"another --out; what is finished stays"
        ) from error
    return entry, False


def entry_path(folder: Path, name: str) -> Path:
    """Returns where the entry of a finished shard is."""
    return folder / f"{name}.json"


def sha256_of(path: Path) -> str:
    """Returns the file's SHA-256, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find(shard: Shard) -> dict | None:
    """Returns the entry of a shard that is whole and unchanged; None where it must be written."""
    try:
        entry = read_json(entry_path(shard.folder, shard.name))
    except (OSError, ValueError):
        return None
    places = (shard.folder / shard.name, shard.final / shard.name)
    path = next((place for place in places if place.is_file()), None)
    if path is None or path.stat().st_size != entry["bytes"]:
        return None
    if not _is_checked(entry, shard.options):
        return None
    return entry if sha256_of(path) == entry["sha256"] else None


def _is_checked(entry: dict, options: Options) -> bool:
    """Returns whether a finished shard is what these options would make of broken pictures."""
    if entry["skipped"]:
        return options.skip_broken and entry["decoded"] == options.check_decode
    return entry["decoded"] or not options.check_decode


def _write(draft: Path, shard: Shard) -> dict:
    """Writes the records; returns counts of what was found."""
    tf = import_tensorflow()
    odd: Counter[str] = Counter()
    skipped = []
    with _Files() as files, tf.io.TFRecordWriter(os.fspath(draft)) as writer:
        for picture, synset in zip(shard.pictures, shard.synsets, strict=True):
            try:
                encoded, header, seen = _look_at(files.read(picture), shard.options)
            except PictureError as error:
                if not shard.options.skip_broken:
                    raise InputError(
                        f"the picture {picture.name} of class {synset} {error}. Received: byte "
                        f"{picture.offset:,} of {picture.path}. Restore it, or leave such pictures "
                        f"out with --skip-broken"
                    ) from error
                skipped.append(f"{synset}/{picture.name}")
                continue
            odd.update(seen)
            writer.write(_record(encoded, header, picture, synset))
    records = len(shard.pictures) - len(skipped)
    if not records:
        raise InputError(
            f"the shard {shard.name} would be empty: all its pictures are broken, such as "
            f"{skipped[0]}. Use fewer shards or restore the pictures"
        )
    return {"records": records, "odd": dict(sorted(odd.items())), "skipped": skipped}


def _look_at(encoded: bytes, options: Options):
    """Returns the bytes to store, their header, and what is odd about the picture as it came."""
    header = read_header(encoded)
    seen = list(header.oddities())
    if is_wanted(header, options):
        encoded, header = reencode(encoded, header, options)
        seen.append("reencoded")
    elif options.check_decode:
        decode(encoded, header)
    return encoded, header, seen


def _record(encoded: bytes, header, picture: Picture, synset: str) -> bytes:
    tf = import_tensorflow()

    def text(value: bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def number(value: int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    features = {
        "image/encoded": text(encoded),
        "image/class/label": number(picture.label + 1),  # 1 to 1000: 0 was once the background
        "image/class/synset": text(synset.encode()),
        "image/filename": text(picture.name.encode()),
        "image/height": number(header.height),
        "image/width": number(header.width),
        "image/format": text(header.format.encode()),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # The features are a map, whose order in the bytes is open unless asked for.
    return example.SerializeToString(deterministic=True)


class _Files:
    """Reads pictures; the file of the last one stays open, as a tar holds them all."""

    def __init__(self):
        self._path, self._file = None, None

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self._close()

    def read(self, picture: Picture) -> bytes:
        if picture.record:
            return _read_tfrecord(picture)
        try:
            if picture.path != self._path:
                self._close()
                self._file, self._path = open(picture.path, "rb", buffering=0), picture.path
            encoded = os.pread(self._file.fileno(), picture.length, picture.offset)
        except OSError as error:
            raise InputError(f"{picture.path} cannot be read: {error.strerror}") from error
        if len(encoded) != picture.length:
            raise InputError(
                f"{picture.path} has changed: {picture.name} has no longer {picture.length:,} bytes"
            )
        return encoded

    def _close(self):
        if self._file is not None:
            self._file.close()
        self._file, self._path = None, None


def _read_tfrecord(picture: Picture) -> bytes:
    """Returns the picture within a record, whose checksum is verified."""
    tf = import_tensorflow()
    from tf_largebatch.data.shards import FOOTER_BYTES, HEADER_BYTES

    place = f"the record at byte {picture.offset:,} of {picture.path}"
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[picture.path],
        compression_type="",
        buffer_size=picture.length + HEADER_BYTES + FOOTER_BYTES,
        byte_offsets=[picture.offset],
    )
    spec = tf.TensorSpec([], tf.string)
    try:
        records = tf.data.experimental.from_variant(variant, spec)
        payload = records.take(1).get_single_element().numpy()
    except tf.errors.OpError as error:
        raise PictureError("is in a damaged record") from error
    return read_record(payload, place)[0]


def _finish(draft: Path) -> tuple[int, str]:
    """Brings the file to the disk; returns its bytes and SHA-256."""
    with open(draft, "rb") as file:
        os.fsync(file.fileno())
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), checksum
