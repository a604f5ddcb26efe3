"""Records that cannot be read, parsed or decoded: replaced and counted, or named.

TensorFlow's errors do not say which record of a batch failed, so the records of an update are done
again one at a time, each step by itself.
"""

import re
from collections.abc import Callable

import tensorflow as tf

from tf_largebatch.data.records import KeyFamily, find_fault, parse, read
from tf_largebatch.data.shards import ShardIndex

# What an unreadable picture is delivered with, in place of 0 to classes - 1.
UNREADABLE = -1
# A data set that may fail costs as much to make as a third of a picture; these share one.
_TRIED_TOGETHER = 16
# What reading, parsing or decoding a record raises. TensorFlow quotes the bytes of a record that is
# no tf.train.Example in its message, and making text of that fails.
RECORD_ERRORS = (
    UnicodeDecodeError,
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.FailedPreconditionError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
    tf.errors.InternalError,
)


def deliver_or_mark(
    examples: tf.data.Dataset, deliver: Callable, image_shape: tuple[int, int, int]
) -> tf.data.Dataset:
    """Maps `deliver` over examples, with a picture of zeros and `UNREADABLE` wherever it fails.

    `examples` have many an element; `deliver` makes (image uint8, label int32) of the tensors of
    one, and such pairs are the result, as many as there are examples.
    """

    def some(*parts):
        count = tf.shape(parts[0])[0]
        numbered = tf.data.Dataset.from_tensor_slices((tf.range(count), *parts))
        tried = numbered.map(lambda place, *example: (place, *deliver(*example)))
        # What is left of the group says by its numbers what is missing.
        left = tried.ignore_errors().batch(_TRIED_TOGETHER)
        no_numbers, no_images = tf.zeros([0], tf.int32), tf.zeros([0, *image_shape], tf.uint8)
        none = tf.data.Dataset.from_tensors((no_numbers, no_images, no_numbers))
        places, images, labels = left.concatenate(none).take(1).get_single_element()

        def with_marks():
            rows, marks = places[:, tf.newaxis], tf.fill([count], UNREADABLE)
            return (
                tf.scatter_nd(rows, images, [count, *image_shape]),
                tf.tensor_scatter_nd_update(marks, rows, labels),
            )

        return tf.cond(tf.size(places) == count, lambda: (images, labels), with_marks)

    return examples.rebatch(_TRIED_TOGETHER).map(some, tf.data.AUTOTUNE).unbatch()


def find_unusable(
    index: ShardIndex, record: int, decode: Callable, *, family: KeyFamily, classes: int
) -> str | None:
    """Does one record's work step by step; returns what fails, or None."""
    path, offset = index.paths[index.shards[record]], int(index.offsets[record])
    try:
        fault = "cannot be read"
        payload = read(path, offset, int(index.lengths[record])).numpy()
        # Asked before protobuf is: TensorFlow's parser takes some damaged records that protobuf
        # refuses, and not in every process, so only it can say what this run could not use.
        fault = "holds no tf.train.Example that can be read"
        encoded, _ = parse(payload, family, classes=classes)
        fault = "holds an image that does not decode"
        decode(encoded)
        return None
    except RECORD_ERRORS as error:
        if "tf.train.Example" in fault:
            return find_fault(payload, family, classes=classes) or fault
        return _explain(fault, error)


def find_unusable_file(path: str, decode: Callable) -> str | None:
    """The same of a picture that is a file."""
    try:
        fault = "cannot be read"
        encoded = tf.io.read_file(path)
        fault = "holds an image that does not decode"
        decode(encoded)
        return None
    except RECORD_ERRORS as error:
        return _explain(fault, error)


def _explain(fault: str, error: Exception) -> str:
    # Without the names of the graph's nodes.
    reason = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]|name:", "", getattr(error, "message", str(error)))
    return f"{fault}: {' '.join(reason.split())[:300].rstrip('.')}"
