"""CIFAR-10, Fashion-MNIST and MNIST in memory, from a folder or downloaded.

cifar10         Krizhevsky, 2009, "Learning multiple layers of features from tiny images":
                50,000 + 10,000 colour pictures of 32 x 32
fashion_mnist   Xiao, Rasul & Vollgraf, 2017, arXiv:1708.07747: 60,000 + 10,000 garments, 28 x 28
mnist           LeCun, Cortes & Burges: 60,000 + 10,000 digits, 28 x 28
"""

import os

from tf_largebatch.data import augment
from tf_largebatch.data.arrays import ArrayData, pixel_statistics
from tf_largebatch.data.small_image_files import read
from tf_largebatch.records.data_spec import SmallImagesSpec


def load(
    spec: SmallImagesSpec,
    folder: str | os.PathLike | None = None,
    *,
    plain_from_epoch: int | None = None,
) -> ArrayData:
    """Returns one of the three, uint8 [28, 28, 1] or [32, 32, 3].

    Args:
        spec: which, and how training images are augmented.
        folder: of its files, in any form that `small_image_files.read` takes; None downloads.
        plain_from_epoch: from this epoch on, counted from 0, training images stay as they are.
    """
    train, test = read(spec.name, folder)
    if spec.held_out:
        kept = len(train[0]) - spec.held_out
        images, labels = train
        train, test = (images[:kept], labels[:kept]), (images[kept:], labels[kept:])
    mean, std = pixel_statistics(train[0])
    return ArrayData(
        spec.name,
        classes=10,
        train=train,
        evaluation=test,
        pixel_mean=mean,
        pixel_std=std,
        augment=augment.shift_and_flip(spec.shift, flip=spec.flip),
        augmentation=augment.describe_shift_and_flip(spec.shift, flip=spec.flip),
        plain_from_epoch=plain_from_epoch,
    )
