"""Shared set-up: quiet TensorFlow without a GPU, and two logical CPUs before any is used."""

import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@pytest.fixture(scope="session", autouse=True)
def two_cpus():
    """Lets tests run two replicas; must come before TensorFlow touches the CPU."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(autouse=True)
def float32_policy():
    """Leaves no precision policy behind."""
    import keras

    yield
    keras.config.set_dtype_policy("float32")
