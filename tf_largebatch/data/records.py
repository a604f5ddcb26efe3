"""What one ImageNet record holds: the two families of keys, and the check of every label."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf
from google.protobuf.message import DecodeError

from tf_largebatch.data.shards import ShardIndex
from tf_largebatch.errors import InputError


@dataclass(frozen=True)
class KeyFamily:
    """The keys of a record and the first label's number.

    Attributes:
        image_key: of the encoded picture, bytes.
        label_key: of the label, one integer.
        first_label: number of the first class.
    """

    image_key: str
    label_key: str
    first_label: int


FAMILIES = (
    KeyFamily("image/encoded", "image/class/label", 1),
    KeyFamily("image", "label", 0),
)


def find_family(index: ShardIndex) -> KeyFamily:
    """Returns the family that the first record of `index` belongs to.

    Raises:
        InputError: the record holds no tf.train.Example, or the keys of no family, or of both.
    """
    wanted = " or ".join(f"{f.image_key!r} with {f.label_key!r}" for f in FAMILIES)
    try:
        keys = set(tf.train.Example.FromString(index.payload(0)).features.feature)
    except DecodeError:
        keys = set()
    found = [f for f in FAMILIES if {f.image_key, f.label_key} <= keys]
    if len(found) == 1:
        return found[0]
    kind = "both kinds of keys" if found else "neither kind of keys"
    received = ", ".join(sorted(keys)[:6]) or "no tf.train.Example"
    raise InputError(
        f"{index.place(0)} has {kind}. Received: {received}. Wanted: {wanted}, one of the two"
    )


def find_fault(record: bytes, family: KeyFamily, *, classes: int) -> str | None:
    """Returns what `parse` would refuse of a record, in words; None if it takes it."""
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return "holds no tf.train.Example"
    if len(features[family.image_key].bytes_list.value) != 1:
        return f"has not one picture under {family.image_key!r}"
    labels = features[family.label_key].int64_list.value
    last = family.first_label + classes - 1
    if len(labels) != 1:
        return f"has not one label under {family.label_key!r}"
    if not family.first_label <= labels[0] <= last:
        return f"has label {labels[0]}, which is not from {family.first_label} to {last}"
    return None


def parse(
    record: tf.Tensor, family: KeyFamily, *, classes: int, place: tuple[tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (encoded picture, scalar string; label, scalar int32 of 0 to classes - 1).

    Args:
        record: scalar string, a serialized tf.train.Example.
        family: its keys.
        classes: the label must be one of so many.
        place: (path, byte offset) for the message.

    Raises:
        tf.errors.InvalidArgumentError: a key is missing, or the label is out of range.
    """
    features = tf.io.parse_single_example(
        record,
        {
            family.image_key: tf.io.FixedLenFeature([], tf.string),
            family.label_key: tf.io.FixedLenFeature([], tf.int64),
        },
    )
    stored = features[family.label_key]
    label = stored - family.first_label
    in_range = (label >= 0) & (label < classes)
    # Runs although nothing depends on it: a dataset's functions keep the order of stateful ops.
    tf.debugging.Assert(in_range, ["label out of range", stored, "in", *place])
    return features[family.image_key], tf.cast(label, tf.int32)
