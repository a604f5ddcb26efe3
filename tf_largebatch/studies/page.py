"""What is kept of a study beside its trials, record, page and figures; the table of all claims."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tf_largebatch.records.files import read_json, write_bytes, write_json, write_text
from tf_largebatch.review.page import duration_text
from tf_largebatch.review.verdict import AGREES, CONTRADICTS
from tf_largebatch.studies.runner import Stored, Trials, check_plan
from tf_largebatch.studies.study import Answer, Claim, Conclusion, Results, Scale, Study, Table

RECORD, PAGE = "record.json", "README.md"
QUICK = "QUICK LOOK, too small for any verdict"
RULES = (
    "Rates (and momenta, where the claim is about optimizers) are chosen on examples held out of "
    "the training set; the test set is read once, by the final trials.",
    "Every row has a search of one size; where the best lies on an end, it has been widened or the "
    "page names it.",
    "A difference is taken seed by seed; the interval is the 95 % bootstrap of its mean; the rule, "
    "with the smallest effect that matters, stands with each claim and was fixed before the run.",
)


def write(study: Study, folder: Path, scale: Scale) -> dict[str, Any]:
    """Draws and writes what there is of a study; returns the record."""

    def plan_of(results: Results) -> list:
        return check_plan(study.plan(results, scale))

    stored = Trials(study, folder).stored(plan_of)
    results = {name: one.result for name, one in stored.items()}
    missing = sum(trial.name not in results for trial in plan_of(results))
    conclusion = study.conclude(results, scale)
    record = make_record(study, scale, conclusion, stored, missing)
    folder.mkdir(parents=True, exist_ok=True)
    for figure in conclusion.figures:
        write_bytes(folder / figure.name, figure.png)
    write_json(folder / RECORD, record)
    write_text(folder / PAGE, make_page(study, record, conclusion))
    return record


def make_record(
    study: Study,
    scale: Scale,
    conclusion: Conclusion,
    stored: Mapping[str, Stored],
    missing: int,
) -> dict[str, Any]:
    """Returns the record: plain data, the same for the same trials but for "cost"."""
    return {
        "study": study.name,
        "title": study.title,
        "version": study.version,
        "quick": scale.quick,
        "seeds": scale.seeds,
        "trials": len(stored),
        "missing": missing,
        "design": dict(study.design),
        "claims": [_claim_record(study, claim, conclusion.answers) for claim in study.claims],
        "tables": [asdict(table) for table in conclusion.tables],
        "tuning": [asdict(table) for table in conclusion.tuning],
        "figures": {figure.name: figure.caption for figure in conclusion.figures},
        "notes": list(conclusion.notes),
        "numbers": dict(conclusion.numbers),
        "cost": cost(stored.values()),
    }


def cost(stored: Iterable[Stored]) -> dict[str, Any]:
    """Returns the seconds of all trials, and where they ran."""
    places: dict[str, int] = {}
    seconds = 0.0
    for one in stored:
        versions = ", ".join(f"{name} {number}" for name, number in sorted(one.versions.items()))
        key = f"{one.device}; Keras on {one.backend} ({versions})"
        places[key] = places.get(key, 0) + 1
        seconds += one.seconds
    return {"seconds": round(seconds), "places": dict(sorted(places.items()))}


def _claim_record(study: Study, claim: Claim, answers: Sequence[Answer]) -> dict[str, Any]:
    own = [a for a in answers if a.claim == claim.id]
    return {
        "id": claim.id,
        "text": claim.text,
        "paper": claim.paper,
        "published": claim.published,
        "rule": claim.rule.explain(claim.contrast),
        "unit": claim.rule.unit,
        "verdict": study.verdict(answers, claim.id),
        "answers": [
            {
                "part": a.part,
                "effect": a.effect,
                "verdict": a.verdict,
                "finding": None if a.finding is None else asdict(a.finding),
            }
            for a in own
        ],
    }


def make_page(study: Study, record: Mapping[str, Any], conclusion: Conclusion) -> str:
    """Returns the page in Markdown."""
    lines = [f"# {study.title}", ""]
    if record["quick"]:
        lines += [f"**{QUICK}.**", ""]
    lines += [f"{_state(record)} Command: `python -m tf_largebatch study {study.name}`.", ""]
    lines += ["## Before the run", ""]
    for claim in record["claims"]:
        lines += [
            f"**{claim['id']}**: {claim['text']} ({claim['paper']}; published: "
            f"{claim['published']}) Rule: {claim['rule']}.",
            "",
        ]
    lines += [*(f"- {sentence}" for sentence in (*study.method, *RULES)), ""]
    lines += ["## Verdicts", "", *_verdict_table(record), ""]
    for figure in conclusion.figures:
        lines += [f"![{figure.caption.split('.')[0]}]({figure.name})", "", figure.caption, ""]
    lines += ["## Results", ""]
    for table in conclusion.tables:
        lines += [*_markdown(table), ""]
    if conclusion.notes:
        lines += ["## Notes", "", *(f"- {note}" for note in conclusion.notes), ""]
    if conclusion.tuning:
        lines += ["## Searches", "", "<details><summary>Every point that was tried</summary>", ""]
        for table in conclusion.tuning:
            lines += [*_markdown(table), ""]
        lines += ["</details>", ""]
    lines += [f"[Record]({RECORD}), [trials](trials)."]
    return "\n".join(lines) + "\n"


def _state(record: Mapping[str, Any]) -> str:
    text = f"{record['trials']:,} trials, {record['seeds']} seeds"
    if record["missing"]:
        text += f", **at least {record['missing']:,} not run yet**"
    return f"{text}. {cost_text(record)}."


def cost_text(record: Mapping[str, Any]) -> str:
    """The time that the trials took, and where."""
    where = "; ".join(f"{place}: {n:,} trials" for place, n in record["cost"]["places"].items())
    return f"{duration_text(record['cost']['seconds'])} of one process ({where or 'nothing ran'})"


def _verdict_table(record: Mapping[str, Any]) -> list[str]:
    lines = ["| claim | | measured | verdict |", "|---|---|---|---|"]
    for claim in record["claims"]:
        for a in claim["answers"]:
            lines.append(_row((claim["id"], a["part"], a["effect"], a["verdict"])))
        if len(claim["answers"]) != 1:
            lines.append(_row((claim["id"], "all parts", "", f"**{claim['verdict']}**")))
    return lines


def _markdown(table: Table) -> list[str]:
    lines = [f"**{table.title}**", "", _row(table.header), "|" + "---|" * len(table.header)]
    lines += [_row(row) for row in table.rows]
    return [*lines, "", table.note] if table.note else lines


def read_records(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns the records of these studies below a folder, those that are there."""
    paths = {name: folder / name / RECORD for name in names}
    return {name: read_json(path) for name, path in paths.items() if path.is_file()}


