"""`python -m tf_largebatch.compare`: runs of any recipe side by side."""

import csv
import json
import re
import struct
import subprocess
import sys

import pytest
from test_report import DIVERGED, Page, result, row, run

from tf_largebatch.records.errors import InputError
from tf_largebatch.review import compare, comparison
from tf_largebatch.review.figures import COLOURS, draw_comparison


def recipe(name="goyal_8k", data="digits", **fields):
    return {"name": name, "data": {"name": data}, "epochs": 5, **fields}


def command(folder, *rows, scale="miniature", name="goyal_8k", rate=0.1, **fields):
    """A command's folder: each row (label, {seed: error}, batch) with a plan for each run."""
    kept = []
    for label, errors, batch in rows:
        runs = [run(s, [e] * 5, folder=f"{label}/seed-{s}") for s, e in errors.items()]
        own = recipe(name, rate=rate, batch=batch)
        kept.append(row(label, runs=runs, paper=23.74, std=0.09, recipe=own, global_batch=batch))
        for one in runs:
            place = folder / one.folder
            place.mkdir(parents=True)
            plan = {
                "rows": [["model", "resnet"], ["learning rate", str(rate)]],
                "recipe": own,
                "batch": {"train_examples": 1280},
                "settings": {"precision": "float32", "wire": "float32"},
            }
            (place / "plan.json").write_text(json.dumps(plan))
            (place / "seed.json").write_text(
                json.dumps({"seed": one.seed, "folder": ".", "epochs": [], "wall_seconds": 1.0})
            )
    found = result(*kept, scale=scale, recipe=name, **fields)
    (folder / "result.json").write_text(json.dumps(found.to_json()))
    return folder


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        compare.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return done.value.code, captured.out, captured.err


