"""What a study of steps to a target found: fit, figure, tables, page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tf_largebatch.records import run_folder
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import write_bytes, write_csv, write_json
from tf_largebatch.review.page import flatten, write_page

FIGURE, PAGE, ROWS, TRIAL_ROWS = "steps.png", "report.html", "rows.csv", "trials.csv"
FILES = {
    run_folder.RESULT: "every number of this page",
    ROWS: "the table",
    TRIAL_ROWS: "every trial",
    FIGURE: "the figure",
}


@dataclass(frozen=True)
class Tried:
    """One trial, at a constant rate."""

    global_batch: int
    trial: int  # its number, from 0
    rate: float
    momentum: float  # Nesterov's
    steps: int | None  # updates to the target; None if they were not reached
    updates: int  # that were made
    ended: str  # why


def conclude(tried: Sequence[Tried], settings: dict, space: dict, folder: Path) -> list[str]:
    """Fits the trade-off, draws it, writes table, record and page; returns what they say."""
    from tf_largebatch.diagnostics.steps_to_target import fit_results

    results = _results(tried)
    try:
        fit = fit_results(results)
    except ValueError as error:
        raise InputError(
            f"--target must be reached at three batches or more. Received: {settings['target_pct']}"
            f" %, too few of {len(results)} did ({error}). Choose a higher error or more --trials"
        ) from None
    rows = [_row(result, fit, space) for result in results]
    lines = [fit.text(), f"fit: measured steps within {100 * fit.log_error:.0f} % (rms) of it"]
    environment = run_folder.environment()
    for name, table in ((ROWS, rows), (TRIAL_ROWS, [asdict(one) for one in tried])):
        write_csv(folder / name, [*table[0]], [[*row.values()] for row in table])
    _write_page(rows, fit, lines, settings, environment, folder)
    record = {
        "settings": settings,
        "rows": rows,
        "fit": {**asdict(fit), "critical_batch": fit.critical_batch, "text": fit.text()},
        "environment": environment,
    }
    write_json(folder / run_folder.RESULT, record)
    return lines + [_says(row) for row in rows]


def _write_page(rows, fit, lines, settings: dict, environment: dict, folder: Path) -> None:
    """Draws the figure and puts it on the page."""
    from tf_largebatch.diagnostics.figures import draw_steps

    points = [(row["global_batch"], row["steps"]) for row in rows if row["steps"] is not None]
    goal = f"{settings['target_pct']:g} % validation error"
    picture = draw_steps([("digits, one hidden layer", *zip(*points, strict=True), fit)], goal)
    write_bytes(folder / FIGURE, picture)
    write_page(
        "study.html.j2",
        folder / PAGE,
        title=f"Updates to {goal} against the batch",
        verdict=lines,
        picture=picture,
        header=("batch", "updates", "examples", "rate", "momentum", "regime"),
        rows=[_cells(row) for row in rows],
        settings=list(flatten(settings)),
        environment=list(flatten(environment)),
        files=list(FILES.items()),
    )


def _results(tried: Sequence[Tried]) -> list:
    from tf_largebatch.diagnostics.steps_to_target import BatchResult, Trial

    batches: dict[int, list[Trial]] = {}
    for one in tried:
        settings = {"rate": one.rate, "one_minus_momentum": 1.0 - one.momentum}
        batches.setdefault(one.global_batch, []).append(Trial(settings, one.steps))
    return [BatchResult(batch, tuple(trials)) for batch, trials in batches.items()]


def _row(result, fit, space: dict) -> dict:
    """One batch as plain data."""
    batch, steps, best = result.global_batch, result.steps, result.best
    return {
        "global_batch": batch,
        "trials": len(result.trials),
        "regime": fit.regime(batch),
        "steps": steps,
        "examples": steps and steps * batch,
        "rate": best and best.settings["rate"],
        "momentum": best and 1.0 - best.settings["one_minus_momentum"],
        "at_edge": " ".join(result.at_edge(space)),
    }


def _says(row: dict) -> str:
    """One batch in words."""
    if row["steps"] is None:
        return f"batch {row['global_batch']}: not reached in {row['trials']} trials"
    edge = f" (best at the edge of the search: {row['at_edge']})" * bool(row["at_edge"])
    return f"batch {row['global_batch']}: {row['steps']:,} updates, {row['regime']}{edge}"


def _cells(row: dict) -> list[str]:
    forms = {"steps": ",", "examples": ",", "rate": ".3g", "momentum": ".3g"}
    numbers = [format(row[name], form) for name, form in forms.items() if row["steps"] is not None]
    return [f"{row['global_batch']:,}", *(numbers or ["not reached", "", "", ""]), row["regime"]]
