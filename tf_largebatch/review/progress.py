"""How far a training is: a bar on a terminal, a line an epoch and every half minute in a log."""

import time
from collections.abc import Callable
from typing import TextIO

import keras

from tf_largebatch.records.progress import ProgressLine, draw_bar, time_left


class TrainingProgress(keras.callbacks.Callback):
    """Shows how far a run is, its last loss, error, rate and speed, and the time left.

    `label` starts the line; `updates` and `epochs` are the whole run's, `done` were made before.
    `stream` and `clock` as in `ProgressLine`.
    """

    def __init__(
        self,
        label: str,
        *,
        updates: int,
        epochs: float,
        done: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__()
        self._label, self._updates, self._epochs, self._done = label, updates, epochs, done
        self._line, self._clock = ProgressLine(stream, clock), clock
        self._first, self._epoch = done, 1
        self._loss = self._error = self._speed = ""

    def on_train_begin(self, logs=None):
        """Shows the first line: the updates themselves may take minutes to compile."""
        self._start = self._clock()
        self._line.show(
            f"{self._label}: starts at update {self._done:,} of {self._updates:,}, compiled first"
        )

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        """Counts an update."""
        self._done = batch + 1
        self._loss = f", loss {logs['loss']:.4g}"
        self._speed = f", rate {logs['learning_rate']:.4g}, {logs['images_per_sec']:,.0f} images/s"
        self._line.show(self._text())

    def on_epoch_end(self, epoch, logs=None):
        """Shows the newest loss and validation error."""
        self._loss = f", loss {logs['train_loss']:.4g}"
        self._error = f", error {logs['validation_error_pct']:.2f} %"
        self._line.show(self._text(), at_once=True)

    def on_train_end(self, logs=None):
        """Leaves the last line standing."""
        self._line.end()

    def _text(self) -> str:
        bar = f" {draw_bar(self._done, self._updates)}" if self._line.live else ":"
        seconds, made = self._clock() - self._start, self._done - self._first
        return (
            f"{self._label}{bar} epoch {self._epoch} of {self._epochs:g}, update {self._done:,} of "
            f"{self._updates:,}{self._loss}{self._error}{self._speed}"
            f"{time_left(seconds, made, self._updates - self._first)}"
        )
