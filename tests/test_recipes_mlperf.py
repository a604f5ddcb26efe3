"""The MLPerf submissions, against the result logs' own table and the data file of results."""

import dataclasses
import math

import numpy as np
import pytest

from tf_largebatch.recipes.mlperf import MINIATURE, RECIPE, ROWS
from tf_largebatch.records import published
from tf_largebatch.records.plan import Plan, describe_data
from tf_largebatch.records.recipe import SGDSpec
from tf_largebatch.schedules import trace
from tf_largebatch.training.build import make_schedule

IMAGES = 1_281_167
# row: batch norm, rule, rate, warmup, decay, momentum, epochs of the schedule / at the stop,
# updates of the warmup / of the schedule, and lowest and highest of the 5 results, top-1 %. The
# updates are the logs' own: for Google --train_steps of run_and_time.sh, T, and T - W + 1, logged
# as lars_opt_learning_rate_decay_steps; for NVIDIA and Dell EMC whole ones an epoch, by fit.py.
TABLE = """
dellemc-v0.7-832         208 SGD   3.0     3 2.5e-5 0.9     42/40  4620/64680 75.92 76.23
dellemc-v0.7-1664        208 SGD   3.0     3 2.5e-5 0.9     42/40  2310/32340 75.96 76.21
nvidia-v0.7-3264         408 SGD   6.0     5 2.5e-5 0.9     42/41  1965/16506 75.92 76.15
dellemc-v0.7-3328        208 SGD   3.1     6 2.5e-5 0.95    42/41  2310/16170 76.07 76.20
nvidia-v0.7-1664         208 LARS  7.4     2 1e-4   0.9     37/37  1540/28490 75.89 76.15
nvidia-v1.0-3264         408 LARS 10.5     2 5e-5   0.9     37/35   786/14541 75.84 76.07
google-v0.7-2048         128 LARS  8.5     5 2e-4   0.9     41/38  3127/25656 75.96 76.10
google-v0.7-4096         128 LARS 13.0     2 2e-4   0.9     41/38   624/12792 75.91 76.03
google-v0.7-8192          64 LARS 17.0     5 2e-4   0.9     44/44    781/6875 75.90 76.04
nvidia-v1.0-13056        204 LARS 12.8     9 2.5e-5 0.94    48/45    891/4752 75.95 76.26
google-v0.6-16384        128 LARS 25.0     5 2e-4   0.9     72/64    390/5634 75.91 76.36
google-v0.6-32768        128 LARS 31.2    25 1e-4   0.9     76/72    977/2983 75.97 76.28
nvidia-v0.6-33280         65 LARS 31.2    25 2e-4   0.9     77/72    975/3003 76.03 76.28
nvidia-v0.7-33280         65 LARS 21.2    16 2.5e-5 0.94    58/56    624/2262 75.95 76.14
nvidia-v0.7-34560         45 LARS 21.6    17 2.5e-5 0.94    59/59    646/2242 75.95 76.12
google-v1.0-32768         64 LARS 29.0    18 1e-4   0.929   60/60    703/2355 75.91 76.00
nvidia-v0.6-54080         52 LARS 38.0    25 2e-4   0.9     90/86    600/2160 75.94 76.28
google-v1.0-55296         64 LARS 25.67   29 1e-4   0.94053 80/80    671/1860 75.96 76.07
nvidia-v0.6-59904         39 LARS 40.7    33 2e-4   0.9     90/90    726/1980 75.99 76.07
alibaba-v0.7-57600        45 LARS 23.5    22 2.5e-5 0.94    71/71    506/1633 75.90 76.02
google-v0.7-65536-tf      64 LARS 24.699  31 1e-4   0.951807 88/88    606/1738 75.94 76.06
google-v0.7-65536-jax     64 LARS 23.081  33 1e-4   0.953721 92/92 651.75/1817 75.91 76.07
"""
# Runs whose result logs could not be read: lr, warmup, epochs, updates of both, as the others.
UNREAD = {
    "nvidia-v0.7-44544": (23.5, 22, 70, 638, 2030),
    "nvidia-v0.7-53360": (25.0, 29, 82, 696, 1968),  # 24 an epoch: 53,360 x 24 < 1,281,167
}
LINES = [line.split() for line in TABLE.strip().splitlines()]


