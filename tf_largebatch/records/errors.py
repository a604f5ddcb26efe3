"""The errors that end a run with one line instead of a traceback."""

import os
import sys
from types import TracebackType

STAMP = "TF_LARGEBATCH_STAMP"  # set by the launcher for its workers


class InputError(ValueError):
    """Something the user gave is wrong: a flag, a folder, a file. One line: what, value, remedy.

    The command line prints it and exits with status 2.
    """


class StorageError(InputError):
    """A file of the run could not be written: no space, or no permission. One line."""


class NonFiniteError(ArithmeticError):
    """A loss or a gradient of an update is not finite. Names the update and the first tensor.

    The command line prints it and exits with status 3; the last good checkpoint stays.
    """

    def __init__(self, message: str, update: int):
        super().__init__(message)
        self.update = update


class StoppedError(Exception):
    """A signal ended the training after a last checkpoint; the same command continues it.

    The command line exits with 128 + its number.
    """

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


class WorkerLostError(Exception):
    """Another worker of the run is gone. One line; the command line exits with status 4."""


def _end_worker(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """Ends a worker's own script, which lets an `InputError` through, with the status of one."""
    sys.__excepthook__(kind, error, at)
    if issubclass(kind, InputError):
        sys.exit(2)


# The launcher does not start workers again that ended so: Python's own status would be 1.
if os.environ.get(STAMP) and sys.excepthook is sys.__excepthook__:
    sys.excepthook = _end_worker
