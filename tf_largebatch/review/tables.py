"""A result as text: the closing table beside the paper's own rows, its verdict, its CSV.

A number that is missing or not finite is shown as "–" or "diverged", never as 0. A miniature and a
smoke run never pass for the paper's experiment, nor a run with departures for a reproduction.

Standard library only.
"""

import dataclasses
import math
from pathlib import Path
from typing import TypeGuard

from tf_largebatch.records.curve import Reached
from tf_largebatch.records.files import write_csv
from tf_largebatch.records.result import Result, RowResult
from tf_largebatch.review.claims import sentences

MISSING = "–"
TARGET_HEADER = "published runs\nat ImageNet scale,\nto the target"
PAPER_HEADER = "paper's error %\nat ImageNet scale,\nanother experiment"


def text_table(result: Result) -> str:
    """Returns the closing table of a command as plain text, with its verdict and departures."""
    header, rows = table(result)
    lines = [cell.split("\n") for cell in header]
    height = max(map(len, lines))
    # Short headers sit on the last line, next to the numbers.
    grid = [[([""] * (height - len(c)) + c)[i] for c in lines] for i in range(height)] + rows
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    text = [f"{result.title} · {scale_text(result)}", ""]
    for number, line in enumerate(grid):
        cells = [c.rjust(w) for c, w in zip(line, widths, strict=True)]
        text.append("  ".join([line[0].ljust(widths[0]), *cells[1:]]).rstrip())
        if number == height - 1:
            text.append("-" * (sum(widths) + 2 * len(widths) - 2))
    if result.scale != "smoke":  # the last line of the log is not the table's number
        stops = any(row.stop is not None for row in result.rows)
        which = "its last evaluation" if stops else "the median of its last five epochs"
        text += ["", f"error % of a run: {which}"]
    text += ["", *verdict(result)]
    text += [f"  modified: {change}" for change in result.departures]
    return "\n".join(text) + "\n"


def table(result: Result) -> tuple[list[str], list[list[str]]]:
    """Returns the table as text cells: a header (with line breaks) and one line per row.

    The paper's own error stands in the last column, under a header that says what it is; a smoke
    run has nothing to set beside it and goes without.
    """
    header = ["row", "batch", "peak\nrate", "updates", "error %", "seeds", "accuracy %"]
    published = {"full": ["published\nerror %"], "miniature": [PAPER_HEADER]}.get(result.scale, [])
    stops = any(row.stop is not None for row in result.rows)
    header += ["to the target", TARGET_HEADER] * stops
    rows = []
    for row in result.rows:
        mean = row.mean_error_pct
        cells = [row.label, f"{row.global_batch:,}", number_text(row.peak_rate, ".4g")]
        cells += [f"{row.updates:,}", error_text(row), seeds_text(row)]
        cells.append(MISSING if mean is None else number_text(100 - mean))
        if stops:
            cells += [str(row.median_reached or MISSING), str(row.published_reached or MISSING)]
        if published:
            cells.append(spread_text(row.published_error_pct, row.published_std_pct))
        rows.append(cells)
    return header + published, rows


def verdict(result: Result) -> tuple[str, ...]:
    """Returns what the numbers say, one sentence a line.

    At full scale each row is set against its published value, in units of the paper's run-to-run
    deviation, or of ours where the paper gives none. A miniature is read as differences from its
    first row, beside the same differences in the paper; a single row of one has its own number;
    then what it shows of the claims.
    """
    lines = []
    if result.scale == "smoke":
        lines.append("smoke run: it shows that the path works; its numbers mean nothing")
    elif result.scale == "miniature":
        lines += _contrast(result.rows) + sentences(result.claims)
    else:
        name = len(result.rows) > 1
        lines += [f"{r.label}: " * name + _against_paper(r, result.modified) for r in result.rows]
    lines += [line for row in result.rows if (line := reached_text(row, len(result.rows) > 1))]
    if result.scale != "smoke" and any(len(r.runs) == 1 for r in result.rows):
        lines.append("one seed: no deviation can be shown, and small differences may be chance")
    if result.modified:
        count = len(result.departures)
        lines.append(f"modified ({count} departure{'s' * (count > 1)}): not a reproduction")
    return tuple(lines)


def reached_text(row: RowResult, named: bool = True) -> str:
    """Returns when the runs of a row first had its target, beside the published runs' own."""
    if row.target_pct is None or not row.runs:
        return ""
    count = sum(row.reached(run) is not None for run in row.runs)
    seeds = f" ({count} of {len(row.runs)} seeds; the median)" if len(row.runs) > 1 else ""
    took = row.median_reached
    text = "not reached" if took is None else f"first in {took} of training"
    text = f"{f'{row.label}: ' * named}top-1 {row.target_pct:g} % {text}{seeds}"
    if row.published_reached is not None:
        text += f" · the published runs, at ImageNet scale: {row.published_reached}"
    return text


def _against_paper(row: RowResult, modified: bool) -> str:
    ours, paper = row.mean_error_pct, row.published_error_pct
    if not is_finite(ours):
        return _no_result(row)
    start = _own_top1(row, ours)
    if not is_finite(paper):
        return f"{start} · no published value"
    start += f" · published {spread_text(100 - paper, row.published_std_pct)}"
    if row.diverged:  # the seeds that are left were chosen by their success
        return f"{start} · {row.diverged} of {len(row.runs)} diverged"
    # A run with departures gets its numbers, and no place on the paper's scale.
    return start if modified else f"{start} · {_distance(ours - paper, row)}"


