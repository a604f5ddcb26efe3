"""A polite end: SIGTERM and Ctrl-C ask for a last checkpoint, and training stops after it."""

import signal
import threading
from types import FrameType
from typing import Any

from tf_largebatch.training.workers.team import Team

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopNotice:
    """Remembers a signal until the loop asks; a context manager around training.

    A signal to any worker of the team stops all at the same update. The second signal acts as it
    always did, so that a run which hangs can still be ended.
    """

    def __init__(self, team: Team):
        self._team = team
        self.received: signal.Signals | None = None
        self._before: dict = {}

    def __enter__(self) -> "StopNotice":
        # Python delivers signals to the main thread only, and lets no other set a handler.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.__exit__()

    def agreed(self) -> signal.Signals | None:
        """Returns the signal that any worker received; every worker must ask at the same update."""
        number = self._team.any(self.received or 0)
        return signal.Signals(number) if number else None

    def after_block(self, progress: Any) -> bool:
        """Whether to stop: where the run can go on from, later."""
        return progress.resumable and self.agreed() is not None

    def after_epoch(self, progress: Any) -> None:
        """Nothing: the next block asks."""
