import dataclasses
import re
import statistics
from collections import Counter

import pytest

from tf_largebatch.records import published

# Rows by how they came here. One that moves from memory to read needs a reader, who says what was
# read: this count changes with the reference, not before.
COUNTS = {
    "memory": 102,
    "code": 82,
    "slides": 37,
    "paper: digest": 18,
    "paper: text": 3,
    "paper: abstract": 9,
}


def test_rows_are_counted_by_how_they_came_here():
    assert Counter(row.confidence for row in published.load().values()) == COUNTS


# Results that were read in the paper's text.
READ = {
    "goyal2017-b256": (23.60, 0.12),
    "goyal2017-b8192": (23.74, 0.09),
    "goyal2017-8k-warmup-gradual": (23.74, 0.09),
}


def test_goyals_two_results_are_as_printed():
    rows = published.load().values()
    found = {r.id: (r.error_pct, r.std) for r in rows if r.confidence == "paper: text"}
    assert found == READ


@pytest.mark.parametrize(
    ("row", "error", "std"),
    [
        ("goyal2017-8k-warmup-none", 24.84, 0.37),
        ("goyal2017-8k-warmup-constant", 25.88, 0.56),
        ("goyal2017-b8192-noscale", 41.67, 0.10),
    ],
)
def test_what_is_quoted_from_memory_has_not_moved(row, error, std):
    """Two copies of one memory: they guard against a slip of the hand and are no evidence."""
    record = published.load()[row]
    assert (record.error_pct, record.std, record.confidence) == (error, std, "memory")


def test_a_system_whose_batch_grows_has_its_hardware_and_time():
    row = published.match("arXiv:1711.00489", (8192, 16384), 23.9)
    assert (row.hardware, row.time) == ("TPU pod (full per survey slides)", "30 min")
    assert published.match("arXiv:1711.00489", (8192,), 22.0) is None


def test_a_row_of_the_benchmark_is_found_by_its_three_digits_or_without_a_result():
    row = published.match("MLPerf Training", (57600,), 24.026)
    assert (row.hardware, row.time) == ("v100-1280", "1.682 min")
    assert published.match("MLPerf Training", (57600,), 24.03) is None
    assert published.match("MLPerf Training", (53360,), None).hardware == "dgxa100_n230"
    assert published.match("arXiv:1706.02677", (53360,), None) is None


def test_what_a_published_run_took_is_known_where_all_three_are():
    rows = published.load()
    took = rows["mlperf-v0.7-google-tpu-v3-8192-JAX"].reached
    assert (took.epochs, took.updates) == (92, 1817)
    assert took.hours == pytest.approx(0.471 / 60)
    assert rows["goyal2017-8k-slides"].reached.hours == 1.0
    assert rows["mlperf-v0.7-hp-44544"].reached is None


def test_the_speeds_of_the_slides_are_those_of_their_hours():
    speeds = [row for row in published.load().values() if row.metric == "images/s"]
    assert [row.value for row in speeds] == [5797, 16373, 5771, 15379]
    for row in speeds:
        hours, minutes = map(int, re.findall(r"(\d+) h (\d+) min", row.time)[0])
        took = row.epochs * 1_281_167 / row.value / 60
        assert took == pytest.approx(60 * hours + minutes, abs=1)


def test_an_unknown_confidence_is_refused():
    row = published.load()["goyal2017-b256"]
    with pytest.raises(ValueError, match="`confidence` one of .*confidence='paper'"):
        dataclasses.replace(row, confidence="paper")


def test_deviations_are_those_of_a_sample_where_the_runs_are_listed():
    listed = 0
    for row in published.load().values():
        if runs := re.search(r"5 runs: ([\d., ]+\d)", row.notes):
            values = [float(value) for value in runs[1].split(", ")]
            assert row.std == round(statistics.stdev(values), 3), row.id
            listed += 1
    assert listed == 52


def test_published_updates_are_those_of_the_comparison_table():
    updates = {row.updates for row in published.load().values()}
    assert {14_076, 3_519, 2_503, 1_800, 2_086, 1_440} <= updates


def test_a_percentage_out_of_range_is_refused():
    row = published.load()["goyal2017-b256"]
    with pytest.raises(ValueError, match="Received: value=764.0"):
        dataclasses.replace(row, value=764.0)
