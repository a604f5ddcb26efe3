"""Drawn pictures in TFRecord shards, so that the ImageNet path runs where ImageNet is not.

Each picture is one coloured, striped shape on a noisy background, as JPEG. Class c decides the
shape, its hue and the direction of its stripes; position, size, background and noise are random.
Made for smoke runs and tests: an accuracy reached on them says nothing about ImageNet.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_largebatch.data.records import FAMILIES, KeyFamily
from tf_largebatch.data.shards import SPLITS
from tf_largebatch.records.errors import InputError

_FILE_NAMES = {
    "image/encoded": "{split}-{number:05d}-of-{total:05d}",
    "image": "imagenet2012-{split}.tfrecord-{number:05d}-of-{total:05d}",
}


def write_shards(
    folder: str | os.PathLike,
    *,
    train_examples: int = 512,
    eval_examples: int = 100,
    classes: int = 10,
    image_size: int = 64,
    convention: str = "image",
    shards: int = 4,
    seed: int = 0,
) -> Path:
    """Writes training and validation shards of drawn pictures, all of them or none.

    The same arguments give the same bytes with one version of TensorFlow. Class i mod classes is
    drawn i-th, so the classes are balanced.

    Args:
        folder: must not exist; appears when it is complete. It is returned.
        train_examples: training pictures, >= shards.
        eval_examples: validation pictures, >= shards.
        classes: > 1.
        image_size: mean side, pixels, >= 16; sides vary by a quarter.
        convention: the key of the picture, "image" (labels from 0) or "image/encoded" (from 1).
        shards: files per split, > 0.
        seed: >= 0.
    """
    target = Path(folder)
    families = {family.image_key: family for family in FAMILIES}
    if convention not in families:
        raise InputError(
            f"`convention` must be one of {sorted(families)}. Received: convention={convention!r}"
        )
    least = (("shards", shards, 1), ("classes", classes, 2), ("image_size", image_size, 16))
    sizes = (("train_examples", train_examples, shards), ("eval_examples", eval_examples, shards))
    for name, value, low in (*least, *sizes, ("seed", seed, 0)):
        if value < low:
            raise InputError(f"`{name}` must be at least {low}. Received: {name}={value}")
    if target.exists():
        raise InputError(f"`folder` must not exist. Received: {target}. Pass another or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for number, (split, count) in enumerate(
            zip(SPLITS, (train_examples, eval_examples), strict=True)
        ):
            rng = np.random.default_rng([seed, number])
            pictures = (draw(i % classes, classes, image_size, rng) for i in range(count))
            paths = [
                draft / _FILE_NAMES[convention].format(split=split, number=n, total=shards)
                for n in range(shards)
            ]
            _write_split(paths, pictures, families[convention], classes)
        draft.chmod(0o755)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target


def draw(label: int, classes: int, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns one picture of class `label`, uint8 [height, width, 3]."""
    height, width = (int(image_size * side) for side in rng.uniform(0.75, 1.25, size=2))
    y, x = np.mgrid[:height, :width] / image_size
    centre_y, centre_x = rng.uniform(0.3, 0.7, size=2) * (height, width) / image_size
    dy, dx = (y - centre_y) / rng.uniform(0.2, 0.35), (x - centre_x) / rng.uniform(0.2, 0.35)
    distance = (
        np.hypot(dy, dx),  # disc
        np.maximum(abs(dy), abs(dx)),  # square
        abs(dy) + abs(dx),  # diamond
        abs(np.hypot(dy, dx) - 0.7) + 0.7,  # ring
        np.minimum(abs(dy), abs(dx)) * 3 + 0.2 * np.hypot(dy, dx),  # cross
    )[label % 5]
    turn = np.pi * label / classes
    stripes = 0.75 + 0.25 * np.sin(20 * (dx * np.cos(turn) + dy * np.sin(turn)))
    hue = label / classes
    colour = 0.5 + 0.5 * np.cos(2 * np.pi * (hue + np.array([0, 1, 2]) / 3))
    inside = (distance < 1)[..., np.newaxis]
    background = rng.uniform(0.2, 0.8, size=3)
    picture = np.where(inside, stripes[..., np.newaxis] * colour, background)
    picture = picture + rng.normal(0, 0.08, size=picture.shape)
    return np.round(255 * picture.clip(0, 1)).astype(np.uint8)


def _write_split(paths: list[Path], pictures, family: KeyFamily, classes: int) -> None:
    """Deals the pictures, whose labels go round, to the shards in turn, as JPEG."""
    writers = [tf.io.TFRecordWriter(str(path)) for path in paths]
    try:
        for number, picture in enumerate(pictures):
            encoded = tf.train.BytesList(value=[tf.io.encode_jpeg(picture, quality=90).numpy()])
            label = tf.train.Int64List(value=[number % classes + family.first_label])
            features = {
                family.image_key: tf.train.Feature(bytes_list=encoded),
                family.label_key: tf.train.Feature(int64_list=label),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            # The features are a map, whose order in the bytes is open unless asked for.
            writers[number % len(writers)].write(example.SerializeToString(deterministic=True))
    finally:
        for writer in writers:
            writer.close()
