"""What a run found, in the form the papers report it: records, the result rule, and their JSON.

The rule is Goyal et al.'s (arXiv:1706.02677 §5.1): the error of a run is the *median* validation
error of its last five epochs; a row of a table is the mean and the deviation over runs that differ
only in their seed. A run that stops at an accuracy (MLPerf) has the error of its last evaluation,
and what it took to get there.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tf_largebatch.records.checks import check
from tf_largebatch.records.contrast import Contrast
from tf_largebatch.records.curve import EpochRecord, Reached, StopSpec, first_reached

SCHEMA = 1
# How departures begin that come from the data themselves, not from a change of a number.
OF_DATA = ("data ", "training images ", "classes ")


def on_own_data(departures: Iterable[str]) -> bool:
    """Whether the departures say that the images are not those of the published runs."""
    return any(change.startswith(OF_DATA) for change in departures)


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One training run."""

    seed: int  # of weights, order and augmentation
    folder: str  # of the run, relative to the result file
    epochs: tuple[EpochRecord, ...]
    wall_seconds: float  # of the process that finished the run, evaluation and compilation included
    diverged_at: int | None = None  # the update at which the loss stopped being finite
    stops: bool = False  # at an accuracy: the last evaluation counts, not the last five

    @property
    def top1_error_pct(self) -> float | None:
        """Median validation error of the last five epochs; None for a run that diverged."""
        if self.diverged_at is not None or not self.epochs:
            return None
        last = self.epochs[-1:] if self.stops else self.epochs[-5:]
        return statistics.median(e.validation_error_pct for e in last)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SeedResult":
        """Reads the fields back; what is derived is left to follow again.

        `run` and `model` say of which run a file of its own is, and what it exported; whoever opens
        it for that run compares them.
        """
        beside = ("top1_error_pct", "reached", "epochs", "run", "model")
        plain = {k: v for k, v in data.items() if k not in beside}
        return cls(**plain, epochs=tuple(EpochRecord(**epoch) for epoch in data["epochs"]))


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One row of a table: one recipe, several seeds."""

    label: str  # for example "linear, warmup"
    shows: str = ""  # what the row is there to show, in a few words
    recipe: dict[str, Any]  # resolved
    global_batch: int
    peak_rate: float
    updates: int  # of the whole run
    published_error_pct: float | None = None  # for the corresponding row, at the paper's own scale
    published_std_pct: float | None = None
    # Top-1 accuracy whose first time is told, and what the published runs took to it.
    target_pct: float | None = None
    published_reached: Reached | None = None
    runs: tuple[SeedResult, ...] = ()  # one a seed

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "RowResult":
        """Reads the fields back; derived means and deviations are left to follow again."""
        derived = ("mean_error_pct", "std_error_pct", "runs")
        plain = {k: v for k, v in data.items() if k not in derived}
        if (took := plain.get("published_reached")) is not None:
            plain["published_reached"] = Reached(**took)
        return cls(**plain, runs=tuple(SeedResult.from_json(run) for run in data["runs"]))

    @property
    def stop(self) -> StopSpec | None:
        """Where its runs end before their schedule does; None where they never do."""
        fields = self.recipe.get("stop")
        return StopSpec(**fields) if fields else None

    def reached(self, run: SeedResult) -> Reached | None:
        """What one of its runs took to the target; None where it never had it, or there is none."""
        if self.target_pct is None:
            return None
        stop = self.stop
        if stop is not None and stop.target_pct != self.target_pct:
            stop = None  # asked for another accuracy: every evaluation counts
        return first_reached(run.epochs, self.target_pct, self.recipe["epochs"], stop)

    @property
    def median_reached(self) -> Reached | None:
        """The median run's, the later of two; None where that one never had the target."""
        took = [self.reached(run) for run in self.runs]
        there = sorted((r for r in took if r is not None), key=lambda r: r.updates)
        middle = len(took) // 2  # those that never had it come last
        return there[middle] if middle < len(there) else None

    @property
    def errors_pct(self) -> tuple[float, ...]:
        """The errors of the runs that finished."""
        errors = (run.top1_error_pct for run in self.runs)
        return tuple(e for e in errors if e is not None and math.isfinite(e))

    @property
    def mean_error_pct(self) -> float | None:
        """Mean over the seeds that finished, or None."""
        return statistics.fmean(self.errors_pct) if self.errors_pct else None

    @property
    def std_error_pct(self) -> float | None:
        """Sample deviation (n - 1) over the seeds that finished, None below two."""
        return statistics.stdev(self.errors_pct) if len(self.errors_pct) > 1 else None

    @property
    def diverged(self) -> int:
        """How many seeds diverged."""
        return sum(r.diverged_at is not None for r in self.runs)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the rows of a miniature showed of one claim."""

    contrast: Contrast
    differences: tuple[float, ...]  # points of error, one for each seed that both rows have
    mean: float | None = None  # of them; None without any
    low: float | None = None  # 95 % interval of the mean; None below two
    high: float | None = None
    verdict: str  # agrees, contradicts or cannot tell
    stated_before: bool  # whether the claim was, before these rows were run

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Found":
        """Reads the fields back."""
        own = {"contrast": Contrast(**data["contrast"]), "differences": tuple(data["differences"])}
        return cls(**data | own)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `result.json` holds: one or several rows run by one command."""

    recipe: str  # name of the module
    title: str  # its first line
    paper: str
    scale: str  # "full", "miniature" or "smoke"
    departures: tuple[str, ...] = ()  # from the published set-up, in words
    notes: tuple[str, ...] = ()  # deviations that are always there
    environment: dict[str, Any] = field(default_factory=dict)  # versions, hardware, commit
    rows: tuple[RowResult, ...] = ()  # in the order they were run
    claims: tuple[Found, ...] = ()  # of a miniature without departures
    wall_seconds: float = 0.0  # of the whole command

    @property
    def modified(self) -> bool:
        """Whether the run counts as a departure and never as a reproduction."""
        return bool(self.departures)

    @property
    def own_data(self) -> bool:
        """Whether its images are not those of the published runs."""
        return on_own_data(self.departures)

    @property
    def diverged(self) -> bool:
        """Whether no run's loss stayed finite."""
        return all(run.diverged_at is not None for row in self.rows for run in row.runs)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data: the fields, and per row the numbers that follow from them."""
        data = {"schema": SCHEMA, **dataclasses.asdict(self)}
        for row, plain in zip(self.rows, data["rows"], strict=True):
            plain["mean_error_pct"] = row.mean_error_pct
            plain["std_error_pct"] = row.std_error_pct
            for run, plain_run in zip(row.runs, plain["runs"], strict=True):
                plain_run["top1_error_pct"] = run.top1_error_pct
                took = row.reached(run)
                plain_run["reached"] = took and dataclasses.asdict(took)
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Result":
        """Reads what `to_json` wrote.

        Raises:
            ValueError: another schema, or fields that do not belong.
        """
        schema, fix = data.get("schema"), "The result was written by another version."
        check(schema == SCHEMA, "schema", str(SCHEMA), schema, fix)
        plain = {k: v for k, v in data.items() if k != "schema"}
        plain["rows"] = (RowResult.from_json(row) for row in data["rows"])
        plain["claims"] = (Found.from_json(claim) for claim in data.get("claims", ()))
        parts = ("departures", "notes", "rows", "claims")
        return cls(**plain | {k: tuple(plain[k]) for k in parts})
