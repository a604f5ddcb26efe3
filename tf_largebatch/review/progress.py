"""A progress bar per run on a terminal; a line now and then where the output is a file."""

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 5  # lines per run where there is no terminal to draw on


class TrainingProgress(keras.callbacks.Callback):
    """Shows how far a run is, its last error, its speed and the time left.

    Args:
        label: the run's name, at the start of the line.
        updates: updates of the whole run.
        epochs: epochs of the whole run.
        done: updates already done when a run is continued.
        console: where to write; None for standard error.
    """

    def __init__(
        self,
        label: str,
        *,
        updates: int,
        epochs: float,
        done: int = 0,
        console: Console | None = None,
    ):
        super().__init__()
        self._label, self._updates, self._epochs, self._done = label, updates, epochs, done
        self._console = console or Console(stderr=True)
        self._error = self._speed = ""
        self._bar = None
        self._printed = done * LINES // updates

    def on_train_begin(self, logs=None):
        """Starts the bar."""
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("update {task.completed}/{task.total}{task.fields[error]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(
            self._label, total=self._updates, completed=self._done, error="", speed=""
        )
        self._bar.start()

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar."""
        self._done = batch + 1
        self._speed = f"{logs['images_per_sec']:,.0f} images/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, speed=self._speed)

    def on_epoch_end(self, epoch, logs=None):
        """Shows the newest validation error."""
        self._error = f", error {logs['validation_error_pct']:.2f} %"
        if self._bar is not None:
            self._bar.update(self._task, error=self._error)
            return
        due = self._done * LINES // self._updates
        if due > self._printed:
            self._printed = due
            self._console.print(
                f"{self._label}: epoch {epoch + 1} of {self._epochs:g}, update {self._done}"
                f"{self._error}, {self._speed}",
                highlight=False,
                soft_wrap=True,
            )

    def on_train_end(self, logs=None):
        """Ends the bar."""
        if self._bar is not None:
            self._bar.stop()
