"""One training of the study on CIFAR-10: network, optimizer, course of rate and batch."""

import math
from typing import Any

from tf_largebatch.studies.cifar10_rows import RMSPROP, WARMUP
from tf_largebatch.studies.study import FINAL
from tf_largebatch.studies.tuning import HELD_OUT_ERROR

TEST_ERROR = "test_error_pct"
CONSTANTS = {
    "drop_factor": 0.2,  # [recall] Smith et al. on CIFAR-10
    "momentum": 0.9,  # [recall] Goyal et al. §5.1, Nesterov's
    "weight_decay": 1e-4,  # [recall] Goyal et al. §5.1: not on batch norm, not on biases
    "last_gamma": 0.0,  # [recall] Goyal et al. §5.1: zero in the last batch norm of every block
    "shift": 4,  # [recall] He et al. §4.2: padding of the random crops; mirrored besides
    "rmsprop_rate": 3e-4,  # [recall] Akiba et al.: eta_RMSprop
    "rmsprop_center": 10 / 90,  # [recall] Akiba et al.: 10 of 90 epochs
    "rmsprop_period": 5 / 90,  # [recall] Akiba et al.: 5 of 90 epochs
    "pixel_mean": 120.7,  # [derived] of the training set, all channels
    "pixel_std": 64.2,  # [derived] the same
}


def run(settings: dict[str, Any], sets: Any) -> dict[str, Any]:
    """Trains one network; the loss of each epoch, and the error on the test or held-out set."""
    import keras

    from tf_largebatch.studies import fitting

    keras.utils.clear_session()
    split = sets.load("cifar10", settings["stage"])
    images, labels = (part[: settings["train"]] for part in split.train)
    model, optimizer = make_network(settings), make_optimizer(settings)
    losses: list[float] = []
    for number, (batch, epochs) in enumerate(phases(settings)):
        seed = 100 * settings["seed"] + number
        history = fitting.fit(
            model, optimizer, images, labels, batch=batch, epochs=epochs, seed=seed
        )
        losses += history.history["loss"]
        if not math.isfinite(losses[-1]):
            break
    final = settings["stage"] == FINAL
    name, scored = (TEST_ERROR, split.test) if final else (HELD_OUT_ERROR, split.held_out)
    return {
        name: fitting.error_pct(model, *scored),
        "loss": losses,
        "updates": [updates_before(settings, epoch + 1) for epoch in range(len(losses))],
    }


def phases(settings: dict[str, Any]) -> list[tuple[int, int]]:
    """(batch, epochs) of each phase: a batch that grows does so at the first drops."""
    batches = settings["batches"]
    edges = [0, *settings["drops"][: len(batches) - 1], settings["epochs"]]
    return [(b, edges[i + 1] - edges[i]) for i, b in enumerate(batches)]


def updates_before(settings: dict[str, Any], epoch: float) -> int:
    """Updates in full batches before an epoch."""
    done, updates = 0, 0.0
    for batch, epochs in phases(settings):
        updates += min(max(epoch - done, 0), epochs) * (settings["train"] // batch)
        done += epochs
    return round(updates)


def make_optimizer(settings: dict[str, Any]) -> Any:
    """SGD with the course of the rate, or RMSprop that turns into it."""
    import keras

    from tf_largebatch.optimizers import MomentumSGD, RMSpropSGD
    from tf_largebatch.schedules import Steps, Warmup

    grown = len(settings["batches"]) - 1
    drops = [updates_before(settings, epoch) for epoch in settings["drops"][grown:]]
    course: Any = Steps(1.0, drops, factor=CONSTANTS["drop_factor"])
    if settings["start"] == WARMUP:
        updates = updates_before(settings, settings["warmup_epochs"])
        course = Warmup(course, updates, settings["warmup_from"] / settings["rate"])

    class Scaled(keras.optimizers.schedules.LearningRateSchedule):
        """The course times the rate: a variable, so that trials of all rates are compiled once."""

        rate: Any = None

        def __call__(self, step: Any) -> Any:
            return self.rate * course(step)

    schedule = Scaled()
    shared: dict[str, Any] = {
        "momentum": CONSTANTS["momentum"],
        "weight_decay": CONSTANTS["weight_decay"],
    }
    optimizer: Any
    if settings["start"] == RMSPROP:
        updates = updates_before(settings, settings["epochs"])
        optimizer = RMSpropSGD(
            schedule,
            center_updates=CONSTANTS["rmsprop_center"] * updates,
            period_updates=CONSTANTS["rmsprop_period"] * updates,
            rmsprop_learning_rate=CONSTANTS["rmsprop_rate"],
            **shared,
        )
    else:
        optimizer = MomentumSGD(schedule, nesterov=True, **shared)
    first = keras.initializers.Constant(settings["rate"])
    schedule.rate = optimizer.add_variable((), initializer=first, name="rate")
    return optimizer


def make_network(settings: dict[str, Any]) -> Any:
    """A residual network of one block a stage on pictures of half the side; 309,994 weights."""
    import keras

    from tf_largebatch.models.blocks import NetworkLayers
    from tf_largebatch.records.datasets import ImageFacts
    from tf_largebatch.records.model_spec import ModelSpec
    from tf_largebatch.studies.pictures import Pictures

    mean, std = CONSTANTS["pixel_mean"], CONSTANTS["pixel_std"]
    facts = ImageFacts(shape=(32, 32, 3), classes=10, pixel_mean=(mean,) * 3, pixel_std=(std,) * 3)
    spec = ModelSpec(
        architecture="digits_resnet",
        bn_batch=settings["bn_batch"],
        last_gamma=CONSTANTS["last_gamma"],
    )
    make = NetworkLayers(spec, facts, seed=settings["seed"], bn_replicas=1)
    inputs = keras.Input(facts.shape, dtype="uint8")
    shift = int(CONSTANTS["shift"])
    x = Pictures(mean, std, shift=shift, flip=True, seed=make.next_seed())(inputs)
    x = keras.layers.ReLU()(make.conv_norm(x, settings["width"], 3, stride=2, name="stem"))
    for stage in range(settings["stages"]):
        filters, stride = settings["width"] * 2**stage, 2 if stage else 1
        x = make.basic_block(x, filters, stride=stride, name=f"stage{stage + 1}")
    return keras.Model(inputs, make.head(x))
