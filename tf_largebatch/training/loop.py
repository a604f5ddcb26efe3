"""The training loop: updates in blocks, an evaluation after every epoch, callbacks, checkpoints."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.errors import NonFiniteError
from tf_largebatch.records.result import EpochRecord
from tf_largebatch.training.checkpoint import Progress
from tf_largebatch.training.evaluation import Scores
from tf_largebatch.training.layer_changes import LayerChanges
from tf_largebatch.training.profile import Profile
from tf_largebatch.training.step import COLUMNS, TrainingStep

BLOCK = 20  # updates per visit to the host: its cost vanishes, and a reader waits seconds at most


Batches = Callable[[BatchPlan, int], Iterator]


def fit(
    step: TrainingStep,
    *,
    batches: Batches,
    evaluate: Callable[[], Scores],
    epochs: float,
    progress: Progress,
    later: Sequence[BatchPlan] = (),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    after_epoch: Callable[[Progress], None] = lambda progress: None,
    after_block: Callable[[Progress], bool] = lambda progress: False,
    pause_every: int | None = None,
    look_every: int | None = None,
    profile: Profile | None = None,
) -> bool:
    """Trains from where `progress` stands to the end of `epochs`, and keeps it up to date.

    Callbacks are ordinary Keras callbacks. `on_train_batch_end(update, logs)` comes once per
    update and in order, in blocks of up to 20 after the fact, with plain floats: `loss`,
    `accuracy`, `learning_rate`, `grad_norm`, `micro_grad_norm`, `loss_scale`, `micro_batch`,
    `global_batch`, `images_seen`, `images_per_sec`, `step_ms`, `input_wait_pct` and, on the last
    update of a block, `weight_norm`; with `look_every` some of the latter have the mappings of
    `LayerChanges.compare` as well.
    `on_epoch_end(epoch, logs)` has the fields of `EpochRecord`.

    Args:
        step: the update.
        batches: (plan, update) -> iterator over training data that starts there.
        evaluate: scores the model as it stands.
        epochs: length of the whole training, fractions allowed.
        progress: where to start; changed in place.
        later: plans of the later phases, where the batch changes (`BatchPlan.followed_by`). Each
            phase is compiled once; optimizer state and weights go on.
        callbacks: watch, never steer.
        after_epoch: called last in each epoch, to save.
        after_block: called after each block; True ends the training there.
        pause_every: let a block end at every multiple of this many updates; None where none must.
        look_every: look at the layers in the last update of each block that reaches a multiple of
            this many updates; None for never. The same on every worker.
        profile: updates to trace, each in a block of its own; the same ones on every worker.

    Returns:
        Whether the end was reached.

    Raises:
        NonFiniteError: a loss or a gradient is not finite; names the update and the first tensor.
    """
    watchers = keras.callbacks.CallbackList(list(callbacks), model=step.model)
    watchers.on_train_begin({})
    phases = _Phases(step, later, batches)
    layers = LayerChanges(step.model, step.optimizer) if look_every else None
    profile = profile or Profile()
    first = progress.records[-1].epoch + 1 if progress.records else 1
    try:
        for epoch in range(first, math.ceil(epochs) + 1):
            end = phases.updates_at(min(epoch, epochs))
            if end == progress.update and not len(progress.rows):
                continue  # a batch larger than the data: the last update ended this epoch too
            watchers.on_epoch_begin(epoch - 1, {})
            while progress.update < end:
                current, iterator, phase_end = phases.at(progress.update)
                size = min(BLOCK, min(end, phase_end) - progress.update)
                if pause_every:
                    size = min(size, pause_every - progress.update % pause_every)
                size = profile.limit(progress.update, size)
                reached = progress.update + size
                due = layers if layers and reached % look_every < size else None
                with profile.around(progress.update):
                    _run_block(current, iterator, progress, size, watchers, due)
                if after_block(progress):
                    return False
            record = _record(epoch, progress, phases.position_at(progress.update), evaluate())
            progress.records.append(record)
            progress.rows, progress.seconds = progress.rows[:0], 0.0
            watchers.on_epoch_end(epoch - 1, dataclasses.asdict(record))
            after_epoch(progress)
    finally:  # what was watched is written, and the bar closed, also when training is cut short
        profile.stop()
        watchers.on_train_end({})
    return True


class _Phases:
    """The step and the data of each update, made anew where the batch changes."""

    def __init__(self, step: TrainingStep, later: Sequence[BatchPlan], batches: Batches):
        self._plans = [step.plan, *later]
        self._step, self._batches = step, batches
        self._iterator: Iterator | None = None

    def updates_at(self, epoch: float) -> int:
        """The first update at or after `epoch`."""
        return [p for p in self._plans if p.start_epoch <= epoch][-1].updates_at(epoch)

    def position_at(self, update: int) -> int:
        """The examples used before `update`."""
        return [p for p in self._plans if p.start_update <= update][-1].position_at(update)

    def at(self, update: int) -> tuple[TrainingStep, Iterator, float]:
        """The step, the data, and the update at which they end."""
        number = max(i for i, p in enumerate(self._plans) if p.start_update <= update)
        plan = self._plans[number]
        if self._iterator is None or plan is not self._step.plan:
            if plan is not self._step.plan:
                self._step = self._step.for_plan(plan)
            self._iterator = self._batches(plan, update)
        later = self._plans[number + 1 :]
        end = later[0].start_update if later else math.inf
        return self._step, self._iterator, end


def _run_block(
    step: TrainingStep,
    batches: Iterator,
    progress: Progress,
    size: int,
    watchers: keras.callbacks.CallbackList,
    layers: LayerChanges | None,
) -> None:
    """Runs the next `size` updates, looks at the last one, and tells the watchers of each."""
    started = time.perf_counter()
    rows, waited, changes = _run_updates(step, batches, size, layers)
    weight_norm = float(step.weight_norm())
    seconds = time.perf_counter() - started
    _stop_if_not_finite(step, rows, progress.update)
    common = {
        "global_batch": step.plan.global_batch,
        "images_per_sec": size * step.plan.global_batch / seconds,
        "step_ms": 1000.0 * seconds / size,
        "input_wait_pct": 100.0 * waited / seconds,
    }
    for i, row in enumerate(rows.tolist()):
        logs = dict(zip(COLUMNS, row, strict=True)) | common
        logs["images_seen"] = step.plan.position_at(progress.update + i + 1)
        logs["micro_batch"] = step.plan.micro_batch
        del logs["first_bad_tensor"], logs["unread"]
        if i == size - 1:
            logs |= {"weight_norm": weight_norm, **changes}
        watchers.on_train_batch_end(progress.update + i, logs)
    progress.update += size
    progress.rows = np.concatenate([progress.rows, rows])
    progress.seconds += seconds


def _run_updates(
    step: TrainingStep, batches: Iterator, size: int, layers: LayerChanges | None
) -> tuple[np.ndarray, float, dict]:
    """Returns the rows, the seconds waited for data, and what the last update changed."""
    parts, waited, changes = [], 0.0, {}
    sizes = [size] if layers is None else [size - 1, 1]
    for number, part in enumerate(sizes):
        looked_at = number == 1
        if looked_at:
            layers.keep()
        rows, seconds = step.run_timed(batches, tf.constant(part))
        parts.append(rows.numpy())
        waited += float(seconds)
        if looked_at:
            changes = layers.compare()
    return np.concatenate(parts), waited, changes


def _stop_if_not_finite(step: TrainingStep, rows: np.ndarray, update: int) -> None:
    loss, bad = rows[:, COLUMNS.index("loss")], rows[:, COLUMNS.index("first_bad_tensor")]
    broken = np.flatnonzero(bad >= 0)
    if not len(broken):
        return
    i = int(broken[0])
    tensor = step.model.trainable_variables[int(bad[i])].path
    rate = rows[i, COLUMNS.index("learning_rate")]
    raise NonFiniteError(
        f"update {update + i}: the gradient of {tensor} is not finite, with loss {loss[i]:.6g} at "
        f"rate {rate:.6g}. Lower the rate or lengthen the warmup; the last checkpoint is unharmed",
        update + i,
    )


def _record(epoch: int, progress: Progress, seen: int, scores: Scores) -> EpochRecord:
    mean = progress.rows.mean(axis=0, dtype=np.float64)
    return EpochRecord(
        epoch=epoch,
        update=progress.update,
        images_seen=seen,
        learning_rate=float(progress.rows[-1, COLUMNS.index("learning_rate")]),
        train_loss=float(mean[COLUMNS.index("loss")]),
        train_error_pct=100.0 * (1.0 - float(mean[COLUMNS.index("accuracy")])),
        validation_loss=scores.loss,
        validation_error_pct=scores.top1_error_pct,
        validation_top5_error_pct=scores.top5_error_pct,
        seconds=progress.seconds,
        unread=round(float(progress.rows[:, COLUMNS.index("unread")].sum(dtype=np.float64))),
        validation_unread=scores.unread,
    )
