"""The data of a `fit` that resumes: what they are known by, and how workers share them."""

import hashlib
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


class FitData:
    """What the data of `fit` are known by: their first batch, read twice."""

    def __init__(self, fresh: Any, again: Any, steps: int | None = None):
        self.steps, self.batch, self.digest, self.changes = steps, 0, "", False
        self.first = None
        # Of a distributed data set, every worker would read its own part.
        self.per_replica = hasattr(fresh, "element_spec") and not hasattr(fresh, "repeat")
        if self.per_replica:
            import tensorflow as tf

            specs = tf.nest.flatten(fresh.element_spec, expand_composites=True)
            self.batch = int(specs[0].shape[0] or 0)
            return
        self.first = next(iter(fresh))
        leaf = _leaves(self.first)[0]
        self.batch = int(leaf.shape[0]) if len(leaf.shape) else 0
        self.digest = _digest(self.first)
        self.changes = _digest(next(iter(again))) != self.digest


def _digest(batch: Any) -> str:
    digest = hashlib.sha256()
    for leaf in map(np.asarray, _leaves(batch)):
        text = str(leaf.tolist()).encode() if leaf.dtype.kind == "O" else leaf.tobytes()
        digest.update(text)
    return digest.hexdigest()[:16]


def _leaves(batch: Any) -> list:
    if keras.backend.backend() != "tensorflow":
        return [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
    import tensorflow as tf

    return tf.nest.flatten(batch, expand_composites=True)  # sparse and ragged ones too


def by_batches(dataset: Any) -> Any:
    """Cut into the replicas' parts batch by batch."""
    import tensorflow as tf

    # By files, a worker would pass over batches of its own files.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def epochs_from(epoch: int, make: Callable[[Any], Any]) -> Any:
    """The batches of `make(epoch)`, of the next epoch, and so on."""
    import tensorflow as tf

    def batches(number):
        graph = tf.compat.v1.get_default_graph()
        if graph.seed == 0:  # TensorFlow then asks of a tensor whether it is 0, too
            graph.seed = 1
        return make(number)

    return tf.data.Dataset.range(epoch, sys.maxsize).flat_map(batches)
