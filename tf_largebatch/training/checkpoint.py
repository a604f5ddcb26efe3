"""Checkpoints from which a killed run continues at the exact update: docs/checkpoint.md."""

import contextlib
import dataclasses
import errno
import json
import math
import os
import re
import shutil
import sys
import time
import typing
from collections.abc import Mapping
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
from tf_largebatch.training.finite import FiniteCheck
from tf_largebatch.training.run import Run
from tf_largebatch.training.step import COLUMNS, TrainingStep

# Of a checkpoint; 1 had neither a number, nor the run it is of, nor the epochs, and 2 did not say
# what the epochs sent.
FORMAT = 3
_FORMAT_KEY = "format/.ATTRIBUTES/VARIABLE_VALUE"
_FIELDS = typing.get_type_hints(EpochRecord)
# What writing to a full disk raises: TensorFlow reports it under several names.
_WRITE_ERRORS = (tf.errors.OpError, OSError)
# A truncated file shows as IndexError or as an error of TensorFlow.
_READ_ERRORS = (tf.errors.OpError, AssertionError, IndexError, RuntimeError, ValueError)


@dataclass
class Progress:
    """How far a run has come.

    `rows` are what `TrainingStep.run` gave for the updates since the last epoch that is complete,
    float32 [n, columns], and `seconds` their wall time. It is `resumable` where a checkpoint holds
    all that training goes on from: not between two averages of local updates.
    """

    update: int = 0  # updates done
    records: list[EpochRecord] = field(default_factory=list)  # of the complete epochs
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, len(COLUMNS)), np.float32))
    seconds: float = 0.0
    resumable: bool = True

    @property
    def next_epoch(self) -> int:
        """The epoch that trains now, 1 for the first."""
        return self.records[-1].epoch + 1 if self.records else 1

    def add(self, rows: np.ndarray, seconds: float, *, resumable: bool = True) -> None:
        """Counts a block of updates."""
        self.resumable = resumable
        self.update += len(rows)
        self.rows = np.concatenate([self.rows, rows])
        self.seconds += seconds

    def end_epoch(self, epoch: int, scores: Scores, *, seen: int, sent: int) -> EpochRecord:
        """Turns the updates since the last epoch into its record.

        `seen` images were used since the start, and `sent` bytes left each replica in this epoch.
        """
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
            bytes_sent=sent,
        )
        self.records.append(record)
        self.rows, self.seconds = rows[:0], 0.0
        return record


