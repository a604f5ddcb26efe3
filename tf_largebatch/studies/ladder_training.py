"""A rung of LAMB's ladder: epochs of `fit` with a warmup and a decay, and the error at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

from tf_largebatch.optimizers import LAMB, MomentumSGD
from tf_largebatch.schedules import Polynomial, Warmup
from tf_largebatch.studies import fitting
from tf_largebatch.studies.sets import Split
from tf_largebatch.studies.study import TUNE
from tf_largebatch.studies.target_training import first_weights, make_network


def train_rung(
    settings: Mapping[str, Any], split: Split, ladder: Mapping[str, Any], hidden: Sequence[int]
) -> dict[str, Any]:
    """Trains; returns the held-out error where the rate is tuned, the test error at the end."""
    images, labels = _flat(split.train)
    model = make_network(images.shape[1], hidden)
    model.set_weights(first_weights(model, settings["seed"]))
    fitting.fit(
        model,
        _optimizer(settings, ladder, len(images)),
        images,
        labels,
        batch=settings["batch"],
        epochs=settings["epochs"],
        seed=settings["seed"],
    )
    if settings["stage"] == TUNE:
        return {"held_out_error_pct": fitting.error_pct(model, *_flat(split.held_out))}
    return {"test_error_pct": fitting.error_pct(model, *_flat(split.test))}


def _flat(part: Any) -> tuple[Any, Any]:
    images, labels = part
    return images.reshape(len(images), -1), labels


def _optimizer(settings: Mapping[str, Any], ladder: Mapping[str, Any], examples: int) -> Any:
    updates = settings["epochs"] * (examples // settings["batch"])
    warmup = max(1, round(settings["warmup_epochs"] * examples / settings["batch"]))
    rate = settings["rate"]
    decay = Polynomial(rate, power=1.0, begin=warmup, decay_updates=updates - warmup)
    schedule = Warmup(decay, warmup, start_rate=0.0)
    decayed = {"weight_decay": ladder["weight_decay"][settings["optimizer"]]}
    if settings["optimizer"] == "lamb":
        return LAMB(schedule, **decayed)
    return MomentumSGD(schedule, momentum=ladder["momentum"], nesterov=True, **decayed)
