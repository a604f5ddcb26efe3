"""What a worker writes, shown line by line with its rank in front."""

import math
import os
import select
import signal
import time
from typing import IO

_UNFINISHED_SECONDS = 1.0  # after which a line without its end is shown


class Stream:
    """What one worker writes to one descriptor, shown line by line as a terminal would."""

    def __init__(self, pipe: IO[bytes], out: int, rank: int):
        os.set_blocking(pipe.fileno(), False)
        self.pipe, self.out, self.prefix = pipe, out, b"[rank %d] " % rank
        self.closed = False  # whether nobody reads `out` any more
        self.text = b""  # the line that has no end yet
        self.since = 0.0  # when it began
        self.cut = False  # whether its beginning has been shown

    def read(self) -> int | None:
        """Takes what is there and returns its length: 0 at the end, None if there is nothing."""
        try:
            data = os.read(self.pipe.fileno(), 65_536)
        except BlockingIOError:
            return None
        *lines, rest = (self.text + data).split(b"\n")
        if lines and self.cut and not _visible(lines[0]):
            del lines[0]  # only its end was missing
        if rest and (lines or not self.text):
            self.since = time.monotonic()
        if b"\n" in data:
            self.cut = False
        for line in lines:
            self._show(line)
        visible = _visible(rest)
        self.text = visible + b"\r" if visible and rest.endswith(b"\r") else visible
        return len(data)

    def show_unfinished(self, now: float) -> None:
        """Shows a line that has waited long for its end, such as a prompt or a progress bar."""
        if self.text and now - self.since >= _UNFINISHED_SECONDS:
            self._show(self.text)
            self.text, self.cut = b"", True

    def close(self) -> None:
        """Shows what is left; a descendant that still writes is not waited for."""
        if self.pipe.closed:
            return
        for _ in range(32):  # 2 MiB, more than a pipe holds
            if not self.read():
                break
        self.since = -math.inf
        self.show_unfinished(0.0)
        self.pipe.close()

    def _show(self, line: bytes) -> None:
        self._write(self.prefix + _visible(line) + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            while data and not self.closed:
                data = data[os.write(self.out, data) :]
        except BlockingIOError:  # some terminals and pipes come that way
            select.select([], [self.out], [])
            self._write(data)
        except BrokenPipeError:
            self.closed = True  # nobody reads any more: stop, as other commands do
            signal.raise_signal(signal.SIGTERM)


def _visible(line: bytes) -> bytes:
    """What a terminal shows once carriage returns have moved back to the line's start."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]
