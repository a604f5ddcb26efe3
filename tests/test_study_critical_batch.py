"""The study of steps to a target: its search, its record, and going on after a kill."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from test_report import Page

from tf_largebatch.studies import critical_batch, steps_record
from tf_largebatch.studies.critical_batch import make_space, search_batch

SETTINGS = {"trials": 6, "seed": 0, "target_pct": 5.0, "batches": [8, 64, 512]}


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        critical_batch.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return done.value.code, captured.out, captured.err


class Training:
    """A training whose steps to the target are known: 100 / rate, and 10 at least."""

    def __init__(self):
        self.calls = []

    def __call__(self, *, rate, momentum, seed, updates):
        self.calls.append((rate, momentum, seed, updates))
        needed = max(10, round(1 / rate))
        for update in range(1, updates + 1):
            yield update, 5.0 if update >= needed else 50.0


def test_the_best_trial_is_the_fewest_updates_and_no_trial_lasts_longer(tmp_path):
    train = Training()
    tried = search_batch(8, SETTINGS, tmp_path, lambda: train)
    needed = [max(10, round(1 / one.rate)) for one in tried]
    reached = [one for one in tried if one.steps is not None]
    assert min(one.steps for one in reached) == min(needed)
    best = None
    for one, own, (*_, updates) in zip(tried, needed, train.calls, strict=True):
        limit = 3200 if best is None else min(3200, best)  # 20 epochs of 1,280 at batch 8
        assert updates == limit
        assert one.steps == (own if own <= limit else None)
        best = own if best is None else min(best, own)
    assert {one.ended for one in tried} <= {"reached", "slower than the best"}
    assert [seed for _, _, seed, _ in train.calls] == list(range(6))


def test_rates_and_momenta_fill_their_ranges_at_every_batch_on_their_own(tmp_path):
    trains = [Training(), Training()]
    for batch, train in zip((8, 64), trains, strict=True):
        search_batch(batch, SETTINGS | {"trials": 32}, tmp_path, lambda train=train: train)
    points = [np.array([call[:2] for call in train.calls]) for train in trains]
    for rates, momenta in (p.T for p in points):
        # Halves of a logarithmic range: 1e-3 to 1, and 1 - momentum 0.03 to 1.
        assert 14 <= np.sum(rates < 10**-1.5) <= 18
        assert 14 <= np.sum(1 - momenta < 0.03**0.5) <= 18
        assert rates.min() >= 1e-3 and rates.max() <= 1.0
        assert momenta.min() >= 0.0 and momenta.max() <= 0.97
    assert not np.any(np.isclose(points[0], points[1]))


def test_a_study_that_was_killed_makes_the_trials_that_are_missing_and_no_other(tmp_path):
    first = Training()
    whole = search_batch(8, SETTINGS, tmp_path, lambda: first)
    for name in ("batch-0008-trial-003.json", "batch-0008-trial-005.json"):
        (tmp_path / name).unlink()
    again = Training()
    assert search_batch(8, SETTINGS, tmp_path, lambda: again) == whole
    assert [seed for _, _, seed, _ in again.calls] == [3, 5]
    assert again.calls == [first.calls[3], first.calls[5]]


def test_a_batch_whose_trials_are_all_there_compiles_nothing(tmp_path):
    search_batch(8, SETTINGS, tmp_path, Training)
    search_batch(8, SETTINGS, tmp_path, lambda: pytest.fail("made a training"))


def test_a_loss_that_is_not_finite_ends_the_trial_and_counts_for_nothing(tmp_path):
    def train(**_):
        yield 1, 50.0
        yield 2, float("nan")
        raise AssertionError("read on")

    tried = search_batch(8, SETTINGS, tmp_path, lambda: train)
    assert {(one.steps, one.updates, one.ended) for one in tried} == {(None, 2, "not finite")}


def tried_at(steps):
    """One trial a batch, (batch, steps or None)."""
    return [
        steps_record.Tried(
            global_batch=batch,
            trial=0,
            rate=0.05,
            momentum=0.8,
            steps=count,
            updates=count or 7,
            ended="reached" if count else "budget spent",
        )
        for batch, count in steps
    ]


def test_the_record_has_the_fit_the_regimes_and_what_was_not_reached(tmp_path):
    # S = 50 + 6400 / B: B_crit = 128. Batch 2 was not reached.
    points = [(8, 850), (32, 250), (128, 100), (512, 62.5), (2048, 53.125)]
    tried = tried_at([(2, None), *points])
    lines = steps_record.conclude(tried, SETTINGS, make_space(), tmp_path)
    assert lines[0].startswith("critical batch 128: at least 50 updates, at least 6,400 examples")
    assert "batch 2: not reached in 1 trials" in lines
    assert "batch 8: 850 updates, perfect scaling" in lines
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["fit"]["critical_batch"] == pytest.approx(128, rel=1e-6)
    regimes = {row["global_batch"]: row["regime"] for row in record["rows"]}
    assert (regimes[8], regimes[128], regimes[2048]) == (
        *("perfect scaling", "diminishing returns", "maximal data parallelism"),
    )
    assert record["rows"][0]["steps"] is None
    page = Page(tmp_path / "report.html")
    assert "critical batch 128" in page.text and "not reached" in page.text
    assert not [x for x in page.links if ":" in x and not x.startswith("data:image/png")]
    with (tmp_path / "rows.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert (lines[0]["steps"], lines[1]["steps"], lines[1]["examples"]) == ("", "850", "6800")
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")


def test_a_best_trial_at_the_end_of_the_search_is_named(tmp_path):
    tried = [*tried_at([(8, 850), (32, 250)])]
    tried += [
        steps_record.Tried(
            global_batch=128,
            trial=0,
            rate=0.9,
            momentum=0.5,
            steps=100,
            updates=100,
            ended="reached",
        )
    ]
    lines = steps_record.conclude(tried, SETTINGS, make_space(), tmp_path)
    assert lines[-1].endswith("(best at the edge of the search: rate)")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batches", "8", "16"], "--batches must be three different ones or more"),
        (["--batches", "8", "8", "16"], "Received: 8 8 16"),
        (["--batches", "8", "16", "4096"], "whole number in 1..1280. Received: 4096"),
        (["--target", "0"], "Received: 0"),
        (["--trials", "0"], "Received: 0"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(tmp_path, capsys, flags, message):
    code, out, err = call(capsys, *flags, "--run-dir", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "run").exists()


def test_another_studys_folder_is_refused(tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    code, _, err = call(capsys, "--run-dir", tmp_path)
    assert code == 2 and "belongs to another run" in err


def test_help_imports_no_framework():
    code = (
        "import sys; from tf_largebatch.studies import critical_batch as c;"
        "c.make_parser().format_help();"
        "print(sorted(set(sys.modules) & {'tensorflow', 'keras', 'numpy', 'scipy', 'jinja2'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_small_study_runs_from_the_command_line_and_goes_on(tmp_path, capsys):
    flags = ["--batches", 32, 128, 512, "--trials", 2, "--target", 60, "--run-dir", tmp_path / "r"]
    code, out, err = call(capsys, *flags)
    assert code == 0
    assert re.search("critical batch .* updates", out)
    assert "batch 512: trial 2 of 2" in err
    record = tmp_path / "r" / "result.json"
    first = json.loads(record.read_text())
    code, _, err = call(capsys, *flags)
    assert code == 0 and "continues" in err
    assert json.loads(record.read_text())["rows"] == first["rows"]
