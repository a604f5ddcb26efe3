"""Small files that are there whole or not at all, and plain data in them."""

import csv
import errno
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DRAFT = ".part"  # the end of a name whose content is not whole
# What writing says where there is no room for it, or no leave.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
CHECKSUM = "checksum"  # in a sealed record, of all the rest


def write_bytes(path: Path, data: bytes | memoryview, *, sync: bool = False) -> None:
    """Writes the file whole or not at all: to a neighbour, then renamed.

    A neighbour that is there is removed first: what it links to is left alone. With `sync` the file
    is on the disk before the rename, so that a power cut leaves no empty one.
    """
    draft = path.with_name(path.name + DRAFT)
    draft.unlink(missing_ok=True)
    try:
        with draft.open("xb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Writes text in UTF-8 as `write_bytes` does."""
    write_bytes(path, text.encode(), sync=sync)


def write_json(path: Path, data: object) -> None:
    """Writes plain data as indented JSON, whole or not at all."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Returns the plain data of a file; ValueError where it is not JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """Writes plain data with a checksum of its own, by which `read_sealed` knows that it is so."""
    write_json(path, {**data, CHECKSUM: fingerprint(data)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Returns the data of `write_sealed`; ValueError where it is none, or another than was written.

    Data without a checksum are of the versions before there was one.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no record")
    checksum = data.pop(CHECKSUM, None)
    if checksum not in (None, fingerprint(data)):
        raise ValueError(f"{path} was changed after it was written")
    return data


def fingerprint(data: object) -> str:
    """Returns 16 hexadecimal digits of plain data, equal where the data is."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def digest(path: Path) -> str | None:
    """Returns the SHA-256 of a file; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table with every digit, whole or not at all.

    What is None or a number that is not finite becomes an empty field.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_field(value) for value in row] for row in rows)
    write_text(path, out.getvalue())


def _field(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
