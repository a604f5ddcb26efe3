"""A small ImageNet in every layout that people have: 5 classes, 30 training and 10 validation.

Each picture is of one grey level, 20 + 45 x class and a little more, so that its class can be told
from the pixels after any crop. Four are odd: a PNG named .JPEG, a CMYK, a grey, a rotated one.
"""

import csv
import io
import struct
import tarfile

import numpy as np
import shards as toy
import tensorflow as tf
from PIL import Image

from tf_largebatch.data.prepare import __main__ as command

CLASSES = ("n01440764", "n01739381", "n02105855", "n04336792", "n09193705")
# Numbers of the development kit, which are in another order than the sorted ids.
KIT_NUMBERS = {"n01440764": 4, "n01739381": 2, "n02105855": 5, "n04336792": 1, "n09193705": 3}
PNG, CMYK = "n02105855_2933.JPEG", "n01739381_1309.JPEG"
GREY, ROTATED = "n01440764_1.JPEG", "n09193705_2.JPEG"
SMALL = ("--train-shards", "4", "--validation-shards", "2", "--expect", "any", "--processes", "1")


def level(label, number):
    return 20 + 45 * label + 2 * number


def class_of(images):
    """The label that a delivered image's grey level stands for."""
    return np.round((images.mean(axis=(-3, -2, -1)) - 24) / 45).astype(int)


def jpeg(grey, *, height=24, width=30):
    return tf.io.encode_jpeg(np.full((height, width, 3), grey, np.uint8), quality=100).numpy()


def cmyk(grey):
    file = io.BytesIO()
    Image.new("CMYK", (30, 24), (0, 0, 0, 255 - grey)).save(file, "JPEG", quality=100)
    return file.getvalue()


def rotated(encoded, orientation=6):
    """The same JPEG with an Exif block after its start: one entry, tag 0x0112."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    body = b"Exif\0\0" + tiff
    return encoded[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + encoded[2:]


def train_pictures():
    """Class to (file name, bytes) of its pictures."""
    found = {}
    for label, wnid in enumerate(CLASSES):
        pictures = {f"{wnid}_{n}.JPEG": jpeg(level(label, n), width=26 + n) for n in range(6)}
        for name in (PNG, CMYK):
            if name.startswith(wnid):
                del pictures[f"{wnid}_5.JPEG"]
                grey = level(label, 5)
                image = np.full((24, 31, 3), grey, np.uint8)
                pictures[name] = tf.io.encode_png(image).numpy() if name == PNG else cmyk(grey)
        found[wnid] = pictures
    image = np.full((24, 27, 1), level(0, 1), np.uint8)
    found[CLASSES[0]][GREY] = tf.io.encode_jpeg(image, quality=100).numpy()
    found[CLASSES[4]][ROTATED] = rotated(found[CLASSES[4]][ROTATED])
    return found


def validation_pictures():
    """(file name, class, bytes); the classes in no order."""
    labels = (3, 0, 4, 1, 2, 2, 0, 4, 1, 3)
    return [
        (f"ILSVRC2012_val_{n + 1:08d}.JPEG", CLASSES[label], jpeg(level(label, n % 5)))
        for n, label in enumerate(labels)
    ]


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files:
            add(archive, name, content)
    return buffer.getvalue()


def write_tars(folder, *, train=None, kit=True):
    folder.mkdir(parents=True)
    train = train or train_pictures()
    # Not in the order of the ids: the order within a tar must not decide about labels.
    inner = [(f"{wnid}.tar", tar_of(train[wnid].items())) for wnid in reversed(train)]
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    flat = [(name, content) for name, _, content in reversed(validation_pictures())]
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(flat))
    if kit:
        write_kit(folder / "ILSVRC2012_devkit_t12.tar.gz")
    return folder


def write_kit(path):
    """The development kit: meta.mat with inner nodes too, and the ground truth as numbers."""
    from scipy.io import savemat

    fields = [
        ("ILSVRC2012_ID", "O"),
        ("WNID", "O"),
        ("words", "O"),
        ("gloss", "O"),
        ("num_children", "O"),
    ]
    rows = [
        (number, wnid, f"words of {wnid}, more", "a gloss", 0)
        for wnid, number in sorted(KIT_NUMBERS.items(), key=lambda item: item[1])
    ]
    rows.append((6, "n00001740", "entity", "a gloss", 5))
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)})
    truth = "".join(f"{KIT_NUMBERS[wnid]}\n" for _, wnid, _ in validation_pictures())
    root = "ILSVRC2012_devkit_t12/data"
    with tarfile.open(path, "w:gz") as archive:
        add(archive, f"{root}/meta.mat", meta.getvalue())
        add(archive, f"{root}/ILSVRC2012_validation_ground_truth.txt", truth.encode())
    return path


def write_folders(folder, *, flat=False):
    for wnid, pictures in train_pictures().items():
        (folder / "train" / wnid).mkdir(parents=True)
        for name, content in pictures.items():
            (folder / "train" / wnid / name).write_bytes(content)
    for name, wnid, content in validation_pictures():
        place = folder / "val" if flat else folder / "val" / wnid
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return folder


def write_kaggle(folder):
    write_folders(folder / "ILSVRC" / "Data" / "CLS-LOC", flat=True)
    with open(folder / "LOC_val_solution.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "PredictionString"])
        for name, wnid, _ in reversed(validation_pictures()):
            rows.writerow([name.removesuffix(".JPEG"), f"{wnid} 1 2 3 4 {wnid} 5 6 7 8 "])
    lines = [f"{wnid} words of {wnid}, more\n" for wnid in CLASSES]
    (folder / "LOC_synset_mapping.txt").write_text("".join(lines))
    return folder


def tfds_record(name, content, label):
    def text(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {
        "image": text(content),
        "file_name": text(name.encode()),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_tfds(folder):
    folder.mkdir(parents=True)
    train = [
        tfds_record(name, content, label)
        for label, pictures in enumerate(train_pictures().values())
        for name, content in pictures.items()
    ]
    held_out = [
        tfds_record(name, content, CLASSES.index(wnid))
        for name, wnid, content in validation_pictures()
    ]
    toy.write_split(folder, "train", train, shards=3)
    toy.write_split(folder, "validation", held_out, shards=2)
    (folder / "label.labels.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "dataset_info.json").write_text("{}")
    return folder


def prepare(*words):
    """Runs the command in this process; returns its exit status."""
    try:
        command.main([str(word) for word in words])
    except SystemExit as end:
        return end.code
    raise AssertionError("main returned")


def read_records(paths):
    """The features of every record, by key, as bytes or an integer."""
    found = []
    for path in paths:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            found.append(
                {
                    key: (value.bytes_list.value or value.int64_list.value)[0]
                    for key, value in features.items()
                }
            )
    return found


def contents(folder):
    """Name to bytes of every file directly in `folder`."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def shard_contents(folder):
    return {n: data for n, data in contents(folder).items() if n.startswith(("train", "valid"))}
