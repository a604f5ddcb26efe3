"""The report of a run: one HTML page that needs no network, with results next to the paper's."""

import dataclasses
from pathlib import Path
from urllib.parse import quote

from tf_largebatch.records.files import read_json, write_csv
from tf_largebatch.records.result import Result, RowResult, SeedResult
from tf_largebatch.records.run_folder import METRICS, PLAN, RESULT
from tf_largebatch.review.claims import combined
from tf_largebatch.review.figures import colour, draw_batches, draw_curves
from tf_largebatch.review.findings import FOLDER, Finding, read_findings, write_findings_csv
from tf_largebatch.review.page import duration_text, flatten, split_shared, write_page
from tf_largebatch.review.tables import (
    MISSING,
    number_text,
    reached_numbers,
    scale_text,
    table,
    verdict,
)

REPORT, ROWS = "report.html", "rows.csv"
CURVES, BATCHES, RATES = "curves.png", "batches.png", "rates.png"
RUNS, INSTRUMENTS = "runs.csv", "instruments.csv"
FILES = {  # in reading order; the report names those that are there
    RESULT: "every number of this page",
    ROWS: "the table",
    RUNS: "each run",
    INSTRUMENTS: "what the instruments found",
    PLAN: "what was run",
    METRICS: "one line per epoch",
    CURVES: "the figure",
    BATCHES: "the figure of error against batch",
    RATES: "the figure of the rates",
    "model.keras": "the trained model",
}
DEEP = 2  # a run of a table lies this far below its command's folder: <row>/seed-<n>


def write_report(result: Result, plans: list[dict], folder: Path) -> Path:
    """Writes `report.html`, one file that needs no network, and its figures of errors.

    What instruments left in the runs' folders is shown with its figures. Write the folder's other
    files first: the page shows `rates.png` and names those that are there. `plans` are the
    `plan.json` of each row, in the order of the rows. Returns the path of the page.
    """
    if len(plans) != len(result.rows):
        raise ValueError(
            f"`plans` must hold one plan per row ({len(result.rows)}). Received: {len(plans)} plans"
        )
    picture = draw_curves(result, folder / CURVES)
    batches, rates = draw_batches(result, folder / BATCHES), folder / RATES
    header, cells = table(result)
    shared, differing = split_shared([plan["rows"] for plan in plans])
    found = _read_instruments(result, folder)
    if found:
        write_findings_csv(found, folder / INSTRUMENTS)
    return write_page(
        "report.html.j2",
        folder / REPORT,
        result=result,
        scale=scale_text(result),
        verdict=verdict(result),
        answer=combined(result.claims) if result.claims else None,
        header=header,
        rows=[(colour(i), line) for i, line in enumerate(cells)],
        runs=[(row.label, *_run_cells(row, run)) for row, run in _runs(result)],
        target=any(row.target_pct is not None for row in result.rows),
        stops=any(row.stop is not None for row in result.rows),
        picture=picture,
        batches=batches,
        rates=rates.read_bytes() if rates.exists() else None,
        found=found,
        shared=shared,
        differing=differing,
        environment=list(flatten(result.environment)),
        files=[(name, what) for name, what in FILES.items() if (folder / name).exists()],
        wall_time=duration_text(result.wall_seconds),
    )


def write_run_reports(result: Result, plans: list[dict], folder: Path) -> None:
    """Writes the report of each single run into its own folder, below that of its command."""
    for row, plan in zip(result.rows, plans, strict=True):
        for run in row.runs:
            if run.folder != ".":
                _write_run_report(result, row, run, plan, folder)


def write_runs_csv(result: Result, path: Path) -> None:
    """Writes one line per run; a missing number is an empty field."""
    lines = [
        {
            "row": row.label,
            "seed": run.seed,
            "error_pct": run.top1_error_pct,
            "epochs": len(run.epochs),
            "diverged_at": run.diverged_at,
            "wall_seconds": run.wall_seconds,
            "folder": run.folder,
            "target_pct": row.target_pct,
            **reached_numbers(row.reached(run)),
        }
        for row, run in _runs(result)
    ]
    write_csv(path, [*lines[0]] if lines else [], [[*line.values()] for line in lines])


def write_instruments_page(run: Path) -> Path:
    """Writes the page of a run's instruments alone, next to their files."""
    path = run / FOLDER / REPORT
    return write_page("diagnostics.html.j2", path, name=run.name, findings=read_findings(run))


def refresh(run: Path) -> list[Path]:
    """Writes the reports that show a run once more, after an instrument measured it.

    Returns the pages: the run's own, and that of the command which ran it among others. None for a
    run whose command has not ended; its report will have what was measured.
    """
    found = find_run(run)
    if found is None:
        return []
    folder, result, row, own = found
    plans = [read_plan(one, folder) for one in result.rows]
    plan = plans[result.rows.index(row)]
    pages = [_write_run_report(result, row, own, plan, folder)] * (own.folder != ".")
    return [*pages, write_report(result, plans, folder)]


def find_run(run: Path) -> tuple[Path, Result, RowResult, SeedResult] | None:
    """Looks for the command that ran a run: in the run's own folder, and above it.

    Returns its folder and result, and the row and the seed that are this run's; None where the
    command has not ended.
    """
    run = run.resolve()
    for folder in [run, *run.parents][: DEEP + 1]:
        if (folder / RESULT).exists():
            result = Result.from_json(read_json(folder / RESULT))
            for row, own in _runs(result):
                if (folder / own.folder).resolve() == run:
                    return folder, result, row, own
    return None


def read_plan(row: RowResult, folder: Path) -> dict:
    """Returns the plan of a row, which all its runs have, from below its command's folder.

    Where only a result was kept, it is the recipe as labelled lines.
    """
    for run in row.runs:
        if (folder / run.folder / PLAN).exists():
            return read_json(folder / run.folder / PLAN)
    return {"rows": list(flatten(row.recipe))}


def _write_run_report(
    result: Result, row: RowResult, run: SeedResult, plan: dict, folder: Path
) -> Path:
    row = dataclasses.replace(row, runs=(dataclasses.replace(run, folder="."),))
    own = dataclasses.replace(result, rows=(row,), claims=(), wall_seconds=run.wall_seconds)
    return write_report(own, [plan], folder / run.folder)


def _runs(result: Result) -> list[tuple[RowResult, SeedResult]]:
    return [(row, run) for row in result.rows for run in row.runs]


def _read_instruments(result: Result, folder: Path) -> list[tuple[str, list[Finding]]]:
    """(run, findings) of every run that was measured; a single run needs no name."""
    runs = _runs(result)
    found = [
        (f"{row.label}, seed {run.seed}" * (len(runs) > 1), read_findings(folder / run.folder))
        for row, run in runs
    ]
    return [(name, findings) for name, findings in found if findings]


def _run_cells(row: RowResult, run: SeedResult) -> tuple[str, ...]:
    """Seed, error, epochs, what it took to the target, wall time, folder and its link, as text."""
    at = run.diverged_at
    error = number_text(run.top1_error_pct) if at is None else f"diverged at update {at:,}"
    time = duration_text(run.wall_seconds)
    # Quoted with the colon, so that no folder's name can be read as a scheme.
    took = "" if row.target_pct is None else f"{row.target_pct:g} %: "
    took += str(row.reached(run) or "not reached") if took else MISSING
    cells = str(run.seed), error, str(len(run.epochs)), took, time
    return *cells, run.folder, quote(run.folder)
