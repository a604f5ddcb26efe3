"""How a recipe is trained: what is made first, then the loop over epochs and blocks of updates."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.curve import StopSpec
from tf_largebatch.records.errors import NonFiniteError, StoppedError
from tf_largebatch.records.files import write_text
from tf_largebatch.records.result import SeedResult
from tf_largebatch.review.tensorboard.layer_changes import LayerChanges
from tf_largebatch.training.blocks import BLOCK, LOOKS, Phases, stop_if_not_finite, tell
from tf_largebatch.training.build import export, make_step
from tf_largebatch.training.checkpoint import Progress, Saver
from tf_largebatch.training.evaluation import Scores
from tf_largebatch.training.profile import Profile
from tf_largebatch.training.run import Run
from tf_largebatch.training.step import TrainingStep
from tf_largebatch.training.unreadable import READ_ERRORS, UnreadLimit, explain
from tf_largebatch.training.validation import Validation
from tf_largebatch.training.watchers import make_watchers
from tf_largebatch.training.workers.preemption import StopNotice


def train(run: Run) -> SeedResult:
    """Trains one recipe with one seed and reports the error as the paper does.

    A run that was stopped continues from its newest checkpoint. One whose loss stops being finite
    ends there, with what it had reached. InputError: the data cannot be read, or no checkpoint
    restored. StoppedError: a signal came; a checkpoint was written.
    """
    started, plan, team = time.perf_counter(), run.plan, run.team
    step = make_step(run)
    saver = Saver(run, step)
    progress = saver.restore()

    diverged_at = None
    with StopNotice(team) as notice:
        try:
            fit(
                step,
                batches=run.batches,
                evaluate=Validation(run, step.model, progress),
                epochs=run.stop_epoch or plan.recipe.epochs,
                progress=progress,
                stop=plan.recipe.stop,
                later=plan.phases[1:],
                callbacks=make_watchers(run, progress) if team.chief else (),
                keepers=(UnreadLimit(run), saver, notice),
                pause_every=plan.settings.checkpoint_updates,
                look_every=max(BLOCK, plan.updates // LOOKS),
                profile=Profile(*run.profile, folder=run.folder if team.chief else None),
            )
            step.finite.check(progress.update)  # before it is exported
        except NonFiniteError as error:
            diverged_at = error.update
            if team.chief:
                write_text(run.folder / "diverged.txt", f"{error}\n")
        except READ_ERRORS as error:
            raise explain(error, run, int(step.optimizer.iterations.numpy())) or error from None
        if signal := notice.agreed():
            saver.save(progress)
            done = f"{signal.name}: stopped after update {progress.update:,}"
            raise StoppedError(done, signal)
    if diverged_at is None and team.chief:
        export(step.model, run)
    return SeedResult(
        seed=run.seed,
        folder=".",
        epochs=tuple(progress.records),
        wall_seconds=time.perf_counter() - started,
        diverged_at=diverged_at,
        stops=plan.recipe.stop is not None,
    )


def fit(
    step: TrainingStep,
    *,
    batches: Callable[[BatchPlan, int], Iterator],
    evaluate: Callable[[], Scores],
    epochs: float,
    progress: Progress,
    stop: StopSpec | None = None,
    later: Sequence[BatchPlan] = (),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    keepers: Sequence[Any] = (),
    pause_every: int | None = None,
    look_every: int | None = None,
    profile: Profile | None = None,
) -> None:
    """Trains from where `progress` stands to the end of `epochs`, and keeps it up to date.

    Args:
        step: the update.
        batches: (plan, update) -> iterator over training data that starts there.
        evaluate: scores the model as it stands.
        epochs: length of the whole training, fractions allowed.
        progress: where to start; changed in place.
        stop: the accuracy at which training ends before that.
        later: plans of the later phases, where the batch changes (`BatchPlan.followed_by`).
        callbacks: ordinary Keras callbacks, told as `blocks.tell` says; they watch, never steer.
        keepers: each is asked `after_block(progress)`, where True ends the training, and called
            `after_epoch(progress)` last in each epoch.
        pause_every: let a block end at every multiple of this many updates.
        look_every: look at the layers in the last update of each block that reaches a multiple of
            this many updates. Like the next, the same on every worker.
        profile: updates to trace, each in a block of its own.

    NonFiniteError: a gradient, a loss or what they left is not finite; names update and tensor.
    """
    watchers = keras.callbacks.CallbackList(list(callbacks), model=step.model)
    phases, profile = Phases(step, later, batches), profile or Profile()
    layers = LayerChanges(step.model, step.optimizer, every=look_every, end=phases.local_start)
    watchers.on_train_begin({})
    try:
        for epoch in range(progress.next_epoch, math.ceil(epochs) + 1):
            if stop is not None and stop.reached(progress.records, epochs):
                break  # here, where a run that was killed after its last epoch finds it too
            end = phases.updates_at(min(epoch, epochs))
            if end == progress.update and not len(progress.rows):
                continue  # a batch larger than the data: the last update ended this epoch too
            watchers.on_epoch_begin(epoch - 1, {})
            while progress.update < end:
                first, started = progress.update, time.perf_counter()
                step, iterator, phase_end = phases.at(first)
                size = min(BLOCK, end - first, phase_end - first)
                if pause_every:
                    size = min(size, pause_every - first % pause_every)
                size = profile.limit(first, size)
                parts, waited = [], 0.0
                with profile.around(first):
                    for updates in layers.parts(first, size):
                        new_rows, seconds = step.run_timed(iterator, tf.constant(updates))
                        parts.append(new_rows.numpy())
                        waited += float(seconds)
                rows = np.concatenate(parts)
                changes = {**layers.compare(), "weight_norm": float(step.weight_norm())}
                seconds = time.perf_counter() - started
                stop_if_not_finite(step, rows, first)
                tell(watchers, step, first, rows, changes, seconds=seconds, waited=waited)
                progress.add(rows, seconds, resumable=phases.is_average(first + size))
                if any([keeper.after_block(progress) for keeper in keepers]):
                    return
            phases.show_average(progress)
            seen, sent = phases.position_at(progress.update), phases.bytes_sent(progress)
            record = progress.end_epoch(epoch, evaluate(), seen=seen, sent=sent)
            watchers.on_epoch_end(epoch - 1, dataclasses.asdict(record))
            for keeper in keepers:
                keeper.after_epoch(progress)
    finally:  # what was watched is written, and the bar closed, also when training is cut short
        profile.stop()
        watchers.on_train_end({})
