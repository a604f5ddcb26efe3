"""Large-batch training for Keras and TensorFlow.

    from tf_largebatch import LARS
    model.compile(optimizer=LARS(learning_rate=10.0, weight_decay=1e-4), loss=loss)

`tf-largebatch` lists what the package can do, `tf-largebatch list` the recipes of the published
systems. Importing this package loads no framework; a name loads its module when it is first used.
Where Keras is loaded already, its `load_model` knows our classes from then on.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tf_largebatch.records import __version__, extras

if TYPE_CHECKING:
    from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
    from tf_largebatch.optimizers import KFAC, LAMB, LARS, MomentumSGD, Muon, RMSpropSGD
    from tf_largebatch.records.batch_schedule import BatchSizeSchedule
    from tf_largebatch.records.batching import BatchPlan
    from tf_largebatch.review.tensorboard import NoiseScaleScalars, TensorBoardScalars
    from tf_largebatch.schedules import (
        BatchPhases,
        Constant,
        Cosine,
        Exponential,
        Polynomial,
        Scaled,
        Steps,
        Warmup,
    )
    from tf_largebatch.training.command import run
    from tf_largebatch.training.fit_resume import ExactResume
    from tf_largebatch.training.keras_fit import DistributedFit
    from tf_largebatch.training.large_batch import LargeBatch
    from tf_largebatch.training.speed import measure_speed
    from tf_largebatch.training.workers.cluster import report_ready

__all__ = ["KFAC", "LAMB", "LARS", "MomentumSGD", "Muon", "RMSpropSGD"]
__all__ += ["GhostBatchNormalization", "BatchPlan", "BatchSizeSchedule"]
__all__ += ["BatchPhases", "Constant", "Cosine", "Exponential"]
__all__ += ["Polynomial", "Scaled", "Steps", "Warmup"]
__all__ += [
    "DistributedFit",
    "ExactResume",
    "LargeBatch",
    "NoiseScaleScalars",
    "TensorBoardScalars",
    "measure_speed",
    "report_ready",
    "run",
]
__all__ += ["__version__"]

# Commands under the names that they had: python -m tf_largebatch.launch, diagnose, compare.
__path__.append(str(Path(__file__).with_name("old_names")))


if not TYPE_CHECKING:  # a name that is not there is an error for type checkers too

    def __getattr__(name: str):
        try:
            return getattr(_room(name), name)
        except ModuleNotFoundError as error:
            if error.name == "tensorflow":
                text = f"{name} needs TensorFlow, which is not installed"
                raise ImportError(f"{text}; docs/jax.md has what works without") from None
            remedy = extras.describe(error.name or "")
            if remedy is None:
                raise
            raise ImportError(f"{name}: {remedy}") from None

    def _room(name: str):
        match name:
            case "KFAC" | "LAMB" | "LARS" | "MomentumSGD" | "Muon" | "RMSpropSGD":
                from tf_largebatch import optimizers as room
            case "DistributedFit":
                from tf_largebatch.training import keras_fit as room
            case "ExactResume":
                from tf_largebatch.training import fit_resume as room
            case "LargeBatch":
                from tf_largebatch.training import large_batch as room
            case "measure_speed":
                from tf_largebatch.training import speed as room
            case "run":
                from tf_largebatch.training import command as room
            case "report_ready":
                from tf_largebatch.training.workers import cluster as room
            case "BatchSizeSchedule":
                from tf_largebatch.records import batch_schedule as room
            case "BatchPlan":
                from tf_largebatch.records import batching as room
            case "GhostBatchNormalization":
                from tf_largebatch.models import ghost_batchnorm as room
            case "NoiseScaleScalars" | "TensorBoardScalars":
                from tf_largebatch.review import tensorboard as room
            case _ if name in __all__:
                from tf_largebatch import schedules as room
            case _:
                raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return room


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "keras" in sys.modules:  # their modules register the classes that a saved model may need
    import tf_largebatch.models.ghost_batchnorm
    import tf_largebatch.optimizers
    import tf_largebatch.schedules  # noqa: F401

    if "tensorflow" in sys.modules:  # Keras's backend
        import tf_largebatch.models.alexnet  # noqa: F401
