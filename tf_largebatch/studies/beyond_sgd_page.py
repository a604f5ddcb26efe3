"""What the trials of `beyond_sgd` say: verdicts and tables."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from tf_largebatch.diagnostics.steps_to_target import EDGE, Range
from tf_largebatch.studies import beyond_sgd_plan as study
from tf_largebatch.studies.beyond_sgd_figures import CAPTION, draw_steps
from tf_largebatch.studies.beyond_sgd_seeds import Row, doublings, read_row
from tf_largebatch.studies.critical_batch_seeds import geometric
from tf_largebatch.studies.study import (
    Answer,
    Claim,
    Conclusion,
    Figure,
    Results,
    Scale,
    Table,
    Trial,
    answer,
)

Rows = Mapping[str, Row]


def conclude(results: Results, scale: Scale, claims: Mapping[str, Claim]) -> Conclusion:
    """All of it; `claims` by id."""
    rows = {name: read_row(name, results, scale) for name in study.TITLES}
    begun = any(own for row in rows.values() for own in row.steps)
    return Conclusion(
        answers=_answers(claims, rows, scale),
        tables=[_steps_table(rows, scale), _fits_table(rows)] if begun else [],
        tuning=_tuning(results, scale),
        figures=[Figure("steps.png", draw_steps(rows, scale), CAPTION)] if begun else [],
        notes=_notes(rows, results, scale),
        numbers={name: _numbers(row) for name, row in rows.items()},
    )


def _numbers(row: Row) -> dict[str, Any]:
    return {
        "steps": [{str(batch): steps for batch, steps in own.items()} for own in row.steps],
        "critical_batch": [fit and fit.critical_batch for fit in row.fits],
        "steps_min": [fit and fit.steps_min for fit in row.fits],
        "examples_min": [fit and fit.examples_min for fit in row.fits],
        "log_error": [fit and fit.log_error for fit in row.fits],
    }


def _answers(claims: Mapping[str, Claim], rows: Rows, scale: Scale) -> list[Answer]:
    batches = study.of("batches", scale)
    middle, last = batches[1], batches[-1]

    def by_seed(name: str, difference: Callable[[int], float | None]) -> Answer:
        found = [difference(seed) for seed in range(scale.seeds)]
        return answer(claims[name], [one for one in found if one is not None], scale)

    def critical(name: str) -> Callable[[int], float | None]:
        row, sgd = rows[name], rows["sgd"]
        return lambda seed: doublings(row.critical_batch(seed), sgd.critical_batch(seed))

    def fewer(seed: int) -> float | None:
        return doublings(*(rows[name].steps[seed].get(last) for name in ("sgd", "kfac")))

    def kept(seed: int) -> float | None:
        lamb, muon = (
            doublings(rows[name].examples(seed, last), rows[name].examples(seed, middle))
            for name in ("lamb", "muon")
        )
        return None if lamb is None or muon is None else lamb - muon

    return [
        by_seed("C19a", critical("kfac")),
        by_seed("C19b", critical("lamb")),
        by_seed("C20", fewer),
        by_seed("C21", kept),
        by_seed("C22", critical("lars")),
    ]


# Tables.


def _steps_table(rows: Rows, scale: Scale) -> Table:
    def cell(row: Row, batch: int) -> str:
        steps = [own[batch] for own in row.steps if batch in own]
        if not steps:
            return "not reached"
        few = "" if len(steps) == scale.seeds else f" (of {len(steps)} seeds)"
        ends = f" [{min(steps):,}, {max(steps):,}]" if len(steps) > 1 else ""
        return f"{statistics.median(steps):,.0f}{ends}{few}"

    body = [
        [f"{batch:,}", *(cell(row, batch) for row in rows.values())]
        for batch in study.of("batches", scale)
    ]
    title = f"Updates to {study.of('target_pct', scale):g} % held-out error, median [range]"
    return Table(title, ("batch", *(study.TITLES[name] for name in rows)), body)


def _fits_table(rows: Rows) -> Table:
    body = []
    for name, row in rows.items():
        known, curve = row.critical_batches(), row.curve
        text = geometric(known) if len(known) > 1 else "–"
        of_medians = ["–"] * 4
        if curve is not None:
            of_medians = [
                *map(_three_digits, (curve.critical_batch, curve.steps_min)),
                _three_digits(curve.examples_min / 1000),
                f"{100 * curve.log_error:.0f} %",
            ]
        body.append([study.TITLES[name], text, *of_medians])
    header = (
        "optimizer",
        "critical batch, geometric mean [interval]",
        "of the medians",
        "least updates",
        "least thousand examples",
        "law's error",
    )
    return Table("The law S = S_min (1 + B_crit / B)", header, body)


def _three_digits(value: float) -> str:
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"


def _tuning(results: Results, scale: Scale) -> list[Table]:
    tables = []
    for optimizer, title in study.TITLES.items():
        knob = next(name for name in study.points(optimizer)[0] if name != "rate")
        for batch in study.of("batches", scale):
            trials, finalists = study.cell(optimizer, batch, scale).search(results)
            if trials[0].name not in results:
                continue
            count = len(study.points(optimizer)) if not scale.quick else len(trials)
            last = (len(trials) - 1) // count * count  # the first trial with the last budget
            rows = [
                _point(n % count, trial, knob, results.get(trial.name), n - last in finalists)
                for n, trial in enumerate(trials)
            ]
            header = ("point", "rate", knob, "limit", "updates to the target", "error, %")
            text = f"{title}, batch {batch:,} (finalists in bold)"
            tables.append(Table(text, header, rows))
    return tables


def _point(number: int, trial: Trial, knob: str, found: dict | None, bold: bool) -> list[str]:
    steps = "not run" if found is None else "not reached"
    if found is not None and found["steps"] is not None:
        steps = f"{found['steps']:,}"
    error = found["error_pct"] if found else None
    mark = "**" if bold else ""
    return [
        f"{mark}{number}{mark}",
        f"{trial.settings['point']['rate']:.3g}",
        f"{trial.settings['point'][knob]:.3g}",
        f"{trial.settings['updates']:,}",
        steps,
        "–" if error is None else f"{error:.2f}",
    ]


def _edges(optimizer: str, point: Mapping[str, float]) -> list[str]:
    """Which of the searched numbers lie within a tenth of their range from its end."""
    found = []
    for name, (low, high) in study.DESIGN["spaces"][optimizer].items():
        known = name.removeprefix("one_minus_")
        value = point[known] if known == name else 1.0 - point[known]
        if not EDGE <= Range(low, high, log=True).share(value) <= 1 - EDGE:
            found.append(known)
    return found


def _notes(rows: Rows, results: Results, scale: Scale) -> list[str]:
    notes = [
        "Published batches are of other networks and data; the order of the optimizers and the "
        "ratio of their critical batches can be compared, not the batches.",
        "Adam itself is not a row: LAMB is Adam with a rate for each layer. Muon's paper compares "
        "language models at equal loss.",
        "Updates are counted, not time: one of K-FAC or Muon costs more, see "
        "[beyond.md](../../beyond.md).",
    ]
    if any(name.endswith("-long") for name in results):
        notes.append(
            "The budget of 8 epochs was added when everything had run with the first: LARS had not "
            "arrived at 64 and at 512, and LAMB at 512 not on two of five seeds. Claims, rules and "
            "finished trials stayed as they were."
        )
    at_edge = []
    for optimizer, title in study.TITLES.items():
        for batch in study.of("batches", scale):
            _, finalists = study.cell(optimizer, batch, scale).search(results)
            if finalists and (found := _edges(optimizer, study.points(optimizer)[finalists[0]])):
                at_edge.append(f"{title} at {batch:,} ({', '.join(found)})")
    if at_edge:
        notes.append(
            f"The best point lies at an end of its range: {'; '.join(at_edge)}. A wider search "
            "might find fewer updates there."
        )
    for name, row in rows.items():
        short = [str(seed) for seed, fit in enumerate(row.fits) if fit is None]
        if short:
            notes.append(
                f"{study.TITLES[name]}: of seed {', '.join(short)} the target was not reached at "
                "every batch, or not every trial has run; it has no fit."
            )
    return notes
