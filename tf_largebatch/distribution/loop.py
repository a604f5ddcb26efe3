"""The training loop: updates in blocks, an evaluation after every epoch, callbacks, checkpoints."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.batching import BatchPlan
from tf_largebatch.distribution.evaluation import Scores
from tf_largebatch.distribution.step import COLUMNS, TrainingStep
from tf_largebatch.errors import NonFiniteError
from tf_largebatch.result import EpochRecord

BLOCK = 20  # updates per visit to the host: its cost vanishes, and a reader waits seconds at most


def fit(
    step: TrainingStep,
    *,
    batches: Iterator,
    evaluate: Callable[[], Scores],
    epochs: float,
    records: list[EpochRecord],
    callbacks: Sequence[keras.callbacks.Callback] = (),
    after_epoch: Callable[[list[EpochRecord]], None] = lambda records: None,
) -> list[EpochRecord]:
    """Trains from the end of `records` to the end of `epochs`.

    Callbacks are ordinary Keras callbacks. `on_train_batch_end(update, logs)` comes once per
    update and in order, in blocks of up to 20 after the fact, with plain floats: `loss`,
    `accuracy`, `learning_rate`, `grad_norm`, `images_per_sec`, `step_ms` and, on the last update
    of a block, `weight_norm`. `on_epoch_end(epoch, logs)` has the fields of `EpochRecord`.

    Args:
        step: the update.
        batches: over training data that starts at the first update to run.
        evaluate: scores the model as it stands.
        epochs: length of the whole training, fractions allowed.
        records: epochs already done; the new ones are appended.
        callbacks: watch, never steer.
        after_epoch: called last in each epoch, to save.

    Returns:
        `records`.

    Raises:
        NonFiniteError: a loss or a gradient is not finite; names the update and the first tensor.
    """
    plan = step.plan
    watchers = keras.callbacks.CallbackList(list(callbacks), model=step.model)
    update = records[-1].update if records else 0
    watchers.on_train_begin({})
    first = records[-1].epoch + 1 if records else 1
    try:
        for epoch in range(first, math.ceil(epochs) + 1):
            end = plan.updates_at(min(epoch, epochs))
            if end == update:  # a batch larger than the data: the last update ended this one too
                continue
            watchers.on_epoch_begin(epoch - 1, {})
            rows, seconds = _run_epoch(step, batches, update, end, watchers)
            update = end
            scores = evaluate()
            records.append(_record(epoch, update, plan, rows, seconds, scores))
            watchers.on_epoch_end(epoch - 1, dataclasses.asdict(records[-1]))
            after_epoch(records)
    finally:  # what was watched is written, and the bar closed, also when training is cut short
        watchers.on_train_end({})
    return records


def _run_epoch(
    step: TrainingStep,
    batches: Iterator,
    update: int,
    end: int,
    watchers: keras.callbacks.CallbackList,
) -> tuple[np.ndarray, float]:
    """Runs updates `update` to `end - 1`: (rows of all, seconds)."""
    blocks, total = [], 0.0
    while update < end:
        size = min(BLOCK, end - update)
        started = time.perf_counter()
        rows = step.run(batches, tf.constant(size)).numpy()
        weight_norm = float(step.weight_norm())
        seconds = time.perf_counter() - started
        _stop_if_not_finite(step, rows, update)
        speed = {
            "images_per_sec": size * step.plan.global_batch / seconds,
            "step_ms": 1000.0 * seconds / size,
        }
        for i, row in enumerate(rows.tolist()):
            logs = dict(zip(COLUMNS, row, strict=True)) | speed
            del logs["first_bad_tensor"]
            if i == size - 1:
                logs["weight_norm"] = weight_norm
            watchers.on_train_batch_end(update + i, logs)
        blocks.append(rows)
        update += size
        total += seconds
    return np.concatenate(blocks), total


def _stop_if_not_finite(step: TrainingStep, rows: np.ndarray, update: int) -> None:
    loss, bad = rows[:, COLUMNS.index("loss")], rows[:, COLUMNS.index("first_bad_tensor")]
    broken = np.flatnonzero(~np.isfinite(loss) | (bad >= 0))
    if not len(broken):
        return
    i = int(broken[0])
    where = "no gradient"
    if bad[i] >= 0:
        where = f"gradient of {step.model.trainable_variables[int(bad[i])].path} first"
    rate = rows[i, COLUMNS.index("learning_rate")]
    raise NonFiniteError(
        f"update {update + i}: the loss is {loss[i]:.6g} and not everything is finite "
        f"({where}), at rate {rate:.6g}. Lower the rate or lengthen the warmup; the last "
        "checkpoint is unharmed",
        update + i,
    )


def _record(
    epoch: int, update: int, plan: BatchPlan, rows: np.ndarray, seconds: float, scores: Scores
) -> EpochRecord:
    mean = rows.mean(axis=0, dtype=np.float64)
    return EpochRecord(
        epoch=epoch,
        update=update,
        images_seen=update * plan.global_batch,
        learning_rate=float(rows[-1, COLUMNS.index("learning_rate")]),
        train_loss=float(mean[COLUMNS.index("loss")]),
        train_error_pct=100.0 * (1.0 - float(mean[COLUMNS.index("accuracy")])),
        validation_loss=scores.loss,
        validation_error_pct=scores.top1_error_pct,
        validation_top5_error_pct=scores.top5_error_pct,
        seconds=seconds,
    )
