"""A model of one's own on one process or on many: one script for every cluster.

    python examples/train.py                                     # here
    python -m tf_largebatch launch --workers 2 -- examples/train.py

Started once per worker, it finds the others by TF_CONFIG (Kubeflow, Ray), by SLURM's variables, or
by those of an indexed Kubernetes Job. The losses do not depend on how many there are.
"""

import json

import keras
from sklearn.datasets import load_digits

from tf_largebatch import LARS, DistributedFit, report_ready
from tf_largebatch.training.workers.strategy import make_strategy


class Net(DistributedFit, keras.Sequential):
    """The mixin comes first; the body may stay empty."""


def train(epochs: int = 4) -> list[float]:
    """Returns the loss of each epoch, the same on every worker."""
    strategy = make_strategy()  # waits for the other workers
    report_ready()
    keras.utils.set_random_seed(0)  # the same on every worker: it orders the examples
    images, labels = load_digits(return_X_y=True)
    with strategy.scope():
        layers = [keras.Input((64,)), keras.layers.Rescaling(1 / 16)]
        model = Net([*layers, keras.layers.Dense(64, "relu"), keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(LARS(0.5, trust_coefficient=0.02), loss)
    # The batch is that of all workers together.
    fitted = model.fit(images[:1536], labels[:1536], batch_size=256, epochs=epochs, verbose=0)
    return fitted.history["loss"]


if __name__ == "__main__":
    print(json.dumps({"loss": train()}))