def test_rows_of_two_commands_stand_side_by_side(tmp_path, capsys):
    a = command(
        tmp_path / "a",
        ("small", {0: 3.0, 1: 4.0}, 8),
        environment={"cores": 2, "system": "Linux"},
    )
    b = command(
        tmp_path / "b",
        ("large", {0: 20.0, 1: 22.0}, 256),
        name="lamb",
        rate=3.2,
        environment={"cores": 64, "system": "Linux"},
        departures=("momentum: 0.9 -> 0.5",),
    )
    code, out, err = call(capsys, a, b, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    # 21 - 3.5; deviations 0.5^0.5 and 2^0.5, two seeds each: (0.25 + 1)^0.5 = 1.12
    assert "large against small: +17.50 points of error, standard error 1.12" in out
    text = Page(tmp_path / "out" / "comparison.html").text
    for words in (
        *("small miniature 8 3.2 14,076 3.50 ± 0.71 2", "large miniature 256"),
        *("21.00 ± 1.41 2 (23.74 ± 0.09) 1", "learning rate 0.1 3.2"),
        *("The same in all model resnet", "cores 2 64", "momentum: 0.9 -> 0.5"),
    ):
        assert words in text, words
    assert text.count("model resnet") == 1
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        small, large = csv.DictReader(file)
    assert (small["mean_error_pct"], small["recipe"], small["departures"]) == (
        "3.5",
        "goyal_8k",
        "",
    )
    assert (large["departures"], large["global_batch"]) == ("momentum: 0.9 -> 0.5", "256")
    with (tmp_path / "out" / "comparison_epochs.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    assert len(epochs) == 4 * 5
    assert (epochs[-1]["run"], epochs[-1]["seed"]) == ("large", "1")
    assert float(epochs[-1]["validation_error_pct"]) == 22.0


def test_departures_that_several_set_ups_share_are_said_once(tmp_path):
    rows = [("small", {0: 3.0}, 8), ("large", {0: 9.0}, 256)]
    a = command(tmp_path / "a", *rows, departures=("epochs: 30 -> 8",))
    b = command(tmp_path / "b", ("plain", {0: 4.0}, 8), rate=0.3)
    assert comparison.departures(comparison.read_entries([a, b])) == [
        ("small · large", ("epochs: 30 -> 8",))
    ]


def test_the_page_needs_no_network(tmp_path, capsys):
    call(capsys, command(tmp_path / "a", ("<b>", {0: 3.0}, 8)), "--out", tmp_path / "out")
    seen = Page(tmp_path / "out" / "comparison.html")
    assert not [x for x in seen.links if ":" in x and not x.startswith("data:image/png")]
    assert not {"script", "link", "b"} & set(seen.tags)
    assert set(seen.links) >= {path.name for path in (tmp_path / "out").iterdir()} - {
        "comparison.html"
    }


def test_runs_that_differ_in_their_seed_alone_are_one_entry(tmp_path):
    a = command(tmp_path / "a", ("small", {0: 3.0}, 8))
    b = command(tmp_path / "b", ("small", {1: 5.0}, 8))
    [entry] = comparison.read_entries([a, b])
    assert entry.row.mean_error_pct == 4.0
    assert entry.row.std_error_pct == pytest.approx(2**0.5)
    assert len(entry.folders) == 2


def test_what_two_versions_say_beside_the_numbers_is_no_difference(tmp_path):
    for seed, deviation in enumerate(("std_pct", "std")):
        folder = command(tmp_path / str(seed), ("small", {seed: 3.0}, 8))
        kept = json.loads((folder / "result.json").read_text())
        kept["rows"][0]["recipe"] |= {"expected": {deviation: 0.09}, "title": deviation}
        (folder / "result.json").write_text(json.dumps(kept))
    assert len(comparison.read_entries([tmp_path / "0", tmp_path / "1"])) == 1


def test_the_same_seed_twice_is_two_entries_with_names_that_differ(tmp_path):
    a = command(tmp_path / "a", ("small", {0: 3.0}, 8))
    b = command(tmp_path / "b", ("small", {0: 5.0}, 8))
    labels = [entry.label for entry in comparison.read_entries([a, b])]
    assert labels == ["a: goyal_8k: small", "b: goyal_8k: small"]


def test_another_rate_is_another_entry(tmp_path):
    a = command(tmp_path / "a", ("small", {0: 3.0}, 8))
    b = command(tmp_path / "b", ("small", {1: 5.0}, 8), rate=0.2)
    assert len(comparison.read_entries([a, b])) == 2


def test_one_run_of_a_table_is_taken_alone(tmp_path):
    whole = command(tmp_path / "a", ("small", {0: 3.0, 1: 9.0}, 8), ("large", {0: 20.0}, 256))
    [entry] = comparison.read_entries([whole / "small" / "seed-1"])
    assert (entry.label, entry.row.mean_error_pct) == ("small", 9.0)


def test_a_row_of_a_table_is_all_its_seeds(tmp_path):
    whole = command(tmp_path / "a", ("small", {0: 3.0, 1: 9.0}, 8), ("large", {0: 20.0}, 256))
    [entry] = comparison.read_entries([whole / "small"])
    assert (entry.label, entry.row.mean_error_pct) == ("small", 6.0)


def test_a_kept_record_without_its_runs_can_be_compared(tmp_path):
    a = command(tmp_path / "a", ("small", {0: 3.0}, 8))
    for plan in a.glob("*/*/plan.json"):
        plan.unlink()
    [entry] = comparison.read_entries([a])
    assert entry.train_examples == 1280  # of the digits
    assert ("rate", "0.1") in entry.plan["rows"]


def test_errors_on_other_data_are_not_subtracted(tmp_path):
    a = command(tmp_path / "a", ("small", {0: 3.0, 1: 4.0}, 8))
    b = command(tmp_path / "b", ("full", {0: 23.0, 1: 24.0}, 8192), scale="full")
    lines = comparison.say(comparison.read_entries([a, b]))
    assert lines[0] == "full: top-1 76.50 ± 0.71 (2 seeds) · published 76.26 ± 0.09 · 2.7 sd better"
    assert lines[1].endswith("cannot be set side by side")


def test_a_difference_says_when_it_has_no_deviation_or_no_result(tmp_path):
    a = command(tmp_path / "a", ("small", {0: 3.0, 1: 4.0}, 8), ("one", {0: 7.5}, 16))
    entries = comparison.read_entries([a])
    assert comparison.say(entries) == [
        "one against small: +4.00 points of error, one seed: no deviation known"
    ]
    found = result(row("small"), row("dead", runs=(DIVERGED,)), scale="miniature")
    for one in found.rows:
        object.__setattr__(one, "recipe", recipe())
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "result.json").write_text(json.dumps(found.to_json()))
    [line] = comparison.say(comparison.read_entries([tmp_path / "dead"]))
    assert line == "dead against small: dead has no result (1 of 1 diverged)"


class Panels:
    """What the figure of a comparison was asked to draw."""

    def __init__(self, monkeypatch, named, path):
        from matplotlib.figure import Figure

        kept, save = [], Figure.savefig
        monkeypatch.setattr(
            Figure, "savefig", lambda self, *a, **k: (kept.append(self), save(self, *a, **k))[1]
        )
        draw_comparison(named, path)
        self.axes = kept[0].axes

    def names(self):
        return [axes.get_xlabel() for axes in self.axes]


def test_the_curves_are_drawn_against_what_differs(tmp_path, monkeypatch):
    a = row("a", runs=(run(0, [40.0, 10.0]),), global_batch=256)
    b = row("b", runs=(run(0, [50.0, 20.0]),), global_batch=256)
    c = row("c", runs=(run(0, [50.0, 20.0]),), global_batch=512)
    path = tmp_path / "c.png"
    assert Panels(monkeypatch, [("a", a, 1280), ("b", b, 1280)], path).names() == ["epoch"]
    panels = Panels(monkeypatch, [("a", a, 1280), ("c", c, 50_000)], path)
    assert panels.names() == ["epoch", "update", "images seen"]
    curves = [
        [[*map(float, line.get_xdata())] for line in axes.lines if line.get_color() == COLOURS[0]]
        for axes in panels.axes
    ]
    assert curves == [[[1.0, 2.0]], [[5.0, 10.0]], [[1280.0, 2560.0]]]
    assert struct.unpack(">II", path.read_bytes()[16:24])[1] >= 1500


def no_run(folder):
    folder.mkdir()


def unfinished(folder):
    folder.mkdir()
    (folder / "run.json").write_text("{}")


def damaged(folder):
    folder.mkdir()
    (folder / "result.json").write_text("{")


def another_version(folder):
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps({"schema": 99}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "must be the folder of a run. Received: .*, which is none"),
        (no_run, "has neither result.json nor plan.json"),
        (unfinished, "must have ended.* Continue it"),
        (damaged, "damaged or of another version"),
        (another_version, "schema=99"),
    ],
)
def test_what_is_no_run_is_one_line_and_status_2(tmp_path, capsys, make, message):
    make(tmp_path / "run")
    code, out, err = call(capsys, tmp_path / "run", "--out", tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(message, err)
    assert not (tmp_path / "out").exists()


def test_the_same_run_twice_is_refused(tmp_path):
    a = command(tmp_path / "a", ("small", {0: 3.0}, 8))
    with pytest.raises(InputError, match="given once. Received: .*seed-0 twice"):
        comparison.read_entries([a, a / "small" / "seed-0"])


def test_out_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    a = command(tmp_path / "a", ("small", {0: 3.0}, 8))
    code, _, err = call(capsys, a, "--out", tmp_path / "file")
    assert (code, err.count("\n")) == (2, 1)
    assert "--out must be a folder" in err


def test_comparing_needs_no_tensorflow(tmp_path):
    a = command(tmp_path / "a", ("small", {0: 3.0}, 8))
    code = (
        "import sys; from tf_largebatch.review import compare\n"
        "compare.make_parser().format_help()\n"
        "assert not set(sys.modules) & {'numpy', 'matplotlib', 'jinja2'}\n"
        f"try: compare.main([{str(a)!r}, '--out', {str(tmp_path / 'out')!r}])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted(set(sys.modules) & {'tensorflow', 'keras'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_rows_of_one_name_are_set_against_each_other(tmp_path):
    a = command(tmp_path / "a", ("small", {0: 3.0}, 8), ("large", {0: 5.0}, 64))
    b = command(tmp_path / "b", ("small", {0: 4.0}, 8), ("large", {0: 9.0}, 64), rate=0.2)
    said = [line.split(",")[0] for line in comparison.say(comparison.read_entries([a, b]))]
    assert [line.removesuffix(" points of error") for line in said] == [
        "a: goyal_8k: large against a: goyal_8k: small: +2.00",
        "b: goyal_8k: small against a: goyal_8k: small: +1.00",
        "b: goyal_8k: large against a: goyal_8k: large: +4.00",
    ]
    [_, _, _, entry] = comparison.read_entries([a, b])
    assert comparison.places(entry) == f"{b / 'large'}/ seed-0"
