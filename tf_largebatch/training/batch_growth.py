"""A global batch that changes during `fit`: don't decay the rate, increase the batch size.

Smith et al. 2017, arXiv:1711.00489, multiply the batch where a schedule would divide the rate.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_largebatch.records.batch_schedule import BatchSizeSchedule
from tf_largebatch.review import noise_scale
from tf_largebatch.review.noise_scale import NoiseScale


def fit_phases(
    model: keras.Model,
    schedule: BatchSizeSchedule,
    fit: Callable[..., Any],
    x: Any,
    *,
    examples: int,
    epochs: int,
    verbose: Any,
    callbacks: list[keras.callbacks.Callback],
    initial_epoch: int = 0,
) -> keras.callbacks.History:
    """Trains phase by phase as one training of these callbacks; the history of all.

    Args:
        model: compiled.
        schedule: the batch of each epoch.
        fit: Keras's, of this model, and the arguments that no phase changes.
        x: arrays, or a data set of single examples.
        examples: in `x`.
        epochs: of the whole training, as the following are.
        verbose: as for Keras's `fit`.
        callbacks: as for Keras's `fit`.
        initial_epoch: as for Keras's `fit`.
    """
    noise = _FollowNoise(schedule, verbose) if schedule.noise_ladder else None
    # After the user's, so that a training that they stop does not go on with another batch.
    callbacks = [*callbacks, noise] if noise else callbacks
    told = {"verbose": verbose, "epochs": epochs, "steps": None}
    several = _OneTraining(
        callbacks, add_history=True, add_progbar=verbose != 0, model=model, **told
    )
    begin, optimizer = initial_epoch, model.optimizer
    with _once(optimizer, "finalize_variable_values"):
        for first, end, batch in noise.phases(epochs) if noise else schedule.phases(epochs):
            if end <= begin:
                continue
            several.set_params(told | {"steps": examples // batch})
            data = {"x": x, "batch_size": batch}
            if isinstance(x, tf.data.Dataset):
                data = {"x": x.batch(batch, drop_remainder=True)}
            fit(**data, initial_epoch=max(first, begin), epochs=end, callbacks=several)
            # A callback that restores a training says in this private place where it goes on.
            begin, model._initial_epoch = max(begin, model._initial_epoch or 0), None
            if model.stop_training and not (noise and noise.grown):
                break
    optimizer.finalize_variable_values(model.trainable_weights)
    several.end()
    return model.history


class _FollowNoise(keras.callbacks.Callback):
    """Measures the noise scale of each batch, and ends Keras's `fit` where the batch should grow.

    The norms are of the reduced gradient, the same on every worker: so is what is decided.
    """

    def __init__(self, schedule: BatchSizeSchedule, verbose: Any):
        super().__init__()
        self._schedule, self._verbose = schedule, verbose
        self._batch, self._epoch, self.grown = schedule.batches[0], 0, True
        self._scale = NoiseScale()
        self._seen: list[tf.Tensor] = []

    def phases(self, epochs: int) -> Iterator[tuple[int, int, int]]:
        """As the schedule's, each known when the one before has ended."""
        while self.grown:
            self.grown = False
            yield self._epoch, epochs, self._batch

    def on_train_batch_end(self, batch, logs=None):
        watched = self.model.watched
        if watched is None:
            raise ValueError(
                "`train_step` must call super().train_step(data) for the noise scale of "
                f"{self._schedule} to be measured. Received: {type(self.model).__name__}'s own. "
                "Give the phases in `batches`"
            )
        self._seen.append(watched.seen)

    def on_epoch_end(self, epoch, logs=None):
        logs["global_batch"] = self._batch
        for norm, micro_norm, micro_batch, batch in tf.stack(self._seen).numpy().tolist():
            sizes = {"small_batch": round(micro_batch), "big_batch": round(batch)}
            self._scale.add(noise_scale.from_two_batches(micro_norm**2, norm**2, **sizes))
        self._seen = []
        measured, known = self._scale.b_simple, self._scale.count >= noise_scale.WARM_ESTIMATES
        if measured is None or not known or epoch + 1 == self.params["epochs"]:
            return
        batch = self._schedule.climb(self._batch, measured)
        if batch == self._batch or self.model.stop_training:
            return
        self._batch, self._epoch, self._scale = batch, epoch + 1, NoiseScale()
        self.grown = self.model.stop_training = True
        if self._verbose:
            print(f"\nepoch {epoch + 2}: batch {batch}, at a noise scale of {measured:.3g}")


class _OneTraining(keras.callbacks.CallbackList):
    """Begins with the first phase and ends when it is told."""

    _begun = False
    _last_logs: Any = None

    def on_train_begin(self, logs=None):
        if not self._begun:
            super().on_train_begin(logs)
        self._begun = True

    def on_train_end(self, logs=None):
        self._last_logs = logs or self._last_logs

    def end(self):
        if self._begun:
            super().on_train_end(self._last_logs)


@contextlib.contextmanager
def _once(optimizer: keras.optimizers.Optimizer, name: str) -> Iterator[None]:
    """Keeps each phase from doing what belongs to the end: weights become their averages there."""
    vars(optimizer)[name] = lambda *_: None
    try:
        yield
    finally:
        del vars(optimizer)[name]
