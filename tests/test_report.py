import base64
import csv
import struct
from html.parser import HTMLParser

import pytest

from tf_largebatch.records.contrast import Contrast
from tf_largebatch.records.curve import EpochRecord
from tf_largebatch.records.result import Found, Result, RowResult, SeedResult
from tf_largebatch.review.figures import (
    COLOURS,
    curves_title,
    draw_batches,
    draw_curves,
    draw_rates,
)
from tf_largebatch.review.report import write_report
from tf_largebatch.review.tables import (
    MISSING,
    PAPER_HEADER,
    table,
    text_table,
    verdict,
    write_rows_csv,
)

PNG = b"\x89PNG\r\n\x1a\n"


def run(seed, errors, *, diverged_at=None, folder=None):
    """One run with the given validation errors, epoch by epoch."""
    epochs = tuple(
        EpochRecord(
            epoch=i + 1,
            update=5 * (i + 1),
            images_seen=1280 * (i + 1),
            learning_rate=0.1,
            train_loss=1.0,
            train_error_pct=50.0,
            validation_loss=1.0,
            validation_error_pct=error,
            validation_top5_error_pct=1.0,
            seconds=1.0,
        )
        for i, error in enumerate(errors)
    )
    return SeedResult(
        seed=seed,
        folder=folder or f"seed-{seed}",
        epochs=epochs,
        wall_seconds=35.25,
        diverged_at=diverged_at,
    )


def row(label="linear, warmup", finals=(23.0, 24.0), *, paper=None, std=None, runs=None, **fields):
    """One row whose runs stand at one error each."""
    runs = tuple(run(i, [e] * 5) for i, e in enumerate(finals)) if runs is None else runs
    settings = dict(
        recipe={}, global_batch=8192, peak_rate=3.2, updates=14_076, published_error_pct=paper
    )
    return RowResult(label=label, published_std_pct=std, runs=tuple(runs), **(settings | fields))


def result(*rows, scale="full", **fields):
    settings = dict(recipe="goyal_8k", title="Goyal 8k", paper="arXiv:1706.02677", scale=scale)
    return Result(**(settings | fields), rows=rows)


def column(found, name):
    header, rows = table(found)
    return [cells[[h.replace("\n", " ") for h in header].index(name)] for cells in rows]


DIVERGED = run(9, [90.0, 80.0], diverged_at=12)


def test_the_verdict_sets_our_mean_beside_the_papers_within_its_deviation():
    # errors 23.71, 23.79, 23.87: mean 23.79, deviation 0.08; top-1 76.21. The paper: 23.74 +- 0.09.
    found = result(row(finals=(23.71, 23.79, 23.87), paper=23.74, std=0.09))
    assert verdict(found) == (
        "top-1 76.21 ± 0.08 (3 seeds) · published 76.26 ± 0.09 · within 1 sd",
    )


@pytest.mark.parametrize(
    ("finals", "end"),
    [
        ((23.83, 23.83), "within 1 sd"),  # 0.09 above: exactly one deviation
        ((23.65, 23.65), "within 1 sd"),
        ((23.92, 23.92), "2.0 sd worse"),  # 0.18 above
        ((23.47, 23.47), "3.0 sd better"),  # 0.27 below
    ],
)
def test_the_distance_is_counted_in_the_papers_deviations(finals, end):
    [line] = verdict(result(row(finals=finals, paper=23.74, std=0.09)))
    assert line.endswith(end)


def test_a_difference_of_one_deviation_to_the_last_binary_digit_is_within_it():
    assert 23.60 - 23.48 > 0.12
    [line] = verdict(result(row(finals=(23.48, 23.48), paper=23.60, std=0.12)))
    assert line.endswith("within 1 sd")


def test_our_own_spread_cannot_widen_the_papers_yardstick():
    # Mean 24.74, one point above; our deviation is 1.41, the paper's 0.1.
    [line] = verdict(result(row(finals=(23.74, 25.74), paper=23.74, std=0.1)))
    assert line.endswith("10.0 sd worse")


def test_our_deviation_serves_where_the_paper_gives_none():
    # Mean 24.0, deviation sqrt(2) = 1.41, the paper at 26.0: 2 / 1.41 = 1.4.
    [line] = verdict(result(row(finals=(23.0, 25.0), paper=26.0)))
    assert line == "top-1 76.00 ± 1.41 (2 seeds) · published 74.00 · 1.4 sd better"


