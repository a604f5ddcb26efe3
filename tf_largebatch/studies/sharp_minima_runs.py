"""Trains and measures the solutions of `sharp_minima`.

A solution's weights are too large for a record. They are kept in the system's temporary folder for
the trials that measure it again, and trained anew where they are gone: the same on the same device.
"""

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tf_largebatch.records.files import fingerprint
from tf_largebatch.studies.sharp_minima_plan import (
    BATCH_NORM,
    DESIGN,
    DIRECTIONS,
    EPSILONS,
    FULL,
    ITERATIONS,
    QUICK,
    RATE,
    SIDES,
    Size,
)


def run(settings: dict[str, Any], sets: Any) -> dict[str, Any]:
    """Runs one trial."""
    own = QUICK if settings["quick"] else FULL
    split = sets.load("mnist", settings["stage"])
    images, labels = (part[: own.examples] for part in split.all_train)
    train, decay, seed = (images, labels), settings["decay"], settings["seed"]

    def solve(side: str) -> Any:
        return solution(train, own, decay, side, seed)

    match settings["kind"]:
        case "solution":
            return measure_solution(solve(settings["side"]), train, split.test, own)
        case "between":
            return measure_between([solve(side) for side in SIDES], train, split.test, own)
        case "variations":
            return measure_variations(solve(settings["side"]), train, own)
        case _:
            return measure_plane(solve(settings["side"]), train, own)


def make_network(hidden: tuple[int, ...], decay: float, seed: int) -> Any:
    """784-512x5-10: dense, batch norm, ReLU; decay is in the gradient of the kernels."""
    import keras
    from keras import layers

    from tf_largebatch.studies.fitting import pixels

    keras.utils.set_random_seed(seed)
    # Keras's L2 has no half: its gradient is twice the number times the weights.
    penalty = keras.regularizers.L2(decay / 2) if decay else None
    inputs = keras.Input((28, 28, 1), dtype="uint8")
    x = layers.Flatten()(pixels()(inputs))
    for width in hidden:
        x = layers.Dense(width, use_bias=False, kernel_regularizer=penalty)(x)
        x = layers.ReLU()(layers.BatchNormalization(**BATCH_NORM)(x))
    return keras.Model(inputs, layers.Dense(10, kernel_regularizer=penalty, name="head")(x))


