"""Wrong arguments of the public classes, made from their signatures: for `wrong_inputs.py`."""

import inspect
import math
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
from wrong_commands import MARKUP, Wrong

import tf_largebatch as lb
from tf_largebatch.models.stream_dropout import StreamDropout
from tf_largebatch.optimizers.options import AdaptiveOptions, Options

PLAN = lb.BatchPlan(global_batch=64, train_examples=1280)
ROOF = lb.Polynomial(1.0, decay_updates=100)
MODEL = object()  # stands for a model, which would start the framework as this is imported
# What a class needs to be made at all.
RIGHT: dict[Any, dict[str, Any]] = {
    lb.MomentumSGD: {"learning_rate": 0.1},
    lb.LARS: {"learning_rate": 0.1},
    lb.LAMB: {"learning_rate": 0.1},
    lb.Muon: {"learning_rate": 0.1},
    lb.KFAC: {"learning_rate": 0.1},
    lb.RMSpropSGD: {"learning_rate": 0.1, "center_updates": 10, "period_updates": 5},
    lb.Constant: {"rate": 0.1},
    lb.Steps: {"rate": 0.1, "boundaries": [3, 6], "factor": 0.1},
    lb.Steps.from_epochs: {"rate": 0.1, "epochs": [3, 6], "factor": 0.1, "plan": PLAN},
    lb.Polynomial: {"rate": 0.1, "decay_updates": 9},
    lb.Polynomial.from_epochs: {"rate": 0.1, "end_epoch": 9, "plan": PLAN},
    lb.Cosine: {"rate": 0.1, "decay_updates": 9},
    lb.Cosine.from_epochs: {"rate": 0.1, "end_epoch": 9, "plan": PLAN},
    lb.Exponential: {"rate": 0.1, "factor": 0.9, "every_updates": 5},
    lb.Exponential.from_epochs: {"rate": 0.1, "factor": 0.9, "every_epochs": 5, "plan": PLAN},
    lb.Warmup: {"after": ROOF, "updates": 5, "start_rate": 0.1},
    lb.Warmup.from_epochs: {"after": ROOF, "epochs": 1, "start_rate": 0.1, "plan": PLAN},
    lb.Scaled: {"schedule": ROOF, "rule": "linear", "global_batch": 64, "reference_batch": 32},
    lb.BatchPhases: {"batches": [8, 16], "updates": [3, 4], "rates": [1.0, 2.0]},
    lb.BatchPlan: {"global_batch": 64, "train_examples": 1280},
    lb.LargeBatch: {
        "model": MODEL,
        "global_batch": 64,
        "train_examples": 1280,
        "epochs": 10,
        "reference_rate": 0.1,
    },
    lb.BatchSizeSchedule: {"batches": {0: 64}, "noise_ladder": (128, 256)},
    lb.ExactResume: {"folder": Path("checkpoints"), "checkpoint_updates": 5},
    lb.GhostBatchNormalization: {},
    lb.NoiseScaleScalars: {"folder": Path("noise"), "every": 1},
    lb.TensorBoardScalars: {
        "folder": Path("events"),
        "every": 1,
        "plan_markdown": "",
        "hparams": {},
    },
    StreamDropout: {"rate": 0.5, "seed": 1},
}
# Where a signature says nothing, or less than is true.
ANNOTATIONS: dict[tuple[str, str], Any] = {
    ("GhostBatchNormalization", "group"): int | None,
    ("GhostBatchNormalization", "replica_group"): int | None,
    ("GhostBatchNormalization", "momentum"): float,
    ("GhostBatchNormalization", "epsilon"): float,
    ("BatchPlan", "micro_batch"): int | None,
}
# No number of ours, or none that has a wrong value: a name, plain data, what only runs read.
LEFT_OUT = {"folder", "plan_markdown", "departures", "inputs", "layout", "published", "name"}
LEFT_OUT |= {"optimizer", "optimizer_options", "decay", "ns_coefficients"}
LEFT_OUT |= {"start_update", "start_position", "start_epoch"}


