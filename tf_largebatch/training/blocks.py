"""A block of updates, which run without a visit to the host: what is told of it, and its end."""

import keras
import numpy as np

from tf_largebatch.records.errors import NonFiniteError
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
    `step_ms` and `input_wait_pct`.

    Args:
        watchers: callbacks.
        step: of this block.
        first: number of its first update.
        rows: what `TrainingStep.run` gave, one row an update.
        last: told of the last update besides: `weight_norm` and what `LayerChanges.compare` saw.
        seconds: wall time of the block.
        waited: seconds of it without data.
    """
    size, plan = len(rows), step.plan
    common = {
        "global_batch": plan.global_batch,
        "images_per_sec": size * plan.global_batch / seconds,
        "step_ms": 1000.0 * seconds / size,
        "input_wait_pct": 100.0 * waited / seconds,
        "micro_batch": plan.micro_batch,
    }
    for update, row in enumerate(rows.tolist(), start=first):
        logs = dict(zip(COLUMNS, row, strict=True)) | common
        logs["images_seen"] = plan.position_at(update + 1)
        del logs["first_bad_tensor"], logs["unread"]
        if update == first + size - 1:
            logs |= last
        watchers.on_train_batch_end(update, logs)


def stop_if_not_finite(step: TrainingStep, rows: np.ndarray, first: int) -> None:
    """Raises NonFiniteError where a gradient of the block is not finite."""
    loss, bad = rows[:, COLUMNS.index("loss")], rows[:, COLUMNS.index("first_bad_tensor")]
    broken = np.flatnonzero(bad >= 0)
    if not len(broken):
        return
    i = int(broken[0])
    tensor = step.model.trainable_variables[int(bad[i])].path
    rate = rows[i, COLUMNS.index("learning_rate")]
    raise NonFiniteError(
        f"update {first + i}: the gradient of {tensor} is not finite, with loss {loss[i]:.6g} at "
        f"rate {rate:.6g}. Lower the rate or lengthen the warmup; the last checkpoint is unharmed",
        first + i,
    )
