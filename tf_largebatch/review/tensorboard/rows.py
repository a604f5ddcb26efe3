"""A command's rows in TensorBoard: the means over their seeds, and what each row loses.

A folder of its own, with one run a row: above 40 runs TensorBoard's pages open empty, and each seed
of each row is two.
"""

import statistics
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb

from tf_largebatch.records.curve import EpochRecord
from tf_largebatch.records.result import Result, RowResult
from tf_largebatch.review import tables
from tf_largebatch.review.tensorboard.dashboards import layout_point, make_rows_layout
from tf_largebatch.review.tensorboard.summaries import EventFile

FOLDER = "rows"  # of a command
GAP = "gap/error_points"


def write_rows(result: Result, folder: Path) -> None:
    """Writes one run a row below `folder`, in the place of what an earlier command left there.

    `epoch/error_pct` and `epoch/loss` are means of the validation over the seeds, and
    `images_seen/error_pct` is the same error against images seen: of epochs that every seed of the
    row has. `gap/error_points` is the error minus that of the row with the smallest batch, of rows
    as long as it. The first run has the table of the result as text.
    """
    base = min(result.rows, key=lambda row: row.global_batch)
    reference = {records[0].epoch: _error(records) for records in _epochs(base)}
    for number, row in enumerate(result.rows):
        place = folder / Path(row.runs[0].folder).parent
        for old in place.glob("events.out.tfevents.*"):
            old.unlink()
        file = EventFile(place)
        if number == 0:
            text = f"```\n{tables.text_table(result)}```"
            file.write(0, [text_pb("result", text), layout_point(make_rows_layout(base.label))])
        compared = row is not base and row.recipe["epochs"] == base.recipe["epochs"]
        for records in _epochs(row):
            epoch, error = records[0].epoch, _error(records)
            loss = statistics.fmean(record.validation_loss for record in records)
            points = [scalar_pb("epoch/error_pct", error), scalar_pb("epoch/loss", loss)]
            if compared and epoch in reference:
                points.append(_gap(error - reference[epoch], base))
            file.write(epoch, points)
            file.write(records[0].images_seen, [scalar_pb("images_seen/error_pct", error)])


def _epochs(row: RowResult) -> list[tuple[EpochRecord, ...]]:
    """The records of each epoch, one a seed; of a row without seeds none."""
    return list(zip(*(run.epochs for run in row.runs), strict=False))


def _error(records: tuple[EpochRecord, ...]) -> float:
    return statistics.fmean(record.validation_error_pct for record in records)


def _gap(points: float, base: RowResult) -> Summary:
    text = f"validation error minus that of `{base.label}`, batch {base.global_batch:,}, in points"
    return scalar_pb(GAP, points, description=text)
