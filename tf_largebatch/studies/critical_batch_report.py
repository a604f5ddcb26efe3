"""What the trials of `critical_batch` say: fits, intervals, tables and figures."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tf_largebatch.diagnostics.steps_to_target import Range
from tf_largebatch.studies import critical_batch_plan as study
from tf_largebatch.studies.critical_batch_figures import (
    LADDER_CAPTION,
    STEPS_CAPTION,
    draw_ladder,
    draw_steps,
)
from tf_largebatch.studies.critical_batch_seeds import (
    LADDER_TEXTS,
    Errors,
    Seed,
    geometric,
    median_fit,
    read_ladder,
    read_seed,
)
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
from tf_largebatch.studies.tuning import tuning_table


def conclude(results: Results, scale: Scale, claims: Mapping[str, Claim]) -> Conclusion:
    """All of it; `claims` by id."""
    sets = {
        data: [read_seed(data, number, results, scale) for number in range(scale.seeds)]
        for data in study.data_of(scale)
    }
    answers: list[Answer] = []
    tables: list[Table] = []
    numbers: dict[str, Any] = {}
    for data, seeds in sets.items():
        answers += _regimes(claims["C9"], data, seeds, scale)
        answers.append(_prediction(claims["C10"], data, seeds, scale))
        if any(seed.steps for seed in seeds):
            tables += [_steps_table(data, seeds, scale), _noise_table(data, seeds, scale)]
        numbers[data] = [_numbers(seed) for seed in seeds]
    errors = read_ladder(results, scale)
    answers += _ladder_answers(claims, errors, scale)
    if any(errors["lamb_root"].values()):
        tables.append(_ladder_table(errors, results, scale))
    numbers["ladder"] = {row: {str(b): e for b, e in own.items()} for row, own in errors.items()}
    return Conclusion(
        answers=answers,
        tables=tables,
        tuning=_tuning(results, scale),
        figures=_figures(sets, errors, scale),
        notes=_notes(sets),
        numbers=numbers,
    )


def _figures(sets: dict[str, list[Seed]], errors: Errors, scale: Scale) -> list[Figure]:
    """Those for which there is something to draw."""
    begun = {data: seeds for data, seeds in sets.items() if any(seed.steps for seed in seeds)}
    drawn = []
    if begun:
        drawn.append(Figure("steps.png", draw_steps(begun, scale), STEPS_CAPTION))
    if any(e is not None for own in errors.values() for found in own.values() for e in found):
        drawn.append(Figure("lamb.png", draw_ladder(errors, scale), LADDER_CAPTION))
    return drawn


def _numbers(seed: Seed) -> dict[str, Any]:
    return {
        "steps": {str(batch): steps for batch, steps in seed.steps.items()},
        "critical_batch": seed.fit and seed.fit.critical_batch,
        "steps_min": seed.fit and seed.fit.steps_min,
        "examples_min": seed.fit and seed.fit.examples_min,
        "log_error": seed.fit and seed.fit.log_error,
        "noise_scale": seed.noise_scale,
        "noise": {str(batch): value for batch, value in seed.noise.items()},
    }


# Answers.


def halvings(steps: dict[int, int], low: int, high: int) -> float | None:
    """Halvings of the updates per doubling of the batch, from `low` to `high`."""
    if low not in steps or high not in steps:
        return None
    return math.log2(steps[low] / steps[high]) / math.log2(high / low)


def _regimes(claim: Claim, data: str, seeds: Sequence[Seed], scale: Scale) -> list[Answer]:
    found = []
    for name, wanted in (("perfect", 1.0), ("flat", 0.0)):
        low, high = study.DESIGN["ends"][name]
        slopes = [halvings(seed.steps, low, high) for seed in seeds]
        part = f"{study.TITLES[data]}, {low:,} to {high:,}"
        known = [slope - wanted for slope in slopes if slope is not None]
        found.append(
            answer(claim, known, scale, part=part, effect=f"halvings a doubling - {wanted:g}")
        )
    return found


def _prediction(claim: Claim, data: str, seeds: Sequence[Seed], scale: Scale) -> Answer:
    known = [
        math.log10(seed.noise_scale / seed.fit.critical_batch)
        for seed in seeds
        if seed.fit is not None and seed.noise_scale is not None
    ]
    effect = "log10(noise scale / critical batch)"
    return answer(claim, known, scale, part=study.TITLES[data], effect=effect)


def _ladder_answers(claims: Mapping[str, Claim], errors: Errors, scale: Scale) -> list[Answer]:
    batches = study.ladder(scale)["batches"]
    first, last = batches[0], batches[-1]

    def paired(claim: Claim, one: Sequence, other: Sequence, effect: str) -> Answer:
        pairs = zip(one, other, strict=True)
        known = [a - b for a, b in pairs if a is not None and b is not None]
        return answer(claim, known, scale, effect=effect)

    lamb, sgd = errors["lamb_root"], errors["sgd_root"]
    return [
        paired(claims["C8a"], lamb[last], lamb[first], f"LAMB at {last:,} - at {first}"),
        paired(claims["C8b"], sgd[last], lamb[last], f"SGD - LAMB at {last:,}"),
    ]


# Tables.


def _steps_table(data: str, seeds: Sequence[Seed], scale: Scale) -> Table:
    rows = []
    curve = median_fit(seeds)
    for batch in study.of("batches", scale):
        steps = [seed.steps[batch] for seed in seeds if batch in seed.steps]
        cells = ["not reached" if not steps else f"{statistics.median(steps):,.0f}", "–", "–", "–"]
        if steps:
            cells[1] = f"{min(steps):,} to {max(steps):,}"
            cells[2] = f"{batch * statistics.median(steps) / 1000:,.0f}"
            cells[3] = "–" if curve is None else curve.regime(batch)
        rows.append([f"{batch:,}", *cells, str(len(steps))])
    note = "" if curve is None else f"Fit to the medians: {curve.text()}."
    known = [seed.fit.critical_batch for seed in seeds if seed.fit is not None]
    if len(known) > 1:
        note += f" Critical batch over seeds: {geometric(known)}."
    header = ("batch", "updates, median", "range", "thousand examples", "regime", "seeds")
    title = f"{study.TITLES[data]}: updates to {study.target_pct(data, scale):g} % held-out error"
    return Table(title, header, rows, note)


def _noise_table(data: str, seeds: Sequence[Seed], scale: Scale) -> Table:
    rows = []
    for batch in study.of("noise_batches", scale):
        known = [value for seed in seeds if (value := seed.noise.get(batch))]
        text = geometric(known) if len(known) > 1 else "–"
        rows.append([f"{batch:,}", text])
    known = [seed.noise_scale for seed in seeds if seed.noise_scale is not None]
    rows.append(["all", geometric(known) if len(known) > 1 else "–"])
    title = f"{study.TITLES[data]}: noise scale along the fastest run"
    return Table(title, ("batch of the run", "noise scale, geometric mean [interval]"), rows)


def _ladder_table(errors: Errors, results: Results, scale: Scale) -> Table:
    def cell(found: Sequence[float | None]) -> str:
        known = [e for e in found if e is not None]
        if len(known) < 2:
            return f"{known[0]:.2f}" if known else "not run"
        return f"{statistics.fmean(known):.2f} ± {statistics.stdev(known):.2f}"

    rows = [
        [f"{batch:,}", *(cell(own[batch]) for own in errors.values())]
        for batch in study.ladder(scale)["batches"]
    ]
    rates = ", ".join(
        f"{kind} {found.best:.4g}"
        for kind in ("lamb", "sgd")
        if (found := study.ladder_search(kind, results, scale)).best is not None
    )
    note = f"Mean ± deviation over seeds. Rates at 64: {rates}." if rates else ""
    rules = study.ladder(scale)
    title = f"{study.TITLES[rules['data']]}: test error after {rules['epochs']} epochs, %"
    header = ("batch", *(LADDER_TEXTS[row] for row in errors))
    return Table(title, header, rows, note)


def _tuning(results: Results, scale: Scale) -> list[Table]:
    tables = []
    for data in study.data_of(scale):
        for batch in study.of("batches", scale):
            trials, finalists = study.search(data, batch, results, scale)
            if trials[0].name not in results:
                continue
            rows = [
                _point(number, trial, results.get(trial.name), number in finalists)
                for number, trial in enumerate(trials)
            ]
            edge = _edges(trials[finalists[0]]) if finalists else []
            note = f"The best lies at the edge of {' and '.join(edge)}." if edge else ""
            title = f"{study.TITLES[data]}, batch {batch:,} (finalists in bold)"
            header = ("point", "rate", "momentum", "limit", "updates to the target", "error, %")
            tables.append(Table(title, header, rows, note))
    searches = [study.ladder_search(kind, results, scale) for kind in ("lamb", "sgd")]
    return [*tables, tuning_table(searches, scale, "LAMB's ladder: rates at batch 64")]


def _edges(trial: Trial) -> list[str]:
    """Which of rate and momentum lie within a tenth of their range from its end."""
    values = {
        "rate": trial.settings["rate"],
        "one_minus_momentum": 1.0 - trial.settings["momentum"],
    }
    found = []
    for name, (low, high) in study.DESIGN["space"].items():
        share = Range(low, high, log=True).share(values[name])
        if not 0.1 <= share <= 0.9:
            found.append(name.replace("one_minus_", ""))
    return found


def _point(number: int, trial: Trial, found: dict | None, bold: bool) -> list[str]:
    steps = "not run" if found is None else "not reached"
    if found is not None and found["steps"] is not None:
        steps = f"{found['steps']:,}"
    error = found["error_pct"] if found else None
    mark = "**" if bold else ""
    return [
        f"{mark}{number}{mark}",
        f"{trial.settings['rate']:.3g}",
        f"{trial.settings['momentum']:.3g}",
        f"{trial.settings['updates']:,}",
        steps,
        "–" if error is None else f"{error:.2f}",
    ]


def _notes(sets: dict[str, list[Seed]]) -> list[str]:
    notes = [
        "Published batches are of other networks: the papers' simple CNN, and for McCandlish et "
        "al. a target of their own. The shape and the ratio can be compared, not the batches.",
        "C8: the paper's ladder is ResNet-50 on ImageNet over the same ratio of batches, 64.",
    ]
    for data, seeds in sets.items():
        short = [n for n, seed in enumerate(seeds) if seed.fit is None]
        if short:
            which = ", ".join(map(str, short))
            notes.append(
                f"{study.TITLES[data]}: of seed {which} the target was not reached at every batch, "
                "or not every trial has run; it has no fit."
            )
    return notes