def claims_table(
    studies: Mapping[str, Study],
    records: Mapping[str, Mapping[str, Any]],
    *,
    links: str,
) -> list[str]:
    """Returns the table of all claims in Markdown, by number.

    Args:
        studies: all there are, by name.
        records: of those that have run, by name.
        links: the path to the folders of the studies.
    """
    rows = []
    for name, study in studies.items():
        record = records.get(name)
        known = {claim["id"]: claim for claim in record["claims"]} if record else {}
        for claim in study.claims:
            found = known.get(claim.id, {"answers": [], "verdict": "not run"})
            where = f"[{name}]({links}{name}/README.md)" if record else f"`study {name}`"
            spent = f", {duration_text(record['cost']['seconds'])}" if record else ""
            cells = (
                f"{claim.id}: {claim.text}",
                claim.paper,
                claim.published,
                "<br>".join(_effect(a) for a in found["answers"]) or "–",
                _seeds(found["answers"]),
                f"**{found['verdict']}**",
                where + spent,
            )
            rows.append((_number(claim.id), _row(cells)))
    header = ("claim", "paper", "published", "ours", "n", "verdict", "study and its cost")
    return _by_number(header, rows)


def verdicts_table(
    studies: Mapping[str, Study], records: Mapping[str, Mapping[str, Any]], *, links: str
) -> list[str]:
    """Returns the table of the claims on which there is a verdict, one short line each, by number.

    Args:
        studies: all there are, by name.
        records: of those that have run, by name.
        links: the path to the folders of the studies.
    """
    rows = []
    for name, record in records.items():
        for found in record["claims"]:
            if found["verdict"] not in (AGREES, CONTRADICTS):
                continue
            claim = studies[name].claim(found["id"])
            effects = [answer["effect"].rpartition(": ")[2] for answer in found["answers"]]
            rest = [f"{len(effects) - 2} more"] if len(effects) > 2 else []
            numbers = "; ".join(effects[:2] + rest)
            where = f"[{found['verdict']}]({links}{name}/README.md)"
            paper = claim.paper.partition(", arXiv")[0]
            cells = (f"{claim.id}: {claim.text}", paper, numbers, f"**{where}**")
            rows.append((_number(claim.id), _row(cells)))
    header = ("claim", "paper", "measured", "verdict")
    return _by_number(header, rows)


def _by_number(header: Sequence[str], rows: Sequence[tuple[Any, str]]) -> list[str]:
    """The lines of a table whose rows come with what they are sorted by."""
    lines = [_row(header), "|" + "---|" * len(header)]
    return lines + [line for _, line in sorted(rows, key=lambda row: row[0])]


def _effect(found: Mapping[str, Any]) -> str:
    return f"{found['part']}: {found['effect']}" if found["part"] else found["effect"]


def _seeds(answers: Sequence[Mapping[str, Any]]) -> str:
    """The fewest seeds of a claim's parts."""
    counts = [len(a["finding"]["differences"]) if a["finding"] else 0 for a in answers]
    return str(min(counts, default=0))


def _row(cells: Iterable[object]) -> str:
    """A line of a table in Markdown."""
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _number(identity: str) -> tuple[int, str]:
    digits = "".join(c for c in identity if c.isdigit())
    return (int(digits) if digits else 0, identity)
