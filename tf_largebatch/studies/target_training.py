"""One small network trained again and again with `fit`: updates to a target, and its noise scale.

Rate and momentum are variables of the optimizer, so that a batch is compiled once in a process.
Other optimizers come as a `Contender`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_largebatch.optimizers import MomentumSGD
from tf_largebatch.review.noise_scale import NoiseEstimate, from_two_batches
from tf_largebatch.studies import fitting

EVERY_UPDATE = 25  # score after each of the first updates, then at every GROWTH-th part more
GROWTH = 1.04
FEW, FAR_PCT = 1_000, 3.0  # so many examples tell that the target is so many points away
CHUNK_EXAMPLES = 256  # updates of a smaller batch come several at a time, so many examples
NOISE_PLACES = 20  # of a run, evenly spaced
NOISE_SMALL, NOISE_BIG = 512, 8_192  # examples of the two batches that the noise scale needs


def make_network(inputs: int, hidden: Sequence[int]) -> keras.Sequential:
    """Returns dense layers with ReLU between them on flat uint8 images; ten logits."""
    layers = [keras.layers.Dense(width, activation="relu") for width in hidden]
    return keras.Sequential(
        [keras.Input((inputs,), dtype="uint8"), fitting.pixels(), *layers, keras.layers.Dense(10)]
    )


def first_weights(model: keras.Model, seed: int) -> list[np.ndarray]:
    """Returns Glorot-uniform matrices and biases of 0, the same on every backend."""
    rng, weights = np.random.default_rng([seed, 7]), []
    for shape in (w.shape for w in model.get_weights()):
        limit = math.sqrt(6 / sum(shape)) if len(shape) == 2 else 0.0
        weights.append(rng.uniform(-limit, limit, shape).astype(np.float32))
    return weights


def next_score(done: int) -> int:
    """Returns the update after which to score next: 4 % is how exactly updates are known."""
    return done + 1 if done < EVERY_UPDATE else max(done + 1, round(done * GROWTH))


class Watch(keras.callbacks.Callback):
    """Calls `visit(update, model)` after the updates that `next_place` names; True ends the run."""

    def __init__(
        self, next_place: Callable[[int], int], visit: Callable[[int, keras.Model], bool], last: int
    ):
        super().__init__()
        self._next_place, self._visit, self._last = next_place, visit, last
        self._place = min(next_place(0), last)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """`batch` is the last of those that ran since the previous call, from 0."""
        done = batch + 1
        if done < self._place:
            return
        self._place = min(max(self._next_place(done), done + 1), self._last)
        if self._visit(done, self.model):  # asking for the model brings its weights up to date
            self.model.stop_training = True


@dataclass(frozen=True)
class Contender:
    """An optimizer, and the number of it that is searched beside the rate.

    Attributes:
        make: global batch -> optimizer.
        knob: the number's name, an attribute of the optimizer.
        network: (inputs, widths of the hidden layers) -> model.
        compiled_in: whether the optimizer computes with the number before anything is compiled, so
            that it cannot be a variable: each value is then compiled anew.
    """

    make: Callable[[int], keras.optimizers.Optimizer]
    knob: str = "momentum"
    network: Callable[[int, Sequence[int]], keras.Model] = make_network
    compiled_in: bool = False


NESTEROV = Contender(lambda batch: MomentumSGD(0.1, nesterov=True))


class TargetTraining:
    """One optimizer at a constant rate, of one network at one batch."""

    def __init__(
        self, inputs: int, hidden: Sequence[int], batch: int, contender: Contender = NESTEROV
    ):
        self._batch, self._shape = batch, (inputs, hidden)
        self._chunk = max(1, CHUNK_EXAMPLES // batch)
        self._contender = contender
        self._model = contender.network(inputs, hidden)
        self._optimizer = contender.make(batch)
        self._knob: Any = None
        if not contender.compiled_in:
            # A variable of the optimizer: a number would be compiled in.
            knob = contender.knob
            self._knob = self._optimizer.add_variable((), initializer="zeros", name=knob)
            setattr(self._optimizer, knob, self._knob)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._model.compile(
            self._optimizer, loss, steps_per_execution=self._chunk, jit_compile=True
        )
        self._optimizer.build(self._model.trainable_variables)
        self._probe: GradientProbe | None = None

    def run(
        self,
        x: np.ndarray,
        y: np.ndarray,
        *,
        rate: float,
        seed: int,
        updates: int,
        next_place: Callable[[int], int],
        visit: Callable[[int, keras.Model], bool],
        **knob: float,
    ) -> None:
        """Trains anew for so many updates at most; `visit` as `Watch` has it.

        `knob` is the contender's, by its name, "momentum" for example.
        """
        self._model.set_weights(first_weights(self._model, seed))
        for variable in self._optimizer.variables:
            variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
        self._optimizer.learning_rate = rate
        self._turn(**knob)
        stream = ((x[at], y[at]) for at in fitting.batches(len(x), self._batch, seed=seed))
        watch = Watch(next_place, visit, updates)
        self._model.fit(
            stream, steps_per_epoch=updates, callbacks=[watch], shuffle=False, verbose=0
        )

    def _turn(self, **knob: float) -> None:
        (value,) = knob.values()
        if self._knob is not None:
            self._knob.assign(value)
        elif getattr(self._optimizer, self._contender.knob) != value:
            setattr(self._optimizer, self._contender.knob, value)
            self._model.train_function = None  # Keras makes and compiles a new one

    def to_target(self, train, held_out, *, target_pct: float, updates: int, **point) -> dict:
        """Trains until the held-out error is at the target; it is looked at as `next_score` says.

        Returns:
            "steps" (None where the target was not reached), "updates" made, the last "error_pct".
        """
        found: dict[str, Any] = {"steps": None, "updates": 0, "error_pct": None}
        images, labels = held_out

        def visit(update: int, model: keras.Model) -> bool:
            error = _error_pct(model, images[:FEW], labels[:FEW])
            if error is not None and error <= target_pct + FAR_PCT:
                error = _error_pct(model, images, labels)
            found.update(updates=update, error_pct=error)
            if error is not None and error <= target_pct:
                found["steps"] = update
            return found["steps"] is not None or error is None

        self.run(*train, updates=updates, next_place=next_score, visit=visit, **point)
        return found

    def noise(self, train, *, updates: int, seed: int, **point) -> dict:
        """Averages |G|^2 and tr(Sigma) over a run: the ratio is the noise scale of all of it.

        Returns:
            "grad_sq", "trace", "b_simple" (None where the mean |G|^2 is not above 0) and "places".
        """
        images, labels = train
        rng, estimates = np.random.default_rng([seed, 11]), []
        every = max(1, updates // NOISE_PLACES)
        big = min(NOISE_BIG, len(images) // NOISE_SMALL * NOISE_SMALL)

        def visit(update: int, model: keras.Model) -> bool:
            at = rng.choice(len(images), big, replace=False)
            estimates.append(self._estimate(model, images[at], labels[at]))
            return False

        self.run(
            images,
            labels,
            updates=updates,
            seed=seed,
            next_place=lambda done: done + every,
            visit=visit,
            **point,
        )
        finite = [e for e in estimates if math.isfinite(e.grad_sq) and math.isfinite(e.trace)]
        if not finite:
            return {"grad_sq": None, "trace": None, "b_simple": None, "places": 0}
        grad_sq, trace = (
            float(np.mean([getattr(e, name) for e in finite])) for name in ("grad_sq", "trace")
        )
        whole = NoiseEstimate(grad_sq, trace)
        return {
            "grad_sq": grad_sq,
            "trace": trace,
            "b_simple": whole.b_simple,
            "places": len(finite),
        }

    def _estimate(self, model: keras.Model, x: np.ndarray, y: np.ndarray) -> NoiseEstimate:
        if self._probe is None:
            self._probe = GradientProbe(make_network(*self._shape))
        self._probe.take(model.get_weights())
        parts = range(0, len(x), NOISE_SMALL)
        gradients = [
            self._probe.gradient(x[n : n + NOISE_SMALL], y[n : n + NOISE_SMALL]) for n in parts
        ]
        small_sq = float(np.mean([np.dot(g, g) for g in gradients]))
        mean = np.mean(gradients, axis=0)
        return from_two_batches(
            small_sq, float(np.dot(mean, mean)), small_batch=NOISE_SMALL, big_batch=len(x)
        )


class GradientProbe:
    """The gradient of a model's loss on any backend: the velocity after an update at rate 0."""

    def __init__(self, model: keras.Model):
        self._model = model
        self._optimizer = MomentumSGD(0.0, momentum=0.0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._model.compile(self._optimizer, loss, jit_compile=True)

    def take(self, weights: Sequence[np.ndarray]) -> None:
        """Takes over the weights at which to differentiate."""
        self._model.set_weights(weights)

    def gradient(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns the gradient of the mean loss of these examples, flat, float64."""
        self._model.train_on_batch(x, y)
        slots = [v for v in self._optimizer.variables if "velocity" in v.path]
        flat = [np.asarray(keras.ops.convert_to_numpy(v), np.float64).ravel() for v in slots]
        return np.concatenate(flat)


def _error_pct(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float | None:
    """Share of wrong answers in percent; None where a logit is not finite."""
    logits = model.predict_on_batch(images)
    if not np.isfinite(logits).all():
        return None
    return 100 * float(np.mean(np.argmax(logits, axis=1) != labels))


@functools.cache
def training(
    inputs: int, hidden: tuple[int, ...], batch: int, contender: Contender = NESTEROV
) -> TargetTraining:
    """Returns the one of this process."""
    return TargetTraining(inputs, hidden, batch, contender)
