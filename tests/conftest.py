"""Shared set-up: quiet TensorFlow and two logical CPUs, set before any test touches a device."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
