"""How fast this machine trains a network: updates, all-reduces between its processes, input.

    speed = measure_speed(model, micro_batches=(8, 16, 32))
    speed.save("speed.json")               # tf-largebatch plan --device speed.json --devices 4 ...

Each time is the median of `ROUNDS` rounds. What else runs on the machine at the time is measured
with it.
"""

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_largebatch.data.dataset import DataSet
from tf_largebatch.optimizers import MomentumSGD
from tf_largebatch.records import run_folder
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.checks import check, check_rising
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import read_json
from tf_largebatch.records.machine_speed import AllReduceSpeed, MachineSpeed, StepSpeed
from tf_largebatch.training.step import TrainingStep
from tf_largebatch.training.workers.gpus import share_gpus, visible_gpus
from tf_largebatch.training.workers.launch import start

ROUNDS = 5
ROUND_SECONDS = 0.5  # at least, for many short updates; ours
PARTS = 16  # tensors that an all-reduce is measured with, as gradients come in several


def measure_speed(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None = None,
    *,
    micro_batches: Sequence[int] = (8, 16, 32),
    workers: Sequence[int] = (),
    input_seconds: float | None = None,
) -> MachineSpeed:
    """Times updates of a classifier on this machine, and all-reduces between its processes.

        >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> measure_speed(net, micro_batches=(1, 2)).parameters
        15

    The model's weights move: the images are drawn, and so are the labels.

    Args:
        model: one input of known shape [batch, ...]; its output are logits [batch, classes].
        optimizer: a Keras optimizer, not yet built; MomentumSGD by default.
        micro_batches: images per update, rising; the largest must fit the memory.
        workers: numbers of processes of this machine between which an all-reduce of the gradient
            is timed, each at least 2.
        input_seconds: that one core takes for an image, where `measure_input` told it.

    Raises:
        ValueError: a model of several inputs or of unknown shape, or batches that do not rise.
    """
    sizes = check_rising("micro_batches", micro_batches)
    counts = check_rising("workers", workers)
    check(all(count > 1 for count in counts), "workers", "each at least 2", counts)
    optimizer = optimizer or MomentumSGD(1e-6, momentum=0.9)
    steps = tuple(_time_step(model, optimizer, size) for size in sizes)
    parameters = sum(math.prod(v.shape) for v in model.trainable_variables)
    # The counter of updates, the rate, and whatever else is one number are no slots.
    kept = sum(math.prod(v.shape) for v in optimizer.variables if len(v.shape))
    facts = run_folder.environment()
    versions = ", ".join(
        f"{name} {facts['versions'].get(name)}" for name in ("tensorflow", "keras")
    )
    gpus = tf.config.list_physical_devices("GPU")
    details = map(tf.config.experimental.get_device_details, gpus)
    devices = [one.get("device_name", "GPU") for one in details]
    return MachineSpeed(
        network=model.name,
        optimizer=type(optimizer).__name__,
        parameters=parameters,
        slots=round(kept / parameters),
        hardware=devices[0] if devices else f"{facts['cores']} cores of {facts['processor']}",
        cores=facts["cores"],
        steps=steps,
        all_reduces=measure_all_reduces(counts, byte_count=4 * parameters),
        input_seconds=input_seconds,
        made=f"{facts['started']}, {versions}, {facts['commit']}",
    )


def measure_input(dataset: DataSet, batches: int = 16) -> float:
    """Seconds that one core takes for a training image, decoding and augmentation included."""
    plan = BatchPlan(global_batch=32, train_examples=dataset.train_examples)
    source = iter(dataset.train_batches(plan, seed=0))
    next(source)  # what is made once
    begin = _cpu_seconds()
    for _ in range(batches):
        next(source)
    # Batches that were made ahead, before and after, are as many.
    return (_cpu_seconds() - begin) / (batches * plan.global_batch)


def measure_all_reduces(counts: Sequence[int], byte_count: int) -> tuple[AllReduceSpeed, ...]:
    """Times a quarter of the bytes and all of them; each number of workers is a launch of its own.

    InputError: the workers failed, which have said why.
    """
    found = []
    sizes = [max(byte_count // 4, 4 * PARTS), max(byte_count, 8 * PARTS)]
    for count in counts:
        command = ["-m", "tf_largebatch.training.all_reduce_speed", *map(str, sizes)]
        for size, seconds in zip(sizes, ask_workers(count, command), strict=True):
            found.append(AllReduceSpeed(workers=count, byte_count=size, seconds=seconds))
    return tuple(found)


def ask_workers(count: int, command: Sequence[str]) -> Any:
    """Runs so many processes on loopback; what their chief wrote to the file named last, as JSON.

    InputError: they failed, which have said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answer.json"
        request = start.Request(
            command=[*command, str(out)],
            gpus=share_gpus(visible_gpus(), count),
            restarts=0,
            start_timeout=300.0,
            run_timeout=600.0,
            grace=10.0,
        )
        if start.start(request):
            rule = "--workers must be what this machine can start"
            raise InputError(f"{rule}. Received: {count}")
        return read_json(out)


def make_update(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    replica_batch: int,
    strategy: tf.distribute.Strategy | None = None,
) -> Callable[[int], None]:
    """Returns (updates) -> None: runs so many on drawn images of `replica_batch` each replica."""
    if len(model.inputs) != 1 or None in model.inputs[0].shape[1:]:
        given = [tuple(one.shape) for one in model.inputs]
        check(False, "model", "of one input of known shape", given)
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    plan = BatchPlan(
        global_batch=replica_batch * replicas, train_examples=50_000, replicas=replicas
    )

    def draw(_) -> tf.data.Dataset:
        shape, classes = model.inputs[0].shape[1:], model.outputs[0].shape[-1]
        images = tf.random.stateless_normal([replica_batch, *shape], [1, 2])
        labels = tf.random.stateless_uniform([replica_batch], [3, 4], 0, classes, tf.int32)
        return tf.data.Dataset.from_tensors((images, labels)).repeat()

    step = TrainingStep(
        model,
        optimizer,
        loss=lambda y, z: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z),
        plan=plan,
        strategy=strategy,
        scale_loss=False,
    )
    batches: Iterator = iter(strategy.distribute_datasets_from_function(draw))
    return lambda updates: step.run(batches, tf.constant(updates)).numpy()


def time_rounds(run: Callable[[int], None], count: int) -> tuple[float, float]:
    """Median seconds of wall and of all cores for one of `count`, over rounds of so many."""
    walls, cores = [], []
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter(), _cpu_seconds()
        run(count)
        walls.append((time.perf_counter() - wall) / count)
        cores.append((_cpu_seconds() - cpu) / count)
    return statistics.median(walls), statistics.median(cores)


def enough(run: Callable[[int], None]) -> int:
    """How many fill a round; runs some, the first of which compile."""
    run(1)
    begin = time.perf_counter()
    run(1)
    return max(math.ceil(ROUND_SECONDS / (time.perf_counter() - begin)), 1)


def _time_step(model, optimizer, size: int) -> StepSpeed:
    run = make_update(model, optimizer, size)
    seconds, cpu_seconds = time_rounds(run, enough(run))
    return StepSpeed(micro_batch=size, seconds=seconds, cpu_seconds=cpu_seconds)


def _cpu_seconds() -> float:
    """Of this process, all threads, so far."""
    times = os.times()
    return times.user + times.system
