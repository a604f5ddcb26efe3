"""A command's rows in TensorBoard: means over the seeds, and the gap, by hand."""

import pytest
from tensorboard.plugins.custom_scalar import layout_pb2
from test_tensorboard import read, steps, values

from tf_largebatch.records.curve import EpochRecord
from tf_largebatch.records.result import Result, RowResult, SeedResult
from tf_largebatch.review.tensorboard.rows import write_rows


def a_row(label, batch, *errors, epochs=3):
    """A row whose seeds have these validation errors, one list a seed."""
    runs = tuple(
        SeedResult(
            seed=seed,
            folder=f"{label}/seed-{seed}",
            wall_seconds=1.0,
            epochs=tuple(
                EpochRecord(
                    epoch=epoch,
                    update=10 * epoch,
                    images_seen=10 * epoch * batch,
                    learning_rate=0.1,
                    train_loss=1.0,
                    train_error_pct=5.0,
                    validation_loss=error / 10,
                    validation_error_pct=error,
                    validation_top5_error_pct=1.0,
                    seconds=1.0,
                )
                for epoch, error in enumerate(curve, start=1)
            ),
        )
        for seed, curve in enumerate(errors)
    )
    return RowResult(
        label=label,
        recipe={"epochs": epochs},
        global_batch=batch,
        peak_rate=0.1,
        updates=30,
        runs=runs,
    )


@pytest.fixture
def found(tmp_path):
    rows = (
        a_row("large", 256, [50.0, 30.0, 12.0], [54.0, 34.0, 14.0]),
        a_row("small", 32, [40.0, 20.0, 9.0], [42.0, 22.0, 11.0]),
        # A seed that diverged in the third epoch: no mean of the others alone.
        a_row("no warmup", 256, [60.0, 50.0, 40.0], [70.0, 60.0]),
        a_row("longer", 256, [50.0, 30.0, 12.0], epochs=6),
    )
    result = Result(recipe="r", title="t", paper="p", scale="miniature", rows=rows)
    for _ in range(2):  # what a second command writes stands in the place of the first's
        write_rows(result, tmp_path)
    return {place.name: read(place) for place in tmp_path.iterdir()}


def test_each_row_is_one_run_with_the_means_over_its_seeds(found):
    assert set(found) == {"large", "small", "no warmup", "longer"}
    assert found["large"]["epoch/error_pct"] == [(1, 52.0), (2, 32.0), (3, 13.0)]
    assert values(found["large"]["epoch/loss"]) == pytest.approx([5.2, 3.2, 1.3])
    assert found["large"]["images_seen/error_pct"] == [(2560, 52.0), (5120, 32.0), (7680, 13.0)]
    assert steps(found["no warmup"]["epoch/error_pct"]) == [1, 2]


def test_the_gap_is_to_the_smallest_batch_in_points_of_rows_as_long(found):
    assert found["large"]["gap/error_points"] == [(1, 11.0), (2, 11.0), (3, 3.0)]
    assert found["no warmup"]["gap/error_points"] == [(1, 24.0), (2, 34.0)]
    assert "gap/error_points" not in found["small"]
    assert "gap/error_points" not in found["longer"]


def test_the_first_has_the_table_and_the_page_says_which_row_is_the_reference(found):
    [(_, text)] = found["large"]["result"]
    assert text.startswith(b"```\nt") and b"no warmup" in text
    [(_, raw)] = found["large"]["custom_scalars__config__"]
    [category] = layout_pb2.Layout.FromString(raw).category
    tags = [tag for chart in category.chart for tag in chart.multiline.tag]
    assert tags == ["^epoch/error_pct$", "^gap/error_points$", "^images_seen/error_pct$"]
    assert category.chart[1].title == "error above that of small, points, against epoch"
    assert "result" not in found["small"]
