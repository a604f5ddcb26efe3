"""Checkpoints from which a killed run continues at the exact update."""

import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.records.curve import EpochRecord
from tf_largebatch.records.errors import InputError, StorageError
from tf_largebatch.records.run_folder import METRICS, read_metrics, write_metrics
from tf_largebatch.records.settings import Settings
from tf_largebatch.training.evaluation import Scores
from tf_largebatch.training.run import Run
from tf_largebatch.training.step import COLUMNS, TrainingStep

# What writing to a full disk raises: TensorFlow reports it under several names.
_WRITE_ERRORS = (tf.errors.OpError, OSError)
# A truncated file shows as IndexError or as an error of TensorFlow.
_READ_ERRORS = (tf.errors.OpError, AssertionError, IndexError, RuntimeError, ValueError)


@dataclass
class Progress:
    """How far a run has come.

    `rows` are what `TrainingStep.run` gave for the updates since the last epoch that is complete,
    float32 [n, columns], and `seconds` their wall time.
    """

    update: int = 0  # updates done
    records: list[EpochRecord] = field(default_factory=list)  # of the complete epochs
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, len(COLUMNS)), np.float32))
    seconds: float = 0.0

    @property
    def next_epoch(self) -> int:
        """The epoch that trains now, 1 for the first."""
        return self.records[-1].epoch + 1 if self.records else 1

    def add(self, rows: np.ndarray, seconds: float) -> None:
        """Counts a block of updates."""
        self.update += len(rows)
        self.rows = np.concatenate([self.rows, rows])
        self.seconds += seconds

    def end_epoch(self, epoch: int, seen: int, scores: Scores) -> EpochRecord:
        """Turns the updates since the last epoch into its record; `seen` images were used."""
        rows = self.rows
        mean = dict(zip(COLUMNS, rows.mean(axis=0, dtype=np.float64).tolist(), strict=True))
        record = EpochRecord(
            epoch=epoch,
            update=self.update,
            images_seen=seen,
            learning_rate=float(rows[-1, COLUMNS.index("learning_rate")]),
            train_loss=mean["loss"],
            train_error_pct=100.0 * (1.0 - mean["accuracy"]),
            validation_loss=scores.loss,
            validation_error_pct=scores.top1_error_pct,
            validation_top5_error_pct=scores.top5_error_pct,
            seconds=self.seconds,
            unread=round(float(rows[:, COLUMNS.index("unread")].sum(dtype=np.float64))),
            validation_unread=scores.unread,
        )
        self.records.append(record)
        self.rows, self.seconds = rows[:0], 0.0
        return record


class Checkpoints:
    """Weights, batch-norm statistics, optimizer state and progress of one run.

    No metric and no data state: the data pipeline is a function of (seed, epoch, update), so the
    number of updates is all that it needs. `tf.train.CheckpointManager` writes the files first and
    the index that names them last: a checkpoint is whole or is not listed.

    Model and optimizer are built; `others` are further variables, as `TrainingStep.variables`. The
    newest `keep` checkpoints stay in the folder, which holds nothing else.
    """

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        others: list[tf.Variable] | None = None,
        keep: int = Settings.keep,
    ):
        self._folder = folder
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

        One that cannot be written is a StorageError: those before it are unharmed, and what was
        written of it is removed.
        """
        self._update.assign(progress.update)
        self._seconds.assign(progress.seconds)
        self._rows.assign(progress.rows)
        try:
            self._manager.save(checkpoint_number=progress.update)
        except _WRITE_ERRORS as error:
            for path in self._folder.glob(f"ckpt-{progress.update}[._]*"):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            reason = str(error).strip().splitlines()[0][:160]
            raise StorageError(
                f"the checkpoint of update {progress.update:,} could not be written to "
                f"{self._folder} ({reason}). Those before it are unharmed: make room, and the same "
                "command with this --run-dir continues"
            ) from None

    def restore(self, records: list[EpochRecord]) -> Progress:
        """Restores the newest checkpoint that is whole; `damaged` then names those that are not.

        Returns where it stands, at the start where there is none; the records may go beyond it.
        InputError: there are checkpoints, but none can be restored.
        """
        self.damaged = []
        for path in reversed(self._manager.checkpoints):
            try:
                self._manager.checkpoint.restore(path).assert_existing_objects_matched()
            except _READ_ERRORS as error:
                reason = str(error).strip().splitlines()[0][:120]
                self.damaged.append(f"checkpoint {path} cannot be restored ({reason})")
                continue
            update, rows = int(self._update.numpy()), self._rows.numpy()
            done = [record for record in records if record.update <= update - len(rows)]
            return Progress(update, done, rows, float(self._seconds.numpy()))
        if self.damaged:
            raise InputError(f"{self.damaged[0]}. Choose another --run-dir")
        return Progress()


class Saver:
    """Restores a run, and writes its checkpoints: after every epoch and as the settings say.

    Only the chief writes. State is the same on all workers, so none has anything to add.
    """

    def __init__(self, run: Run, step: TrainingStep):
        self._run = run
        self._metrics = run.folder / METRICS
        folder, keep = run.folder / "checkpoints", run.plan.settings.keep
        self._checkpoints = Checkpoints(folder, step.model, step.optimizer, step.variables, keep)
        self._saved = time.monotonic()

    def restore(self) -> Progress:
        """Returns where the newest whole checkpoint stands, the same on all workers."""
        progress = self._checkpoints.restore(read_metrics(self._metrics))
        self._run.team.agree({"the checkpoint that --run-dir shows": f"update {progress.update}"})
        for damage in self._checkpoints.damaged if self._run.team.chief else ():
            print(f"{damage}: continues from update {progress.update}", file=sys.stderr)
        return progress

    def save(self, progress: Progress) -> None:
        """Writes the epochs' records, then the checkpoint that goes with them, or StorageError."""
        if not self._run.team.chief:
            return
        try:
            write_metrics(self._metrics, progress.records)
        except OSError as error:
            raise StorageError(f"{self._metrics} could not be written ({error.strerror})") from None
        self._checkpoints.save(progress)
        self._saved = time.monotonic()

    def after_block(self, progress: Progress) -> None:
        """Saves if it is time."""
        settings = self._run.plan.settings
        by_count = settings.checkpoint_updates and not progress.update % settings.checkpoint_updates
        if by_count or time.monotonic() - self._saved > 60.0 * settings.checkpoint_minutes:
            self.save(progress)

    after_epoch = save
