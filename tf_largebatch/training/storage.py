"""A run folder that can be used no longer, because it is full, read-only or gone: one line."""

import os
from pathlib import Path

from tf_largebatch.records.errors import StorageError
from tf_largebatch.records.files import NO_ROOM


def explain(error: Exception, folder: Path) -> StorageError | None:
    """Returns what is wrong with the run folder, or None if that is not what failed."""
    reason = _reason(error)
    if reason is None:
        return None
    # TensorFlow has the system's words in its own errors.
    full = getattr(error, "errno", 0) in NO_ROOM or any(os.strerror(c) in reason for c in NO_ROOM)
    if not folder.is_dir():
        return StorageError(
            f"the run folder {folder} is gone ({reason}). It was removed, renamed or unmounted "
            "while this command used it; the same command continues once it is back"
        )
    if full:
        return StorageError(
            f"{folder} could not be written to ({reason}). Make room: the same command with this "
            "--run-dir continues from the newest checkpoint that is whole"
        )
    if str(folder) in f"{getattr(error, 'filename', '')} {reason}":
        return StorageError(
            f"a file of the run folder {folder} cannot be used ({reason}). Repair or remove it: "
            "the same command with this --run-dir continues"
        )
    return None


def _reason(error: Exception) -> str | None:
    import tensorflow as tf

    if isinstance(error, OSError):
        return " ".join(str(error).split())[:300]
    return " ".join(error.message.split())[:300] if isinstance(error, tf.errors.OpError) else None