def _own_top1(row: RowResult, mean: float) -> str:
    seeds = f"{len(row.errors_pct)} seed{'s' * (len(row.errors_pct) > 1)}"
    if row.std_error_pct is None:
        seeds += ", no deviation"
    return f"top-1 {spread_text(100 - mean, row.std_error_pct)} ({seeds})"


def _distance(difference: float, row: RowResult) -> str:
    """How far an error is from the published one, in words."""
    side = "worse" if difference > 0 else "better"
    std = row.published_std_pct or row.std_error_pct
    if not is_finite(std) or not std:
        return f"{abs(difference):.2f} points {side}, no deviation known"
    ratio = round(abs(difference) / std, 6)  # 23.60 - 23.48 is a little over 0.12 in binary
    return "within 1 sd" if ratio <= 1 else f"{ratio:.1f} sd {side}"


def _contrast(rows: tuple[RowResult, ...]) -> list[str]:
    lines = ["miniature: the paper's contrast on small data, never the paper's experiment"]
    first, start = rows[0], rows[0].mean_error_pct
    for row in rows[1:] or rows:
        mean = row.mean_error_pct
        if not is_finite(mean):
            lines.append(f"{row.label}: {_no_result(row)}")
        elif row is first:
            lines.append(f"{row.label}: {_own_top1(row, mean)}")
        elif not is_finite(start):
            lines.append(f"{row.label}: {error_text(row)} % error; {first.label} has no result")
        else:
            line = f"{row.label} against {first.label}: {mean - start:+.2f} points of error"
            if row.diverged or first.diverged:
                line += " over the seeds that did not diverge"
            if is_finite(row.published_error_pct) and is_finite(first.published_error_pct):
                paper = row.published_error_pct - first.published_error_pct
                line += f" · the paper, at ImageNet scale: {paper:+.2f}"
            lines.append(line)
    return lines


def _no_result(row: RowResult) -> str:
    return f"no result ({seeds_text(row) if row.runs else 'not run'})"


def scale_text(result: Result) -> str:
    """Returns the scale, and whether the run departs from the recipe."""
    return f"{result.scale}{', modified' * result.modified}"


def seeds_text(row: RowResult) -> str:
    """Returns how many seeds stand behind a number, and what became of the others."""
    done, count = len(row.errors_pct), len(row.runs)
    unfinished = count - done - row.diverged
    fates = [f"{row.diverged} of {count} diverged"] * bool(row.diverged)
    fates += [f"{unfinished} of {count} unfinished"] * bool(unfinished)
    if not done and fates:
        return ", ".join(fates)
    return str(done) + (f" ({', '.join(fates)})" if fates else "")


def error_text(row: RowResult) -> str:
    """Returns mean and deviation of a row's error in percent, or why there is none."""
    if not row.errors_pct:
        return "diverged" if row.diverged else MISSING
    return spread_text(row.mean_error_pct, row.std_error_pct)


def spread_text(mean: float | None, std: float | None) -> str:
    """Returns `mean ± std`, without the deviation where there is none."""
    return number_text(mean) + (f" ± {std:.2f}" if is_finite(std) and is_finite(mean) else "")


def number_text(value: float | None, form: str = ".2f") -> str:
    """Returns the number, or a dash where it is missing or not finite."""
    return format(value, form) if is_finite(value) else MISSING


def is_finite(value: float | None) -> TypeGuard[float]:
    """Whether there is a number and it is finite."""
    return value is not None and math.isfinite(value)


def write_rows_csv(result: Result, path: Path) -> None:
    """Writes the table with every digit, one line per row; a missing number is an empty field."""
    lines = [row_numbers(result, row) for row in result.rows]
    write_csv(path, [*lines[0]], [[*line.values()] for line in lines])


def row_numbers(result: Result, row: RowResult) -> dict[str, object]:
    """Returns every number of a row by the name of its column in CSV files."""
    errors, mean = row.errors_pct, row.mean_error_pct
    return {
        "recipe": result.recipe,
        "scale": result.scale,
        "modified": result.modified,
        "row": row.label,
        "global_batch": row.global_batch,
        "peak_rate": row.peak_rate,
        "updates": row.updates,
        "seeds": len(row.runs),
        "diverged": row.diverged,
        "mean_error_pct": mean,
        "std_error_pct": row.std_error_pct,
        "lowest_error_pct": min(errors, default=None),
        "highest_error_pct": max(errors, default=None),
        "accuracy": None if mean is None else 1 - mean / 100,
        "published_error_pct": row.published_error_pct,
        "published_std_pct": row.published_std_pct,
        "target_pct": row.target_pct,
        **reached_numbers(row.median_reached),
    }


def reached_numbers(took: Reached | None) -> dict[str, float | int | None]:
    """Returns what it took to the target by the name of its column in CSV files."""
    names = [field.name for field in dataclasses.fields(Reached)]
    return {f"{name}_to_target": getattr(took, name, None) for name in names}
