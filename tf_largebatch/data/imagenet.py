"""ImageNet (ILSVRC 2012) from TFRecord shards of either common family.

    keys                                labels     file names
    image/encoded, image/class/label    1..1000    train-00000-of-01024
    image, label                        0..999     imagenet2012-train.tfrecord-00000-of-01024

The family is recognised by the keys of the first record. Labels are delivered as 0 to 999, the rank
of the sorted WordNet ids.

Opening a folder notes where every record starts (`tf_largebatch.data.shards`). The pipeline reads
single records by offset, so each epoch's order is an exact permutation of the whole training set
whatever the shards, each worker reads its own records only, and a restart in the middle of an epoch
reads nothing that was used before. Files must be local or mounted.
"""

from __future__ import annotations

import os
import re

import tensorflow as tf

from tf_largebatch.batching import BatchPlan
from tf_largebatch.data import order
from tf_largebatch.data.crops import DRAWS, Crops, evaluation_image, training_image
from tf_largebatch.data.keyed_random import uniforms
from tf_largebatch.data.records import KeyFamily, find_family, find_fault, parse
from tf_largebatch.data.shards import (
    FOOTER_BYTES,
    HEADER_BYTES,
    ShardIndex,
    find_shards,
    index_shards,
)
from tf_largebatch.errors import InputError

CLASSES = 1000
# The customary constants (0.485, 0.456, 0.406), (0.229, 0.224, 0.225) of 1, in units of uint8.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

# Orders and random numbers are computed for about this many examples at a time.
_GROUP_EXAMPLES = 512
# What reading, parsing or decoding a record raises. TensorFlow quotes the bytes of a record that is
# no tf.train.Example in its message, and making text of that fails.
_RECORD_ERRORS = (
    UnicodeDecodeError,
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
)


def open_folder(
    folder: str | os.PathLike,
    *,
    classes: int = CLASSES,
    image_size: int = 224,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    eval_short_side: int = 256,
) -> ImageNetSource:
    """Returns the data source of a folder of training and validation shards.

    Args:
        folder: holds the shards, or `train` and `validation` folders of them.
        classes: labels in the records are 1 to classes, or 0 to classes - 1.
        image_size: side of the delivered square, pixels.
        area: range of the training crop's share of the picture.
        aspect: range of the training crop's width / height.
        eval_short_side: the picture's shorter side before the central crop, pixels.

    Raises:
        InputError: no such folder, missing or damaged shards, unknown keys, or a crop out of range.
    """
    crops = Crops(image_size=image_size, area=area, aspect=aspect, eval_short_side=eval_short_side)
    shards = find_shards(folder)
    train, validation = index_shards(shards["train"]), index_shards(shards["validation"])
    family = find_family(train)
    if find_family(validation) != family:
        raise InputError(
            f"the training and validation shards must have the same keys. Received: {folder}, "
            f"training {family.image_key!r}, validation {find_family(validation).image_key!r}"
        )
    return ImageNetSource(train, validation, family=family, classes=classes, crops=crops)


