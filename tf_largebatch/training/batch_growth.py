"""A global batch that changes during `fit`: don't decay the rate, increase the batch size.

Smith et al. 2017, arXiv:1711.00489, multiply the batch where a schedule would divide the rate.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_largebatch.records.batch_schedule import BatchSizeSchedule


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
    several = _OneTraining(
        callbacks, add_history=True, add_progbar=verbose != 0, model=model, verbose=verbose
    )
    begin, optimizer = initial_epoch, model.optimizer
    with _once(optimizer, "finalize_variable_values"):
        for first, end, batch in schedule.phases(epochs):
            if end <= begin:
                continue
            steps = examples // batch
            several.set_params({"verbose": verbose, "epochs": epochs, "steps": steps})
            data = {"x": x, "batch_size": batch}
            if isinstance(x, tf.data.Dataset):
                data = {"x": x.batch(batch, drop_remainder=True)}
            fit(**data, initial_epoch=max(first, begin), epochs=end, callbacks=several)
            # A callback that restores a training says in this private place where it goes on.
            begin, model._initial_epoch = max(begin, model._initial_epoch or 0), None
            if model.stop_training:
                break
    optimizer.finalize_variable_values(model.trainable_weights)
    several.end()
    return model.history


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