def solution(train: tuple[Any, Any], own: Size, decay: float, side: str, seed: int) -> Any:
    """The trained network, read where this machine has trained it before."""
    import keras
    import numpy as np

    from tf_largebatch.studies import fitting

    model = make_network(own.hidden, decay, seed)
    place, images = fitting.place(), train[0]
    what = {"design": dict(DESIGN), "place": place, "examples": len(images), "hidden": own.hidden}
    key = fingerprint(what | {"decay": decay, "side": side, "seed": seed})
    path = Path(tempfile.gettempdir()) / "tf_largebatch-sharp_minima" / f"{key}.npz"
    # One that is damaged is trained again.
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with np.load(path) as stored:
            model.set_weights([stored[str(n)] for n in range(len(stored.files))])
        return model
    batch = own.batches[SIDES.index(side)]
    optimizer = keras.optimizers.Adam(RATE)
    fitting.fit(model, optimizer, *train, batch=batch, epochs=own.epochs, seed=seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{key}-{os.getpid()}.tmp.npz")
    np.savez(draft, **{str(n): w for n, w in enumerate(model.get_weights())})
    draft.replace(path)
    return model


def measure_solution(model: Any, train: Any, test: Any, own: Size) -> dict[str, Any]:
    """Errors, sharpness at both epsilons, and the loss along filter-normalised lines."""
    import numpy as np

    from tf_largebatch.diagnostics import landscape
    from tf_largebatch.diagnostics.sharpness import measure_sharpness
    from tf_largebatch.studies import fitting
    from tf_largebatch.studies.flat_loss import FlatLoss

    flat = FlatLoss(model, *_first(train, own.sharpness_examples))
    sharpness = {
        f"{epsilon:g}": vars(
            measure_sharpness(
                flat.value_and_gradient, flat.vector, epsilon=epsilon, iterations=ITERATIONS
            )
        )
        for epsilon in EPSILONS
    }
    train_loss = flat.value(flat.vector)
    flat.read(*_first(train, own.landscape_examples))
    places = np.linspace(-1, 1, own.line_points)
    lines = [
        landscape.line(flat.value, flat.vector, _direction(flat, number), places)
        for number in range(DIRECTIONS)
    ]
    flat.read(*test)
    kernels = [t for t in flat.tensors(flat.vector) if t.ndim == 2]
    return {
        "test_error_pct": fitting.error_pct(model, *test),
        "train_error_pct": fitting.error_pct(model, *train),
        "test_loss": flat.value(flat.vector),
        "train_loss": train_loss,
        "sharpness": sharpness,
        "kernel_norm": float(np.sqrt(sum(np.sum(k**2) for k in kernels))),
        "places": places,
        "lines": lines,
    }


def measure_between(models: list[Any], train: Any, test: Any, own: Size) -> dict[str, Any]:
    """Loss on the line from the small batch's solution (0) to the large batch's (1)."""
    import numpy as np

    from tf_largebatch.diagnostics import landscape
    from tf_largebatch.studies.flat_loss import FlatLoss, read_weights

    places = np.linspace(-0.5, 1.5, own.between_points)
    flat = FlatLoss(models[0], *_first(train, own.landscape_examples))
    small, large = map(read_weights, models)
    on_train = landscape.between(flat.value, small, large, places)
    flat.read(*test)
    on_test = landscape.between(flat.value, small, large, places)
    return {"places": places, "train": on_train, "test": on_test}


def measure_plane(model: Any, train: Any, own: Size) -> dict[str, Any]:
    """Loss on a plane of two filter-normalised directions, [y][x]."""
    import numpy as np

    from tf_largebatch.diagnostics import landscape
    from tf_largebatch.studies.flat_loss import FlatLoss

    flat = FlatLoss(model, *_first(train, own.plane_examples))
    places = np.linspace(-1, 1, own.plane_points)
    pair = (_direction(flat, 0), _direction(flat, 1))
    return {
        "places": places,
        "losses": landscape.plane(flat.value, flat.vector, pair, places, places),
    }


def measure_variations(model: Any, train: Any, own: Size) -> dict[str, Any]:
    """Sharpness at epsilon 1e-3 with one thing changed at a time."""
    from tf_largebatch.diagnostics.sharpness import measure_sharpness
    from tf_largebatch.studies.flat_loss import FlatLoss

    base = FlatLoss(model, *_first(train, own.sharpness_examples))
    trained = FlatLoss(model, *_first(train, own.sharpness_examples), training=True)
    few, every = FlatLoss(model, *_first(train, 2_000)), FlatLoss(model, *train)

    def measure(flat: FlatLoss, **options: Any) -> float:
        options = {"iterations": ITERATIONS, **options}
        return measure_sharpness(flat.value_and_gradient, flat.vector, **options).sharpness

    def from_minimum(scaled: bool) -> float:
        f, x = base.value_and_gradient, base.vector
        return climb_from_minimum(f, x, EPSILONS[0], ITERATIONS, scaled=scaled)

    return {
        "as in the study": measure(base),
        "another starting point": measure(base, seed=1),
        "2,000 images": measure(few),
        "all training images": measure(every),
        "1 iteration": measure(base, iterations=1),
        "3 iterations": measure(base, iterations=3),
        "30 iterations": measure(base, iterations=30),
        "batch norm by the statistics of the batch": measure(trained),
        "a random manifold of 100 directions": measure(base, directions=100),
        "from the minimum itself, scaled": from_minimum(True),
        "from the minimum itself, as it is": from_minimum(False),
    }


def climb_from_minimum(
    value_and_gradient: Callable, weights: Any, epsilon: float, iterations: int, *, scaled: bool
) -> float:
    """Sharpness of a climb that starts at the weights, as a plain call of L-BFGS-B would.

    `scaled` measures the weights in half sides of the box and the loss so that the first step is
    of their order; without it the solver's first step is the gradient itself, tiny at a minimum.
    """
    import numpy as np
    from scipy.optimize import minimize

    half_sides = epsilon * (np.abs(weights) + 1.0)
    loss, gradient = value_and_gradient(weights)
    highest = [loss]
    sides = half_sides if scaled else np.ones_like(half_sides)
    unit = 1.0 / max(float(np.mean(np.abs(gradient * sides))), 1e-30) if scaled else 1.0

    def climb(place: Any) -> tuple[float, Any]:
        value, slope = value_and_gradient(weights + sides * place)
        highest.append(value)
        return -unit * value, -unit * sides * slope

    edge = half_sides / sides
    minimize(
        climb,
        np.zeros_like(weights),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(-edge, edge, strict=True)),
        options={"maxiter": iterations, "ftol": 0.0, "gtol": 0.0},
    )
    return 100.0 * (max(highest) - loss) / (1.0 + loss)


def _first(part: tuple[Any, Any], count: int) -> tuple[Any, Any]:
    return part[0][:count], part[1][:count]


def _direction(flat: Any, seed: int) -> Any:
    """A filter-normalised direction as a vector."""
    import numpy as np

    from tf_largebatch.diagnostics.landscape import random_direction

    tensors = random_direction(flat.tensors(flat.vector), seed=seed)
    return np.concatenate([tensor.ravel() for tensor in tensors])
