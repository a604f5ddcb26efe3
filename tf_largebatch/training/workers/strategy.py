"""Which devices train, and the `tf.distribute` strategy over them."""

import contextlib
import functools
import os
import sys
from pathlib import Path
from typing import NoReturn

import tensorflow as tf

from tf_largebatch.records.console import WORKER_LOST
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.settings import JOIN_TIMEOUT, WORKER_TIMEOUT
from tf_largebatch.training.workers import cluster
from tf_largebatch.training.workers.absence import meet, watch


def make_strategy(
    replicas: int | None = None,
    *,
    tpu: str | None = None,
    worker_timeout: int = WORKER_TIMEOUT,
    join_timeout: int = JOIN_TIMEOUT,
) -> tf.distribute.Strategy:
    """Returns the strategy over the workers of the environment, or over local devices.

    `TPUStrategy` where a TPU is named, `MultiWorkerMirroredStrategy` where `cluster.resolve` finds
    several workers, `MirroredStrategy` over several local devices, the default strategy for one.

    On a machine without a GPU, more than one replica makes that many virtual CPU devices: they
    share the cores and speed nothing up, but run exactly what several GPUs would.

    `replicas`: devices to use; None takes every GPU, or one CPU, or the TPU's cores. `tpu`: its
    name, "local" on a TPU machine. `worker_timeout`: seconds of silence after which a worker counts
    as gone; `join_timeout`: seconds for all of them to be there.

    InputError: fewer devices than asked for, no such TPU, a port in use, a worker missing, or
    TensorFlow already holds the CPU as one device.
    """
    workers = None if tpu is not None else cluster.resolve()
    size = 1 if workers is None else workers.size
    return _make(replicas, tpu, size, worker_timeout, join_timeout)


# One object per process and size: a second MirroredStrategy over the same devices numbers its
# collectives from the start again, and TensorFlow then mixes them up with the first one's.
@functools.cache
def _make(
    replicas: int | None, tpu: str | None, size: int, worker_timeout: int, join_timeout: int
) -> tf.distribute.Strategy:
    if tpu is not None:
        return _connect_tpu(tpu, replicas)
    workers = cluster.resolve()
    if workers is not None and size > 1:
        return _join(workers, replicas, worker_timeout, join_timeout)
    gpus = tf.config.list_physical_devices("GPU")
    wanted = replicas or max(len(gpus), 1)
    if wanted == 1:
        return tf.distribute.get_strategy()
    if gpus:
        if wanted > len(gpus):
            raise InputError(
                f"--replicas must be at most the number of GPUs ({len(gpus)}). "
                f"Received: --replicas {wanted}"
            )
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(wanted)])
    _split_cpu(wanted)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(wanted)])


def _connect_tpu(name: str, replicas: int | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    # Without a TPU build: NotFoundError (no such op); elsewhere what the name resolution raises.
    except (tf.errors.OpError, ValueError, RuntimeError, OSError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        missing = []
        if "ConfigureDistributedTPU" in str(error):
            missing.append("a TensorFlow with TPUs, which is tensorflow-tpu in its place")
        if name == "local" and not [*Path("/dev").glob("accel*"), *Path("/dev").glob("vfio/*")]:
            missing.append("a TPU, /dev/accel0 or /dev/vfio/0")
        if missing:
            reason = f"missing: {', '.join(missing)}"
        raise InputError(
            f"--tpu must name a TPU that this machine reaches and TensorFlow is built for. "
            f"Received: --tpu {name} ({reason})"
        ) from None
    return _all_of(strategy, "the TPU's cores", replicas)


def _join(
    workers: cluster.Cluster, replicas: int | None, worker_timeout: int, join_timeout: int
) -> tf.distribute.Strategy:
    """Waits for the other workers and returns the strategy over all of them."""
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context

    cluster.require_free_port(workers)
    os.environ[cluster.TF_CONFIG] = workers.to_tf_config()
    job = coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=workers.size)
    # How long to wait for a silent worker, and for one that never registers.
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        heartbeat_timeout_in_ms=1000 * worker_timeout,
        cluster_register_timeout_in_ms=1000 * join_timeout,
        coordinated_jobs=[job],
    )
    watch(workers, meet(workers, join_timeout), worker_timeout, _leave)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return _all_of(strategy, "the devices of all workers", replicas)


def _leave(text: str) -> NoReturn:
    """Ends this process from another thread than its own, which TensorFlow holds."""
    with contextlib.suppress(OSError, ValueError):  # nobody may read any more
        sys.stdout.flush()
        os.write(2, f"{text}\n".encode())
    os._exit(WORKER_LOST)


def _all_of(strategy: tf.distribute.Strategy, what: str, replicas: int | None):
    """The strategy, if it has as many replicas as were asked for."""
    found = strategy.num_replicas_in_sync
    if replicas not in (None, found):
        raise InputError(
            f"--replicas must be {what} ({found}), or be left out. Received: --replicas {replicas}"
        )
    return strategy


def _split_cpu(devices: int) -> None:
    """Makes the CPU look like several devices; possible only before TensorFlow uses it."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or []) >= devices:
        return
    parts = [tf.config.LogicalDeviceConfiguration()] * devices
    try:
        tf.config.set_logical_device_configuration(cpu, parts)
    except RuntimeError as error:
        raise InputError(
            f"--replicas {devices} must be set before TensorFlow starts. Received: {error}"
        ) from None
