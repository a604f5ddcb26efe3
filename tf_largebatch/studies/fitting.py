"""Training a trial with plain `compile` and `fit`, on TensorFlow or JAX, one thread a process.

    one_thread()                                   # before Keras is imported
    model = fit(model, optimizer, x, y, batch=256, epochs=12, seed=0)
    error_pct(model, *split.held_out)

The order of the examples is a permutation an epoch, fixed by (seed, epoch); batches are full, what
is left of an epoch is dropped. Images stay uint8: a network scales them itself.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

GUESSING_PCT = 90.0  # the error of guessing among ten classes, which a diverged trial counts as
EVALUATION_BATCH = 5_000
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
XLA = "--xla_cpu_multi_thread_eigen=false"


def one_thread() -> None:
    """Keeps this process and its frameworks to one thread of the CPU; before they are imported.

    Processes that share trials then do not take each other's cores, and sums have one order.
    """
    for name in (*THREADS, "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")
    if XLA not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA}".strip()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def place() -> dict[str, Any]:
    """Returns where a trial runs: backend, device, versions."""
    import importlib.metadata

    import keras

    from tf_largebatch.records.run_folder import processor

    backend = keras.backend.backend()
    devices = keras.distribution.list_devices()
    on_cpu = all("cpu" in device.lower() for device in devices)
    device = f"one core of {processor()}" if on_cpu else _accelerator(devices[0])
    versions = {
        name: importlib.metadata.version(name)
        for name in ("keras", backend, "numpy")
        if name in sys.modules
    }
    return {"backend": backend, "device": device, "versions": versions}


def _accelerator(name: str) -> str:
    """The kind of the first accelerator, where the backend says it."""
    if "jax" in sys.modules:
        return str(sys.modules["jax"].devices()[0].device_kind)
    return name


def batches(examples: int, batch: int, *, seed: int, first_update: int = 0) -> Iterator[Any]:
    """Yields the places of each batch, without end: a permutation an epoch, full batches."""
    import numpy as np

    per_epoch = examples // batch
    if per_epoch < 1:
        raise ValueError(f"`batch` must be at most the {examples} examples. Received: {batch}")
    epoch, skip = divmod(first_update, per_epoch)
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(examples)
        for number in range(skip, per_epoch):
            yield order[number * batch : (number + 1) * batch]
        epoch, skip = epoch + 1, 0


def fit(
    model: Any,
    optimizer: Any,
    x: Any,
    y: Any,
    *,
    batch: int,
    epochs: int | None = None,
    updates: int | None = None,
    seed: int,
    loss: Any = None,
    callbacks: Sequence[Any] = (),
    augment: Callable[[Any, Any], Any] | None = None,
    steps_per_execution: int | None = None,
    validation_data: Any = None,
    validation_freq: int = 1,
) -> Any:
    """Compiles and fits; returns Keras's History.

    Args:
        model: its outputs are logits, unless `loss` says otherwise.
        optimizer: a Keras optimizer.
        x: [n, ...], as the model takes it.
        y: [n], classes.
        batch: examples an update.
        epochs: passes over the data in full batches; epochs * (n // batch) updates.
        updates: in place of `epochs`: one Keras epoch of so many updates.
        seed: of the order, and of everything random in the layers.
        loss: sparse cross-entropy of logits by default.
        callbacks: of Keras.
        augment: (images of a batch, numpy Generator) -> images; its draws are fixed by the seed
            and the update.
        steps_per_execution: updates between two visits of the callbacks; by default the largest
            number up to 20 that divides the updates of an epoch.
        validation_data: (x, y) to score after every `validation_freq` epochs.
        validation_freq: see there.
    """
    import keras

    if (epochs is None) == (updates is None):
        raise ValueError(f"give `epochs` or `updates`. Received: {epochs=}, {updates=}")
    per_epoch = len(x) // batch if updates is None else updates
    chunk = steps_per_execution or next(n for n in range(20, 0, -1) if per_epoch % n == 0)
    keras.utils.set_random_seed(seed)
    model.compile(
        optimizer=optimizer,
        loss=loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=chunk,
        jit_compile=True,
    )
    return model.fit(
        _stream(x, y, batch, seed, augment),
        steps_per_epoch=per_epoch,
        epochs=epochs or 1,
        callbacks=[keras.callbacks.TerminateOnNaN(), *callbacks],
        shuffle=False,
        validation_data=validation_data,
        validation_freq=validation_freq,
        validation_batch_size=EVALUATION_BATCH,
        verbose=0,
    )


def pixels(scale: float = 255.0) -> Any:
    """Returns the layer that makes float32 of uint8 images, divided by `scale`.

    Keras's own `Rescaling` and `Normalization` need TensorFlow on every backend.
    """
    import keras

    return keras.layers.Lambda(lambda images: keras.ops.cast(images, "float32") / scale)


def _stream(x: Any, y: Any, batch: int, seed: int, augment: Any) -> Iterator[tuple[Any, Any]]:
    import numpy as np

    for update, places in enumerate(batches(len(x), batch, seed=seed)):
        images = x[places]
        if augment is not None:
            images = augment(images, np.random.default_rng([seed, 1, update]))
        yield images, y[places]


def error_pct(model: Any, x: Any, y: Any) -> float:
    """Share of wrong answers in percent; where a logit is not finite, the error of guessing."""
    import numpy as np

    logits = model.predict(x, batch_size=EVALUATION_BATCH, verbose=0)
    if not np.isfinite(logits).all():
        return GUESSING_PCT
    return 100.0 * float(np.mean(np.argmax(logits, axis=-1) != y))


def usable(error: float | None) -> float:
    """The error as it counts in a search: that of guessing where a trial diverged (None, NaN)."""
    return GUESSING_PCT if error is None or not math.isfinite(error) else error
