"""The committed benchmark records hold the numbers that the documentation may claim.

That of the update alone is of 21 November 2026, with fused kernels; it waits for a new run.
"""

import json
from pathlib import Path

import pytest

RECORD = Path(__file__).parent.parent / "tools" / "records" / "benchmark_optimizers.json"


@pytest.fixture(scope="module")
def record():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def cpu(record, optimizer, mode="graph"):
    (row,) = [r for r in record["rows"] if r["optimizer"] == optimizer and r["mode"] == mode]
    return row["cpu_ms_median"]


def test_the_record_is_of_resnet50(record):
    # 53 convolutions, 53 pairs of batch-norm weights, one dense layer with bias.
    assert record["tensors"] == 53 + 2 * 53 + 2
    assert record["parameters"] == 25_557_032


def test_lars_costs_at_most_15_percent_more_than_keras_momentum(record):
    assert cpu(record, "LARS, decay") <= 1.15 * cpu(record, "keras SGD momentum")


def test_lamb_costs_at_most_three_quarters_of_keras_lamb(record):
    assert cpu(record, "LAMB, decay") <= 0.75 * cpu(record, "keras Lamb")


def test_the_whole_step_of_resnet50_decided_that_no_fused_kernel_stays():
    record = json.loads((RECORD.parent / "benchmark_step.json").read_text(encoding="utf-8"))
    rows = [r for r in record["rows"] if r["case"] == next(iter(record["cases"]))]
    assert {r["rule"] for r in rows} == {"MomentumSGD", "LARS", "LAMB"}
    medians = [r["step"]["cpu_plain_to_fused"][1] for r in rows]
    assert max(medians) <= record["limit"] == 1.02
    assert record["machine"] == "idle" and record["fused_kernels_stay_for"] == []


def test_what_an_update_of_kfac_and_muon_costs_is_within_its_limit_and_what_the_page_says():
    root = Path(__file__).parents[1]
    rows = json.loads((root / "tools" / "records" / "benchmark_update.json").read_text())["rows"]
    page = (root / "docs" / "beyond.md").read_text(encoding="utf-8")
    for row in rows[1:]:
        assert f"{row['wall_ratio']:.2f}" in page
        assert row["limit"] is None or row["wall_ratio"] <= row["limit"]
