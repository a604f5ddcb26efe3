"""The rows of a table, each with several seeds, run into one folder with one report.

A row and seed that is finished has its own `seed.json` and is not run again; one that was
stopped continues from its checkpoint.
"""

import dataclasses
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_largebatch.records import run_folder
from tf_largebatch.records.files import read_json, write_json
from tf_largebatch.records.plan import Plan
from tf_largebatch.records.recipe import Expected
from tf_largebatch.records.result import Result, RowResult, SeedResult
from tf_largebatch.review import figures, report
from tf_largebatch.review.tensorboard.noise import keep_noise
from tf_largebatch.schedules import trace
from tf_largebatch.training.build import make_schedule
from tf_largebatch.training.train import Job, train
from tf_largebatch.training.workers.team import Team


@dataclass(frozen=True, kw_only=True)
class Row:
    """One recipe to run.

    Attributes:
        label: its name in tables and figures.
        shows: what to look for.
        plan: the resolved run.
        source: its data (see `tf_largebatch.data`).
        published: the paper's result for the row it mirrors.
    """

    label: str
    shows: str
    plan: Plan
    source: object
    published: Expected | None


def run(
    blank: Result,
    rows: list[Row],
    *,
    seeds: list[int],
    folder: Path,
    team: Team,
    interrupt: bool = False,
    profile: tuple[int, int] | None = None,
) -> Result:
    """Runs every row with every seed, and writes result, table, figure and report.

    Args:
        blank: the result without rows: name, paper, scale, departures, environment.
        rows: in this order.
        seeds: each row is run with each.
        folder: claimed by the caller.
        team: the workers; the chief alone writes.
        interrupt: stop each run after its first epoch and continue it from its checkpoint, to
            show that this works.
        profile: (first, end) updates to trace, of the first row with the first seed.

    Returns:
        The complete result.
    """
    started = time.perf_counter()
    single = len(rows) == len(seeds) == 1
    results = []
    for row in rows:
        runs = []
        for seed in seeds:
            place = folder if single else folder / slug(row.label) / f"seed-{seed}"
            job = Job(
                label=row.label if len(seeds) == 1 else f"{row.label}, seed {seed}",
                plan=row.plan,
                source=row.source,
                seed=seed,
                folder=place,
                team=team,
                profile=profile if row is rows[0] and seed == seeds[0] else None,
            )
            runs.append(
                dataclasses.replace(_finish(job, interrupt), folder=str(place.relative_to(folder)))
            )
        results.append(_row_result(row, runs))
    result = dataclasses.replace(
        blank, rows=tuple(results), wall_seconds=time.perf_counter() - started
    )
    if not team.chief:
        return result
    figures.draw_rates([_rates(row) for row in rows], folder / report.RATES)
    report.write_rows_csv(result, folder / report.ROWS)
    report.write_runs_csv(result, folder / report.RUNS)
    plans = [row.plan.to_json() for row in rows]
    report.write_run_reports(result, plans, folder)
    report.write_report(result, plans, folder)
    # Last, so that a result is there only when everything else is.
    write_json(folder / run_folder.RESULT, result.to_json())
    return result


def _rates(row: Row) -> tuple[str, np.ndarray, np.ndarray]:
    """A row's label, and the rate of every update against its epoch."""
    updates = np.arange(row.plan.updates)
    rates = trace(make_schedule(row.plan.recipe, row.plan.phases), updates)
    return row.label, np.array([row.plan.epoch_at(int(u)) for u in updates]), rates


def slug(label: str) -> str:
    """Returns the label as a folder name: `linear, warmup 5` -> `linear-warmup-5`."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def _finish(job: Job, interrupt: bool) -> SeedResult:
    """Runs the job, or reads the result of the time when it was run."""
    mark = job.folder / "seed.json"
    if job.team.chief:
        job.folder.mkdir(parents=True, exist_ok=True)
    # All workers read the folder before the chief may write to it again.
    finished = mark.exists()
    job.team.agree("the run folder", f"{mark} {'is' if finished else 'is not'} there")
    if finished:
        return SeedResult.from_json(read_json(mark))
    if interrupt:
        train(dataclasses.replace(job, stop_epoch=1.0))
    done = train(job)
    if job.team.chief:
        keep_noise(job.folder, global_batch=job.plan.phases[-1].global_batch)
        write_json(mark, dataclasses.asdict(done))
    return done


def _row_result(row: Row, runs: list[SeedResult]) -> RowResult:
    recipe = row.plan.recipe
    return RowResult(
        label=row.label,
        shows=row.shows,
        recipe=dataclasses.asdict(recipe),
        global_batch=recipe.global_batch,
        peak_rate=recipe.peak_rate,
        updates=row.plan.updates,
        published_error_pct=row.published.top1_error_pct if row.published else None,
        published_std_pct=row.published.std if row.published else None,
        runs=tuple(runs),
    )