def test_one_seed_shows_no_deviation_and_says_so():
    found = result(row(finals=(23.0,), paper=26.0))
    line, note = verdict(found)
    assert line == (
        "top-1 77.00 (1 seed, no deviation) · published 74.00 · 3.00 points better, "
        "no deviation known"
    )
    assert note.startswith("one seed: no deviation can be shown")
    assert "±" not in text_table(found)


def test_seeds_that_are_left_after_a_divergence_make_no_reproduction():
    runs = (run(0, [23.7] * 5), run(1, [23.8] * 5), DIVERGED)
    [line] = verdict(result(row(runs=runs, paper=23.74, std=0.09)))
    assert line == "top-1 76.25 ± 0.07 (2 seeds) · published 76.26 ± 0.09 · 1 of 3 diverged"


def test_a_row_without_any_result_has_none_in_the_verdict():
    found = result(row("a", runs=(DIVERGED, DIVERGED), paper=23.74), row("b", runs=()))
    assert verdict(found) == ("a: no result (2 of 2 diverged)", "b: no result (not run)")


def test_departures_take_the_place_on_the_papers_scale_away():
    found = result(
        row(finals=(23.7, 23.8), paper=23.74, std=0.09), departures=("momentum: 0.9 -> 0.95",)
    )
    line, last = verdict(found)
    assert line.endswith("published 76.26 ± 0.09")
    assert last == "modified (1 departure): not a reproduction"
    assert "modified: momentum: 0.9 -> 0.95" in text_table(found)


def test_a_full_run_without_a_published_value_says_so():
    assert verdict(result(row()))[0].endswith("no published value")


def test_a_miniature_is_read_as_differences_beside_the_papers():
    found = result(
        row("small batch", (3.0, 4.0), paper=23.60, std=0.12),
        row("no warmup", (20.0, 21.0), paper=24.84, std=0.37),
        row("same rate", (24.0, 24.5)),
        row("dead", runs=(DIVERGED, DIVERGED)),
        scale="miniature",
    )
    # 20.5 - 3.5 and 24.84 - 23.60; 24.25 - 3.5
    head, no_warmup, same_rate, dead = verdict(found)
    assert head.endswith("never the paper's experiment")
    assert no_warmup == (
        "no warmup against small batch: +17.00 points of error "
        "· the paper, at ImageNet scale: +1.24"
    )
    assert same_rate == "same rate against small batch: +20.75 points of error"
    assert dead == "dead: no result (2 of 2 diverged)"
    assert "within" not in text_table(found)


def test_a_miniature_whose_first_row_diverged_has_no_difference_to_show():
    found = result(row("a", runs=(DIVERGED,)), row("b", (5.0, 5.0)), scale="miniature")
    assert "b: 5.00 ± 0.00 % error; a has no result" in verdict(found)


def test_a_miniature_of_one_row_has_its_own_number_and_no_paper_beside_it():
    found = result(row("LARS", (3.0, 4.0), paper=23.60, std=0.12), scale="miniature")
    assert verdict(found)[1:] == ("LARS: top-1 96.50 ± 0.71 (2 seeds)",)
    dead = result(row("LARS", runs=(DIVERGED,)), scale="miniature")
    assert verdict(dead)[1] == "LARS: no result (1 of 1 diverged)"


def test_a_smoke_run_is_compared_with_nothing():
    found = result(row(paper=23.74, std=0.09), scale="smoke")
    assert verdict(found) == ("smoke run: it shows that the path works; its numbers mean nothing",)
    assert "23.74" not in text_table(found)


def test_the_cells_of_a_row_by_hand():
    # Medians of the last five epochs: of (9, 1, 2, 3, 4, 5) without the 9 it is 3; the other is 5.
    # Mean 4, deviation sqrt(2).
    runs = (run(0, [9.0, 1.0, 2.0, 3.0, 4.0, 5.0]), run(1, [5.0] * 5))
    header, rows = table(result(row(runs=runs, paper=23.74, std=0.09), scale="miniature"))
    assert header[-1] == PAPER_HEADER
    assert rows == [
        ["linear, warmup", "8,192", "3.2", "14,076", "4.00 ± 1.41", "2", "96.00", "23.74 ± 0.09"]
    ]


def test_the_papers_number_stands_under_its_own_name():
    assert "another experiment" in text_table(result(row(paper=23.74), scale="miniature"))
    full = text_table(result(row(paper=23.74)))
    assert "published" in full and "another experiment" not in full


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_missing_is_a_dash_and_never_zero(value):
    found = result(row(runs=(), paper=value))
    assert column(found, "error %") == [MISSING]
    assert column(found, "accuracy %") == [MISSING]
    assert column(found, "published error %") == [MISSING]