def wrong_calls() -> Iterator[Wrong]:
    """Every wrong call of a public class."""
    for make, right in RIGHT.items():
        where = make.__qualname__
        for name, hint in _arguments(make).items():
            for kind, value in _wrong_values(hint, name):
                yield _call(kind, where, make, right, name, value)
    for optimizer in (lb.MomentumSGD, lb.LARS, lb.LAMB, lb.Muon, lb.KFAC, lb.RMSpropSGD):
        yield from _unknown_options(optimizer)
    yield from _contradictions()
    yield from _wrong_configs()


def _arguments(make: Callable) -> dict[str, Any]:
    """Arguments and what they are declared as, `**options` written out."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            if "Options" in str(parameter.annotation):
                adaptive = "AdaptiveOptions" in str(parameter.annotation)
                found |= (AdaptiveOptions if adaptive else Options).__annotations__
                if adaptive:
                    found |= Options.__annotations__
            continue
        found[name] = ANNOTATIONS.get((make.__qualname__, name), parameter.annotation)
    return {name: hint for name, hint in found.items() if name not in LEFT_OUT}


def _wrong_values(hint: Any, name: str) -> list[tuple[str, Any]]:
    """Values that the declared type does not take; a number here is never below 0."""
    text = str(hint)
    missing = [] if "None" in text or hint is inspect.Parameter.empty else [("type", None)]
    numbers = [("type", True), ("type", [1]), ("type", 1j), ("range", math.nan)]
    numbers += [("range", math.inf), ("range", -1)]
    match text:
        case _ if "Sequence[int]" in text or "Sequence[float]" in text:
            inner = [["x"], [math.nan], [-1], [None]] + ([[1.5]] if "int" in text else [])
            return [*missing, ("type", 5), ("type", "12"), *(("range", v) for v in inner)]
        case _ if "Iterable[str]" in text:
            values = ["bias", 5, [3], [""], ["("], [None]]
            return [*missing, *(("type", value) for value in values)]
        case _ if "Sequence" in text:
            return [*missing, ("type", 5), ("type", "x"), ("type", [1])]
        case _ if name in ("schedule", "after", "over_images"):
            return [*missing, ("type", 0.1), ("type", "x"), ("type", [ROOF])]
        case _ if name in ("plan", "model"):
            return [*missing, ("type", 64), ("type", "x")]
        case _ if "dict" in text:
            return [*missing, ("type", {"a": [1]}), ("type", {"a": None})]
        case _ if "bool" in text:
            return [*missing, ("type", "yes"), ("type", 1), ("type", 0.0)]
        case _ if "float" in text or "Rate" in text or name == "learning_rate":
            return [*missing, ("type", "0.1"), ("type", MARKUP), *numbers]
        case _ if "int" in text:
            return [*missing, ("type", "3"), ("type", 1.5), *numbers]
        case _ if "str" in text:
            return [*missing, ("choice", "cubic"), ("choice", ""), ("type", 3)]
    return []


def _call(kind: str, where: str, make: Callable, right: dict, name: str, value: Any) -> Wrong:
    arguments = {**right, name: value}
    shown = "" if isinstance(value, list | dict) else str(value)[:20]
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        shown = ""
    return Wrong(
        kind=f"argument: {kind}",
        where=where,
        names=(name,),
        value=shown,
        run=lambda: _give(make, arguments),
        text=f"{where}({name}={value!r})"[:200],
    )


def _give(make: Callable, arguments: dict[str, Any]) -> None:
    if arguments.get("model") is MODEL:
        model = keras.Sequential([keras.Input([4]), keras.layers.Dense(2)])
        arguments = {**arguments, "model": model}
    make(**arguments)


def _unknown_options(optimizer: type) -> Iterator[Wrong]:
    """Names of other libraries, and misspelt ones: what was meant is said."""
    right = RIGHT[optimizer]
    names = ["lr", "eps", "weight_decay_rate", "wieght_decay", "decay", "betas", "clip_norm"]
    names += ["use_nesterov", "exclude_from_weight_decay", "max_grad_norm", "jit_compile"]
    if optimizer is lb.LARS:
        names += ["eeta", "eta", "trust_coef", "lars_coeff"]
    for name in names:
        wrong = _call("unknown", optimizer.__name__, optimizer, right, name, 0.5)
        yield wrong


def _contradictions() -> Iterator[Wrong]:
    """Arguments that are right alone and not together."""
    both: list[tuple[Callable, tuple[str, ...], dict[str, Any]]] = [
        (lb.Steps, ("factor", "rates"), {"rates": [1.0, 2.0]}),
        (lb.Steps, ("factor", "rates"), {"factor": None}),
        (lb.Steps, ("rates",), {"factor": None, "rates": [1.0]}),
        (lb.Steps, ("boundaries",), {"boundaries": [6, 3]}),
        (lb.Steps, ("boundaries",), {"boundaries": [3, 3]}),
        (lb.Polynomial, ("end_rate",), {"end_rate": 0.2}),
        (lb.Cosine, ("end_rate",), {"end_rate": 0.2}),
        (lb.Polynomial.from_epochs, ("end_epoch",), {"begin_epoch": 9}),
        (lb.Cosine.from_epochs, ("end_epoch",), {"begin_epoch": 10}),
        (lb.Warmup, ("start_rate",), {"start_rate": 10.0, "peak": 0.1}),
        (lb.Warmup, ("power",), {"power": 2.0}),
        (lb.Warmup, ("power",), {"shape": "power"}),
        (lb.Warmup, ("updates",), {"updates": 100}),
        (lb.Warmup, ("updates",), {"after": lb.Steps(0.1, [3], factor=0.1)}),
        (lb.Warmup.from_epochs, ("epochs",), {"epochs": -5}),
        (lb.BatchPhases, ("batches",), {"batches": [8]}),
        (lb.BatchPhases, ("batches",), {"batches": [], "updates": [], "rates": []}),
        (lb.BatchSizeSchedule, ("batches",), {"batches": {1: 64}}),
        (lb.BatchSizeSchedule, ("batches",), {"batches": {0: 64, 2: 128}}),
        (lb.BatchSizeSchedule, ("noise_ladder",), {"noise_ladder": (32, 128)}),
        (lb.BatchSizeSchedule, ("noise_ladder",), {"noise_ladder": (256, 128)}),
        (lb.BatchPlan, ("global_batch",), {"replicas": 3}),
        (lb.BatchPlan, ("micro_batch",), {"micro_batch": 48}),
        (lb.LAMB, ("min_weight_norm",), {"min_weight_norm": 2.0, "max_weight_norm": 1.0}),
        (lb.MomentumSGD, ("no_adaptation",), {"no_adaptation": ["bias"]}),
        (lb.MomentumSGD, ("record_trust_ratio",), {"record_trust_ratio": True}),
        (lb.LARS, ("clipnorm",), {"clipnorm": 1.0, "global_clipnorm": 1.0}),
        (lb.GhostBatchNormalization, ("group",), {"group": 8, "replica_group": 2}),
        (lb.GhostBatchNormalization, ("axis",), {"axis": 1}),
        (lb.GhostBatchNormalization, ("synchronized",), {"synchronized": True}),
    ]
    for make, names, changes in both:
        yield Wrong(
            kind="argument: contradiction",
            where=make.__qualname__,
            names=names,
            value="",
            run=lambda make=make, changes=changes: make(**(RIGHT[make] | changes)),
            text=f"{make.__qualname__}({changes!r})"[:200],
        )


def _wrong_configs() -> Iterator[Wrong]:
    """Saved schedules of another version."""
    schedules = [make for make in RIGHT if typing.cast(Any, make).__module__.count("schedules")]
    for make in schedules:
        if not inspect.isclass(make):
            continue
        config = make(**RIGHT[make]).get_config()
        for text, changed in (
            ("nothing", {}),
            ("surplus", {**config, "surplus": 1}),
        ):
            yield Wrong(
                kind="argument: config",
                where=f"{make.__name__}.from_config",
                names=("config",),
                value="surplus" if text == "surplus" else "",
                run=lambda make=make, changed=changed: make.from_config(changed),
                text=f"{make.__name__}.from_config({text})",
            )
