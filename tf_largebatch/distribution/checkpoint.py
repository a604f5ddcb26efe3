"""Checkpoints from which a killed run continues at the exact update."""

from pathlib import Path

import keras
import tensorflow as tf

from tf_largebatch.errors import InputError

KEEP = 2  # the newest, and the one before it in case the newest is damaged


class Checkpoints:
    """Weights, batch-norm statistics and optimizer state of one run; no metrics, no data state.

    The data pipeline is a function of (seed, epoch, update), so the number of updates done is all
    that it needs. `tf.train.CheckpointManager` writes the files first and the index that names
    them last: a checkpoint is whole or is not listed.

    Args:
        folder: holds only these checkpoints.
        model: built.
        optimizer: built on the model's variables.
    """

    def __init__(self, folder: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer):
        self._update = tf.Variable(0, dtype=tf.int64, trainable=False)
        checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, update=self._update)
        self.damaged: list[str] = []
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=KEEP)

    def save(self, update: int) -> None:
        """Writes a checkpoint of the state after `update` updates."""
        self._update.assign(update)
        self._manager.save(checkpoint_number=update)

    def restore(self) -> int:
        """Restores the newest checkpoint that is whole; `damaged` then names those that are not.

        Returns:
            The updates it has behind it; 0 where there is no checkpoint.

        Raises:
            InputError: there are checkpoints, but none can be restored.
        """
        self.damaged = []
        for path in reversed(self._manager.checkpoints):
            try:
                status = self._manager.checkpoint.restore(path)
                status.assert_existing_objects_matched()
            # A truncated file shows as IndexError or as an error of TensorFlow.
            except (
                tf.errors.OpError,
                AssertionError,
                IndexError,
                RuntimeError,
                ValueError,
            ) as error:
                reason = str(error).strip().splitlines()[0][:120]
                self.damaged.append(f"checkpoint {path} cannot be restored ({reason})")
                continue
            return int(self._update.numpy())
        if self.damaged:
            raise InputError(f"{self.damaged[0]}. Choose another --run-dir")
        return 0