def test_every_row_of_the_table_is_there_in_its_order():
    assert [row for row in ROWS if row not in UNREAD] == [line[0] for line in LINES]
    assert ROWS["google-v0.7-65536-jax"] is RECIPE


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_a_row_is_the_tables(line):
    row, span, rule, rate, warmup, decay, momentum, epochs, updates, low, high = line
    recipe = ROWS[row]
    batch = int(row.split("-")[2])
    assert (recipe.name, recipe.row, recipe.global_batch) == ("mlperf", row, batch)
    assert recipe.model.bn_batch == int(span) and batch % int(span) == 0
    assert isinstance(recipe.optimizer, SGDSpec) == (rule == "SGD")
    assert recipe.peak_rate == pytest.approx(float(rate), abs=1e-4)
    warm, total = (math.ceil(float(n)) for n in updates.split("/"))
    assert recipe.batch_plan().updates_at(recipe.schedule.warmup_epochs) == warm
    assert recipe.updates == total
    # Google's epochs are of rounded updates: here at most 2 % longer or shorter.
    assert recipe.schedule.warmup_epochs == pytest.approx(int(warmup), rel=0.02)
    assert recipe.optimizer.weight_decay == float(decay)
    assert recipe.optimizer.momentum == pytest.approx(float(momentum), abs=1e-6)
    assert recipe.epochs == pytest.approx(int(epochs.split("/")[0]), rel=0.02)
    assert recipe.loss.label_smoothing == 0.1
    google = row.startswith("google")
    crops = ("square", "bicubic", 1.33) if google else ("short_side", "bilinear", 4 / 3)
    data, first = recipe.data, row.startswith("google-v0.6")
    if first:
        crops = ("square", "bicubic", 4 / 3)
    assert (data.eval_crop, data.interpolation, data.max_aspect) == crops
    assert data.min_area == (0.08 if first else 0.05)
    assert (data.image_size, data.eval_short_side) == (224, 256)
    top1 = 100 - recipe.expected.top1_error_pct
    assert float(low) <= top1 <= float(high)
    assert recipe.expected.runs == 5


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_the_result_is_one_of_the_submitters_own_in_the_data_file(line):
    row, *_, epochs, _, _, _ = line
    submitter, round_, batch, *_ = row.split("-")
    recipe = ROWS[row]
    found = [
        r
        for r in published.load().values()
        if r.id.startswith(f"mlperf-{round_}-{submitter}-")
        and r.global_batch == int(batch)
        and f"lr {recipe.peak_rate:g}"[:7] in r.optimizer
        and r.error_pct == recipe.expected.top1_error_pct
    ]
    (record,) = found
    assert record.std == recipe.expected.std
    assert record.epochs == int(epochs.split("/")[1])


