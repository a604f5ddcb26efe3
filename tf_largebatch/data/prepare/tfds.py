"""A prepared folder of TensorFlow Datasets: its records are read again and dealt to new shards.

The training reads such a folder as it is; preparing it changes the number of shards, the size of
the pictures, or the family of keys for other readers.
"""

import re
from collections.abc import Callable
from pathlib import Path

from tf_largebatch.data.collection import Collection, Picture, check_class_of, rank_classes
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.quiet import import_tensorflow

LABELS = "label.labels.txt"  # where TensorFlow Datasets notes the class of every number
SHARD = re.compile(r".+-train\.tfrecord-\d+-of-\d+")


def open_tfds(folder: Path, note: Callable[[str], None]) -> Collection:
    """Returns the records of a folder of TensorFlow Datasets; reads every one for its label."""
    if not (folder / LABELS).is_file():
        raise InputError(
            f"the folder of TensorFlow Datasets must have {LABELS}, the classes by number. "
            f"Received: {folder}. Pass the folder of the version, such as imagenet2012/5.1.0"
        )
    import_tensorflow()
    from tf_largebatch.data.shards import find_shards, index_shards

    wnids = (folder / LABELS).read_text(encoding="utf-8").split()
    classes = rank_classes(wnids, folder / LABELS)
    splits: dict[str, list[Picture]] = {}
    for split, paths in find_shards(folder).items():
        index, splits[split] = index_shards(paths), []
        for record in range(len(index)):
            if record % 5000 == 0:
                note(f"reading the {split} labels: {record:,} of {len(index):,}")
            place = index.place(record)
            _, label, name = read_record(index.payload(record), place)
            if not 0 <= label < len(wnids):
                raise InputError(
                    f"{place} has label {label}, which is not from 0 to {len(wnids) - 1}"
                )
            path = index.paths[index.shards[record]]
            offset, length = int(index.offsets[record]), int(index.lengths[record])
            picture = Picture(name, wnids[label], path, offset, length, record=True)
            splits[split].append(check_class_of(picture, place))
    return Collection("tfds", classes, splits)


def read_record(record: bytes, place: str) -> tuple[bytes, int, str]:
    """Returns (picture, label from 0, file name) of one record."""
    tf = import_tensorflow()
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(record).features.feature
        (encoded,) = features["image"].bytes_list.value
        (label,) = features["label"].int64_list.value
        (name,) = features["file_name"].bytes_list.value
    except (DecodeError, ValueError) as error:
        raise InputError(
            f"{place} must hold one each of image, label and file_name, as TensorFlow Datasets "
            f"writes imagenet2012"
        ) from error
    return encoded, label, name.decode("utf-8", "replace")
