"""One training of the study of Hoffer et al.'s table: network, optimizer, distances."""

from typing import Any

ACCURACY, DISTANCES, WALK = "test_accuracy_pct", "distances", "walk"
CONSTANTS = {
    "rate": 0.1,  # [code: eladhoffer/bigBatch] of the small batch
    "momentum": 0.9,  # [code: the same]
    "weight_decay": 1e-4,  # [code: the same] on every weight
    "drop_factor": 0.1,  # [code: the same]
    "clip_norm": 5.0,  # [code: the same] of the gradient of all weights
    "shift": 2,  # [code: the same] padded to 32, cropped to 28
    "pixel_mean": 127.5,  # [code: the same] 0.5 of 1
    "pixel_std": 127.5,  # [code: the same] 0.5 of 1
    "points": 24,  # ours: distances along a walk, even in the logarithm
}


def run(settings: dict[str, Any], sets: Any) -> dict[str, Any]:
    """Trains one network: accuracy on the test set, or distances along a walk."""
    import keras

    from tf_largebatch.studies import fitting

    keras.utils.clear_session()
    split = sets.load("mnist", settings["stage"])
    images, labels = (part[: settings["train"]] for part in split.all_train)
    model, optimizer = make_network(settings), make_optimizer(settings)
    data = (model, optimizer, images, labels)
    shared = {"batch": settings["batch"], "seed": settings["seed"]}
    if "updates" in settings:
        walk = make_distances(places(settings["updates"]))
        updates = settings["updates"]
        fitting.fit(*data, **shared, updates=updates, callbacks=[walk], steps_per_execution=1)
        return {"updates": walk.updates, DISTANCES: walk.distances}
    history = fitting.fit(*data, **shared, epochs=settings["epochs"])
    error = fitting.error_pct(model, *split.test)
    losses = history.history["loss"]
    every = max(1, len(losses) // 50)  # as many as the short rows have
    return {ACCURACY: 100.0 - error, "loss": losses[every - 1 :: every]}


def places(updates: int) -> list[int]:
    """The updates after which the distance is measured: 1 to `updates`, even in the logarithm."""
    count = int(CONSTANTS["points"])
    return sorted({round(updates ** (n / (count - 1))) for n in range(count)})


def make_optimizer(settings: dict[str, Any]) -> Any:
    """SGD as the authors have it; a walk's rate is constant."""
    from tf_largebatch.optimizers import MomentumSGD
    from tf_largebatch.schedules import Steps

    rate: Any = settings["rate"]
    if drops := settings.get("drops"):
        per_epoch = settings["train"] // settings["batch"]
        boundaries = [epoch * per_epoch for epoch in drops]
        rate = Steps(rate, boundaries, factor=CONSTANTS["drop_factor"])
    return MomentumSGD(
        rate,
        momentum=CONSTANTS["momentum"],
        weight_decay=CONSTANTS["weight_decay"],
        exclude_rank_below=0,
        global_clipnorm=CONSTANTS["clip_norm"],
    )


def make_network(settings: dict[str, Any]) -> Any:
    """Keskar et al.'s F1: dense layers of one width with batch norm and ReLU, 1.46 M weights."""
    import keras

    from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
    from tf_largebatch.studies.pictures import Pictures

    seeds = iter(range(1_000 * settings["seed"], 1_000 * (settings["seed"] + 1)))

    def dense(width: int) -> keras.layers.Dense:
        def uniform(shape: Any, dtype: Any = None) -> Any:
            # PyTorch's default, for weights and biases: uniform within 1 / sqrt(inputs).
            return keras.random.uniform(shape, -limit, limit, dtype=dtype, seed=next(seeds))

        limit = x.shape[-1] ** -0.5
        return keras.layers.Dense(width, kernel_initializer=uniform, bias_initializer=uniform)

    mean, std, shift = (CONSTANTS[k] for k in ("pixel_mean", "pixel_std", "shift"))
    inputs = keras.Input((28, 28, 1), dtype="uint8")
    x = Pictures(mean, std, shift=int(shift), flip=False, seed=next(seeds))(inputs)
    x = keras.layers.Flatten()(x)
    for _ in range(settings["layers"]):
        x = GhostBatchNormalization(settings["bn_batch"])(dense(settings["width"])(x))
        x = keras.layers.ReLU()(x)
    return keras.Model(inputs, dense(10)(x))


def make_distances(at: list[int]) -> Any:
    """Returns a callback that measures |w_t - w_0| over all weights after these updates."""
    import keras
    import numpy as np

    class Distances(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.updates: list[int] = []
            self.distances: list[float] = []

        def on_train_begin(self, logs: Any = None) -> None:
            self._first = self._weights()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch + 1 in at:
                if keras.backend.backend() == "jax":  # whose weights are elsewhere during `fit`
                    self.model.jax_state_sync()
                pairs = zip(self._weights(), self._first, strict=True)
                square = sum(float(np.sum((w - first) ** 2)) for w, first in pairs)
                self.updates.append(batch + 1)
                self.distances.append(square**0.5)

        def _weights(self) -> list[Any]:
            weights = self.model.trainable_variables
            return [keras.ops.convert_to_numpy(w).astype(np.float64) for w in weights]

    return Distances()
