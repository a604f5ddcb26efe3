"""A run's curve: one record an epoch, and where it first reached an accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass

from tf_largebatch.records.checks import check, check_fields

# An accuracy is a count of images over their number, taken from 100: equal but for the rounding.
ROUNDING_PCT = 1e-6


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One line of `metrics.csv`. Errors in percent, losses in nats per example."""

    epoch: int  # 1 for the first
    update: int  # updates done when the epoch ended
    images_seen: int
    learning_rate: float  # of the epoch's last update
    train_loss: float  # mean over the epoch's updates, with augmentation
    train_error_pct: float  # top-1, over the same examples
    validation_loss: float
    validation_error_pct: float
    validation_top5_error_pct: float
    seconds: float  # wall time of the epoch's updates, without evaluation
    unread: int = 0  # training images that could not be read, and were skipped
    validation_unread: int = 0  # validation images that could not be read, and count as wrong
    bytes_sent: int = 0  # by each replica or worker to the others, for its updates and averages


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What it took to reach an accuracy."""

    epochs: float
    updates: int
    hours: float  # of training; a run's own are without evaluation, and summed over its restarts

    def __str__(self) -> str:
        time = f"{self.hours:.2f} h" if self.hours >= 1 else f"{60 * self.hours:.2f} min"
        return f"{self.epochs:g} epochs, {self.updates:,} updates, {time}"


@dataclass(frozen=True, kw_only=True)
class StopSpec:
    """Training ends at the first evaluation that counts and has this accuracy, as in MLPerf.

    The last evaluation of the schedule counts too.
    """

    target_pct: float  # top-1 accuracy
    first_epoch: int = 1  # after which the first evaluation counts
    every_epochs: int = 1  # between evaluations that count

    def __post_init__(self) -> None:
        check_fields(self, "stop.", "at least 1", "first_epoch", "every_epochs")
        check(0 <= self.target_pct <= 100, "stop.target_pct", "in 0..100", self.target_pct)

    def counts(self, epoch: int) -> bool:
        """Whether the evaluation after this epoch is one that can end the training."""
        return epoch >= self.first_epoch and (epoch - self.first_epoch) % self.every_epochs == 0

    def reached(self, curve: Sequence[EpochRecord], length: float) -> Reached | None:
        """Returns where a training of `length` epochs ends; None where it has not yet."""
        return first_reached(curve, self.target_pct, length, self)


def first_reached(
    curve: Sequence[EpochRecord], target_pct: float, length: float, stop: StopSpec | None = None
) -> Reached | None:
    """Returns after which of its epochs a run first had an accuracy; None where it never had.

    Args:
        curve: its epochs, from the first on.
        target_pct: top-1 accuracy on the evaluation set, 0 to 100.
        length: of the whole training in epochs: the last one may be a part.
        stop: says which evaluations count; None for all.
    """
    seconds = 0.0
    for record in curve:
        seconds += record.seconds
        counts = stop is None or stop.counts(record.epoch) or record.epoch >= length
        if counts and record.validation_error_pct <= 100 - target_pct + ROUNDING_PCT:
            epochs = min(float(record.epoch), length)
            return Reached(epochs=epochs, updates=record.update, hours=seconds / 3600)
    return None
