"""What instruments find on a run: JSON, arrays, figures and TensorBoard events in its folder.

Reading them back for a report needs the standard library only.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tf_largebatch.records.files import read_json, write_bytes, write_csv, write_json

FOLDER = "diagnostics"  # of a run: <name>.json, .npz and .png of each instrument


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one instrument found on one run; numbers, arrays and scalars are not read back."""

    name: str  # of its files
    title: str
    lines: tuple[tuple[str, str], ...]  # (label, text) of its table
    facts: tuple[tuple[str, str], ...] = ()  # what it was measured on; known when it is read back
    numbers: dict = field(default_factory=dict)
    arrays: dict = field(default_factory=dict)  # what the figure was drawn from, by name
    scalars: dict[str, float] = field(default_factory=dict)  # for TensorBoard, by tag
    figure: bytes | None = None  # PNG


def write_findings(
    findings: Sequence[Finding], folder: Path, *, step: int, facts: Mapping, events: bool = True
) -> None:
    """Writes `<name>.json`, `.npz` and `.png` of each, whole or not at all, and TensorBoard events.

    Earlier ones of the same name are replaced. `facts` are plain data kept with each: images,
    seed, model; `step` is the number of updates before the solution.
    """
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    for one in findings:
        if one.arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **one.arrays)
            write_bytes(folder / f"{one.name}.npz", buffer.getvalue())
        if one.figure is not None:
            write_bytes(folder / f"{one.name}.png", one.figure)
        kept = {"title": one.title, "lines": one.lines, "measured": one.numbers, "facts": facts}
        write_json(folder / f"{one.name}.json", kept)
    if not events:
        return
    import tensorflow as tf

    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=step):
        for one in findings:
            for tag, value in one.scalars.items():
                tf.summary.scalar(tag, value)
            if one.figure is not None:
                tf.summary.image(one.name, tf.io.decode_png(one.figure)[tf.newaxis])
    writer.close()


def read_findings(run: Path) -> list[Finding]:
    """Returns what instruments left in a run's folder; one that is damaged says so."""
    return [_read(path) for path in sorted((run / FOLDER).glob("*.json"))]


def write_findings_csv(found: Sequence[tuple[str, Sequence[Finding]]], path: Path) -> None:
    """Writes one line per line of the instruments' tables, of each (run, its findings)."""
    every = [(run, one) for run, findings in found for one in findings]
    lines = [(run, one.name, *line) for run, one in every for line in one.lines]
    write_csv(path, ("run", "instrument", "quantity", "found"), lines)


def _read(path: Path) -> Finding:
    picture = path.with_suffix(".png")
    try:
        kept = read_json(path)
        return Finding(
            name=path.stem,
            title=str(kept["title"]),
            lines=tuple((str(label), str(text)) for label, text in kept["lines"]),
            facts=tuple((label, _text(value)) for label, value in kept["facts"].items()),
            figure=picture.read_bytes() if picture.exists() else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        problem = (("cannot be read", f"{path.name} is damaged: measure it again"),)
        return Finding(name=path.stem, title=path.stem, lines=problem)


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
