"""ImageNet (ILSVRC 2012) from TFRecord shards of either common family, or from class folders.

    keys                                labels     file names
    image/encoded, image/class/label    1..1000    train-00000-of-01024
    image, label                        0..999     imagenet2012-train.tfrecord-00000-of-01024

The family is recognised by the keys of the first record. Labels are delivered as 0 to 999, the rank
of the sorted WordNet ids.

Opening a folder notes where every record starts (`tf_largebatch.data.shards`). The pipeline reads
single records by offset, so each epoch's order is an exact permutation of the whole training set
whatever the shards, each worker reads its own records only, and a restart in the middle of an epoch
reads nothing that was used before. Files may be anywhere that `tf.io.gfile` can read.

A folder of pictures, train/<class>/ and val/<class>/, is read in the same way, a file in the place
of a record (`tf_largebatch.data.picture_files`).
"""

import functools
import hashlib
import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tf_largebatch.data import order, picture_files
from tf_largebatch.data.bad_pictures import (
    RECORD_ERRORS,
    deliver_or_mark,
    find_unusable,
    find_unusable_file,
)
from tf_largebatch.data.color import draw_changes
from tf_largebatch.data.crops import (
    DRAWS,
    crop_numbers,
    describe_crops,
    evaluation_image,
    training_image,
)
from tf_largebatch.data.dataset import DataSet
from tf_largebatch.data.keyed_random import uniforms
from tf_largebatch.data.picture_files import PictureFiles
from tf_largebatch.data.records import KeyFamily, find_family, make_locator, parse, read
from tf_largebatch.data.shards import SPLITS, ShardIndex, count_classes, find_shards, index_shards
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.data_spec import ImageNetSpec
from tf_largebatch.records.errors import InputError

