"""Large-batch training for Keras and TensorFlow.

    from tf_largebatch import LARS
    model.compile(optimizer=LARS(learning_rate=10.0, weight_decay=1e-4), loss=loss)

`python -m tf_largebatch` lists the recipes of the published systems. Importing this package loads
no framework; a name loads its module when it is first used.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "LAMB": "tf_largebatch.optimizers",
    "LARS": "tf_largebatch.optimizers",
    "MomentumSGD": "tf_largebatch.optimizers",
    "RMSpropSGD": "tf_largebatch.optimizers",
    "BatchPhases": "tf_largebatch.schedules",
    "Constant": "tf_largebatch.schedules",
    "Cosine": "tf_largebatch.schedules",
    "Exponential": "tf_largebatch.schedules",
    "Polynomial": "tf_largebatch.schedules",
    "Scaled": "tf_largebatch.schedules",
    "Steps": "tf_largebatch.schedules",
    "Warmup": "tf_largebatch.schedules",
    "DistributedFit": "tf_largebatch.distribution.keras_fit",
    "BatchPlan": "tf_largebatch.batching",
    "GhostBatchNormalization": "tf_largebatch.models.ghost_batchnorm",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__():
    return sorted({*globals(), *_PUBLIC})
