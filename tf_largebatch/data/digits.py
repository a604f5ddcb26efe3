"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8 that need no download.

The test set of the UCI "Optical Recognition of Handwritten Digits" data (Alpaydin & Kaynak, 1998),
as `sklearn.datasets.load_digits` ships it.
"""

import numpy as np

from tf_largebatch.data import augment
from tf_largebatch.data.arrays import ArrayData
from tf_largebatch.records.data_spec import DigitsSpec

TRAIN_EXAMPLES = 1_280
EVAL_EXAMPLES = 517


def load(spec: DigitsSpec | None = None, *, plain_from_epoch: int | None = None) -> ArrayData:
    """Returns the digits: 1,280 for training, 517 for evaluation, float32 [8, 8, 1] in 0 to 1.

    The split is fixed: the permutation of `numpy.random.RandomState(0)`, whose stream NumPy keeps
    for ever; its first 1,280 places are the training examples. Scikit-learn's own order groups the
    writers, so its last 517 would be other people's hands. From `plain_from_epoch` on, counted from
    0, training images stay as they are.
    """
    spec = spec or DigitsSpec()
    from sklearn.datasets import load_digits  # takes a second to import

    bunch = load_digits()
    images = (bunch.images / 16.0).astype(np.float32)[..., np.newaxis]
    places = np.random.RandomState(0).permutation(len(images))
    train, evaluation = places[:TRAIN_EXAMPLES], places[TRAIN_EXAMPLES:]

    def move_and_blur(images, keys):
        moved = augment.random_shift(images, keys, spec.shift) if spec.shift else images
        return augment.add_noise(moved, keys, spec.noise) if spec.noise else moved

    return ArrayData(
        spec.name,
        classes=10,
        train=(images[train], bunch.target[train]),
        evaluation=(images[evaluation], bunch.target[evaluation]),
        pixel_mean=(images[train].mean(dtype=np.float64),),
        pixel_std=(images[train].std(dtype=np.float64),),
        augment=move_and_blur,
        augmentation=f"shift up to {spec.shift} pixels, noise of sd {spec.noise:g}",
        plain_from_epoch=plain_from_epoch,
        eval_batch=EVAL_EXAMPLES,
    )
