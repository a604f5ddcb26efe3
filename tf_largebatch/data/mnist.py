"""MNIST (LeCun, Cortes & Burges): 60,000 training and 10,000 test digits, 28 x 28, grey."""

from __future__ import annotations

import os

from tf_largebatch.data.arrays import ArraySource
from tf_largebatch.data.idx import load_mnist_like


def load(folder: str | os.PathLike | None = None, *, shift: int = 0) -> ArraySource:
    """Returns MNIST, uint8 [28, 28, 1].

    Args:
        folder: of the four IDX files, plain, .gz or .xz; None asks `keras.datasets`.
        shift: training images move by up to this many pixels along each axis; 0 to 27.

    Raises:
        InputError: files missing or damaged, an argument out of range, or no network.
    """
    return load_mnist_like("mnist", folder, shift=shift, flip=False)
