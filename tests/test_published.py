import dataclasses
import re
import statistics

import pytest

from tf_largebatch.records import published


def test_every_row_has_a_source_and_its_own_id():
    rows = published.load()
    assert len(rows) == 233
    assert all(row.source and row.confidence for row in rows.values())


@pytest.mark.parametrize(
    ("row", "error", "std"),
    [
        ("goyal2017-b256", 23.60, 0.12),  # Goyal et al. Table 1
        ("goyal2017-8k-warmup-none", 24.84, 0.37),  # Table 1
        ("goyal2017-8k-warmup-constant", 25.88, 0.56),  # Table 1
        ("goyal2017-8k-warmup-gradual", 23.74, 0.09),  # Table 1
        ("goyal2017-b8192-noscale", 41.67, 0.10),  # Table 2(a)
    ],
)
def test_goyals_tables_are_as_printed(row, error, std):
    record = published.load()[row]
    assert (record.error_pct, record.std) == (error, std)


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
