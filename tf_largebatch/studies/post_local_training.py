"""One training of the study of post-local SGD: the engine's updates, in step and then apart."""

import math
from collections.abc import Iterator
from typing import Any

from tf_largebatch.studies.study import FINAL
from tf_largebatch.studies.tuning import HELD_OUT_ERROR

TEST_ERROR = "test_error_pct"
CONSTANTS: dict[str, Any] = {
    "momentum": 0.9,  # [code: epfml/LocalSGD-Code README.md] Nesterov's
    "weight_decay": 1e-4,  # [code: the same]
    "drop_factor": 0.1,  # [code: the same]
    "slots": "kept",  # [code: epfml/LocalSGD-Code pcode/optim/local_sgd.py]
    "warmup_from": 1 / 16,  # ours: of the rate, at the first update
    "pixel_mean": 72.9,  # [derived] of the training set
    "pixel_std": 90.0,  # [derived] the same
}


def run(settings: dict[str, Any], sets: Any) -> dict[str, Any]:
    """Trains one network; the loss of each epoch, and the error on the test or held-out set."""
    import keras
    import tensorflow as tf

    from tf_largebatch.records.batching import BatchPlan
    from tf_largebatch.records.local import LocalSchedule
    from tf_largebatch.studies import fitting
    from tf_largebatch.training.local_step import LocalStep
    from tf_largebatch.training.step import TrainingStep

    keras.utils.clear_session()
    keras.utils.set_random_seed(settings["seed"])
    split = sets.load("fashion_mnist", settings["stage"])
    images, labels = (part[: settings["train"]] for part in split.train)
    per_epoch, epochs = len(images) // settings["batch"], settings["epochs"]
    model, optimizer = make_network(settings), make_optimizer(settings, per_epoch)
    shared = {
        "loss": lambda y, z: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z),
        "plan": BatchPlan(global_batch=settings["batch"], train_examples=len(images)),
        "strategy": tf.distribute.get_strategy(),
    }
    step: Any = TrainingStep(model, optimizer, **shared)
    batches = _batches(images, labels, settings["batch"], settings["seed"])
    losses: list[float] = []
    for epoch in range(epochs):
        if epoch == settings["drops"][0] and settings["local_steps"] > 1:
            schedule = LocalSchedule(
                workers=settings["workers"],
                local_steps=settings["local_steps"],
                start_update=epoch * per_epoch,
                updates=epochs * per_epoch,
                slots=CONSTANTS["slots"],
            )
            step = LocalStep(model, optimizer, schedule=schedule, **shared)
            step.begin()
        losses.append(float(step.run(batches, tf.constant(per_epoch)).numpy()[:, 0].mean()))
        if not math.isfinite(losses[-1]):
            break
    if isinstance(step, LocalStep):
        step.show_average()
    final = settings["stage"] == FINAL
    name, scored = (TEST_ERROR, split.test) if final else (HELD_OUT_ERROR, split.held_out)
    return {name: fitting.error_pct(model, *scored), "loss": losses}


def _batches(images: Any, labels: Any, batch: int, seed: int) -> Iterator[Any]:
    """The batches of `fitting.batches`, gathered by TensorFlow."""
    import tensorflow as tf

    from tf_largebatch.studies import fitting

    x, y = tf.constant(images), tf.constant(labels)
    places = tf.data.Dataset.from_generator(
        lambda: fitting.batches(len(images), batch, seed=seed),
        output_signature=tf.TensorSpec([batch], tf.int64),
    )
    return iter(places.map(lambda at: (tf.gather(x, at), tf.gather(y, at))).prefetch(8))


def make_optimizer(settings: dict[str, Any], per_epoch: int) -> Any:
    """Momentum SGD; the rate rises over the warmup and falls at the drops."""
    from tf_largebatch.optimizers import MomentumSGD
    from tf_largebatch.schedules import Steps, Warmup

    rate, drops = settings["rate"], [epoch * per_epoch for epoch in settings["drops"]]
    course = Steps(rate, drops, factor=CONSTANTS["drop_factor"])
    warmup = settings["warmup_epochs"] * per_epoch
    return MomentumSGD(
        Warmup(course, warmup, CONSTANTS["warmup_from"] * rate),
        momentum=CONSTANTS["momentum"],
        weight_decay=CONSTANTS["weight_decay"],
        nesterov=True,
    )


def make_network(settings: dict[str, Any]) -> Any:
    """Dense layers with ReLU between them on uint8 pictures; ten logits."""
    import keras

    mean, std = CONSTANTS["pixel_mean"], CONSTANTS["pixel_std"]
    pixels = keras.layers.Lambda(lambda x: (keras.ops.cast(x, "float32") - mean) / std)
    hidden = [keras.layers.Dense(width, activation="relu") for width in settings["hidden"]]
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), dtype="uint8"),
            pixels,
            keras.layers.Flatten(),
            *hidden,
            keras.layers.Dense(10),
        ]
    )
