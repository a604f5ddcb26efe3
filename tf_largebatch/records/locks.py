"""Files that one process holds at a time. Standard library only."""

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has none: nobody is kept out there, as on file systems without locks
    fcntl = None  # type: ignore[assignment]


def lock(file: IO[Any]) -> None:
    """Takes an open file for this process, until it is closed or the process ends.

    BlockingIOError: another process has it. OSError: its file system knows no locks.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
