"""A trace of chosen updates for TensorBoard's profiler, one step marker an update."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf


class Profile:
    """Traces the updates `first`, ..., `end` - 1, which the loop runs in blocks of one.

    The trace is in `folder/plugins/profile`, where TensorBoard's profile plugin looks for it. A
    training that goes on in between traces what is left. Updates count from 0, and the default
    traces nothing; without a folder, for a worker that does not write, the same blocks run.
    """

    def __init__(self, first: int = 0, end: int = 0, folder: Path | None = None):
        self._first, self._end, self._folder = first, end, folder
        self._tracing = False

    def limit(self, update: int, size: int) -> int:
        """Returns how many of `size` updates may run in one block that begins at `update`."""
        if update < self._first:
            return min(size, self._first - update)
        return 1 if update < self._end else size

    @contextlib.contextmanager
    def around(self, update: int) -> Iterator[None]:
        """Marks the block that begins at `update`; starts and stops the trace where it is due."""
        if self._folder is None or not self._first <= update < self._end:
            yield
            return
        if not self._tracing:
            tf.profiler.experimental.start(str(self._folder))
            self._tracing = True
        with tf.profiler.experimental.Trace("train", step_num=update, _r=1):
            yield
        if update == self._end - 1:
            self.stop()

    def stop(self) -> None:
        """Writes the trace, if one is being taken."""
        if self._tracing:
            self._tracing = False
            tf.profiler.experimental.stop()