CLASSES = 1000
# The customary constants (0.485, 0.456, 0.406), (0.229, 0.224, 0.225) of 1, in units of uint8.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class ImageNetData(DataSet):
    """Images uint8 [size, size, 3] of a folder of training and validation shards, or pictures.

    Args:
        folder: holds the shards, or `train` and `validation` folders of them; local, or of any file
            system that `tf.io.gfile` knows (gs://bucket/folder). Or pictures in class folders,
            local, where there are no shards.
        spec: sizes, crops and colours; None for the record's defaults. What it says of last epochs
            and of whole batches (RandAugment, mixing) is not done here.
        classes: labels in the records are 1 to classes, or 0 to classes - 1; None for as many as
            the folder says that it has (`shards.count_classes`), which are 1000 where it does not.
        plain_from_epoch: from this epoch on (counted from 0), training pictures are the evaluation
            crop of themselves, without any augmentation; None for never. Not where evaluation has a
            size of its own.
        antialias: widen the filter where a picture shrinks, in both crops.
        scaled_decoding: decode large training crops at a reduced scale: faster, not the same
            pixels.
        skip_unreadable: deliver a record that cannot be read, parsed or decoded as a picture of
            zeros with label -1, in training and in evaluation; without it, it stops the run.

    Raises:
        InputError: no such folder, missing or damaged shards, unknown keys, classes of validation
            that training has not, or an argument out of range.
    """

    pixel_mean = PIXEL_MEAN
    pixel_std = PIXEL_STD
    eval_batch = 64

    def __init__(
        self,
        folder: str | os.PathLike,
        spec: ImageNetSpec | None = None,
        *,
        classes: int | None = None,
        plain_from_epoch: int | None = None,
        antialias: bool = False,
        scaled_decoding: bool = False,
        skip_unreadable: bool = False,
    ):
        spec = spec or ImageNetSpec()
        if plain_from_epoch is not None and not plain_from_epoch >= 0:
            raise InputError(
                "`plain_from_epoch` must be at least 0 or None. Received: "
                f"plain_from_epoch={plain_from_epoch}"
            )
        if plain_from_epoch is not None and spec.eval_side != spec.image_size:
            raise InputError(
                f"`eval_image_size` must be image_size ({spec.image_size}) where training pictures "
                f"become evaluation crops. Received: eval_image_size={spec.eval_image_size}, "
                f"plain_from_epoch={plain_from_epoch}"
            )
        self._train: ShardIndex | PictureFiles
        self._validation: ShardIndex | PictureFiles
        self._family: KeyFamily | None  # None where pictures are files
        if picture_files.is_tree(folder):
            self._open_tree(folder, classes)
        else:
            self._open_shards(folder, classes)
        self.name, self._spec = spec.name, spec
        self.train_examples, self.eval_examples = len(self._train), len(self._validation)
        self.image_shape = (spec.image_size, spec.image_size, 3)
        self.eval_image_shape = (spec.eval_side, spec.eval_side, 3)
        self.skip_unreadable = skip_unreadable
        self._antialias, self._scaled_decoding = antialias, scaled_decoding
        self._color = {"jitter": spec.color_jitter, "lighting_std": spec.lighting_std}
        self._plain_from_epoch = plain_from_epoch

    def _open_shards(self, folder, classes):
        shards = find_shards(folder)
        train, validation = (index_shards(shards[split]) for split in SPLITS)
        self._train, self._validation = train, validation
        self._family, other = find_family(train), find_family(validation)
        if self._family != other:
            raise InputError(
                f"the training and validation shards must have the same keys. Received: {folder}, "
                f"training {self._family.image_key!r}, validation {other.image_key!r}"
            )
        self.classes: int = classes or count_classes(folder) or CLASSES
        low = self._family.first_label
        self._places = f" in {len(train.paths)} shards", f" in {len(validation.paths)}"
        self._kinds = (
            f"keys {self._family.image_key!r} and {self._family.label_key!r} (labels {low} to "
            f"{low + self.classes - 1})"
        )

    def _open_tree(self, folder, classes):
        tree = picture_files.open_tree(folder)
        self._train, self._validation = (tree.splits[split] for split in SPLITS)
        self._family, self.classes = None, classes or tree.classes
        if self.classes < tree.classes:
            raise InputError(
                f"`classes` must be at least the {tree.classes} class folders of {folder}. "
                f"Received: classes={classes}"
            )
        self._places = " in class folders", ""
        self._kinds = f"a file each, {tree.ignored:,} other files ignored"

    def describe(self) -> str:
        """Returns one line: images, classes, bytes, where they are stored, crops and policy."""
        stored = sum(int(index.lengths.sum()) for index in (self._train, self._validation))
        train, validation = self._places
        changes = [f"{name.replace('_', ' ')} {value:g}" for name, value in self._color.items()]
        parts = [
            f"{self.name}: {self.train_examples:,} training images{train}, "
            f"{self.eval_examples:,} validation images{validation}, {self.classes:,} classes, "
            f"{stored / 1e9:,.3g} GB, {self._kinds}",
            "exact shuffle of the whole epoch",
            describe_crops(
                self._spec, antialias=self._antialias, scaled_decoding=self._scaled_decoding
            ),
            f"colour {', '.join(changes)}" if any(self._color.values()) else "no colour changes",
        ]
        if self._plain_from_epoch is not None:
            parts.append(f"no augmentation from epoch {self._plain_from_epoch} on")
        policy = "counted, with label -1" if self.skip_unreadable else "stops the run"
        parts.append(f"an unreadable picture {'is ' * self.skip_unreadable}{policy}")
        what = "files" if self._family is None else "records"
        parts.append(f"{what} read one by one, parallelism and buffers by tf.data's AUTOTUNE")
        return "; ".join(parts)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of every picture's length, in order: reading all bytes takes hours."""
        digest = hashlib.sha256(self.name.encode())
        for index in (self._train, self._validation):
            digest.update(np.ascontiguousarray(index.lengths, "<i8").data)
            if isinstance(index, PictureFiles):  # which may move to another class's folder
                digest.update(np.ascontiguousarray(index.labels, "<i4").data)
        return digest.hexdigest()[:16]

    def _batch_training(self, stream, replica_batch, seed):
        locate = _make_locator(self._train)

        def find(epochs, examples):
            return *locate(examples), self._draw(seed, epochs, examples)

        def deliver(*located_and_drawn):
            *located, drawn = located_and_drawn
            encoded, label = self._load(*located)
            return self._training_image(encoded, drawn), label

        images = self._deliver(stream.map(find, tf.data.AUTOTUNE), deliver, self.image_shape)
        return images.batch(replica_batch, drop_remainder=True)

    def _batch_evaluation(self, stream, batch):
        locate = _make_locator(self._validation)

        def deliver(*located_and_counted):
            *located, counted = located_and_counted

            def picture():
                encoded, label = self._load(*located)
                return self._evaluation_image(encoded), label

            def filling():
                return tf.zeros(self.eval_image_shape, tf.uint8), tf.constant(0)

            return tf.cond(counted, picture, filling)

        found = stream.map(lambda examples, weights: (*locate(examples), weights > 0))
        images = self._deliver(found, deliver, self.eval_image_shape)
        weights = stream.map(lambda examples, weights: weights)
        batches = tf.data.Dataset.zip((images.batch(batch, drop_remainder=True), weights))
        # Where unreadable pictures are replaced, TensorFlow no longer knows how many there are.
        batches = batches.apply(tf.data.experimental.assert_cardinality(stream.cardinality()))
        return batches.map(lambda images, weights: (*images, weights))

    def unreadable(self, plan: BatchPlan, *, seed: int, update: int) -> list[str]:
        """Returns where each record of `update` is that cannot be used, and why: a line each.

        This and the methods below read the records once more, one at a time.
        """
        return list(self._find_in_update(plan, seed=seed, update=update))

    def explain_failure(
        self, error: Exception, plan: BatchPlan, *, seed: int, update: int
    ) -> InputError | None:
        """Returns which record of `update` cannot be read, parsed or decoded; None if all can."""
        return _refusal(error, self._find_in_update(plan, seed=seed, update=update))

    def explain_eval_failure(self, error: Exception) -> InputError | None:
        """Returns which validation record cannot be read, parsed or decoded; None if all can."""
        return _refusal(error, self._find_in_evaluation())

    def _draw(self, seed, epochs, examples):
        """Returns what is random in examples: crop, colours, and whether to use neither."""
        keys = order.augmentation_keys(seed, epochs, examples)
        drawn = {"numbers": crop_numbers(uniforms(keys, DRAWS), self._spec)}
        if any(self._color.values()):
            drawn["changes"] = draw_changes(keys, **self._color)
        if self._plain_from_epoch is not None:
            drawn["plain"] = epochs >= self._plain_from_epoch
        return drawn

    def _training_image(self, encoded, drawn):
        def augmented():
            return training_image(
                encoded,
                drawn["numbers"],
                self._spec,
                drawn.get("changes"),
                antialias=self._antialias,
                scaled_decoding=self._scaled_decoding,
            )

        if "plain" not in drawn:
            return augmented()
        return tf.cond(drawn["plain"], lambda: self._evaluation_image(encoded), augmented)

    def _evaluation_image(self, encoded):
        return evaluation_image(encoded, self._spec, antialias=self._antialias)

    def _load(self, *located):
        """Returns (encoded picture, label) of what `_make_locator` says of one example."""
        if self._family is None:
            path, label = located
            return tf.io.read_file(path), label
        return self._parse(read(*located))

    def _parse(self, record):
        return parse(record, self._family, classes=self.classes)

    def _deliver(self, found: tf.data.Dataset, deliver, image_shape) -> tf.data.Dataset:
        """Maps `deliver` over the examples of `found`, many an element, by the policy."""
        if self.skip_unreadable:
            return deliver_or_mark(found, deliver, image_shape)
        return found.unbatch().map(deliver, tf.data.AUTOTUNE)

    def _find_in_update(self, plan, *, seed, update) -> Iterator[str]:
        positions = plan.position_at(update) + tf.range(plan.global_batch, dtype=tf.int64)
        epochs, examples = order.examples_at(
            positions, seed=seed, train_examples=plan.train_examples
        )
        drawn = self._draw(seed, epochs, examples)
        for row, record in enumerate(examples.numpy()):
            numbers = {name: values[row] for name, values in drawn.items()}
            yield from self._find_fault(
                self._train, int(record), lambda e, n=numbers: self._training_image(e, n)
            )

    def _find_in_evaluation(self) -> Iterator[str]:
        for record in range(self.eval_examples):
            yield from self._find_fault(self._validation, record, self._evaluation_image)

    def _find_fault(self, index, record, decode) -> Iterator[str]:
        if isinstance(index, PictureFiles):
            path = index.paths[record]
            if (fault := find_unusable_file(path, decode)) is not None:
                yield f"{path} {fault}"
            return
        assert self._family is not None  # which shards have
        fault = find_unusable(index, record, decode, family=self._family, classes=self.classes)
        if fault is not None:
            yield f"{index.place(record)} (byte {int(index.offsets[record]):,}) {fault}"


def _refusal(error: Exception, found: Iterator[str]) -> InputError | None:
    first = next(found, None) if isinstance(error, RECORD_ERRORS) else None
    if first is None:
        return None
    return InputError(f"{first}. Replace the picture, or the shard with its record")


def _make_locator(index: ShardIndex | PictureFiles):
    """Returns a function from examples int64 [n] to what `_load` takes of each."""
    if isinstance(index, PictureFiles):
        return picture_files.make_locator(index)
    return make_locator(index)


open_folder = ImageNetData
