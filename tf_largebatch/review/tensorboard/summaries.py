"""Points of TensorBoard: written several at a time, marked where a run goes on, and read back."""

from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary


def write(writer: tf.summary.SummaryWriter, step: int, summaries: Iterable[Summary]) -> None:
    """Writes all of them at `step`, in one event, and flushes.

    `tf.summary.scalar` costs a few tenths of a millisecond for each point.
    """
    joined = Summary()
    for summary in summaries:
        # As bytes: some plugins make TensorFlow's own class of the same message.
        joined.MergeFromString(summary.SerializeToString())
    # `as_default` flushes as it ends: a run that is killed or diverges keeps what tells why.
    with writer.as_default(step=step):
        tf.summary.experimental.write_raw_pb(joined.SerializeToString())


def drop_from(writer: tf.summary.SummaryWriter, step: int) -> None:
    """Tells readers to forget what was written at `step` and later before this event.

    A run that goes on from a checkpoint writes the points after it a second time. This is the mark
    of a restart in event files, which TensorBoard looks for.
    """
    mark = Event(step=step, session_log=SessionLog(status=SessionLog.START))
    # Not in the public interface of writers: the resource behind one.
    tf.raw_ops.ImportEvent(writer=writer._resource, event=mark.SerializeToString())
    writer.flush()


def read_scalars(folder: Path, *tags: str) -> list[dict[int, float]]:
    """Returns step -> value of each scalar; empty where there is none.

    Of a step that a restart did again, it is the newer value.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not folder.is_dir():
        return [{} for _ in tags]
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    there = events.Tags()["tensors"]
    found = {tag: events.Tensors(tag) if tag in there else () for tag in tags}
    return [
        {e.step: float(tf.make_ndarray(e.tensor_proto)) for e in points}
        for points in found.values()
    ]
