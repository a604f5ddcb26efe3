"""TFRecord shards of a test's own pictures, in either family of keys and file names."""

import numpy as np
import tensorflow as tf

NAMES = {
    "image/encoded": "{split}-{number:05d}-of-{total:05d}",
    "image": "imagenet2012-{split}.tfrecord-{number:05d}-of-{total:05d}",
}
LABEL_KEYS = {"image/encoded": "image/class/label", "image": "label"}


def example(encoded, label, *, convention="image"):
    """One serialized tf.train.Example; `label` is stored as it is given."""
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                convention: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                LABEL_KEYS[convention]: tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[label])
                ),
            }
        )
    ).SerializeToString()


def write_split(folder, split, records, *, shards=1, convention="image"):
    """Writes serialized `records`, dealt to the shards in turn; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        folder / NAMES[convention].format(split=split, number=n, total=shards)
        for n in range(shards)
    ]
    for n, path in enumerate(paths):
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records[n::shards]:
                writer.write(record)
    return paths


def flat_jpeg(grey, side=40):
    """A JPEG of one grey level, which survives any crop and resize."""
    return tf.io.encode_jpeg(np.full((side, side, 3), grey, np.uint8), quality=100).numpy()


def grey_levels(count):
    """`count` different grey levels, at least 2 apart so that JPEG keeps them apart."""
    assert count <= 125
    return [2 + 2 * n for n in range(count)]


def write_greys(folder, *, train=20, validation=9, shards=3, convention="image"):
    """Shards in which picture n is of grey level 2 + 2 n and has label n."""
    first = {"image": 0, "image/encoded": 1}[convention]
    for split, count in (("train", train), ("validation", validation)):
        records = [
            example(flat_jpeg(grey), first + n, convention=convention)
            for n, grey in enumerate(grey_levels(count))
        ]
        write_split(folder, split, records, shards=shards, convention=convention)
    return folder
