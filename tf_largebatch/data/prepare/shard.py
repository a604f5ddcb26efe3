"""One shard: read its pictures, look at each, write the records. Runs in a worker process."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from tf_largebatch.data.collection import Picture, name_bytes
from tf_largebatch.data.prepare.pictures import PictureError, decode, read_header, reencode
from tf_largebatch.data.prepare.tfds import read_record
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import DRAFT, read_json, write_text
from tf_largebatch.records.quiet import import_tensorflow

MOST_SHARDS = 99_999  # their names have five digits
LEAST_SIDE = 16  # pixels
LARGEST = 1 << 28  # bytes of a picture; ImageNet's largest has 15 million
PARTIAL = ".partial"  # the folder below --out where everything is written


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags that decide about the bytes beside the pictures, or how these are checked."""

    train_shards: int = 1024
    validation_shards: int = 128
    max_short_side: int | None = None
    quality: int = 95
    reencode_odd: bool = False
    check_decode: bool = False
    skip_broken: bool = False

    def __post_init__(self):
        side = self.max_short_side
        rules = {
            "train_shards": (1 <= self.train_shards <= MOST_SHARDS, f"1 to {MOST_SHARDS}"),
            "validation_shards": (
                1 <= self.validation_shards <= MOST_SHARDS,
                f"1 to {MOST_SHARDS}",
            ),
            "max_short_side": (side is None or side >= LEAST_SIDE, f"at least {LEAST_SIDE} pixels"),
            "quality": (1 <= self.quality <= 100, "1 to 100"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                value = getattr(self, name)
                raise InputError(f"`{name}` must be {rule}. Received: {name}={value}")


class Shard(NamedTuple):
    """What to write where."""

    name: str
    pictures: tuple[Picture, ...]  # in order
    classes: tuple[str, ...]  # of the data set, sorted
    out: Path  # written below its PARTIAL; may already have been moved to it
    options: Options


def make_shard(shard: Shard) -> tuple[dict, bool]:
    """Writes a shard unless it is there already; returns its entry, and whether it was.

    The file gets its name when it is whole and on disk, and its entry after that, so an entry
    always speaks of a complete file.
    """
    if (entry := _find(shard)) is not None:
        return entry, True
    made = shard.out / PARTIAL / shard.name
    # Written record by record and hashed on the disk: too large for `write_bytes`.
    draft = made.with_name(f"{shard.name}.{os.getpid()}{DRAFT}")
    tf = import_tensorflow()
    try:
        found = _write(draft, shard)
        size, checksum = _finish(draft)
        os.replace(draft, made)
        entry = {"name": shard.name, "bytes": size, "sha256": checksum, **found}
        # ASCII: names of pictures need not be valid UTF-8.
        write_text(made.with_name(f"{shard.name}.json"), json.dumps(entry))
    except (tf.errors.OpError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(
            f"the shard {made} cannot be written: {reason}. Make room or pass another --out; what "
            f"is finished stays"
        ) from error
    return entry, False


def read_if_whole(path: Path) -> Any:
    """Returns the content; None where there is no such file or it is not whole."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None


def _find(shard: Shard) -> dict | None:
    """Returns the entry of a shard that is whole, unchanged, and checked as these options ask."""
    partial, options = shard.out / PARTIAL, shard.options
    entry = read_if_whole(partial / f"{shard.name}.json")
    places = (partial / shard.name, shard.out / shard.name)
    path = next((place for place in places if place.is_file()), None)
    if entry is None or path is None or path.stat().st_size != entry["bytes"]:
        return None
    if entry["skipped"]:
        checked = options.skip_broken and entry["decoded"] == options.check_decode
    else:
        checked = entry["decoded"] or not options.check_decode
    return entry if checked and _finish(path) == (entry["bytes"], entry["sha256"]) else None


def _write(draft: Path, shard: Shard) -> dict:
    """Writes the records; returns counts of what was found."""
    tf = import_tensorflow()
    options, odd, skipped = shard.options, Counter[str](), []
    labels = {wnid: rank + 1 for rank, wnid in enumerate(shard.classes)}  # 0 was once background
    with tf.io.TFRecordWriter(os.fspath(draft)) as writer:
        for picture, stored in zip(shard.pictures, _read(shard.pictures), strict=True):
            try:
                if picture.length > LARGEST:
                    size = f"{picture.length:,} bytes"
                    raise PictureError(f"has {size}, more than the {LARGEST >> 20} MiB of any")
                encoded = _read_tfrecord(picture) if stored is None else stored
                header = read_header(encoded)
                seen = header.oddities()
                short, limit = min(header.width, header.height), options.max_short_side
                too_large = limit is not None and short > limit
                if too_large or (options.reencode_odd and {"cmyk", "png"} & set(seen)):
                    encoded = reencode(encoded, header, limit, options.quality)
                    header = read_header(encoded)
                    seen += ("reencoded",)
                elif options.check_decode:
                    decode(encoded, header)
            except PictureError as error:
                if not options.skip_broken:
                    raise InputError(
                        f"the picture {picture.name} of class {picture.wnid} {error}. Received: "
                        f"byte {picture.offset:,} of {picture.path}. Restore it, or leave such "
                        f"pictures out with --skip-broken"
                    ) from error
                skipped.append(f"{picture.wnid}/{picture.name}")
                continue
            odd.update(seen)
            writer.write(_record(encoded, header, picture, labels[picture.wnid]))
    records = len(shard.pictures) - len(skipped)
    if not records:
        raise InputError(
            f"the shard {shard.name} would be empty: all its pictures are broken, such as "
            f"{skipped[0]}. Use fewer shards or restore the pictures"
        )
    counts = {"records": records, "odd": dict(sorted(odd.items())), "skipped": skipped}
    return counts | {"decoded": options.check_decode}


def _record(encoded: bytes, header, picture: Picture, label: int) -> bytes:
    tf = import_tensorflow()

    def feature(value: bytes | int):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    values = {
        "image/encoded": encoded,
        "image/class/label": label,
        "image/class/synset": picture.wnid.encode(),
        "image/filename": name_bytes(picture.name),
        "image/height": header.height,
        "image/width": header.width,
        "image/format": header.format.encode(),
    }
    features = {key: feature(value) for key, value in values.items()}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # The features are a map, whose order in the bytes is open unless asked for.
    return example.SerializeToString(deterministic=True)


def _read(pictures: tuple[Picture, ...]) -> Iterator[bytes | None]:
    """Yields the bytes of each picture, None of a record; a tar stays open for all of its own."""
    path = ""
    try:
        for path, group in groupby(pictures, key=attrgetter("path")):
            with open(path, "rb", buffering=0) as file:
                for picture in group:
                    if picture.record or picture.length > LARGEST:
                        yield None
                        continue
                    encoded = os.pread(file.fileno(), picture.length, picture.offset)
                    if len(encoded) != picture.length:
                        raise InputError(
                            f"{path} has changed: {picture.name} has no longer "
                            f"{picture.length:,} bytes"
                        )
                    yield encoded
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _read_tfrecord(picture: Picture) -> bytes:
    """Returns the picture within a record, whose checksum is verified."""
    tf = import_tensorflow()
    from tf_largebatch.data.shards import FOOTER_BYTES, HEADER_BYTES

    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[picture.path],
        compression_type="",
        buffer_size=picture.length + HEADER_BYTES + FOOTER_BYTES,
        byte_offsets=[picture.offset],
    )
    try:
        records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
        payload = records.take(1).get_single_element().numpy()
    except tf.errors.OpError as error:
        raise PictureError("is in a damaged record") from error
    return read_record(payload, f"the record at byte {picture.offset:,} of {picture.path}")[0]


def _finish(draft: Path) -> tuple[int, str]:
    """Brings the file to the disk; returns its bytes and SHA-256."""
    with open(draft, "rb") as file:
        os.fsync(file.fileno())
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), checksum
