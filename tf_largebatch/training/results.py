"""What a command found: one result over its rows and seeds, with table, figures and reports."""

import dataclasses
import sys
import time

import numpy as np

from tf_largebatch.records import run_folder
from tf_largebatch.records.files import write_json
from tf_largebatch.records.plan import Plan
from tf_largebatch.records.recipe import Row
from tf_largebatch.records.result import Result, RowResult, SeedResult, on_own_data
from tf_largebatch.review import figures, report, tables
from tf_largebatch.review.claims import judge
from tf_largebatch.review.tensorboard import rows as rows_of_tensorboard
from tf_largebatch.schedules import trace
from tf_largebatch.training.build import make_schedule
from tf_largebatch.training.session import Session


def conclude(session: Session) -> Result:
    """Writes result, table, figures and reports, and prints the table; the chief alone."""
    rows = []
    for row, plan in zip(session.rows, session.plans, strict=True):
        of_row = [
            dataclasses.replace(done, folder=str(run.folder.relative_to(session.folder)))
            for r, run, done in session.results
            if r is row
        ]
        rows.append(_row_result(row, plan, of_row, session.options.target))
    recipe, scale = session.recipe, session.options.scale
    judged = scale == "miniature" and not session.departures
    result = Result(
        recipe=recipe.name,
        title=recipe.title,
        paper=recipe.paper,
        scale=scale,
        departures=session.departures,
        notes=recipe.notes if scale == "full" else (session.miniature.contrast,),
        environment=run_folder.environment(),
        rows=tuple(rows),
        claims=judge(session.miniature.claims, rows, stated_before=True) if judged else (),
        wall_seconds=time.perf_counter() - session.started,
    )
    if session.team.chief:
        _write(session, result)
        print(tables.text_table(result))
        shown = report.REPORT, report.CURVES, report.BATCHES, report.RATES, report.ROWS
        for name in (*shown, run_folder.RESULT):
            if (session.folder / name).exists():
                print(f"{name:<12} {session.folder / name}")
        print(f"TensorBoard  tensorboard --logdir {session.folder}")
        if len(session.results) > 1:
            place = session.folder / rows_of_tensorboard.FOLDER
            print(f"its rows     tensorboard --logdir {place}")
        if result.diverged:
            print(f"every run ended early; see {session.folder}/**/diverged.txt", file=sys.stderr)
    return result


def _row_result(
    row: Row, plan: Plan, runs: list[SeedResult], target_pct: float | None
) -> RowResult:
    recipe, published = plan.recipe, row.published
    if target_pct is None and recipe.stop is not None:
        target_pct = recipe.stop.target_pct
    elif target_pct is None and plan.scale == "full" and published is not None:
        # On other images the paper's accuracy is no aim.
        target_pct = None if on_own_data(plan.departures) else published.top1_accuracy_pct
    return RowResult(
        label=row.label,
        shows=row.shows,
        recipe=dataclasses.asdict(recipe),
        global_batch=recipe.global_batch,
        peak_rate=recipe.peak_rate,
        updates=plan.updates,
        published_error_pct=published.top1_error_pct if published else None,
        published_std_pct=published.std if published else None,
        target_pct=target_pct,
        published_reached=published.reached if published else None,
        runs=tuple(runs),
    )


def _write(session: Session, result: Result) -> None:
    folder = session.folder
    rates = []
    for row, plan in zip(session.rows, session.plans, strict=True):
        updates = np.arange(plan.updates)
        of_update = trace(make_schedule(plan.recipe, plan.phases), updates)
        rates.append((row.label, [plan.epoch_at(int(u)) for u in updates], of_update.tolist()))
    figures.draw_rates(rates, folder / report.RATES)
    tables.write_rows_csv(result, folder / report.ROWS)
    report.write_runs_csv(result, folder / report.RUNS)
    plans = [plan.to_json() for plan in session.plans]
    report.write_run_reports(result, plans, folder)
    report.write_report(result, plans, folder)
    if len(session.results) > 1:
        rows_of_tensorboard.write_rows(result, folder / rows_of_tensorboard.FOLDER)
    # Last, so that a result is there only when everything else is.
    write_json(folder / run_folder.RESULT, result.to_json())
