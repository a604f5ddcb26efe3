"""Keras callbacks that watch training and never steer it."""

from tf_largebatch.review.tensorboard.noise import NoiseScaleScalars
from tf_largebatch.review.tensorboard.scalars import TensorBoardScalars

__all__ = ["NoiseScaleScalars", "TensorBoardScalars"]
