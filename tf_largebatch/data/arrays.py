"""A data set whose images are NumPy arrays in memory."""

import functools
import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tf_largebatch.data import order
from tf_largebatch.data.dataset import DataSet
from tf_largebatch.records.errors import InputError

Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_PIXELS_AT_ONCE = 1 << 20


class ArrayData(DataSet):
    """Images and labels in memory, shuffled and augmented as `tf_largebatch.data` describes.

    The order of each epoch is an exact permutation of all training examples.

    Args:
        name: see `DataSet`, as for the other arguments that are not here.
        classes: number of classes, > 1.
        train: (images [n, H, W, C] uint8 or float32, labels [n] of 0 to classes - 1).
        evaluation: the same; same type and image shape.
        augment: images [n, H, W, C] and keys uint64 [n] to images of the same shape and type; None
            delivers the images as they are.
        augmentation: what `augment` does, in words, for `describe`.
        plain_from_epoch: from this epoch on, counted from 0, `augment` is not used.
    """

    def __init__(
        self,
        name: str,
        *,
        classes: int,
        train: tuple[np.ndarray, np.ndarray],
        evaluation: tuple[np.ndarray, np.ndarray],
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        augment: Augment | None = None,
        augmentation: str = "no augmentation",
        plain_from_epoch: int | None = None,
        eval_batch: int = 500,
    ):
        self.name = name
        self.classes = classes
        self.image_shape = self.eval_image_shape = tuple(train[0].shape[1:])
        self.pixel_mean = tuple(float(m) for m in pixel_mean)
        self.pixel_std = tuple(float(s) for s in pixel_std)
        self.train_examples = len(train[0])
        self.eval_examples = len(evaluation[0])
        self.eval_batch = eval_batch
        self._augment = augment
        self._plain_from_epoch = plain_from_epoch
        self._augmentation = augmentation
        for part, (images, labels) in (("train", train), ("evaluation", evaluation)):
            _check_arrays(self, part, images, labels, dtype=train[0].dtype)
        try:
            self.facts  # noqa: B018  checks shape, classes, mean and deviation
        except ValueError as error:
            raise InputError(f"{name}: {error}") from None
        # On the host, once: a dataset captures tensors by reference, arrays by copy.
        with tf.device("CPU:0"):
            self._train, self._eval = (
                (tf.constant(images), tf.constant(labels.astype(np.int32)))
                for images, labels in (train, evaluation)
            )

    def describe(self) -> str:
        """Returns one line: sizes, format, classes, augmentation."""
        height, width, channels = self.image_shape
        return (
            f"{self.name}: {self.train_examples:,} training and {self.eval_examples:,} evaluation "
            f"images of {height}x{width}x{channels} ({self._train[0].dtype.name}, in memory), "
            f"{self.classes} classes; {self._augmentation}"
            + f", none from epoch {self._plain_from_epoch} on"
            * (self._plain_from_epoch is not None)
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of all images and labels."""
        digest = hashlib.sha256(self.name.encode())
        for tensor in (*self._train, *self._eval):
            digest.update(tensor.numpy().data)
        return digest.hexdigest()[:16]

    def _batch_training(self, stream, replica_batch, seed):
        images, labels = self._train

        @tf.autograph.experimental.do_not_convert
        def deliver(epochs, examples):
            chosen = tf.gather(images, examples)
            if self._augment is not None:
                changed = self._augment(chosen, order.augmentation_keys(seed, epochs, examples))
                if self._plain_from_epoch is not None:
                    early = (epochs < self._plain_from_epoch)[:, tf.newaxis, tf.newaxis, tf.newaxis]
                    changed = tf.where(early, changed, chosen)
                chosen = changed
            return (
                tf.reshape(chosen, [-1, replica_batch, *self.image_shape]),
                tf.reshape(tf.gather(labels, examples), [-1, replica_batch]),
            )

        return stream.map(deliver, tf.data.AUTOTUNE).unbatch()

    def _batch_evaluation(self, stream, batch):
        images, labels = self._eval

        @tf.autograph.experimental.do_not_convert
        def deliver(examples, weights):
            return tf.gather(images, examples), tf.gather(labels, examples), weights

        return stream.map(deliver, tf.data.AUTOTUNE)


def pixel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns each channel's mean and deviation, exact sums: uint8 [n, H, W, C]."""
    pixels = images.reshape(-1, images.shape[-1])
    total = squares = np.zeros(images.shape[-1], np.uint64)
    for start in range(0, len(pixels), _PIXELS_AT_ONCE):
        part = pixels[start : start + _PIXELS_AT_ONCE].astype(np.uint32)
        total = total + part.sum(axis=0, dtype=np.uint64)
        squares = squares + (part * part).sum(axis=0, dtype=np.uint64)
    mean = total / len(pixels)
    std = np.sqrt(squares / len(pixels) - mean**2)
    return tuple(mean.tolist()), tuple(std.tolist())


def _check_arrays(dataset: ArrayData, part: str, images, labels, *, dtype) -> None:
    """Raises InputError unless the two arrays of one part fit."""

    def check(ok, what, rule, received):
        if not ok:
            raise InputError(
                f"the {part} {what} of {dataset.name} must be {rule}. Received: {received}"
            )

    check(
        images.ndim == 4 and len(images) and images.shape[1:] == dataset.image_shape,
        "images",
        "[n, height, width, channels], n > 0, all of one size",
        f"shape={images.shape}, training images {dataset.image_shape}",
    )
    known = images.dtype == dtype and images.dtype in (np.uint8, np.float32)
    check(known, "images", "uint8 or float32 like the training images", f"dtype={images.dtype}")
    received = f"{len(images)} images, labels of shape {labels.shape}"
    check(labels.shape == (len(images),), "labels", "one per image", received)
    wrong = np.flatnonzero((labels < 0) | (labels >= dataset.classes))
    if len(wrong):
        received = f"label {labels[wrong[0]]} at example {wrong[0]}"
        check(False, "labels", f"0 to {dataset.classes - 1}", received)
