"""How fast this machine trains a network: updates, all-reduces between its processes, input.

    speed = measure_speed(model, micro_batches=(8, 16, 32))
    speed.save("speed.json")               # tf-largebatch plan --device speed.json --devices 4 ...

Each time is the median of `ROUNDS` rounds, in which all that is timed takes its turn. What else
runs on the machine at the time is measured with it.
"""

import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from tf_largebatch.records.files import read_json, write_json
from tf_largebatch.records.machine_speed import AllReduceSpeed, MachineSpeed, StepSpeed
from tf_largebatch.records.settings import Settings
from tf_largebatch.training.step import TrainingStep
from tf_largebatch.training.workers.gpus import share_gpus, visible_gpus
from tf_largebatch.training.workers.launch import start
from tf_largebatch.training.workers.team import Team

ROUNDS = 5
ROUND_SECONDS = 0.5  # at least, for many short updates; ours
SHARES = (0.25, 1.0)  # of the gradient, whose all-reduce is timed


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
        micro_batches: images per update, rising; the largest must fit the memory, of each worker.
        workers: numbers of processes of this machine, each at least 2, of which are timed: updates
            that run at once, all-reduces of the gradient, and updates of one model that they train
            together.
        input_seconds: that one core takes for an image, where `measure_input` told it.

    Raises:
        ValueError: a model of several inputs or of unknown shape, batches that do not rise, or,
            with workers, a model or optimizer that another process cannot make.
        InputError: the workers failed, which have said why.
    """
    sizes = check_rising("micro_batches", micro_batches)
    counts = check_rising("workers", workers)
    check(all(count > 1 for count in counts), "workers", "each at least 2", counts)
    optimizer = optimizer or MomentumSGD(1e-6, momentum=0.9)
    request = make_request(model, optimizer, sizes) if counts else {}
    alone = time_in_turn([make_update(model, optimizer, size) for size in sizes])
    steps = [
        StepSpeed(workers=1, micro_batch=size, seconds=seconds)
        for size, seconds in zip(sizes, alone, strict=True)
    ]
    all_reduces: list[AllReduceSpeed] = []
    joined: list[StepSpeed] = []
    for count in counts:
        found = _measure_workers(count, request)
        for name, kept in (("steps", steps), ("joined", joined)):
            for size, seconds in found[name]:
                kept.append(StepSpeed(workers=count, micro_batch=size, seconds=seconds))
        for size, seconds in found["all_reduces"]:
            all_reduces.append(AllReduceSpeed(workers=count, byte_count=size, seconds=seconds))
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
        steps=tuple(steps),
        all_reduces=tuple(all_reduces),
        joined=tuple(joined),
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


def make_request(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, micro_batches: Sequence[int]
) -> dict[str, Any]:
    """What a worker needs to know to time the same; `read_model` makes model and optimizer of it.

    ValueError: another process could not.
    """
    to_config = keras.saving.serialize_keras_object
    try:
        request = {"model": to_config(model), "optimizer": to_config(optimizer)}
        read_model(request)
    except (TypeError, ValueError, NotImplementedError) as error:
        fix = "Register its classes with keras.saving.register_keras_serializable"
        # Keras's own words, less the whole config that it shows before and after them.
        given = " ".join(str(error).split("Exception encountered: ")[-1].split()).split(". ")[0]
        check(False, "model", "one that Keras can make again, optimizer included", given, fix)
    modules = sorted(set(_modules_of(request)))
    rule, fix = "made of classes that others import", "Put its classes into a module of their own"
    check("__main__" not in modules, "model", rule, "__main__", fix)
    lengths = [math.prod(variable.shape) for variable in model.trainable_variables]
    parts = [[max(round(share * length), 1) for length in lengths] for share in SHARES]
    request |= {"micro_batches": list(micro_batches), "all_reduces": parts, "modules": modules}
    return request


def read_model(request: Mapping[str, Any]) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """The model, with weights of its own, and the optimizer."""
    make = keras.saving.deserialize_keras_object
    return tuple(make(request[name]) for name in ("model", "optimizer"))


def _modules_of(config: Any) -> Iterator[str]:
    """The modules of the registered classes of a Keras config."""
    if isinstance(config, Mapping):
        found = keras.saving.get_registered_object(config.get("registered_name"))
        if found is not None:
            yield found.__module__
        config = list(config.values())
    if isinstance(config, Sequence) and not isinstance(config, str):
        for part in config:
            yield from _modules_of(part)


def _measure_workers(count: int, request: Mapping[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        write_json(path, request)
        # What registers the model's classes must have been imported there too.
        modules = [*request["modules"], "tf_largebatch.training.worker_speed as worker"]
        program = f"import sys; sys.path = {sys.path}; import {', '.join(modules)}; worker.main()"
        return ask_workers(count, ["-c", program, str(path)])


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
            run_timeout=0.0,  # none: a large network takes long
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


def make_all_reduce(
    strategy: tf.distribute.Strategy, lengths: Sequence[int]
) -> Callable[[int], None]:
    """Returns (times) -> None: sums float32 tensors of these lengths, so often one after another.

    They are sent as the engine sends gradients.
    """
    options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=Settings.pack_mb << 20)
    parts = [tf.ones([length]) for length in lengths]

    def reduce():
        context = tf.distribute.get_replica_context()
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, parts, options=options)
        return tf.add_n([part[0] for part in sums])

    @tf.function(autograph=False)
    def several(count):
        def body(i, _):
            return i + 1, strategy.experimental_local_results(strategy.run(reduce))[0]

        return tf.while_loop(lambda i, _: i < count, body, (0, 0.0), parallel_iterations=1)[1]

    return lambda times: several(tf.constant(times)).numpy()


def time_in_turn(runs: Sequence[Callable[[int], None]], team: Team | None = None) -> list[float]:
    """Median seconds of one of each run; of a team's slowest worker, where all run at once."""
    team = team or Team.of(None)
    counts = [team.any(_enough(run)) for run in runs]  # as many on every worker
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, count, found in zip(runs, counts, seconds, strict=True):
            team.exchange("")  # until all are there
            begin = time.perf_counter_ns()
            run(count)
            found.append(team.any(time.perf_counter_ns() - begin) / count * 1e-9)
    return [statistics.median(found) for found in seconds]


def _enough(run: Callable[[int], None]) -> int:
    """How many fill a round; runs some, the first of which compile."""
    run(1)
    begin = time.perf_counter()
    run(1)
    return max(math.ceil(ROUND_SECONDS / (time.perf_counter() - begin)), 1)


def _cpu_seconds() -> float:
    """Of this process, all threads, so far."""
    times = os.times()
    return times.user + times.system
