"""Which devices train, and the `tf.distribute` strategy over them."""

import functools

import tensorflow as tf

from tf_largebatch.errors import InputError


# One object per process and size: a second MirroredStrategy over the same devices numbers its
# collectives from the start again, and TensorFlow then mixes them up with the first one's.
@functools.cache
def make_strategy(replicas: int | None = None) -> tf.distribute.Strategy:
    """Returns `MirroredStrategy` over several local devices, the default strategy for one.

    On a machine without a GPU, more than one replica makes that many virtual CPU devices: they
    share the cores and speed nothing up, but run exactly what several GPUs would.

    Args:
        replicas: devices to use; None takes every GPU, or one CPU.

    Raises:
        InputError: fewer GPUs than asked for, or TensorFlow already holds the CPU as one device.
    """
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


def _split_cpu(devices: int) -> None:
    """Makes the CPU look like several devices; possible only before TensorFlow uses it."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    configuration = tf.config.get_logical_device_configuration(cpu) or []
    if len(configuration) >= devices:
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * devices
        )
    except RuntimeError as error:
        raise InputError(
            f"--replicas {devices} must be set before TensorFlow starts. Received: {error}"
        ) from None
