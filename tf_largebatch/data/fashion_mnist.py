"""Fashion-MNIST (Xiao, Rasul & Vollgraf, 2017, arXiv:1708.07747): 70,000 garments, 28 x 28, grey.

60,000 for training and 10,000 for test.
"""

from __future__ import annotations

import os

from tf_largebatch.data.arrays import ArraySource
from tf_largebatch.data.idx import load_mnist_like


def load(
    folder: str | os.PathLike | None = None, *, shift: int = 0, flip: bool = False
) -> ArraySource:
    """Returns Fashion-MNIST, uint8 [28, 28, 1].

    Args:
        folder: of the four IDX files, plain, .gz or .xz; None asks `keras.datasets`.
        shift: training images move by up to this many pixels along each axis; 0 to 27.
        flip: training images are mirrored with probability 1/2.

    Raises:
        InputError: files missing or damaged, an argument out of range, or no network.
    """
    return load_mnist_like("fashion_mnist", folder, shift=shift, flip=flip)
