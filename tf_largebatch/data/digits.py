"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8 that need no download.

The test set of the UCI "Optical Recognition of Handwritten Digits" data (Alpaydin & Kaynak, 1998),
as `sklearn.datasets.load_digits` ships it.
"""

from __future__ import annotations

import math

import numpy as np

from tf_largebatch.data import augment
from tf_largebatch.data.arrays import ArraySource
from tf_largebatch.records.errors import InputError

TRAIN_EXAMPLES = 1_280
EVAL_EXAMPLES = 517


def load(*, shift: int = 1, noise: float = 0.3, plain_from_epoch: float = math.inf) -> ArraySource:
    """Returns the digits: 1,280 for training, 517 for evaluation, float32 [8, 8, 1] in 0 to 1.

    The split is fixed: the permutation of `numpy.random.RandomState(0)`, whose stream NumPy keeps
    for ever; its first 1,280 places are the training examples. Scikit-learn's own order groups the
    writers, so its last 517 would be other people's hands.

    Args:
        shift: training images move by up to this many pixels along each axis, zeros moving
            in; 0 to 7.
        noise: standard deviation of the normal noise added to training images, in pixel units
            of 0 to 1, not clipped; >= 0.
        plain_from_epoch: from this epoch on, counted from 0, training images stay as they are.

    Raises:
        InputError: an argument outside its range.
    """
    if not isinstance(shift, int) or not 0 <= shift < 8:
        raise InputError(f"`shift` must be 0 to 7. Received: shift={shift!r}")
    if not noise >= 0 or noise == float("inf"):
        raise InputError(f"`noise` must be at least 0. Received: noise={noise!r}")
    from sklearn.datasets import load_digits  # takes a second to import

    bunch = load_digits()
    images = (bunch.images / 16.0).astype(np.float32)[..., np.newaxis]
    places = np.random.RandomState(0).permutation(len(images))
    train, evaluation = places[:TRAIN_EXAMPLES], places[TRAIN_EXAMPLES:]

    def move_and_blur(images, keys):
        moved = augment.random_shift(images, keys, shift) if shift else images
        return augment.add_noise(moved, keys, noise) if noise else moved

    return ArraySource(
        "digits",
        classes=10,
        train=(images[train], bunch.target[train]),
        evaluation=(images[evaluation], bunch.target[evaluation]),
        pixel_mean=(images[train].mean(dtype=np.float64),),
        pixel_std=(images[train].std(dtype=np.float64),),
        augment=move_and_blur,
        plain_from_epoch=plain_from_epoch,
        augmentation=f"shift up to {shift} pixels, noise of sd {noise:g}",
    )
