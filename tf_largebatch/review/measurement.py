"""What an instrument found, and where that goes: JSON, arrays, figures and TensorBoard."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_largebatch.records.files import write_bytes, write_json


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one instrument found.

    Attributes:
        name: of its files.
        title: one line.
        lines: (label, text) of the table.
        numbers: plain data.
        arrays: what the figure was drawn from.
        figure: PNG.
        scalars: for TensorBoard, by tag.
    """

    name: str
    title: str
    lines: tuple[tuple[str, str], ...]
    numbers: dict
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    figure: bytes | None = None
    scalars: dict[str, float] = field(default_factory=dict)


def write_measurements(
    measurements: Sequence[Measurement],
    folder: Path,
    *,
    step: int,
    facts: dict,
    events: bool = True,
) -> None:
    """Writes `<name>.json`, `.npz` and `.png` of each, whole or not at all, and TensorBoard events.

    Args:
        measurements: to write; earlier ones of the same name are replaced.
        folder: made where it is missing.
        step: updates of the solution.
        facts: plain data kept with each: images, seed, model.
        events: whether TensorBoard shall have them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for one in measurements:
        if one.arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **one.arrays)
            write_bytes(folder / f"{one.name}.npz", buffer.getvalue())
        if one.figure is not None:
            write_bytes(folder / f"{one.name}.png", one.figure)
        write_json(
            folder / f"{one.name}.json",
            {
                "title": one.title,
                "lines": [list(line) for line in one.lines],
                "measured": one.numbers,
                "facts": facts,
            },
        )
    if events:
        _write_events(measurements, folder, step)


def _write_events(measurements: Sequence[Measurement], folder: Path, step: int) -> None:
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=step):
        for one in measurements:
            for tag, value in one.scalars.items():
                tf.summary.scalar(tag, value)
            if one.figure is not None:
                tf.summary.image(one.name, tf.io.decode_png(one.figure)[tf.newaxis])
    writer.close()
