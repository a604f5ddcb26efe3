"""What one ImageNet record holds: its bytes, the two families of keys, the check of every label."""

from dataclasses import dataclass

import tensorflow as tf
from google.protobuf.message import DecodeError

from tf_largebatch.data.shards import FOOTER_BYTES, HEADER_BYTES, ShardIndex
from tf_largebatch.records.errors import InputError


@dataclass(frozen=True)
class KeyFamily:
    """The keys of a record and the first label's number."""

    image_key: str  # of the encoded picture, bytes
    label_key: str  # of the label, one integer
    first_label: int


FAMILIES = (KeyFamily("image/encoded", "image/class/label", 1), KeyFamily("image", "label", 0))


def find_family(index: ShardIndex) -> KeyFamily:
    """Returns the family of the first record; InputError unless it has the keys of just one."""
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


def make_locator(index: ShardIndex):
    """Returns a function from records int64 [n] to their paths, offsets and lengths."""
    with tf.device("CPU:0"):
        paths, shards = tf.constant(index.paths), tf.constant(index.shards)
        offsets, lengths = tf.constant(index.offsets), tf.constant(index.lengths)

    def locate(records):
        path = tf.gather(paths, tf.gather(shards, records))
        return path, tf.gather(offsets, records), tf.gather(lengths, records)

    return locate


def read(path: tf.Tensor, offset: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Returns the payload of the record at byte `offset`, its checksums verified."""
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


def parse(record: tf.Tensor, family: KeyFamily, *, classes: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (encoded picture, label int32 of 0 to classes - 1) of a serialized tf.train.Example.

    tf.errors.InvalidArgumentError where a key is missing or the label is out of range.
    """
    kinds = {family.image_key: tf.string, family.label_key: tf.int64}
    features = tf.io.parse_single_example(
        record, {key: tf.io.FixedLenFeature([], kind) for key, kind in kinds.items()}
    )
    # Looking the label up checks its range, at a tenth of the time of tf.debugging.Assert.
    label = tf.gather(tf.range(classes), features[family.label_key] - family.first_label)
    return features[family.image_key], label