def test_an_error_that_is_not_finite_is_a_dash():
    found = result(row(finals=(float("nan"),)))
    assert column(found, "error %") == column(found, "accuracy %") == [MISSING]


def test_diverged_runs_are_counted_apart_from_the_mean():
    rows = (
        row("all", runs=(DIVERGED, DIVERGED)),
        row("one", runs=(run(0, [20.0] * 5), run(1, [22.0] * 5), DIVERGED)),
        row("cut", runs=(run(0, [20.0] * 5), run(1, []))),
    )
    found = result(*rows)
    assert column(found, "error %") == ["diverged", "21.00 ± 1.41", "20.00"]
    assert column(found, "seeds") == [
        "2 of 2 diverged",
        "2 (1 of 3 diverged)",
        "1 (1 of 2 unfinished)",
    ]
    assert column(found, "accuracy %") == [MISSING, "79.00", "80.00"]


def test_the_columns_of_the_text_table_line_up():
    found = result(
        row("a", (3.0, 4.0), paper=23.6), row("a longer label", (20.0, 30.0)), scale="miniature"
    )
    lines = text_table(found).splitlines()
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-"})
    header, *rows = lines[rule - 1], lines[rule + 1], lines[rule + 2]
    assert {len(line) for line in (*rows, lines[rule])} == {len(lines[rule])}
    for name in ("batch", "rate", "updates", "error %", "accuracy %"):
        end = header.index(name) + len(name)
        assert all(line[end - 1] != " " and line[end : end + 1] in ("", " ") for line in rows)


