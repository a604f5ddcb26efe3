"""What Keras's `fit` does in each update, told as the training loop tells it (`training.blocks`).

`fit` gives the running mean of an epoch's losses, and nothing else. The rate comes from the
optimizer, the time from the clock, the layers from the weights before and after; the gradients'
norms and the wait on several replicas from `DistributedFit`, which has them. Any backend.
"""

import time
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_largebatch.review.tensorboard.layer_changes import LayerChanges


class FitLogs:
    """Follows one `fit`; its callback tells it of every epoch and batch.

    Args:
        model: compiled and built.
        global_batch: examples per update, None where only `DistributedFit` could say.
        look_every: updates between two looks at the layers and at the wait for data; None never.

    Attributes:
        update: updates done.
        writes: whether this process writes: the chief of several workers.
    """

    def __init__(
        self, model: keras.Model, *, global_batch: int | None = None, look_every: int | None = None
    ):
        self._model, self._global_batch = model, global_batch
        outer = model.optimizer
        self._optimizer = getattr(outer, "inner_optimizer", outer)
        self._on_jax = keras.backend.backend() == "jax"
        # Of an execution of several updates, nothing tells the last one's.
        self._every = look_every if model.steps_per_execution == 1 else None
        self._layers = LayerChanges(model, self._optimizer)
        strategy = getattr(model, "distribute_strategy", None)
        self.writes = strategy is None or bool(strategy.extended.should_checkpoint)
        if self._on_jax:
            import jax

            self.writes = jax.process_index() == 0
        self.update = self._updates()
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Before an epoch's first batch: its evaluation is no time of training."""
        self._batches, self._mean = 0, 0.0
        self._began: float | None = None
        self._waited: float | None = None

    def before_batch(self) -> None:
        """Before a batch, or several of one execution."""
        now = time.perf_counter()
        self._began = now if self._began is None else self._began
        if not self._looks():
            return
        if self._on_jax:
            self._model.jax_state_sync()
        if not _sums_micro_batches(self._model):
            self._time_next_batch()
        self._layers.keep()

    def after_batch(self, batch: int, logs: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the update's logs, its means where it is several; None where none was made."""
        now, done, looked = time.perf_counter(), batch + 1, self._looks()
        made = self._updates() - self.update
        accumulates = (self._optimizer.gradient_accumulation_steps or 1) > 1
        if made <= 0 and accumulates:
            return None
        mean = float(logs.get("loss", np.nan))
        loss = (done * mean - self._batches * self._mean) / (done - self._batches)
        seconds = max(now - (self._began or now), 1e-9)
        self._batches, self._mean, self._began = done, mean, now
        if made <= 0:  # a batch that is passed over, or that float16 skipped
            self._layers.forget()
            return None
        self.update += made
        told = {
            "loss": loss,
            "learning_rate": self._rate(),
            "step_ms": 1000.0 * seconds / made,
            **self._of_gradients(seconds),
        }
        if (size := told.get("global_batch")) is not None:
            told |= {"images_per_sec": made * size / seconds, "images_seen": self.update * size}
        if looked:
            told |= self._look(seconds)
        return told

    def _looks(self) -> bool:
        return self._every is not None and (self.update + 1) % self._every == 0

    def _look(self, seconds: float) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if self._on_jax:
            self._model.jax_state_sync()
        if self._waited is not None:
            told["input_wait_pct"] = min(100.0, 100.0 * self._waited / seconds)
            self._waited = None
        weights = (ops.cast(v.value, "float32") for v in self._model.trainable_variables)
        square = sum(float(ops.sum(ops.square(w))) for w in weights)
        return {**told, "weight_norm": square**0.5, **self._layers.compare()}

    def _of_gradients(self, seconds: float) -> dict[str, float]:
        """What `DistributedFit` saw: norms, split, and the wait for data of the update."""
        seen = getattr(self._model, "watched", None)
        told: dict[str, float] = {}
        if seen is not None:
            grad, micro, micro_batch, global_batch = np.asarray(seen.seen).tolist()
            told = {
                "grad_norm": grad,
                "micro_grad_norm": micro,
                "micro_batch": round(micro_batch),
                "global_batch": round(global_batch),
                "input_wait_pct": min(100.0, 100.0 * float(np.asarray(seen.waited)) / seconds),
            }
        elif self._global_batch is not None:
            told["global_batch"] = self._global_batch
        return told

    def _updates(self) -> int:
        """Of the optimizer; during an epoch, JAX keeps its state beside the model."""
        variable: Any = self._optimizer._iterations
        state = getattr(self._model, "_jax_state", None) if self._on_jax else None
        if state and not self._model._jax_state_synced:
            places = [id(v) for v in self._model.optimizer.variables]
            variable = state["optimizer_variables"][places.index(id(variable))]
        steps = self._optimizer.gradient_accumulation_steps or 1
        return int(np.asarray(variable)) // steps

    def _rate(self) -> float:
        """Of the last update."""
        rate = self._optimizer._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return float(rate(self.update - 1))
        return float(np.asarray(self._optimizer.learning_rate))

    def _time_next_batch(self) -> None:
        """Has the next step fetch its batch on the host, which takes as long as it is not there."""
        model, train = self._model, self._model.train_function
        if getattr(train, "passes_over", False):  # batches that `ExactResume` has done: no data
            return

        def timed(*arguments: Any) -> Any:
            model.train_function = train
            *state, iterator = arguments
            if isinstance(iterator, list):  # fetched already, by some versions of Keras on JAX
                return train(*arguments)
            begun = time.perf_counter()
            batch = next(iterator)
            self._waited = time.perf_counter() - begun
            return train(*state, iter([batch]))

        model.train_function = timed


def _sums_micro_batches(model: keras.Model) -> bool:
    return bool(getattr(model, "sums_micro_batches", False))


def check_gradients(model: keras.Model) -> None:
    """ValueError, for a callback that needs gradients of two sizes, where a `fit` shows none."""
    fix = "put tf_largebatch.DistributedFit before its class and give fit micro_batch"
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "the gradient noise scale needs the gradients of an update's parts, which Keras's "
            f"`fit` does not show. Received: the {keras.backend.backend()} backend. On TensorFlow, "
            f"{fix}"
        )
    several = model.distribute_strategy.num_replicas_in_sync > 1
    split = several or getattr(model, "_micro_batch", None) is not None
    if not (_sums_micro_batches(model) and split):
        raise ValueError(
            "the gradient noise scale compares the gradients of an update's micro-batches or "
            f"replicas. Received: `fit` of {type(model).__name__}, which has one. To measure it, "
            f"{fix}"
        )
