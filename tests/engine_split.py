"""One small training, split over processes, devices and micro-batches in many ways.

Imported by the tests and, in a process of its own, by each of their workers.
"""

import dataclasses
import json
import os

import numpy as np

EXAMPLES, EVALUATED, CLASSES, BATCH, GHOST, UPDATES = 96, 53, 5, 32, 4, 20


@dataclasses.dataclass(frozen=True)
class Split:
    """`devices` on each worker; the workers are those of the environment."""

    devices: int = 1
    micro_batch: int | None = None
    norm: bool = False
    dropout: bool = False


def train_all(splits: dict[str, Split]) -> dict[str, dict]:
    """Each of them in turn, in one process: starting workers takes longer than training."""
    return {name: train(split) for name, split in splits.items()}


def train(split: Split) -> dict:
    """Twenty updates of LARS and an evaluation; what every worker ends with."""
    import keras
    import tensorflow as tf

    from tf_largebatch.data.arrays import ArrayData
    from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
    from tf_largebatch.models.stream_dropout import StreamDropout
    from tf_largebatch.optimizers import LARS
    from tf_largebatch.records.batching import BatchPlan
    from tf_largebatch.training.evaluation import EvaluationStep, pad_to_multiple
    from tf_largebatch.training.step import COLUMNS, TrainingStep

    strategy = _strategy(split.devices)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(EXAMPLES + EVALUATED, 6, 6, 2)).astype("float32")
    labels = rng.integers(0, CLASSES, EXAMPLES + EVALUATED).astype("int32")
    source = ArrayData(
        "noise",
        classes=CLASSES,
        train=(images[:EXAMPLES], labels[:EXAMPLES]),
        evaluation=(images[EXAMPLES:], labels[EXAMPLES:]),
        pixel_mean=(0.0, 0.0),
        pixel_std=(1.0, 1.0),
    )
    plan = BatchPlan(
        global_batch=BATCH,
        train_examples=EXAMPLES,
        replicas=strategy.num_replicas_in_sync,
        micro_batch=split.micro_batch,
    )
    keras.utils.set_random_seed(1)
    with strategy.scope():
        # No bias in front of batch norm: its gradient is rounding alone.
        layers = [keras.Input((6, 6, 2)), keras.layers.Conv2D(4, 3, use_bias=not split.norm)]
        if split.norm:
            layers.append(GhostBatchNormalization(GHOST, momentum=0.9))
        layers += [keras.layers.ReLU(), keras.layers.Flatten()]
        if split.dropout:
            layers.append(StreamDropout(0.5, seed=3))
        model = keras.Sequential([*layers, keras.layers.Dense(CLASSES)])
        # A trust coefficient that moves the weights far enough to see a difference.
        optimizer = LARS(1.0, momentum=0.9, weight_decay=1e-3, trust_coefficient=0.02)
        step = TrainingStep(
            model,
            optimizer,
            loss=lambda y, z: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z),
            plan=plan,
            strategy=strategy,
        )

    def batches(context):
        return source.train_batches(
            plan,
            seed=7,
            worker=context.input_pipeline_id,
            workers=context.num_input_pipelines,
        )

    def evaluation(context):
        dataset = source.eval_batches(
            4, worker=context.input_pipeline_id, workers=context.num_input_pipelines
        )
        counts.append(int(dataset.cardinality()))
        return pad_to_multiple(dataset, counts[-1], split.devices)

    counts: list[int] = []
    before = [np.array(w) for w in model.get_weights()]
    iterator = iter(strategy.distribute_datasets_from_function(batches))
    rows = step.run(iterator, tf.constant(UPDATES)).numpy()
    evaluated = iter(strategy.distribute_datasets_from_function(evaluation))
    scores = EvaluationStep(model, strategy)(
        evaluated, batches=-(-counts[-1] // split.devices), examples=EVALUATED
    )
    return {
        "before": before,
        "weights": [np.array(w) for w in model.get_weights()],
        "loss": rows[:, COLUMNS.index("loss")],
        "scores": dataclasses.asdict(scores),
    }


def _strategy(devices: int):
    """The project's own strategy; on several workers with `devices` virtual CPUs each.

    MultiWorkerMirroredStrategy takes one CPU of a worker, whatever there are, so that is changed.
    """
    from tf_largebatch.training.workers.strategy import make_strategy

    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    if not config or devices == 1:
        return make_strategy(None if config else devices)
    import tensorflow as tf
    from tensorflow.python.distribute import collective_all_reduce_strategy as collective

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * devices
    )
    collective.CollectiveAllReduceExtended._initialize_local_devices = (
        lambda self, resolver, worker_device: (
            tuple(f"{worker_device}/device:CPU:{i}" for i in range(devices)),
            "CPU",
        )
    )
    return make_strategy()
