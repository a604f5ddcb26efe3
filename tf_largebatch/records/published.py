"""The papers' result tables as data: one record a row, each with its source and how sure it is.

The rows stand in `published.json` beside this file. Standard library only.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tf_largebatch.records.curve import Reached

CONFIDENCES = ("paper: text", "paper: abstract", "paper: digest", "code", "slides", "memory")


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """One published number.

    Attributes:
        id: unique, `<first author><year>-<row>`.
        system: who.
        title: of the paper or benchmark.
        arxiv: number, or the submission's place.
        year: of publication.
        model: network.
        dataset: as it is named there.
        global_batch: images per update; text where it changes during training.
        hardware: as stated.
        software: as stated.
        optimizer: as stated, with the constants that are given.
        updates: weight changes of the whole run.
        epochs: passes over the data.
        time: wall time as stated.
        value: the result, in units of `metric`; None where the run diverged or none is given.
        std: its deviation over runs; a sample's (n - 1) where `notes` lists them.
        metric: what `value` is.
        source: table, figure, abstract or result log.
        confidence: how it came here, one of `CONFIDENCES`: "paper: ..." was read there, "code" in a
            public implementation or log, "slides" on survey slides; "memory" is quoted from it.
        notes: anything else.
    """

    id: str
    system: str
    title: str
    arxiv: str
    year: int
    model: str | None
    dataset: str
    global_batch: int | str | None
    hardware: str | None
    software: str | None
    optimizer: str | None
    updates: int | None
    epochs: float | None
    time: str | None
    value: float | None
    std: float | None
    metric: str
    source: str
    confidence: str
    notes: str

    def __post_init__(self) -> None:
        # Some rows are losses or batch sizes; only percentages have a range.
        if self.value is not None and "%" in self.metric and not 0 <= self.value <= 100:
            raise ValueError(f"`value` must be in 0..100. Received: value={self.value} ({self.id})")
        if not self.source or self.confidence not in CONFIDENCES:
            raise ValueError(
                f"`source` must be given and `confidence` one of {', '.join(CONFIDENCES)}. "
                f"Received: source={self.source!r}, confidence={self.confidence!r} ({self.id})"
            )

    @property
    def reached(self) -> Reached | None:
        """What the run took, where epochs, updates and time are all known."""
        hours = {"h": 1.0, "min": 1 / 60, "s": 1 / 3600}
        time = re.match(r"([\d.]+) (h|min|s)\b", self.time or "")
        if time is None or self.epochs is None or self.updates is None:
            return None
        took = float(time[1]) * hours[time[2]]
        return Reached(epochs=self.epochs, updates=self.updates, hours=took)

    @property
    def error_pct(self) -> float | None:
        """100 - value for an accuracy in percent, rounded to the digits of the tables."""
        if self.value is None or "accuracy %" not in self.metric:
            return None
        return round(100 - self.value, 3)


def match(paper: str, batches: Sequence[int], error_pct: float | None) -> PublishedResult | None:
    """Returns a row of a paper with this batch and error, one with a time if there is one.

    Args:
        paper: text that contains the arXiv number, or begins the benchmark's name, as
            `Recipe.paper`.
        batches: images per update, of each phase of the training.
        error_pct: top-1 error in percent, equal where the table's digits are; None for a row
            without a result.
    """
    batch = "->".join(map(str, batches))
    found = [
        row
        for row in load().values()
        if _is_of(row, paper)
        and str(row.global_batch) == batch
        and _equal(row, error_pct)
        and (row.hardware or row.time)
    ]
    return min(found, key=lambda row: not row.time, default=None)


def _is_of(row: PublishedResult, paper: str) -> bool:
    return row.arxiv in paper if row.arxiv else row.title.startswith(paper)


def _equal(row: PublishedResult, error_pct: float | None) -> bool:
    if row.error_pct is None or error_pct is None:
        return row.error_pct is error_pct
    # The benchmark's rows have three digits, and several share a batch.
    return abs(row.error_pct - error_pct) < (0.051 if row.arxiv else 0.0001)


@functools.cache
def load() -> dict[str, PublishedResult]:
    """Returns all rows by id, in the order of the file.

    Raises:
        ValueError: two rows with one id, or a value out of range.
    """
    rows = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    records = {row["id"]: PublishedResult(**row) for row in rows}
    twice = [i for i, number in Counter(row["id"] for row in rows).items() if number > 1]
    if twice:
        raise ValueError(f"`id` must be unique. Received twice: {', '.join(sorted(twice))}")
    return records