class ImageNetSource:
    """Images uint8 [image_size, image_size, 3] from indexed shards: see `open_folder`.

    Implements `tf_largebatch.data.DataSource`.
    """

    name = "imagenet2012"
    pixel_mean = PIXEL_MEAN
    pixel_std = PIXEL_STD

    def __init__(
        self,
        train: ShardIndex,
        validation: ShardIndex,
        *,
        family: KeyFamily,
        classes: int,
        crops: Crops,
    ):
        self.classes = classes
        self.train_examples = len(train)
        self.eval_examples = len(validation)
        self.image_shape = (crops.image_size, crops.image_size, 3)
        self._family = family
        self._crops = crops
        self._train = train
        self._validation = validation

    def describe(self) -> str:
        """Returns one line: shards, images, bytes, keys, labels, crops."""
        stored = sum(int(index.lengths.sum()) for index in (self._train, self._validation))
        low = self._family.first_label
        return (
            f"{self.name}: {self.train_examples:,} training images in {len(self._train.paths)} "
            f"shards, {self.eval_examples:,} validation images in {len(self._validation.paths)}, "
            f"{stored / 1e9:,.3g} GB, keys {self._family.image_key!r} and "
            f"{self._family.label_key!r} (labels {low} to {low + self.classes - 1}); exact shuffle "
            f"of the whole epoch; {self._crops}"
        )

    def train_batches(
        self,
        plan: BatchPlan,
        *,
        seed: int,
        first_update: int = 0,
        worker: int = 0,
        workers: int = 1,
    ) -> tf.data.Dataset:
        """Returns the endless training batches of one worker: see `DataSource.train_batches`."""
        order.check_plan(plan, self)
        stream = order.train_stream(
            plan,
            seed=seed,
            first_update=first_update,
            worker=worker,
            workers=workers,
            group=max(1, _GROUP_EXAMPLES // plan.replica_batch),
        )
        locate = _locator(self._train)

        def find(epochs, examples):
            keys = order.augmentation_keys(seed, epochs, examples)
            return *locate(examples), uniforms(keys, DRAWS)

        def deliver(path, offset, length, draws):
            encoded, label = self._parse(_read(path, offset, length), path, offset)
            return training_image(encoded, draws, self._crops), label

        images = stream.map(find, tf.data.AUTOTUNE).unbatch().map(deliver, tf.data.AUTOTUNE)
        batches = images.batch(plan.replica_batch, drop_remainder=True)
        return order.ordered(batches.prefetch(tf.data.AUTOTUNE))

    def eval_batches(self, batch: int, *, worker: int = 0, workers: int = 1) -> tf.data.Dataset:
        """Returns the evaluation batches of one worker: see `DataSource.eval_batches`."""
        stream = order.eval_stream(self.eval_examples, batch, worker=worker, workers=workers)
        locate = _locator(self._validation)

        def find(examples, weights):
            return *locate(examples), weights

        def deliver(path, offset, length, weight):
            def picture():
                encoded, label = self._parse(_read(path, offset, length), path, offset)
                return evaluation_image(encoded, self._crops), label

            def filling():
                return tf.zeros(self.image_shape, tf.uint8), tf.constant(0)

            return *tf.cond(weight > 0, picture, filling), weight

        images = stream.map(find, tf.data.AUTOTUNE).unbatch().map(deliver, tf.data.AUTOTUNE)
        batches = images.batch(batch, drop_remainder=True)
        return order.ordered(batches.prefetch(tf.data.AUTOTUNE))

    def explain_failure(
        self, error: Exception, plan: BatchPlan, *, seed: int, update: int
    ) -> InputError | None:
        """Returns which record of `update` cannot be read, parsed or decoded; None if all can.

        Reads the update's global batch once more, one record at a time.
        """
        if not isinstance(error, _RECORD_ERRORS):
            return None
        positions = update * plan.global_batch + tf.range(plan.global_batch, dtype=tf.int64)
        epochs, examples = order.examples_at(
            positions, seed=seed, train_examples=plan.train_examples
        )
        draws = uniforms(order.augmentation_keys(seed, epochs, examples), DRAWS)
        for example, numbers in zip(examples.numpy(), draws, strict=True):
            found = self._diagnose(
                self._train,
                int(example),
                lambda encoded, numbers=numbers: training_image(encoded, numbers, self._crops),
            )
            if found:
                return found
        return None

    def explain_eval_failure(self, error: Exception) -> InputError | None:
        """Returns which validation record cannot be read, parsed or decoded; None if all can."""
        if not isinstance(error, _RECORD_ERRORS):
            return None
        for record in range(self.eval_examples):
            found = self._diagnose(
                self._validation, record, lambda encoded: evaluation_image(encoded, self._crops)
            )
            if found:
                return found
        return None

    def _parse(self, record, path, offset):
        return parse(record, self._family, classes=self.classes, place=(path, offset))

    def _diagnose(self, index: ShardIndex, record: int, decode) -> InputError | None:
        """Does one record's work step by step; returns what fails, or None."""
        path, offset = index.paths[index.shards[record]], int(index.offsets[record])
        try:
            fault = "cannot be read"
            payload = _read(path, offset, int(index.lengths[record])).numpy()
            fault = find_fault(payload, self._family, classes=self.classes)
            if fault is None:
                fault = "holds an image that does not decode"
                encoded, _ = self._parse(payload, path, offset)
                decode(encoded)
                return None
        except _RECORD_ERRORS as error:
            # Without the names of the graph's nodes.
            reason = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]|name:", "", error.message)
            fault = f"{fault}: {' '.join(reason.split())[:300].rstrip('.')}"
        return InputError(
            f"{index.place(record)} (byte {offset:,}) {fault}. Replace the record or prepare the "
            f"shard again"
        )


def _locator(index: ShardIndex):
    """Returns a function from examples int64 [n] to their paths, offsets and lengths."""
    with tf.device("CPU:0"):
        paths, shards = tf.constant(index.paths), tf.constant(index.shards)
        offsets, lengths = tf.constant(index.offsets), tf.constant(index.lengths)

    def locate(examples):
        return (
            tf.gather(paths, tf.gather(shards, examples)),
            tf.gather(offsets, examples),
            tf.gather(lengths, examples),
        )

    return locate


def _read(path, offset, length):
    """Returns the payload of the record at `offset`, its checksum verified."""
    # The op reads from an offset, which tf.data.TFRecordDataset does not offer; the buffer is the
    # record, or every read would fetch 256 kB.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path],
        compression_type="",
        buffer_size=length + HEADER_BYTES + FOOTER_BYTES,
        byte_offsets=[offset],
    )
    spec = tf.TensorSpec([], tf.string)
    return tf.data.experimental.from_variant(variant, spec).take(1).get_single_element()
