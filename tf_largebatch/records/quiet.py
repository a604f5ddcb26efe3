"""TensorFlow without its start-up notes, which go past every log setting."""

import os
import sys
import tempfile
from typing import Any


def import_tensorflow() -> Any:
    """Returns the module; what it writes while it loads is shown only if it fails."""
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
            # Each row of a table compiles its own functions, which TensorFlow takes for a mistake.
            tf.get_logger().setLevel("ERROR")
        except BaseException:
            notes.seek(0)
            os.write(screen, notes.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)
    return tf
