"""The tables and sentences of a comparison of runs, and its CSV files. Standard library only."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from tf_largebatch.records.files import write_csv as write_rows
from tf_largebatch.records.result import EpochRecord
from tf_largebatch.review.comparison import Entry
from tf_largebatch.review.tables import (
    MISSING,
    error_text,
    is_finite,
    number_text,
    seeds_text,
    spread_text,
    verdict,
)

HEADER = (
    "run",
    "scale",
    "batch",
    "peak\nrate",
    "updates",
    "error %",
    "seeds",
    "published\nerror %",
    "departures",
)


def table(entries: Sequence[Entry]) -> list[list[str]]:
    """Returns one line of text cells per entry, under `HEADER`."""
    return [
        [
            entry.label,
            entry.result.scale,
            f"{entry.row.global_batch:,}",
            number_text(entry.row.peak_rate, ".4g"),
            f"{entry.row.updates:,}",
            error_text(entry.row),
            seeds_text(entry.row),
            _published(entry),
            str(len(entry.result.departures)) if entry.result.modified else "none",
        ]
        for entry in entries
    ]


def say(entries: Sequence[Entry]) -> list[str]:
    """Returns what the comparison says: full runs beside the paper, and all beside the first."""
    lines = [
        f"{entry.label}: {line}"
        for entry in entries
        if entry.result.scale == "full"
        for line in verdict(entry.result)[:1]
    ]
    return lines + [_difference(entry, entries[0]) for entry in entries[1:]]


def departures(entries: Sequence[Entry]) -> list[tuple[str, tuple[str, ...]]]:
    """Returns (labels of the entries that have them, departures), those without left out."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for entry in entries:
        if entry.result.modified:
            groups.setdefault(entry.result.departures, []).append(entry.label)
    return [(" · ".join(labels), changes) for changes, labels in groups.items()]


def write_csv(entries: Sequence[Entry], path: Path) -> None:
    """Writes the table with every digit; a missing number is an empty field."""
    names = (
        "run,recipe,scale,global_batch,peak_rate,updates,seeds,diverged,mean_error_pct,"
        "std_error_pct,published_error_pct,published_std_pct,departures,folders"
    )
    lines = []
    for entry in entries:
        row = entry.row
        numbers = (row.mean_error_pct, row.std_error_pct)
        numbers += (row.published_error_pct, row.published_std_pct)
        lines.append(
            (
                *(entry.label, entry.result.recipe, entry.result.scale, row.global_batch),
                *(row.peak_rate, row.updates, len(row.runs), row.diverged),
                *numbers,
                "; ".join(entry.result.departures),
                "; ".join(map(str, entry.folders)),
            )
        )
    write_rows(path, names.split(","), lines)


def write_epochs_csv(entries: Sequence[Entry], path: Path) -> None:
    """Writes every epoch of every run: what the curves are drawn from."""
    names = [field.name for field in dataclasses.fields(EpochRecord)]
    lines = [
        (entry.label, run.seed, *(getattr(epoch, name) for name in names))
        for entry in entries
        for run in entry.row.runs
        for epoch in run.epochs
    ]
    write_rows(path, ["run", "seed", *names], lines)


def _published(entry: Entry) -> str:
    """The paper's error; beside a miniature, in parentheses: it is another experiment's."""
    text = spread_text(entry.row.published_error_pct, entry.row.published_std_pct)
    if entry.result.scale == "smoke" or text == MISSING:
        return MISSING
    return text if entry.result.scale == "full" else f"({text})"


def _difference(entry: Entry, first: Entry) -> str:
    """How far an entry's error is from the first one's, with its standard error where known."""
    start = f"{entry.label} against {first.label}: "
    if (entry.data, entry.result.scale) != (first.data, first.result.scale):
        return start + "other data or another scale, their errors cannot be set side by side"
    ours, theirs = entry.row, first.row
    for one, row in ((entry, ours), (first, theirs)):
        if not is_finite(row.mean_error_pct):
            return start + f"{one.label} has no result ({seeds_text(row)})"
    difference = ours.mean_error_pct - theirs.mean_error_pct
    text = f"{start}{difference:+.2f} points of error"
    if ours.std_error_pct is None or theirs.std_error_pct is None:
        return text + ", one seed: no deviation known"
    error = math.sqrt(sum(r.std_error_pct**2 / len(r.errors_pct) for r in (ours, theirs)))
    text += f", standard error {error:.2f}"
    lost = " over the seeds that did not diverge" * bool(ours.diverged or theirs.diverged)
    return text + lost