class Checkpoints:
    """Weights, batch-norm statistics, optimizer state and progress of one run.

    No metric and no data state: the data pipeline is a function of (seed, epoch, update), so the
    number of updates is all that it needs. TensorFlow writes the data first and the index that
    names them last: a checkpoint is whole or has no index, and everything in it has a checksum.
    Which there are is read from the folder; TensorFlow's list, `checkpoint`, is for other readers.

    Model and optimizer are built; `others` are further variables, as `TrainingStep.variables`. The
    newest `keep` checkpoints stay in the folder, which holds nothing else. `run` says whose they
    are: one of another run is not restored. `finite` is a check of the same model and optimizer,
    where there is one.
    """

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        others: list[tf.Variable] | None = None,
        keep: int = Settings.keep,
        run: Mapping[str, str] | None = None,
        finite: FiniteCheck | None = None,
    ):
        self._folder, self._keep, self._run = folder, keep, dict(run or {})
        self._finite = finite or FiniteCheck(model, optimizer)
        self._update = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self._rows = _table(np.zeros((0, len(COLUMNS)), np.float32))
        # float64 holds every field exactly: counts stay far below 2**53.
        self._records = _table(np.zeros((0, len(_FIELDS))))
        self._names = tf.Variable(json.dumps(list(_FIELDS)))
        self._of = tf.Variable(json.dumps(self._run))
        parts = {
            "model": model,
            "optimizer": optimizer,
            "others": others or [],
            "update": self._update,
            "seconds": self._seconds,
            "rows": self._rows,
        }
        self._format_1 = tf.train.Checkpoint(**parts)
        self._checkpoint = tf.train.Checkpoint(
            **parts,
            format=tf.Variable(FORMAT, dtype=tf.int64, trainable=False),
            records=self._records,
            record_fields=self._names,
            run=self._of,
        )
        # As one graph: to walk through the objects anew at each save costs more than the writing.
        self._write = tf.function(self._write_all, autograph=False)
        self._kept: list[int] = []  # whole ones in the folder, oldest first
        self.damaged: list[str] = []
        self.format = FORMAT  # of the one that was restored

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint, and removes those that are older than the newest `keep`.

        NonFiniteError: a number in it is not finite, and nothing was written. StorageError: it
        cannot be written; what was written of it is removed.
        """
        self._finite.check(progress.update)
        records = [dataclasses.astuple(record) for record in progress.records]
        self._update.assign(progress.update)
        self._seconds.assign(progress.seconds)
        self._rows.assign(progress.rows)
        self._records.assign(np.reshape(np.array(records, np.float64), (-1, len(_FIELDS))))
        self._names.assign(json.dumps(list(_FIELDS)))
        self._of.assign(json.dumps(self._run))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(tf.constant(self._prefix(progress.update)))
            self._kept = [n for n in self._kept if n != progress.update] + [progress.update]
            self._prune()
        except _WRITE_ERRORS as error:
            with contextlib.suppress(OSError):
                self._remove(progress.update)
            raise StorageError(
                f"the checkpoint of update {progress.update:,} could not be written to "
                f"{self._folder} ({_reason(error)}). Make room: the same command with this "
                "--run-dir then continues from the newest one that is whole"
            ) from None

    def _write_all(self, prefix: tf.Tensor) -> tf.Tensor:
        # By its whole name: TensorFlow writes a file for each name of a device.
        here = tf.DeviceSpec.from_string(self._update.device)
        with tf.device(here.replace(device_type="CPU", device_index=0).to_string()):
            return self._checkpoint.write(prefix)

    def restore(self) -> Progress | None:
        """Restores the newest checkpoint that is whole; `damaged` then names those that are not.

        Returns where it stands, None where there is none. One of format 1 holds no epochs:
        `format` tells. InputError: there are checkpoints, but none can be restored, or one is of a
        later format.
        """
        self.damaged, self._kept = [], []
        numbers = sorted(_numbers(self._folder, r"ckpt-(\d+)\.index"))
        for place, number in reversed(list(enumerate(numbers))):
            try:
                progress = self._read(number)
            except _READ_ERRORS as error:
                if isinstance(error, InputError):
                    raise
                self.damaged.append(
                    f"checkpoint {self._prefix(number)} cannot be restored ({_reason(error)})"
                )
                continue
            self._kept = numbers[: place + 1]
            return progress
        if self.damaged:
            remedy = f"Remove {self._folder} to begin again, or choose another --run-dir"
            raise InputError(f"{self.damaged[0]}. {remedy}")
        return None

    def _read(self, number: int) -> Progress:
        path = self._prefix(number)
        there = tf.train.load_checkpoint(path)
        known = int(there.get_tensor(_FORMAT_KEY)) if there.has_tensor(_FORMAT_KEY) else 1
        if known > FORMAT:
            raise InputError(
                f"checkpoint {path} is of format {known}. This version reads formats 1 to {FORMAT}:"
                " continue with the version that wrote it, or choose another --run-dir"
            )
        self.format, records = known, []
        checkpoint = self._format_1 if known == 1 else self._checkpoint
        checkpoint.read(path).assert_existing_objects_matched()
        update = int(self._update.numpy())
        if update != number:
            raise ValueError(f"it is of update {update:,}")
        if known > 1:
            whose = json.loads(self._of.numpy())
            for what in whose.keys() & self._run.keys():
                if whose[what] != self._run[what]:
                    text = f"{what} {whose[what]} there, {self._run[what]} here"
                    raise ValueError(f"it is of another run: {text}")
            names = json.loads(self._names.numpy())
            rows = self._records.numpy().tolist()
            records = [
                EpochRecord(**{n: _FIELDS[n](v) for n, v in zip(names, row, strict=True)})
                for row in rows
            ]
        if bad := self._finite.first_bad():
            raise ValueError(f"{bad} is not finite")
        return Progress(update, records, self._rows.numpy(), float(self._seconds.numpy()))

    def _prefix(self, number: int) -> str:
        return str(self._folder / f"ckpt-{number}")

    def _prune(self) -> None:
        for number in self._kept[: -self._keep]:
            self._remove(number)
        self._kept = self._kept[-self._keep :]
        paths = [self._prefix(number) for number in self._kept]
        tf.compat.v1.train.update_checkpoint_state(str(self._folder), paths[-1], paths)

    def _remove(self, number: int) -> None:
        # The index first: without it, what is left is no checkpoint.
        for path in sorted(self._folder.glob(f"ckpt-{number}[._]*"), reverse=True):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


class Saver:
    """Restores a run, and writes its checkpoints: after every epoch and as the settings say.

    Only the chief writes. State is the same on all workers, so none has anything to add.
    """

    def __init__(self, run: Run, step: TrainingStep):
        self._run, self._step = run, step
        self._metrics, self._folder = run.folder / METRICS, run.folder / "checkpoints"
        self._checkpoints = Checkpoints(
            self._folder,
            step.model,
            step.optimizer,
            [*step.variables, *(step.local.kept if step.local else [])],
            run.plan.settings.keep,
            run.identity,
            step.finite,
        )
        self._saved = time.monotonic()
        self._due = False  # since an epoch ended between two averages

    def restore(self) -> Progress:
        """Returns where the newest whole checkpoint stands, the same on all workers."""
        team, problem, progress = self._run.team, None, None
        try:
            progress = self._checkpoints.restore()
            if progress is not None and self._checkpoints.format == 1:
                progress.records = self._records_of_format_1(progress)
        except InputError as error:
            problem = error
        stands = "none" if progress is None else f"update {progress.update}"
        team.agree({"the checkpoint that --run-dir shows": stands}, problem=problem)
        if not team.chief:
            return progress or Progress()
        for damage in self._checkpoints.damaged:
            print(f"{damage}: continues from {stands}", file=sys.stderr)
        if progress is not None:
            self._write_metrics(progress)
        elif self._metrics.exists() or _numbers(self._folder, r"ckpt-(\d+)\.data.*"):
            lost = f"{self._folder} has no whole checkpoint, although this run has been trained"
            print(f"{lost}: starts again at update 0", file=sys.stderr)
        return progress or Progress()

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint, then its epochs as a table for people, or StorageError.

        Between two averages the checkpoint waits for the next; the table does not.
        """
        self._due = not progress.resumable
        if self._step.local and progress.resumable:
            self._step.local.collect(progress.update)
        if not self._run.team.chief:
            return
        if self._due:
            return self._write_metrics(progress)
        self._checkpoints.save(progress)
        self._write_metrics(progress)
        self._saved = time.monotonic()

    def after_block(self, progress: Progress) -> None:
        """Saves if it is time."""
        settings = self._run.plan.settings
        if not progress.resumable:
            return
        by_count = settings.checkpoint_updates and not progress.update % settings.checkpoint_updates
        by_time = time.monotonic() - self._saved > 60.0 * settings.checkpoint_minutes
        if self._step.local and self._step.local.collects:  # the others have a part in it
            by_time = self._run.team.any(int(by_time)) > 0
        if self._due or by_count or by_time:
            self.save(progress)

    def after_epoch(self, progress: Progress) -> None:
        """Saves; NonFiniteError on every worker where the evaluation left something not finite."""
        self._step.finite.check(progress.update)
        self.save(progress)

    def _write_metrics(self, progress: Progress) -> None:
        try:
            write_metrics(self._metrics, progress.records)
        except OSError as error:
            raise StorageError(f"{self._metrics} could not be written ({error.strerror})") from None

    def _records_of_format_1(self, progress: Progress) -> list[EpochRecord]:
        """The epochs before the checkpoint from `metrics.csv`, which must hold each of them."""
        done = progress.update - len(progress.rows)
        plan, epochs = self._run.plan, self._run.plan.recipe.epochs
        ends: dict[int, int] = {}  # of updates: the first epoch that ends there
        for epoch in range(1, math.ceil(epochs) + 1):
            ends.setdefault(plan.updates_at(min(epoch, epochs)), epoch)
        wanted = [(epoch, end) for end, epoch in ends.items() if end <= done]
        try:
            found = [r for r in read_metrics(self._metrics) if r.update <= done]
        except (OSError, ValueError, TypeError, KeyError):
            found = []
        if [(record.epoch, record.update) for record in found] != wanted:
            raise InputError(
                f"{self._metrics} must hold the {len(wanted)} epochs up to update {done:,}: the "
                "checkpoints in this folder are of format 1, which has them nowhere else. "
                f"Received: {len(found)}. Bring the file back, or choose another --run-dir"
            )
        return found


def _table(values: np.ndarray) -> tf.Variable:
    """A variable of any number of rows."""
    return tf.Variable(values, shape=tf.TensorShape([None, None]), trainable=False)


def _numbers(folder: Path, pattern: str) -> set[int]:
    """Of the files whose names match."""
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return {int(match[1]) for name in names if (match := re.fullmatch(pattern, name))}


def _reason(error: Exception) -> str:
    """In a few words; the operating system's own where TensorFlow wraps them in names of nodes."""
    text = str(error).strip() or type(error).__name__
    full = (os.strerror(code) for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT))
    return next((known for known in full if known in text), text.splitlines()[0][:160])
