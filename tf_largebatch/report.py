"""The report of a run: one HTML page that needs no network, with results next to the paper's."""

import base64
import math
from pathlib import Path
from urllib.parse import quote

from tf_largebatch.curves import colour, draw_curves
from tf_largebatch.result import Result, SeedResult
from tf_largebatch.run_folder import METRICS, PLAN, RESULT, write_text
from tf_largebatch.tables import (
    MISSING,
    is_finite,
    number_text,
    scale_text,
    table,
    text_table,
    verdict,
    write_rows_csv,
)

__all__ = ["draw_curves", "text_table", "write_report", "write_rows_csv"]

REPORT, CURVES, ROWS = "report.html", "curves.png", "rows.csv"
FILES = {  # in reading order; the report names those that are there
    RESULT: "every number of this page",
    ROWS: "the table",
    PLAN: "what was run",
    METRICS: "one line per epoch",
    CURVES: "the figure",
    "model.keras": "the trained model",
}


def write_report(result: Result, plans: list[dict], folder: Path) -> Path:
    """Writes `report.html`, one file that needs no network, and the figure `curves.png` in it.

    Write the folder's other files first: the page names those that are there.

    Args:
        result: what was found.
        plans: the `plan.json` of each row, in the order of the rows.
        folder: an existing run folder.

    Returns:
        The path of the page.

    Raises:
        ValueError: not one plan per row.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if len(plans) != len(result.rows):
        raise ValueError(
            f"`plans` must hold one plan per row ({len(result.rows)}). Received: {len(plans)} plans"
        )
    picture = draw_curves(result, folder / CURVES)
    header, cells = table(result)
    shared, differing = _compare_plans(plans)
    templates = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(autoescape=True, loader=templates, undefined=StrictUndefined)
    page = environment.get_template("report.html.j2").render(
        result=result,
        scale=scale_text(result),
        verdict=verdict(result),
        header=header,
        rows=[(colour(i), line) for i, line in enumerate(cells)],
        runs=[(row.label, *_run_cells(run)) for row in result.rows for run in row.runs],
        picture=base64.b64encode(picture).decode(),
        shared=shared,
        differing=differing,
        environment=list(_flatten(result.environment)),
        files=[(name, what) for name, what in FILES.items() if (folder / name).exists()],
        wall_time=_duration(result.wall_seconds),
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def _run_cells(run: SeedResult) -> tuple[str, str, str, str, str, str]:
    """Seed, error, epochs, wall time, folder and its link, as text."""
    error = number_text(run.top1_error_pct)
    if run.diverged_at is not None:
        error = f"diverged at update {run.diverged_at:,}"
    # Quoted with the colon, so that no folder's name can be read as a scheme.
    link = quote(run.folder)
    return str(run.seed), error, str(len(run.epochs)), _duration(run.wall_seconds), run.folder, link


def _compare_plans(plans: list[dict]) -> tuple[list, list]:
    """Splits plans into labels that say the same in every row and labels that do not.

    Returns:
        [(label, text)] and [(label, [text of each row])], in the order of first appearance.
    """
    texts: dict[str, list[list[str]]] = {}
    for number, plan in enumerate(plans):
        for label, value in plan["rows"]:
            column = texts.setdefault(str(label).strip(), [[] for _ in plans])
            column[number].append(_plain(value))
    joined = {label: ["\n".join(t) or MISSING for t in column] for label, column in texts.items()}
    shared = [(label, c[0]) for label, c in joined.items() if len(set(c)) == 1]
    return shared, [(label, c) for label, c in joined.items() if len(set(c)) > 1]


def _flatten(values: dict, prefix: str = ""):
    """Yields (dotted name, text) for every leaf of nested dicts."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _plain(value)


def _plain(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)


def _duration(seconds: float) -> str:
    if not is_finite(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{seconds / 60:.1f} min"
