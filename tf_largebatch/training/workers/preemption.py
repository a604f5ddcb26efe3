"""A polite end: SIGTERM and Ctrl-C ask for a last checkpoint, and training stops after it."""

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

from tf_largebatch.training.workers.team import Team

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ONE_SIGNAL = 1.0  # seconds within which a terminal and a launcher may send the same one twice


class StopNotice:
    """Remembers a signal until the loop asks; a context manager around training.

    A signal to any worker of the team stops all at the same update. Python's handlers wait while
    TensorFlow computes, which may be minutes: a thread hears the signals, says at once that the
    first has arrived, and ends the process at the second, so that a run which hangs can be ended.

    Outside the `fit` of the model `during_fit_of` the first acts as it always did: of a `fit` that
    an exception ended, Keras tells no callback.
    """

    def __init__(self, team: Team, *, during_fit_of: Any = None):
        self._team, self._model = team, during_fit_of
        self.received: signal.Signals | None = None
        self._before: dict = {}
        self._ends: tuple[socket.socket, ...] = ()

    def __enter__(self) -> "StopNotice":
        # Python delivers signals to the main thread only, and lets no other set a handler.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
            self._ends = heard, told = socket.socketpair()
            told.setblocking(False)
            self._wakeup_before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._answer, args=(heard,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._ends:
            signal.set_wakeup_fd(self._wakeup_before)
            self._ends[1].close()  # which ends the thread
            self._ends = ()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._trains(frame):
            self.__exit__()
            os.kill(os.getpid(), number)  # nobody would ask
            return
        self.received = signal.Signals(number)  # the thread hears the second

    def _trains(self, frame: FrameType | None) -> bool:
        """Whether this frame of the main thread is one of the training."""
        if self._model is None:
            return True
        while frame is not None:
            if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is self._model:
                return True
            frame = frame.f_back
        return False

    def _answer(self, heard: socket.socket) -> None:
        first = None
        with heard:
            while received := heard.recv(64):
                main = sys._current_frames().get(threading.main_thread().ident or 0)
                if not self._trains(main):
                    continue
                for number in (n for n in received if n in SIGNALS):
                    if first is None:
                        first = time.monotonic()
                        name = signal.Signals(number).name
                        text = f"{name}: stops after the updates at work; again, and it ends now"
                        print(text, file=sys.stderr, flush=True)
                    elif time.monotonic() - first > ONE_SIGNAL:
                        os._exit(128 + number)

    def agreed(self) -> signal.Signals | None:
        """Returns the signal that any worker received; every worker must ask at the same update."""
        number = self._team.any(self.received or 0)
        return signal.Signals(number) if number else None

    def after_block(self, progress: Any) -> bool:
        """Whether to stop: where the run can go on from, later."""
        return progress.resumable and self.agreed() is not None

    def after_epoch(self, progress: Any) -> None:
        """Nothing: the next block asks."""
