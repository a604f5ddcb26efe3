"""Several runs side by side: one entry per recipe, seeds together; table, sentences, CSV."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tf_largebatch.records.curve import EpochRecord
from tf_largebatch.records.datasets import DATASETS
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import read_json, read_sealed, write_csv
from tf_largebatch.records.recipe import deciding
from tf_largebatch.records.result import Result, RowResult, SeedResult
from tf_largebatch.records.run_folder import PLAN, RESULT, SEED
from tf_largebatch.review import tables
from tf_largebatch.review.report import find_run, read_plan
from tf_largebatch.review.tables import MISSING, error_text, is_finite, seeds_text, spread_text

HEADER: tuple[str, ...] = ("run", "scale", "batch", "peak\nrate", "updates", "error %", "seeds")
HEADER += ("published\nerror %", "departures")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One recipe's runs."""

    label: str  # its name in the comparison
    result: Result  # of the command that ran it, with this row alone
    plan: dict  # its `plan.json`; without one, what its result says of the recipe
    folders: tuple[Path, ...]  # of its runs

    @property
    def row(self) -> RowResult:
        """The row with all its seeds."""
        return self.result.rows[0]

    @property
    def train_examples(self) -> int:
        """Images of an epoch."""
        there = self.plan.get("batch", {}).get("train_examples")
        return int(there or DATASETS[self.row.recipe["data"]["name"]].train_examples)


def read_entries(folders: Sequence[Path], target_pct: float | None = None) -> list[Entry]:
    """Reads run folders; runs that differ in their seed alone become one entry.

    Each is of a command (all its rows), of one row, or of one run of a table, has ended, and comes
    once. The entries are in that order, with labels that differ. What they took is told to
    `target_pct`; without one to their own, for full runs of earlier versions the paper's.
    """
    entries: list[Entry] = []
    for folder in folders:
        for entry in _read(folder):
            _add(entries, _aim(entry, target_pct))
    return _name_apart(entries)


def _aim(entry: Entry, target_pct: float | None) -> Entry:
    row = entry.row
    own, published = row.target_pct, row.published_error_pct
    if own is None and row.stop is not None:
        own = row.stop.target_pct
    elif own is None and published is not None and entry.result.scale == "full":
        own = None if entry.result.own_data else round(100 - published, 6)
    row = dataclasses.replace(row, target_pct=own if target_pct is None else target_pct)
    return dataclasses.replace(entry, result=dataclasses.replace(entry.result, rows=(row,)))


def table(entries: Sequence[Entry]) -> list[list[str]]:
    """Returns one line of text cells per entry, under `HEADER`."""
    return [
        [
            entry.label,
            entry.result.scale,
            f"{entry.row.global_batch:,}",
            tables.number_text(entry.row.peak_rate, ".4g"),
            f"{entry.row.updates:,}",
            error_text(entry.row),
            seeds_text(entry.row),
            _published(entry),
            str(len(entry.result.departures)) if entry.result.modified else "none",
        ]
        for entry in entries
    ]


def say(entries: Sequence[Entry]) -> list[str]:
    """Returns what the comparison says: full runs beside the paper, and all beside another.

    Rows of one name are set against the first of that name, any other against the first of all.
    """
    lines = [
        f"{entry.label}: {line}"
        for entry in entries
        if entry.result.scale == "full"
        for line in tables.verdict(entry.result)[:1]
    ]
    named: dict[str, Entry] = {}
    for entry in entries:
        reference = named.setdefault(entry.row.label, entry)
        reference = entries[0] if reference is entry else reference
        if reference is not entry:
            lines.append(_difference(entry, reference))
    took = [tables.reached_text(dataclasses.replace(e.row, label=e.label)) for e in entries]
    return lines + [text for text in took if text]


