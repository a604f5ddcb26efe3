"""A bar for each instrument on a terminal; a line where the output is a file."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class InstrumentProgress:
    """Which instrument runs, and how many batches it has evaluated.

    Args:
        bar: of rich, with a field `batches`.
        console: where to write.
    """

    def __init__(self, bar: Progress, console: Console):
        self._bar, self._console = bar, console
        self._task, self._batches = None, 0

    def start(self, label: str) -> None:
        """Ends the bar before and starts another."""
        if not self._console.is_terminal:
            self._console.print(f"{label} ...", highlight=False)
        if self._task is not None:
            self._bar.update(self._task, total=1, completed=1)
        self._batches = 0
        self._task = self._bar.add_task(label, total=None, batches=0)

    def advance(self) -> None:
        """Counts a batch."""
        self._batches += 1
        if self._task is not None:
            self._bar.update(self._task, batches=self._batches)


@contextmanager
def show_progress() -> Iterator[InstrumentProgress]:
    """Shows bars on standard error while the block runs."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[batches]} batches"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield InstrumentProgress(bar, console)
