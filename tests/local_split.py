"""One small training with local updates, on one device, on several and on several workers.

Imported by the tests and, in a process of its own, by each of their workers.
"""

import dataclasses
import functools

import numpy as np
from engine_split import _strategy

EXAMPLES, CLASSES, BATCH, GHOST = 96, 3, 16, 4


@dataclasses.dataclass(frozen=True)
class Local:
    """`workers` of 0 train in step; `devices` on each process of the environment."""

    workers: int = 0
    local_steps: int = 1
    start_update: int = 0
    slots: str = "kept"
    devices: int = 1
    updates: int = 20
    norm: bool = True
    micro_batch: int | None = None
    width: int = 5  # of the hidden layer
    examples: int = EXAMPLES


def make_source(examples: int = EXAMPLES):
    from tf_largebatch.data.arrays import ArrayData

    rng = np.random.default_rng(3)
    images = rng.normal(size=(examples, 2, 2, 1)).astype("float32")
    labels = rng.integers(0, CLASSES, examples).astype("int32")
    return ArrayData(
        "noise",
        classes=CLASSES,
        train=(images, labels),
        evaluation=(images[:8], labels[:8]),
        pixel_mean=(0.0,),
        pixel_std=(1.0,),
    )


def make_step(local: Local, strategy, make=None):
    """The synchronous step, with the local one beside it."""
    import keras
    import tensorflow as tf

    from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
    from tf_largebatch.models.stream_dropout import StreamDropout
    from tf_largebatch.optimizers import MomentumSGD
    from tf_largebatch.records.batching import BatchPlan
    from tf_largebatch.records.local import LocalSchedule
    from tf_largebatch.schedules import Steps
    from tf_largebatch.training.local_step import LocalStep
    from tf_largebatch.training.step import TrainingStep

    plan = BatchPlan(
        global_batch=BATCH,
        train_examples=local.examples,
        replicas=strategy.num_replicas_in_sync,
        micro_batch=local.micro_batch,
    )
    keras.utils.set_random_seed(1)
    with strategy.scope():
        layers = [keras.Input((2, 2, 1)), keras.layers.Flatten()]
        if local.norm:
            layers += [
                keras.layers.Dense(local.width, use_bias=False),
                GhostBatchNormalization(GHOST, momentum=0.9),
                StreamDropout(0.25, seed=3),
            ]
        model = keras.Sequential([*layers, keras.layers.Dense(CLASSES)])
        rate = Steps(0.3, (7,), factor=0.5)
        optimizer = (make or functools.partial(MomentumSGD, momentum=0.9))(rate, weight_decay=1e-2)
    options = {
        "loss": lambda y, z: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z),
        "plan": plan,
        "strategy": strategy,
        "seed": 2,
    }
    step = TrainingStep(model, optimizer, **options)
    if local.workers:
        schedule = LocalSchedule(
            workers=local.workers,
            local_steps=local.local_steps,
            start_update=local.start_update,
            updates=local.updates,
            slots=local.slots,
        )
        step.local = LocalStep(model, optimizer, schedule=schedule, **options)
    return step


def run(step, strategy, *, epochs, progress=None, evaluate=None, **options):
    """Trains by the loop of the package; its progress."""
    from tf_largebatch.training.checkpoint import Progress
    from tf_largebatch.training.evaluation import Scores
    from tf_largebatch.training.train import fit

    source, progress = make_source(step.plan.train_examples), progress or Progress()

    def batches(plan, update):
        return iter(
            strategy.distribute_datasets_from_function(
                lambda context: source.train_batches(
                    plan,
                    seed=7,
                    first_update=update,
                    worker=context.input_pipeline_id,
                    workers=context.num_input_pipelines,
                )
            )
        )

    scores = Scores(loss=1.0, top1_error_pct=50.0, top5_error_pct=10.0, examples=8)
    fit(
        step,
        batches=batches,
        evaluate=evaluate or (lambda: scores),
        epochs=epochs,
        progress=progress,
        **options,
    )
    return progress


def train(local: Local) -> dict:
    """What every process ends with: weights, losses, and what it evaluated and sent."""
    import keras

    strategy = _strategy(local.devices)
    step = make_step(local, strategy)
    before = [np.array(w) for w in step.model.get_weights()]
    evaluated, losses = [], []

    class Log(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"])

    def evaluate():
        from tf_largebatch.training.evaluation import Scores

        evaluated.append([np.array(w) for w in step.model.get_weights()])
        return Scores(loss=1.0, top1_error_pct=50.0, top5_error_pct=10.0, examples=8)

    epochs = local.updates * BATCH / local.examples
    progress = run(step, strategy, epochs=epochs, evaluate=evaluate, callbacks=[Log()])
    return {
        "before": before,
        "weights": [np.array(w) for w in step.model.get_weights()],
        "evaluated": evaluated,
        "loss": np.array(losses),
        "sent": [record.bytes_sent for record in progress.records],
    }


def train_all(locals_: dict[str, Local]) -> dict[str, dict]:
    return {name: train(local) for name, local in locals_.items()}
