"""Reports that show what instruments measured, and are written again when one did."""

import base64
import csv
import dataclasses
import json

import pytest
from test_report import DIVERGED, Page, plan, result, row, run

from tf_largebatch.review.findings import read_findings
from tf_largebatch.review.report import refresh, write_report, write_run_reports, write_runs_csv

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def measure(folder, name="noise_scale", text="measured B_simple 900", picture=PIXEL):
    """What an instrument leaves in a run's folder."""
    place = folder / "diagnostics"
    place.mkdir(parents=True, exist_ok=True)
    kept = {"title": f"about {name}", "lines": [["noise scale", text]], "facts": {"images": 1280}}
    (place / f"{name}.json").write_text(json.dumps(kept))
    if picture:
        (place / f"{name}.png").write_bytes(picture)


@pytest.fixture
def command(tmp_path):
    """A command's folder with two rows of two seeds, as `experiment` leaves it."""
    rows = [
        row(label, runs=[run(s, [e] * 5, folder=f"{label}/seed-{s}") for s in (0, 1)])
        for label, e in (("small", 3.0), ("large", 20.0))
    ]
    found = result(*rows, scale="miniature")
    (tmp_path / "result.json").write_text(json.dumps(found.to_json()))
    for one in rows:
        for single in one.runs:
            (tmp_path / single.folder).mkdir(parents=True)
            (tmp_path / single.folder / "plan.json").write_text(json.dumps(plan(model=one.label)))
    return tmp_path


def test_what_was_measured_is_on_the_runs_page_and_on_its_commands(command):
    measure(command / "large" / "seed-1")
    pages = refresh(command / "large" / "seed-1")
    assert pages == [command / "large" / "seed-1" / "report.html", command / "report.html"]
    own, whole = map(Page, pages)
    for page in (own, whole):
        assert "noise scale measured B_simple 900" in page.text
        assert "images 1,280" in page.text
        data = [base64.b64decode(x.split(",")[1]) for x in page.links if x.startswith("data:")]
        assert data.count(PIXEL) == 1
        assert not [x for x in page.links if ":" in x and not x.startswith("data:image/png")]
    assert "large, seed 1 about noise_scale" in whole.text
    # The run's page has its own row, seed and plan alone.
    assert "top-1 80.00 (1 seed, no deviation)" in own.text
    assert "97.00" in whole.text and "97.00" not in own.text
    with (command / "instruments.csv").open() as file:
        assert list(csv.reader(file))[1] == [
            *("large, seed 1", "noise_scale", "noise scale", "measured B_simple 900"),
        ]


def test_two_measured_runs_stand_under_their_own_names(command):
    measure(command / "small" / "seed-0", text="B_simple 11")
    measure(command / "large" / "seed-1", text="B_simple 22")
    [_, whole] = refresh(command / "small" / "seed-0")
    text = Page(whole).text
    assert text.index("small, seed 0") < text.index("B_simple 11") < text.index("large, seed 1")
    assert text.index("large, seed 1 about") < text.index("B_simple 22")


def test_a_single_runs_report_is_its_commands(tmp_path):
    found = result(row(runs=(run(0, [3.0] * 5, folder="."),)))
    (tmp_path / "result.json").write_text(json.dumps(found.to_json()))
    (tmp_path / "plan.json").write_text(json.dumps(plan(model="resnet")))
    measure(tmp_path)
    assert refresh(tmp_path) == [tmp_path / "report.html"]
    text = Page(tmp_path / "report.html").text
    assert "B_simple 900" in text and "model resnet" in text


def test_a_run_whose_command_has_not_ended_has_no_report_to_write_again(command):
    (command / "result.json").unlink()
    measure(command / "small" / "seed-0")
    assert refresh(command / "small" / "seed-0") == []


def test_a_neighbours_result_is_not_taken_for_the_runs_own(command):
    other = command / "elsewhere" / "seed-0"
    other.mkdir(parents=True)
    assert refresh(other) == []


def test_a_damaged_measurement_is_named_and_does_not_stop_the_report(tmp_path):
    measure(tmp_path, "hessian", picture=None)
    (tmp_path / "diagnostics" / "noise_scale.json").write_text("{")
    write_report(result(row(runs=(run(0, [3.0] * 5, folder="."),))), [plan()], tmp_path)
    text = Page(tmp_path / "report.html").text
    assert "noise_scale.json is damaged" in text and "about hessian" in text


def test_instruments_words_are_text_and_never_markup(tmp_path):
    measure(tmp_path, text="<script>alert(1)</script>")
    write_report(result(row(runs=(run(0, [3.0] * 5, folder="."),))), [plan()], tmp_path)
    seen = Page(tmp_path / "report.html")
    assert "script" not in seen.tags and "<script>" in seen.text


def test_every_run_gets_a_report_of_its_own(command):
    rows = [dataclasses.replace(row(runs=(run(0, [5.0] * 5, folder="small/seed-0"),)))]
    write_run_reports(result(*rows, scale="miniature"), [plan(model="resnet")], command)
    text = Page(command / "small" / "seed-0" / "report.html").text
    assert "top-1 95.00" in text and "model resnet" in text
    assert (command / "small" / "seed-0" / "curves.png").exists()


def test_the_figure_of_the_rates_is_in_the_page(tmp_path):
    (tmp_path / "rates.png").write_bytes(PIXEL)
    write_report(result(row()), [plan()], tmp_path)
    links = Page(tmp_path / "report.html").links
    assert [base64.b64decode(x.split(",")[1]) for x in links if x.startswith("data:")][1] == PIXEL


def test_the_csv_of_the_runs_has_every_digit_and_no_number_for_a_diverged_one(tmp_path):
    found = result(row(runs=(run(0, [20.0, 30.5, 31.0]), run(1, [float("nan")]), DIVERGED)))
    write_runs_csv(found, tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open(newline="") as file:
        done, bad, dead = csv.DictReader(file)
    assert (float(done["error_pct"]), done["epochs"], done["diverged_at"]) == (30.5, "3", "")
    assert bad["error_pct"] == dead["error_pct"] == ""
    assert (dead["diverged_at"], dead["seed"]) == ("12", "9")


def test_a_run_without_instruments_has_no_findings(tmp_path):
    assert read_findings(tmp_path) == []
