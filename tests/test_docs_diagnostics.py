"""The page on the instruments says what the committed record of the study says."""

import csv
import json
import re
from pathlib import Path

import pytest

from tf_largebatch.diagnostics.critical_batch import fit_tradeoff
from tf_largebatch.review import compare
from tf_largebatch.studies import critical_batch

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "diagnostics.md").read_text(encoding="utf-8")
RECORD = json.loads((DOCS / "records/critical_batch/result.json").read_text(encoding="utf-8"))


def test_the_table_of_the_study_is_the_records():
    lines = re.findall(r"^\| ([\d,]+) \| (.*) \|$", TEXT, flags=re.MULTILINE)
    assert len(lines) == len(RECORD["rows"])
    for (batch, cells), row in zip(lines, RECORD["rows"], strict=True):
        edge = row["at_edge"].replace("one_minus_momentum", "momentum") or "-"
        assert batch == f"{row['global_batch']:,}"
        assert cells.split(" | ") == [
            f"{row['steps']:,}",
            f"{row['examples']:,}",
            f"{row['rate']:.3g}",
            f"{row['momentum']:.3g}",
            row["regime"],
            edge,
        ]


def test_the_sentence_on_the_fit_is_the_records_and_the_records_its_rows():
    fit = RECORD["fit"]
    assert fit["text"] in TEXT
    assert f"within {100 * fit['log_error']:.0f} % (rms)" in TEXT
    points = [(row["global_batch"], row["steps"]) for row in RECORD["rows"]]
    again = fit_tradeoff(*zip(*points, strict=True))
    assert again.critical_batch == pytest.approx(fit["critical_batch"], rel=1e-6)


def test_the_rows_of_the_record_are_the_best_of_its_trials():
    with (DOCS / "records/critical_batch/trials.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert len(trials) == len(RECORD["rows"]) * RECORD["settings"]["trials"]
    for row in RECORD["rows"]:
        own = [t for t in trials if int(t["global_batch"]) == row["global_batch"] and t["steps"]]
        best = min(own, key=lambda trial: int(trial["steps"]))
        assert (int(best["steps"]), float(best["rate"])) == (row["steps"], row["rate"])


def test_the_record_was_made_with_the_defaults_that_the_page_names():
    settings = RECORD["settings"]
    assert settings["batches"] == list(critical_batch.BATCHES)
    assert settings["trials"] == critical_batch.TRIALS
    assert settings["target_pct"] == critical_batch.TARGET_PCT
    assert "from 8 to 1,024, 24 trials each" in TEXT and "[--target 8]" in TEXT


def test_every_flag_and_file_that_the_page_names_exists():
    known = critical_batch.make_parser().format_help() + compare.make_parser().format_help()
    commands = re.findall(r"^python -m tf_largebatch (?:compare|study).*$", TEXT, re.MULTILINE)
    flags = {flag for command in commands for flag in re.findall(r"--[a-z-]+", command)}
    assert len(flags) == 5 and all(flag in known for flag in flags)
    for name in re.findall(r"\]\(([\w/.]+)\)", TEXT):
        assert (DOCS / name).exists(), name
    for name in re.findall(r"(tools/\w+\.py)", TEXT):
        assert (DOCS.parent / name).exists(), name
