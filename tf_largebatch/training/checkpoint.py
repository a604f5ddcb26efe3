"""Checkpoints from which a killed run continues at the exact update."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.records.errors import InputError, StorageError
from tf_largebatch.records.result import EpochRecord
from tf_largebatch.records.settings import Settings
from tf_largebatch.training.step import COLUMNS

# What writing to a full disk raises: TensorFlow reports it under several names.
_WRITE_ERRORS = (tf.errors.OpError, OSError)


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        update: updates done.
        records: the epochs that are complete, with their evaluation.
        rows: what `TrainingStep.run` gave for the updates since then, float32 [n, columns].
        seconds: wall time of those updates.
    """

    update: int = 0
    records: list[EpochRecord] = field(default_factory=list)
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, len(COLUMNS)), np.float32))
    seconds: float = 0.0


class Checkpoints:
    """Weights, batch-norm statistics, optimizer state and progress of one run.

    No metric and no data state: the data pipeline is a function of (seed, epoch, update), so the
    number of updates is all that it needs. `tf.train.CheckpointManager` writes the files first and
    the index that names them last: a checkpoint is whole or is not listed.

    Args:
        folder: holds only these checkpoints.
        model: built.
        optimizer: built on the model's variables.
        others: further variables, as `TrainingStep.variables`.
        keep: how many of the newest stay.
    """

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        others: list[tf.Variable] | None = None,
        keep: int = Settings.keep,
    ):
        self._folder = Path(folder)
        self._update = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        shape = tf.TensorShape([None, len(COLUMNS)])
        self._rows = tf.Variable(np.zeros((0, len(COLUMNS)), np.float32), shape=shape)
        checkpoint = tf.train.Checkpoint(
            model=model,
            optimizer=optimizer,
            others=others or [],
            update=self._update,
            seconds=self._seconds,
            rows=self._rows,
        )
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=keep)
        self.damaged: list[str] = []

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint; the records are the caller's to write.

        Raises:
            StorageError: it cannot be written. Those before it are unharmed, and what was written
                of this one is removed.
        """
        self._update.assign(progress.update)
        self._seconds.assign(progress.seconds)
        self._rows.assign(progress.rows)
        try:
            self._manager.save(checkpoint_number=progress.update)
        except _WRITE_ERRORS as error:
            self._remove_unfinished(progress.update)
            reason = str(error).strip().splitlines()[0][:160]
            raise StorageError(
                f"the checkpoint of update {progress.update:,} could not be written to "
                f"{self._folder} ({reason}). Those before it are unharmed: make room, and the same "
                "command with this --run-dir continues"
            ) from None

    def _remove_unfinished(self, update: int) -> None:
        for path in self._folder.glob(f"ckpt-{update}[._]*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def restore(self, records: list[EpochRecord]) -> Progress:
        """Restores the newest checkpoint that is whole; `damaged` then names those that are not.

        Args:
            records: epochs that were recorded, perhaps beyond the checkpoint.

        Returns:
            Where it stands; at the start where there is no checkpoint.

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
            return self._progress(records)
        if self.damaged:
            raise InputError(f"{self.damaged[0]}. Choose another --run-dir")
        return Progress()

    def _progress(self, records: list[EpochRecord]) -> Progress:
        update, rows = int(self._update.numpy()), self._rows.numpy()
        return Progress(
            update=update,
            records=[record for record in records if record.update <= update - len(rows)],
            rows=rows,
            seconds=float(self._seconds.numpy()),
        )