def departures(entries: Sequence[Entry]) -> list[tuple[str, tuple[str, ...]]]:
    """Returns (labels of the entries that have them, departures), those without left out."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for entry in entries:
        if entry.result.modified:
            groups.setdefault(entry.result.departures, []).append(entry.label)
    return [(" · ".join(labels), changes) for changes, labels in groups.items()]


def places(entry: Entry) -> str:
    """Returns where its runs are, the seeds of one row on one line."""
    seeds: dict[Path, list[str]] = {}
    for folder in entry.folders:
        seeds.setdefault(folder.parent, []).append(folder.name)
    return "\n".join(f"{parent}/ {', '.join(names)}" for parent, names in seeds.items())


def write_rows_csv(entries: Sequence[Entry], path: Path) -> None:
    """Writes the table with every digit; a missing number is an empty field."""
    lines = []
    for entry in entries:
        numbers = {"run": entry.label} | tables.row_numbers(entry.result, entry.row)
        for name in ("modified", "row", "lowest_error_pct", "highest_error_pct", "accuracy"):
            del numbers[name]
        numbers["departures"] = "; ".join(entry.result.departures)
        numbers["folders"] = "; ".join(map(str, entry.folders))
        lines.append(numbers)
    write_csv(path, [*lines[0]], [[*line.values()] for line in lines])


def write_epochs_csv(entries: Sequence[Entry], path: Path) -> None:
    """Writes every epoch of every run: what the curves are drawn from."""
    names = [field.name for field in dataclasses.fields(EpochRecord)]
    lines = [
        (entry.label, run.seed, *(getattr(epoch, name) for name in names))
        for entry in entries
        for run in entry.row.runs
        for epoch in run.epochs
    ]
    write_csv(path, ["run", "seed", *names], lines)


def _published(entry: Entry) -> str:
    """The paper's error; beside a miniature, in parentheses: it is another experiment's."""
    text = spread_text(entry.row.published_error_pct, entry.row.published_std_pct)
    if entry.result.scale == "smoke" or text == MISSING:
        return MISSING
    return text if entry.result.scale == "full" else f"({text})"


def _difference(entry: Entry, first: Entry) -> str:
    """How far an entry's error is from the first one's, with its standard error where known."""
    start = f"{entry.label} against {first.label}: "
    scales = {one.result.scale for one in (entry, first)}
    names = {one.row.recipe["data"]["name"] for one in (entry, first)}
    if len(scales) > 1 or (len(names) > 1 and scales != {"smoke"}):  # its images are generated
        return start + "other data or another scale, their errors cannot be set side by side"
    means, variance = [], 0.0
    for one in (entry, first):
        mean, std = one.row.mean_error_pct, one.row.std_error_pct
        if not is_finite(mean):
            return start + f"{one.label} has no result ({seeds_text(one.row)})"
        means.append(mean)
        variance += math.nan if std is None else std**2 / len(one.row.errors_pct)
    text = f"{start}{means[0] - means[1]:+.2f} points of error"
    if math.isnan(variance):
        return text + ", one seed: no deviation known"
    lost = " over the seeds that did not diverge" * bool(entry.row.diverged or first.row.diverged)
    return text + f", standard error {math.sqrt(variance):.2f}{lost}"


def _read(folder: Path) -> list[Entry]:
    if not folder.is_dir():
        raise InputError(f"RUN must be the folder of a run. Received: {folder}, which is none")
    try:
        if (folder / RESULT).exists():
            whole = Result.from_json(read_json(folder / RESULT))
            return [_entry(whole, row, row.runs, folder) for row in whole.rows]
        if (folder / SEED).exists():
            return [_read_one(folder)]
        if seeds := sorted(folder.glob(f"*/{SEED}")):  # a row of a table
            return [_read_one(seed.parent) for seed in seeds]
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"RUN must have records that can be read. Received: {folder}, damaged or of another "
            f"version ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
        ) from None
    if (folder / PLAN).exists() or (folder / "run.json").exists():
        raise InputError(
            f"RUN must have ended. Received: {folder}, which has no {RESULT} yet. Continue it with "
            "the same command and --run-dir"
        )
    neither = f"neither {RESULT} nor {PLAN}"
    raise InputError(f"RUN must be the folder of a run. Received: {folder}, which has {neither}")


def _read_one(folder: Path) -> Entry:
    """One run of a table: its own records, and its command's for the name of its row."""
    place = folder.resolve()
    run = SeedResult.from_json(read_sealed(folder / SEED))
    if found := find_run(place):
        above, whole, row, own = found
        return _entry(whole, row, (own,), above)
    plan = read_json(folder / PLAN)
    recipe = plan["recipe"]
    row = RowResult(
        label=str(recipe.get("label") or place.parent.name),
        recipe=recipe,
        global_batch=recipe["global_batch"],
        peak_rate=plan["peak_rate"],
        updates=plan["updates"],
        runs=(dataclasses.replace(run, folder="."),),
    )
    alone = Result(
        recipe=recipe["name"],
        title=recipe["title"],
        paper=recipe["paper"],
        scale=plan["scale"],
        departures=tuple(plan["departures"]),
        rows=(row,),
    )
    return Entry(label=place.parent.name, result=alone, plan=plan, folders=(folder,))


def _entry(whole: Result, row: RowResult, runs: Sequence[SeedResult], folder: Path) -> Entry:
    if not runs:
        raise InputError(f"RUN must hold a run that was made. Received: {folder}, no {row.label}")
    row, folders = dataclasses.replace(row, runs=tuple(runs)), (folder / r.folder for r in runs)
    own = dataclasses.replace(whole, rows=(row,), claims=())
    return Entry(label=row.label, result=own, plan=read_plan(row, folder), folders=tuple(folders))


def _identity(entry: Entry) -> str:
    """Equal for runs that differ in nothing but their seed and machine."""
    settings = entry.plan.get("settings", {})
    row, result = entry.row, entry.result
    what = (row.label, deciding(row.recipe), result.scale, entry.train_examples, result.departures)
    return json.dumps([*what, settings.get("precision"), settings.get("wire")], sort_keys=True)


def _add(entries: list[Entry], new: Entry) -> None:
    """Appends the entry, or joins its seeds to one that is there."""
    places = {folder.resolve() for entry in entries for folder in entry.folders}
    for folder in new.folders:
        if folder.resolve() in places:
            raise InputError(f"each RUN must be given once. Received: {folder} twice")
    for number, old in enumerate(entries):
        seeds = {run.seed for run in old.row.runs}
        if _identity(old) == _identity(new) and not seeds & {r.seed for r in new.row.runs}:
            row = dataclasses.replace(old.row, runs=old.row.runs + new.row.runs)
            joined = dataclasses.replace(old.result, rows=(row,))
            folders = old.folders + new.folders
            entries[number] = dataclasses.replace(old, result=joined, folders=folders)
            return
    entries.append(new)


def _name_apart(entries: list[Entry]) -> list[Entry]:
    """Gives entries of one name what tells them apart: the recipe, then the folder."""
    for more in (lambda e: e.result.recipe, lambda e: _command(e).name, lambda e: str(_command(e))):
        labels = [entry.label for entry in entries]
        entries = [
            dataclasses.replace(e, label=f"{more(e)}: " * (labels.count(e.label) > 1) + e.label)
            for e in entries
        ]
    return entries


def _command(entry: Entry) -> Path:
    """The folder of the command that ran an entry."""
    first = entry.folders[0].resolve()
    return first if (first / RESULT).exists() else first.parent.parent