# D is T - W + 1 for Google and T - W for the others.
@pytest.mark.parametrize(
    ("row", "warm", "total", "extra", "end"),
    [
        ("google-v0.7-65536-jax", 652, 1817, 1, 1e-4),  # 33 and 92 epochs of 19.75
        ("google-v0.7-2048", 3127, 25656, 1, 1e-4),  # logged: 22,530 of decay
        ("nvidia-v0.7-33280", 624, 2262, 0, 1e-4),  # 39 an epoch
        ("nvidia-v0.6-59904", 726, 1980, 0, 0.0),  # 22 an epoch
        ("dellemc-v0.7-1664", 2310, 32340, 0, 1e-4),  # 770 an epoch
    ],
)
def test_the_rate_of_a_run(row, warm, total, extra, end):
    recipe = ROWS[row]
    assert recipe.updates == total
    peak, length = recipe.peak_rate, total - warm + extra
    updates = np.array([0, warm // 2, warm, warm + 400, total - 1])
    left = 1 - (updates - warm) / length
    expected = np.where(updates < warm, peak * updates / warm, end + (peak - end) * left**2)
    rates = trace(make_schedule(recipe, recipe.phases()), updates)
    np.testing.assert_allclose(rates, expected, rtol=2e-5, atol=1e-9)


def test_submitters_differ_in_batch_norm_precision_and_where_the_rate_stands():
    google, nvidia = ROWS["google-v0.7-8192"], ROWS["nvidia-v0.7-33280"]
    first = ROWS["google-v0.6-32768"]
    assert (google.model.last_gamma, google.precision) == (0.0, "bfloat16")
    assert (nvidia.model.last_gamma, nvidia.precision) == (1.0, "float16")
    # Momentum correction is the rate outside the velocity; in 2019 TensorFlow 1's LARS had the rate
    # and the ratio there.
    placements = [r.optimizer.momentum_placement for r in (google, nvidia, first)]
    assert placements == ["inside", "outside", "whole"]
    assert [r.optimizer.epsilon for r in (google, nvidia, first)] == [0.0, 0.0, 1e-5]
    assert ROWS["google-v0.6-16384"].optimizer.epsilon == 0.0


# First epoch that the log evaluates, of run 0 to 3: then every 4.
FIRST = """
dellemc-v0.7-832 4, dellemc-v0.7-1664 4, nvidia-v0.7-3264 1, dellemc-v0.7-3328 1
nvidia-v0.7-1664 1, nvidia-v1.0-3264 3, google-v0.7-2048 2, google-v0.7-4096 2, google-v0.7-8192 4
nvidia-v1.0-13056 1, google-v0.6-16384 4, google-v0.6-32768 4, nvidia-v0.6-33280 4
nvidia-v0.7-33280 4, nvidia-v0.7-34560 3, google-v1.0-32768 4, nvidia-v0.6-54080 2
google-v1.0-55296 4, nvidia-v0.6-59904 2, alibaba-v0.7-57600 3, google-v0.7-65536-tf 4
google-v0.7-65536-jax 4
"""
EVALUATED = dict(entry.split() for entry in FIRST.strip().replace("\n", ", ").split(", "))


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_a_row_stops_at_an_epoch_that_its_log_evaluates(line):
    row, *_, epochs, updates, _, _ = line
    recipe = ROWS[row]
    stop, took = recipe.stop, recipe.expected.reached
    assert (stop.target_pct, stop.every_epochs) == (75.9, 4)
    assert stop.first_epoch == int(EVALUATED[row])
    scheduled, ended = map(int, epochs.split("/"))
    assert took.epochs == ended and stop.counts(ended)
    # Epochs of a log have equal numbers of updates: whole ones for NVIDIA's code.
    total = int(updates.split("/")[1])
    assert took.updates == round(total * ended / scheduled)
    if recipe.whole_epochs:
        assert took.updates == recipe.batch_plan().updates_at(ended)
    assert 0.2 < 60 * took.hours < 160


@pytest.mark.parametrize("row", UNREAD)
def test_a_row_without_a_log_has_the_numbers_of_the_rounds_table(row):
    recipe = ROWS[row]
    rate, warmup, epochs, warm, total = UNREAD[row]
    assert recipe.peak_rate == rate
    assert recipe.batch_plan().updates_at(recipe.schedule.warmup_epochs) == warm
    assert recipe.updates == total
    assert recipe.schedule.warmup_epochs == pytest.approx(warmup, rel=0.001)
    assert recipe.epochs == pytest.approx(epochs, rel=0.001)
    assert (recipe.model.bn_batch, recipe.stop.first_epoch, recipe.expected) == (29, 2, None)
    assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.94, 2.5e-5)


@pytest.mark.parametrize("row", ROWS)
def test_a_plan_says_where_training_stops_and_what_the_logs_took(row):
    recipe = ROWS[row]
    plan = Plan(
        recipe=recipe, phases=recipe.phases(), scale="full", data=describe_data(recipe)
    ).text()
    assert "at the first evaluation with 75.9 % top-1 or more, of those after epochs" in plan
    assert "read (code or log" in plan
    if recipe.expected is not None:
        assert f"at the stop, 5 runs), in {recipe.expected.reached}" in plan


def test_the_miniatures_runs_to_a_target_are_two_of_its_rows_again():
    rows = {row.label: row.recipe for row in MINIATURE.rows}
    for rule in ("SGD", "LARS"):
        again, whole = rows[f"{rule}, to 87 %"], rows[f"{rule}, long warmup"]
        assert (again.stop.target_pct, again.stop.every_epochs) == (87.0, 1)
        assert dataclasses.replace(again, stop=None) == whole
    # What is claimed is a difference of errors: never of runs that end at one accuracy.
    claimed = {label for claim in MINIATURE.claims for label in (claim.row, claim.minus)}
    assert all(rows[label].stop is None for label in claimed)
