"""Keras callbacks that watch training and never steer it."""

from tf_largebatch.callbacks.tensorboard import TensorBoardScalars

__all__ = ["TensorBoardScalars"]
