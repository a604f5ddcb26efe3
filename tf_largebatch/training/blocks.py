"""Blocks of updates, which run without a visit to the host: what they take, and what is told."""

import sys
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.errors import NonFiniteError
from tf_largebatch.training.checkpoint import Progress
from tf_largebatch.training.step import COLUMNS, TrainingStep

BLOCK = 20  # updates per visit to the host: its cost vanishes, and a reader waits seconds at most
LOOKS = 100  # at the layers in a run; TensorBoard shows 50 histograms


def tell(
    watchers: keras.callbacks.CallbackList,
    step: TrainingStep,
    first: int,
    rows: np.ndarray,
    last: dict,
    *,
    seconds: float,
    waited: float,
) -> None:
    """Tells the watchers of each update of a block, in order, with plain floats.

    `on_train_batch_end(update, logs)` has `loss`, `accuracy`, `learning_rate`, `grad_norm`,
    `micro_grad_norm`, `loss_scale`, `micro_batch`, `global_batch`, `images_seen`, `images_per_sec`,
    `step_ms` and `input_wait_pct`, and where several replicas or workers train, `bytes_sent` of
    each to the others; that of the last update also what `last` has: `weight_norm` and what
    `LayerChanges.compare` saw. `waited` are those of the block's `seconds` without data.
    """
    size, plan = len(rows), step.plan
    common = {
        "global_batch": plan.global_batch,
        "images_per_sec": size * plan.global_batch / seconds,
        "step_ms": 1000.0 * seconds / size,
        "input_wait_pct": 100.0 * waited / seconds,
        "micro_batch": plan.micro_batch,
    }
    if plan.replicas > 1 or step.local:
        common["bytes_sent"] = step.bytes_sent(first, first + size) / size
    for update, row in enumerate(rows.tolist(), start=first):
        logs = dict(zip(COLUMNS, row, strict=True)) | common
        logs["images_seen"] = plan.position_at(update + 1)
        del logs["first_bad_tensor"], logs["unread"]
        if update == first + size - 1:
            logs |= last
        watchers.on_train_batch_end(update, logs)


def stop_if_not_finite(step: TrainingStep, rows: np.ndarray, first: int) -> None:
    """Raises NonFiniteError where a gradient, a loss or what the block left is not finite.

    An update that is skipped to lower the loss scale says nothing of either.
    """
    names = ("loss", "first_bad_tensor", "grad_norm", "learning_rate")
    loss, bad, norm, rates = (rows[:, COLUMNS.index(name)] for name in names)
    skipped = bool(step.variables) & ~np.isfinite(norm)
    broken = np.flatnonzero((bad >= 0) | (~np.isfinite(loss) & ~skipped))
    if not len(broken):
        return step.finite.check(first + len(rows))
    i = int(broken[0])
    what = "the loss"
    if bad[i] >= 0:
        what = f"the gradient of {step.model.trainable_variables[int(bad[i])].path}"
    raise NonFiniteError(
        f"update {first + i}: {what} is not finite, with loss {loss[i]:.6g} and gradient norm "
        f"{norm[i]:.6g} at rate {rates[i]:.6g}. Lower the rate or lengthen the warmup",
        first + i,
    )


class Phases:
    """The step and the data of each update, made anew where the batch changes.

    Where updates are local, it also says when the workers agree: only there can a run go on.
    """

    def __init__(
        self,
        step: TrainingStep,
        later: Sequence[BatchPlan],
        batches: Callable[[BatchPlan, int], Iterator],
    ):
        self._plans = [step.plan, *later]
        self._step, self._batches = step, batches
        self._iterator: Iterator | None = None
        self._local = step.local
        self.local_start = step.local.schedule.start_update if step.local else sys.maxsize

    def updates_at(self, epoch: float) -> int:
        """The first update at or after `epoch`."""
        return [p for p in self._plans if p.start_epoch <= epoch][-1].updates_at(epoch)

    def position_at(self, update: int) -> int:
        """The examples used before `update`."""
        return [p for p in self._plans if p.start_update <= update][-1].position_at(update)

    def at(self, update: int) -> tuple[TrainingStep, Iterator, int]:
        """The step, the data, and the update at which they end."""
        number = max(i for i, p in enumerate(self._plans) if p.start_update <= update)
        plan = self._plans[number]
        if self._iterator is None or plan is not self._step.plan:
            if plan is not self._step.plan:
                self._step = self._step.for_plan(plan)
            self._iterator = self._batches(plan, update)
        later = self._plans[number + 1 :]
        end = later[0].start_update if later else sys.maxsize
        if self._local is None:
            return self._step, self._iterator, end
        step = self._step
        if update >= self.local_start:
            step = self._local
            step.begin()
        return step, self._iterator, self._local.schedule.block_end(update, BLOCK)

    def is_average(self, update: int) -> bool:
        """Whether every worker has the same weights once so many updates are done."""
        return self._local is None or self._local.schedule.is_average(update)

    def show_average(self, progress: Progress) -> None:
        """Puts the average into the model where the workers stand between two."""
        if not progress.resumable:
            self._local.show_average()

    def bytes_sent(self, progress: Progress) -> int:
        """What one replica or worker sent in this epoch, with what its evaluation needed."""
        first, end = progress.update - len(progress.rows), progress.update
        if self._local is None:
            return self._step.bytes_sent(first, end) if self._step.plan.replicas > 1 else 0
        turn = min(max(self.local_start, first), end)
        shown = 0 if progress.resumable else self._local.bytes_shown
        return self._step.bytes_sent(first, turn) + self._local.bytes_sent(turn, end) + shown
