"""Small files that are there whole or not at all, and plain data in them."""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DRAFT = ".part"  # the end of a name whose content is not whole


def write_bytes(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Writes the file whole or not at all: to a neighbour, then renamed.

    With `sync` it is on the disk before the rename, so that a power cut leaves no empty file.
    """
    draft = path.with_name(path.name + DRAFT)
    with draft.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(draft, path)


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Writes text in UTF-8 as `write_bytes` does."""
    write_bytes(path, text.encode(), sync=sync)


def write_json(path: Path, data: object) -> None:
    """Writes plain data as indented JSON, whole or not at all."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Returns the plain data of a file; ValueError where it is not JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


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
