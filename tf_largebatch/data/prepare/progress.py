"""How far the preparation is: one line that is renewed, or plain lines in a log."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

LOG_EVERY_SECONDS = 30


class Progress:
    """Tells pictures, bytes, rate and time left.

    Args:
        stream: a terminal gets one line, renewed; anything else a line now and then.
        clock: seconds, monotonic.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self._stream = stream or sys.stderr
        self._clock = clock
        self._live = self._stream.isatty()
        self._shown = None
        self._open = False
        self._start = None

    def note(self, text: str) -> None:
        """Shows what is going on before the pictures are counted."""
        self._show(text)

    def begin(self, *, pictures: int, shards: int) -> None:
        """Starts the clock of `advance`."""
        self._start = self._clock()
        # The first shard's time has the start of the workers in it: a log waits for more.
        self._shown = None if self._live else self._start
        self._pictures, self._shards = pictures, shards
        self._done = self._written = self._files = self._bytes = self._kept = 0

    def advance(self, *, pictures: int, size: int, kept: bool) -> None:
        """Counts a shard of so many pictures and bytes.

        One kept from an earlier run says nothing about the rate, and is left out of it.
        """
        self._done += pictures
        self._files += 1
        self._kept += kept
        if not kept:
            self._written += pictures
            self._bytes += size
        self._show(self.line(), last=self._files == self._shards)

    def line(self) -> str:
        """Returns the state in one line."""
        seconds = self._clock() - self._start
        parts = [
            f"{self._done:,} of {self._pictures:,} pictures",
            f"{self._files:,} of {self._shards:,} shards"
            + (f" ({self._kept:,} from before)" if self._kept else ""),
        ]
        if self._written and seconds > 0:
            rate = self._written / seconds
            left = (self._pictures - self._done) / rate
            parts.append(f"{rate:,.0f}/s, {self._bytes / seconds / 1e6:,.0f} MB/s")
            parts.append(f"{format_seconds(left)} left")
        return " · ".join(parts)

    def end(self) -> None:
        """Leaves the last line standing."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False

    def _show(self, text: str, *, last: bool = False) -> None:
        now = self._clock()
        every = 0.1 if self._live else LOG_EVERY_SECONDS
        if not last and self._shown is not None and now - self._shown < every:
            return
        self._shown = now
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r\x1b[K" + text[:width])
            self._open = True
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def format_seconds(seconds: float) -> str:
    """Returns "8 s", "3 min 20 s" or "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
