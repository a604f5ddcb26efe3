"""Where measurements go: a folder of JSON, arrays, figures and a page, and TensorBoard."""

import base64
import html
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_largebatch.diagnostics.measurements import Measurement
from tf_largebatch.run_folder import write_json, write_text

PAGE = "report.html"


def write(measurements: Sequence[Measurement], folder: Path, *, step: int, facts: dict) -> None:
    """Writes `<name>.json`, `.npz` and `.png` of each, whole or not at all, and TensorBoard events.

    The page `report.html` has every measurement that the folder holds, older ones too.

    Args:
        measurements: to write; earlier ones of the same name are replaced.
        folder: made where it is missing.
        step: updates of the solution.
        facts: plain data kept with each: images, seed, model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for one in measurements:
        if one.arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **one.arrays)
            _write_bytes(folder / f"{one.name}.npz", buffer.getvalue())
        if one.figure is not None:
            _write_bytes(folder / f"{one.name}.png", one.figure)
        write_json(
            folder / f"{one.name}.json",
            {
                "title": one.title,
                "lines": [list(line) for line in one.lines],
                "measured": one.numbers,
                "facts": facts,
            },
        )
    _write_events(measurements, folder, step)
    write_text(folder / PAGE, _page(folder))


def _write_bytes(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def _write_events(measurements: Sequence[Measurement], folder: Path, step: int) -> None:
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=step):
        for one in measurements:
            for tag, value in one.scalars.items():
                tf.summary.scalar(tag, value)
            if one.figure is not None:
                tf.summary.image(one.name, tf.io.decode_png(one.figure)[tf.newaxis])
    writer.close()


def _page(folder: Path) -> str:
    parts = []
    for path in sorted(folder.glob("*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        rows = [*kept["lines"], *kept["facts"].items()]
        cells = "".join(
            f"<tr><th>{html.escape(str(a))}</th><td>{html.escape(str(b))}</td></tr>"
            for a, b in rows
        )
        picture = path.with_suffix(".png")
        figure = ""
        if picture.exists():
            data = base64.b64encode(picture.read_bytes()).decode()
            figure = f'<img alt="{html.escape(kept["title"])}" src="data:image/png;base64,{data}">'
        parts.append(f"<h2>{html.escape(kept['title'])}</h2><table>{cells}</table>{figure}")
    style = (
        "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "th{text-align:left;padding-right:1em;font-weight:600}img{max-width:100%}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Diagnostics</title>'
        f"<style>{style}</style><h1>Diagnostics</h1>{''.join(parts)}</html>\n"
    )
