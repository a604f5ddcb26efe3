"""Points of TensorBoard: written several at a time, marked where a run goes on, and read back.

Without TensorFlow, which not every Keras has beside it.
"""

import itertools
import os
import socket
import time
import weakref
from collections.abc import Iterable
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

_COUNT = itertools.count()


class EventFile:
    """One file of points in a folder, which is made; what is written is there at once."""

    _open: "weakref.WeakValueDictionary[Path, EventFile]" = weakref.WeakValueDictionary()

    @classmethod
    def of(cls, folder: Path) -> "EventFile":
        """The file that this process writes in a folder, shared by whoever holds it.

        Of two files that grow in one folder, TensorBoard follows the newer alone.
        """
        place = Path(folder).resolve()
        file = cls._open.get(place)
        if file is None:
            file = cls._open[place] = cls(folder)
        return file

    @classmethod
    def is_open(cls, folder: Path) -> bool:
        """Whether `of` would give a file that somebody else holds."""
        return Path(folder).resolve() in cls._open

    def __init__(self, folder: Path):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names.
        place = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_COUNT):06d}"
        self._path = folder / f"events.out.tfevents.{place}.v2"
        self._add(Event(file_version="brain.Event:2"))

    def write(self, step: int, points: Iterable[Summary]) -> None:
        """Writes all of them at `step`, in one event."""
        joined = Summary()
        for point in points:
            # As bytes: some plugins make TensorFlow's own class of the same message.
            joined.MergeFromString(point.SerializeToString())
        self._add(Event(step=step, summary=joined))

    def drop_from(self, step: int) -> None:
        """Tells readers to forget what was written at `step` and later before this event.

        A run that goes on from a checkpoint writes the points after it a second time. This is the
        mark of a restart in event files, which TensorBoard looks for.
        """
        self._add(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        # Opened each time: a run that is killed or diverges keeps what tells why.
        with self._path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())


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
        {e.step: float(tensor_util.make_ndarray(e.tensor_proto)) for e in points}
        for points in found.values()
    ]
