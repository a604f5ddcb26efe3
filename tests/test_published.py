import dataclasses
import re
import statistics
from collections import Counter

import pytest

from tf_largebatch.records import published

# Rows by how they came here. One that moves from memory to read needs a reader, who says what was
# read: this count changes with the reference, not before.
COUNTS = {
    "memory": 104,
    "code": 81,
    "slides": 24,
    "paper: digest": 18,
    "paper: text": 3,
    "paper: abstract": 3,
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
    assert listed == 51


def test_published_updates_are_those_of_the_comparison_table():
    updates = {row.updates for row in published.load().values()}
    assert {14_076, 3_519, 2_503, 1_800, 2_086, 1_440} <= updates


def test_a_percentage_out_of_range_is_refused():
    row = published.load()["goyal2017-b256"]
    with pytest.raises(ValueError, match="Received: value=764.0"):
        dataclasses.replace(row, value=764.0)