def test_the_csv_has_every_digit_and_empty_fields_for_what_is_missing(tmp_path):
    found = result(row(finals=(1.0, 2.0), paper=23.74), row("none", runs=(DIVERGED,)))
    write_rows_csv(found, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        full, none = csv.DictReader(file)
    assert float(full["mean_error_pct"]) == 1.5
    assert float(full["std_error_pct"]) == pytest.approx(0.5**0.5, rel=1e-15)
    assert (float(full["lowest_error_pct"]), float(full["highest_error_pct"])) == (1.0, 2.0)
    assert float(full["accuracy"]) == 0.985
    assert full["published_std_pct"] == ""
    assert none["diverged"] == none["seeds"] == "1"
    assert none["mean_error_pct"] == none["accuracy"] == none["lowest_error_pct"] == ""


def test_the_csv_writes_no_number_that_is_not_finite(tmp_path):
    write_rows_csv(result(row(finals=(float("nan"),))), tmp_path / "rows.csv")
    assert "nan" not in (tmp_path / "rows.csv").read_text()


@pytest.mark.parametrize("scale", ["full", "miniature", "smoke"])
def test_the_figure_is_a_png_and_is_returned_as_written(tmp_path, scale):
    rows = [
        row("plain", (20.0, 3.0), paper=23.6),
        row("one diverged", runs=(run(0, [90.0, 5.0]), DIVERGED)),
        row("died at once", runs=(run(1, [], diverged_at=1),)),
        row("$a^ and _b_$", runs=(run(1, [0.0, float("nan"), 50.0]),)),
    ]
    drawn = draw_curves(result(*rows, scale=scale), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == drawn
    assert drawn.startswith(PNG)
    width, height = struct.unpack(">II", drawn[16:24])
    assert width >= 1000 and height >= 600
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_a_miniatures_figure_names_its_own_data_and_batches_and_not_the_papers():
    small = row(recipe={"data": {"name": "digits"}}, global_batch=8)
    large = row(recipe={"data": {"name": "digits"}}, global_batch=256)
    title = "Goyal et al. 2017, ImageNet in 1 hour: ResNet-50 at 8,192 images per update"
    found = curves_title(result(small, large, title=title, scale="miniature"))
    assert found == "Miniature of Goyal et al. 2017, ImageNet in 1 hour: digits, batch 8 to 256"
    assert curves_title(result(row(), title=title)) == f"{title} · full"


def test_a_result_without_any_epoch_is_still_drawn(tmp_path):
    assert draw_curves(result(row(runs=(run(0, []),))), tmp_path / "c.png").startswith(PNG)
    assert draw_curves(result(), tmp_path / "d.png").startswith(PNG)


def test_three_batches_make_a_curve_of_errors_and_two_do_not(tmp_path):
    rows = [row(str(batch), (10.0, 12.0), global_batch=batch) for batch in (8, 64, 512)]
    assert draw_batches(result(*rows[:2]), tmp_path / "b.png") is None
    assert (
        draw_batches(result(*rows[:2], row(finals=(), global_batch=9)), tmp_path / "b.png") is None
    )
    assert not (tmp_path / "b.png").exists()
    drawn = draw_batches(result(*rows), tmp_path / "b.png")
    assert drawn.startswith(PNG) and (tmp_path / "b.png").read_bytes() == drawn


class Axes:
    """What a figure was asked to draw."""

    def __init__(self, monkeypatch, found, path):
        from matplotlib.figure import Figure

        kept = []
        save = Figure.savefig
        monkeypatch.setattr(
            Figure, "savefig", lambda self, *a, **k: (kept.append(self), save(self, *a, **k))[1]
        )
        draw_curves(found, path)
        self.axes = kept[0].axes[0]

    def lines(self, colour):
        return [
            (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
            for line in self.axes.lines
            if line.get_color() == colour
        ]


def test_a_modified_run_goes_without_the_papers_line(tmp_path, monkeypatch):
    for departures, dashed in (((), 1), (("momentum: 0.9 -> 0.95",), 0)):
        found = result(row(paper=23.74), departures=departures)
        axes = Axes(monkeypatch, found, tmp_path / "c.png").axes
        assert sum(line.get_linestyle() == "--" for line in axes.lines) == dashed


def test_the_console_says_which_epochs_make_the_error_of_a_run():
    assert "a run: the median of its last five epochs" in text_table(result(row()))
    assert "last five" not in text_table(result(row(), scale="smoke"))


def test_the_line_is_the_mean_and_the_band_the_range_over_finished_seeds(tmp_path, monkeypatch):
    runs = (run(0, [40.0, 10.0]), run(1, [50.0, 20.0]), run(2, [60.0], diverged_at=7))
    axes = Axes(monkeypatch, result(row(runs=runs), scale="miniature"), tmp_path / "c.png")
    thin, cross, mean = axes.lines(COLOURS[0])
    assert mean == ([1.0, 2.0], [45.0, 15.0])
    assert thin == cross == ([1.0], [60.0])
    [band] = axes.axes.collections
    corners = {tuple(map(float, p)) for p in band.get_paths()[0].vertices}
    assert corners == {(1.0, 40.0), (1.0, 50.0), (2.0, 10.0), (2.0, 20.0)}


@pytest.mark.parametrize(("scale", "dashed"), [("full", 1), ("miniature", 0), ("smoke", 0)])
def test_the_papers_error_is_drawn_at_full_scale_only(tmp_path, monkeypatch, scale, dashed):
    axes = Axes(monkeypatch, result(row(paper=23.74), scale=scale), tmp_path / "c.png").axes
    levels = [line.get_ydata() for line in axes.lines if line.get_linestyle() == "--"]
    assert [list(level) for level in levels] == [[23.74, 23.74]] * dashed


@pytest.mark.parametrize(
    ("errors", "scale"), [([80.0, 8.0], "log"), ([80.0, 9.0], "linear"), ([80.0, 0.0], "linear")]
)
def test_the_axis_is_logarithmic_from_a_tenfold_range_on(tmp_path, monkeypatch, errors, scale):
    found = result(row(runs=(run(0, errors),)))
    assert Axes(monkeypatch, found, tmp_path / "c.png").axes.get_yscale() == scale


class Page(HTMLParser):
    """The page's text, links and tags, with every tag closed."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self, path):
        super().__init__()
        self.words, self.links, self.tags, self.open = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def plan(**labels):
    return {"rows": [[label, value] for label, value in labels.items()]}


def page(folder, found, plans=None):
    return Page(write_report(found, plans or [plan() for _ in found.rows], folder))


def test_the_page_needs_no_network(tmp_path):
    seen = page(tmp_path, result(row(), paper="https://example.org/paper"))
    assert not [
        link for link in seen.links if ":" in link and not link.startswith("data:image/png")
    ]
    assert not {"script", "link", "iframe", "object"} & set(seen.tags)
    style = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "url(" not in style and "@import" not in style


def test_the_page_holds_the_figure_it_wrote(tmp_path):
    seen = page(tmp_path, result(row()))
    [picture] = [link for link in seen.links if link.startswith("data:")]
    embedded = base64.b64decode(picture.split(",", 1)[1])
    assert embedded == (tmp_path / "curves.png").read_bytes()


def test_the_users_words_are_text_and_never_markup(tmp_path):
    evil = "<script>alert('1')</script>\"&"
    found = result(
        row(evil, shows=evil, runs=(run(0, [1.0], folder="javascript:alert(1)"),)),
        title=evil,
        paper=evil,
        departures=(evil,),
        notes=(evil,),
        environment={evil: {evil: evil}},
    )
    seen = page(tmp_path, found, [plan(**{evil: evil})])
    assert "script" not in seen.tags
    assert seen.text.count(evil) >= 9
    assert "javascript%3Aalert%281%29" in seen.links


def test_the_page_shows_verdict_table_plan_departures_notes_and_environment(tmp_path):
    found = result(
        row("small batch", (3.0, 4.0), paper=23.6, std=0.12, shows="the baseline"),
        row("large batch", (20.0, 21.0), runs=None),
        scale="miniature",
        departures=("momentum: 0.9 -> 0.95",),
        notes=("517 test images",),
        environment={"versions": {"keras": "3.15.1"}, "commit": None},
        wall_seconds=7500.0,
    )
    plans = [plan(model="resnet", rate="0.1"), plan(model="resnet", rate="3.2", note="x")]
    text = page(tmp_path, found, plans).text
    for words in (
        *verdict(found),
        "3.50 ± 0.71",
        "23.60 ± 0.12",
        "another experiment",
        "the baseline",
        "Modified: this is not a reproduction.",
        "momentum: 0.9 -> 0.95",
        "517 test images",
        "versions.keras 3.15.1",
        f"commit {MISSING}",
        "rate 0.1 3.2",
        f"note {MISSING} x",
        "model resnet",
        "2 h 05 min",
        "35.2 s",
    ):
        assert words in text, words
    # Said once: it is the same in both rows.
    assert text.count("model resnet") == 1
    assert text.count("rate 0.1") == 1


def test_a_reproduction_is_not_called_modified(tmp_path):
    assert "odified" not in page(tmp_path, result(row(paper=23.74))).text


def test_the_page_says_where_each_run_diverged(tmp_path):
    text = page(tmp_path, result(row(runs=(run(0, [20.0] * 5), DIVERGED)))).text
    assert "diverged at update 12" in text


def test_a_label_that_comes_twice_in_a_plan_keeps_both_texts(tmp_path):
    plans = [{"rows": [["note", "first"], ["note", "second"]]}]
    assert "note first second" in page(tmp_path, result(row()), plans).text


def test_the_page_names_the_files_that_are_there(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    links = page(tmp_path, result(row())).links
    assert "result.json" in links and "curves.png" in links
    assert "model.keras" not in links


def test_nothing_half_written_is_left_and_a_second_report_replaces_the_first(tmp_path):
    page(tmp_path, result(row(), title="first"))
    text = page(tmp_path, result(row(), title="second")).text
    assert "second" in text and "first" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "report.html"]


def test_plans_that_do_not_match_the_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`plans` must hold one plan per row \(1\)"):
        write_report(result(row()), [], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_result_read_back_from_json_gives_the_same_table():
    found = result(row(finals=(1.0, 2.0), paper=23.74), row("b", runs=(DIVERGED,)))
    assert text_table(Result.from_json(found.to_json())) == text_table(found)


def test_the_figure_of_rates_shows_each_schedule_as_it_is(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    plot = Axes.plot

    def note(axes, *arguments, **options):
        drawn.append((options["label"], list(arguments[0]), list(arguments[1])))
        return plot(axes, *arguments, **options)

    monkeypatch.setattr(Axes, "plot", note)
    schedules = [("a $x$", [0.0, 0.2], [0.1, 3.2]), ("b", [0.0, 1.0], [0.0, 0.5])]
    data = draw_rates(schedules, tmp_path / "rates.png")
    assert drawn == schedules
    assert (tmp_path / "rates.png").read_bytes() == data
    assert data.startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["rates.png"]


def test_the_answer_on_the_claims_stands_beside_the_title(tmp_path):
    contrast = Contrast("large", "small", "no_worse", "it loses nothing")
    numbers = {"differences": (0.1,), "mean": 0.1, "low": None, "high": None}
    found = Found(contrast=contrast, **numbers, verdict="cannot tell", stated_before=True)
    text = page(tmp_path, result(row(), scale="miniature", claims=(found,))).text
    assert "the paper's claims: cannot tell" in text
    assert "the paper's claims:" not in page(tmp_path, result(row())).text
