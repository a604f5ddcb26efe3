"""Pictures that cannot be read: named, counted, and refused above the limit."""

import sys

import numpy as np
import tensorflow as tf

from tf_largebatch.records.errors import InputError
from tf_largebatch.training.blocks import BLOCK
from tf_largebatch.training.checkpoint import Progress
from tf_largebatch.training.run import Run
from tf_largebatch.training.step import COLUMNS

# What reading damaged data raises; a record that is no Example shows as the last.
READ_ERRORS = (tf.errors.OpError, UnicodeDecodeError)
NAMED = 5  # unreadable images that are named, of an epoch


def explain(error: Exception, run: Run, update: int) -> InputError | None:
    """Returns what is wrong with the data that could not be read, or None if it is not the data.

    A block reads ahead of the updates that are done, by its own length at most.
    """
    for ahead in range(update, update + BLOCK):
        plan = run.plan.phase_at(ahead)
        known = run.dataset.explain_failure(error, plan, seed=run.seed, update=ahead)
        if known is not None:
            return known
    return None


class UnreadLimit:
    """Counts the training images that could not be read, names them, and stops above the limit.

    Every worker sees the counts of all, so that all stop at the same update.
    """

    def __init__(self, run: Run):
        self._run = run
        self._checked = 0  # updates
        self._named: list[str] = []

    def after_block(self, progress: Progress) -> None:
        """Counts; InputError where they are more in this epoch than the settings allow."""
        unread = progress.rows[:, COLUMNS.index("unread")]
        first = progress.update - len(unread)
        for update in (first + np.flatnonzero(unread)).tolist() if self._run.team.chief else ():
            if update >= self._checked and len(self._named) < NAMED:
                plan = self._run.plan.phase_at(update)
                # Reads the update's images once more.
                found = self._run.dataset.unreadable(plan, seed=self._run.seed, update=update)
                self._named = (self._named + found)[:NAMED]
        self._checked = progress.update
        limit, count = self._run.plan.settings.skip_unreadable, int(unread.sum())
        if count > limit:
            raise InputError(
                f"{count} training images of this epoch could not be read, more than "
                f"--skip-unreadable {limit} allows: {'; '.join(self._named)}"
            )

    def after_epoch(self, progress: Progress) -> None:
        """Prints what was skipped in it."""
        record, named, self._named = progress.records[-1], self._named, []
        if not self._run.team.chief or not (record.unread or record.validation_unread):
            return
        print(
            f"epoch {record.epoch}: {record.unread} training images could not be read and were "
            f"skipped, {record.validation_unread} validation images count as wrong. "
            + "; ".join(named),
            file=sys.stderr,
        )
