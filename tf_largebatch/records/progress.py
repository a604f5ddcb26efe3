"""How far something is: one line that is renewed on a terminal, lines now and then in a log."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

LOG_EVERY_SECONDS = 30
LIVE_EVERY_SECONDS = 0.1
BAR = 20  # characters


class ProgressLine:
    """Shows a text that changes on `stream`, standard error by default.

    A terminal (`live`) gets one line, renewed; anything else a line now and then.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self._stream = stream or sys.stderr
        self._clock = clock
        self.live = self._stream.isatty()
        self._shown: float | None = None
        self._open = False

    def show(self, text: str, *, at_once: bool = False) -> None:
        """Shows the text if it is time for another one, or `at_once`."""
        now = self._clock()
        every = LIVE_EVERY_SECONDS if self.live else LOG_EVERY_SECONDS
        if not at_once and self._shown is not None and now - self._shown < every:
            return
        self._shown = now
        self._open = self.live
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[K" + text[:width] if self.live else text + "\n")
        self._stream.flush()

    def end(self) -> None:
        """Leaves the last line standing."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False


def draw_bar(done: float, total: float) -> str:
    """Returns a bar of `BAR` characters, filled as far as `done` is of `total`."""
    full = round(BAR * min(1.0, done / total))
    return "━" * full + "─" * (BAR - full)


def time_left(seconds: float, done: float, total: float) -> str:
    """Returns ", 3 min 20 s left" if `done` of `total` took so long; nothing before the first."""
    return f", {format_seconds(seconds / done * (total - done))} left" if done > 0 else ""


def format_seconds(seconds: float) -> str:
    """Returns "8 s", "3 min 20 s" or "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
