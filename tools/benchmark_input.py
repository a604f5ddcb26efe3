"""Images a second of the ImageNet input against the decoder's own limit, on real JPEGs.

    python tools/benchmark_input.py ../shared/data/imagenet_jpeg/images.tar      # prints the table
    python tools/benchmark_input.py PICTURES --out tools/records/benchmark_input.json

PICTURES is a tar file or a folder of JPEGs. They are written to TFRecord shards in a temporary
folder and read from there. The limit is libjpeg-turbo decoding every picture whole (simplejpeg, as
many threads as there are cores); without simplejpeg the table has no ratios.

Every round runs every pipeline in turn, so that a busy machine slows all of them; the record holds
medians over the rounds. The ratio of a pipeline is its images per core-second (CPU time of this
process) over the limit's. The stages add one step of the training pipeline after another.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone as it is

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.data import imagenet, order
from tf_largebatch.data.crops import DRAWS, crop_box, crop_numbers, training_image
from tf_largebatch.data.keyed_random import uniforms
from tf_largebatch.data.records import FAMILIES, make_locator, parse, read
from tf_largebatch.data.shards import find_shards, index_shards
from tf_largebatch.records import run_folder
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.data_spec import ImageNetSpec

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

LIMIT = "libjpeg-turbo, whole pictures"
BATCH = 50
SHARDS = 4
FAMILY = FAMILIES[0]
CORES = os.cpu_count() or 1
STARTING_BATCHES = 4
_LINE_END = "" if sys.stderr.isatty() else "\n"

# CPU and wall seconds an image of one pass.
Pipeline = Callable[[], np.ndarray]
# Arguments of `open_folder`, for a row each.
TRAINING = {
    "training": {},
    "training, skip_unreadable": {"skip_unreadable": True},
    "training, scaled_decoding": {"scaled_decoding": True},
    "training, colour 0.4 and lighting 0.1": {
        "spec": ImageNetSpec(color_jitter=0.4, lighting_std=0.1)
    },
    "training, bicubic": {"spec": ImageNetSpec(interpolation="bicubic")},
    "training, antialias": {"antialias": True},
}
EVALUATION = {
    "evaluation, short_side": {},
    "evaluation, square": {"spec": ImageNetSpec(eval_crop="square")},
}


def load_pictures(source: Path, count: int) -> list[bytes]:
    """The first `count` JPEGs of a tar file or a folder, sorted by name."""
    if source.is_dir():
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jpeg", ".jpg"))
        return [path.read_bytes() for path in files[:count]]
    with tarfile.open(source) as tar:
        members = [m for m in tar.getmembers() if m.name.lower().endswith((".jpeg", ".jpg"))]
        members = sorted(members, key=lambda member: member.name)[:count]
        return [tar.extractfile(member).read() for member in members]


def write_folder(folder: Path, pictures: list[bytes]) -> None:
    """Both splits hold all pictures; the labels mean nothing."""
    for split in ("train", "validation"):
        paths = [folder / f"{split}-{n:05d}-of-{SHARDS:05d}" for n in range(SHARDS)]
        for n, path in enumerate(paths):
            with tf.io.TFRecordWriter(str(path)) as writer:
                for encoded in pictures[n::SHARDS]:
                    writer.write(_example(encoded))


def _example(encoded: bytes) -> bytes:
    features = {
        FAMILY.image_key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
        FAMILY.label_key: tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def clocks() -> np.ndarray:
    """CPU and wall seconds up to here."""
    return np.array([time.process_time(), time.perf_counter()])


def steady(dataset: tf.data.Dataset, images: int, *, use: Callable | None = None) -> Pipeline:
    """Seconds an image of an endless data set of batches, once it runs.

    The first batches pay for the start. Nothing ends within the measured part, so as much is under
    way after it as before.
    """

    def once() -> np.ndarray:
        batches, updates = iter(dataset), images // BATCH
        for _ in range(STARTING_BATCHES):
            next(batches)
        start = clocks()
        for _ in range(updates):
            batch = next(batches)
            if use:
                use(*batch)
        return (clocks() - start) / (updates * BATCH)

    return once


def limit(pictures: list[bytes]) -> Pipeline:
    """Decodes all pictures whole, outside of TensorFlow."""
    pool = ThreadPoolExecutor(CORES)

    def once():
        start = clocks()
        list(pool.map(lambda encoded: simplejpeg.decode_jpeg(encoded).shape, pictures))
        return (clocks() - start) / len(pictures)

    return once


def our_pipelines(folder: Path, images: int) -> dict[str, Pipeline]:
    """The source as recipes open it, and with one option at a time."""
    plan = BatchPlan(global_batch=BATCH, train_examples=images)
    rows = {}
    for name, options in TRAINING.items():
        source = imagenet.open_folder(folder, **options)
        rows[name] = steady(source.train_batches(plan, seed=0), images)
    for name, options in EVALUATION.items():
        source = imagenet.open_folder(folder, **options)
        rows[name] = steady(source.eval_batches(BATCH).repeat(), images)
    return rows


def other_pipelines(folder: Path, images: int) -> dict[str, Pipeline]:
    """What tutorials do: whole pictures decoded, floating point, sequential reading."""
    files = list(find_shards(folder)["train"])
    parsed = tf.data.TFRecordDataset(files).repeat()

    def decoded(record):
        features = {FAMILY.image_key: tf.io.FixedLenFeature([], tf.string)}
        encoded = tf.io.parse_single_example(record, features)[FAMILY.image_key]
        return tf.io.decode_jpeg(encoded, channels=3)

    def plain(record):
        return tf.image.resize(decoded(record), [224, 224])

    layers = [
        keras.layers.Resizing(256, 256, crop_to_aspect_ratio=True),
        keras.layers.RandomCrop(224, 224),
        keras.layers.RandomFlip("horizontal"),
        keras.layers.Rescaling(1 / 255),
    ]

    def with_layers(record):
        picture = decoded(record)
        for layer in layers:
            picture = layer(picture, training=True) if "Random" in layer.name else layer(picture)
        return picture

    rows = {}
    for name, function in (
        ("decode_jpeg and resize, float32", plain),
        ("Keras preprocessing layers", with_layers),
    ):
        batches = parsed.map(function, tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)
        rows[name] = steady(batches, images)
    return rows


def stages(folder: Path, images: int) -> dict[str, Pipeline]:
    """The training pipeline cut off after each step."""
    index, crops = index_shards(find_shards(folder)["train"]), ImageNetSpec()
    locate = make_locator(index)
    plan = BatchPlan(global_batch=BATCH, train_examples=images)
    stream = order.train_stream(
        plan, seed=0, first_update=0, worker=0, workers=1, group=max(1, 512 // BATCH)
    )

    def draw(epochs, examples):
        keys = order.augmentation_keys(0, epochs, examples)
        return *locate(examples), crop_numbers(uniforms(keys, DRAWS), crops)

    def cropped(encoded, numbers):
        box = crop_box(tf.io.extract_jpeg_shape(encoded), numbers, crops)
        return box, lambda: tf.io.decode_and_crop_jpeg(
            encoded, box, channels=3, dct_method="INTEGER_FAST"
        )

    def encoded_of(path, offset, length):
        return parse(read(path, offset, length), FAMILY, classes=1000)[0]

    steps = {
        "order and draws": lambda path, offset, length, numbers: length,
        "+ read": lambda *e: tf.strings.length(read(*e[:3])),
        "+ parse": lambda *e: tf.strings.length(encoded_of(*e[:3])),
        "+ crop box": lambda *e: cropped(encoded_of(*e[:3]), e[3])[0],
        "+ decode": lambda *e: tf.shape(cropped(encoded_of(*e[:3]), e[3])[1]()),
        "+ resize, round, mirror": lambda *e: training_image(encoded_of(*e[:3]), e[3], crops),
    }
    rows = {}
    for name, step in steps.items():
        batches = stream.map(draw, tf.data.AUTOTUNE).unbatch().map(step, tf.data.AUTOTUNE)
        batches = order.ordered(batches.batch(BATCH).prefetch(tf.data.AUTOTUNE))
        rows[f"stage: {name}"] = steady(batches, images)
    # Sequential reading of the same records, whose order no seed can permute.
    sequential = tf.data.TFRecordDataset(list(index.paths)).repeat().map(tf.strings.length)
    rows["stage: sequential read"] = steady(sequential.batch(BATCH), images)
    return rows


def beside_training(folder: Path, images: int) -> dict[str, Pipeline]:
    """A small network's step alone and with its pictures from the source."""
    model = keras.Sequential(
        [
            keras.Input([224, 224, 3]),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 7, strides=4, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1000),
        ]
    )
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(pictures, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(pictures, training=True))
        gradients = tape.gradient(value, [v.value for v in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)

    plan = BatchPlan(global_batch=BATCH, train_examples=images)
    batches = imagenet.open_folder(folder).train_batches(plan, seed=0)
    still = tf.zeros([BATCH, 224, 224, 3], tf.uint8), tf.zeros([BATCH], tf.int32)
    return {
        "training step alone": steady(
            tf.data.Dataset.from_tensors(still).repeat(), images, use=step
        ),
        "training step fed": steady(batches, images, use=step),
    }


def scaled_difference(pictures: list[bytes]) -> dict:
    """How far scaled decoding moves the training picture: PSNR where it applies."""
    usual = ImageNetSpec()
    draws = np.random.default_rng(0).random((len(pictures), DRAWS), dtype=np.float32)
    numbers, psnr = crop_numbers(tf.constant(draws), usual), []
    for encoded, row in zip(pictures, numbers, strict=True):
        box = crop_box(tf.io.extract_jpeg_shape(encoded), row, usual)
        if tf.reduce_min(box[2:]) >= 2 * usual.image_size:
            a, b = (
                tf.cast(training_image(encoded, row, usual, scaled_decoding=s), tf.float32)
                for s in (False, True)
            )
            error = max(float(tf.reduce_mean((a - b) ** 2)), 1e-9)
            psnr.append(10 * float(np.log10(255**2 / error)))
    return {
        "share_of_crops": round(len(psnr) / len(pictures), 3),
        "psnr_db_median": round(statistics.median(psnr), 1) if psnr else None,
        "psnr_db_min": round(min(psnr), 1) if psnr else None,
    }


def measure(pipelines: dict[str, Pipeline], rounds: int) -> list[dict]:
    """Medians over the rounds of wall and CPU microseconds an image, one row a pipeline."""
    seconds = {name: [] for name in pipelines}
    for number in range(rounds + 1):  # the first traces and fills the page cache
        for name, once in pipelines.items():
            what = f"round {number} of {rounds}" if number else "warming up"
            print(f"\r{what}: {name:60s}", end=_LINE_END, file=sys.stderr, flush=True)
            seconds[name].append(once())
    costs = {name: 1e6 * np.array(each[1:]) for name, each in seconds.items()}
    print(file=sys.stderr)
    base = np.median(costs[LIMIT][:, 0]) if LIMIT in costs else None
    rows = []
    for name, cost_of_rounds in costs.items():
        cpu, (cost, wall) = cost_of_rounds[:, 0], np.median(cost_of_rounds, axis=0)
        row = {
            "pipeline": name,
            "cpu_us_an_image": round(cost, 1),
            "wall_us_an_image": round(wall, 1),
            "cpu_spread": round((cpu.max() - cpu.min()) / cost, 2),
        }
        rows.append({**row, "ratio_to_limit": round(base / cost, 3) if base else None})
    return rows


def run(source: Path, count: int, rounds: int) -> dict:
    """The whole record."""
    pictures = load_pictures(source, count)
    images = len(pictures)
    if images < BATCH:
        raise SystemExit(f"{source} must hold at least {BATCH} JPEGs. Received: {images}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder, pictures)
        pipelines = {LIMIT: limit(pictures)} if simplejpeg else {}
        for make in (our_pipelines, other_pipelines, stages, beside_training):
            pipelines.update(make(folder, images))
        rows = measure(pipelines, rounds)
        described = imagenet.open_folder(folder).describe()
    return {
        "what": "ImageNet input pipelines, microseconds an image and ratio to libjpeg-turbo",
        "date": date.today().isoformat(),
        "pictures": images,
        "mean_bytes": round(sum(map(len, pictures)) / images),
        "batch": BATCH,
        "rounds": rounds,
        "limit": LIMIT if simplejpeg else "not measured: simplejpeg is not installed",
        "load_average": round(os.getloadavg()[0], 1),
        "hardware": {"cpu": run_folder.processor(), "cores": CORES},
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "simplejpeg": getattr(simplejpeg, "__version__", None),
        },
        "source": described,
        "scaled_decoding": scaled_difference(pictures),
        "rows": rows,
    }


def format_table(record: dict) -> str:
    """The record as a Markdown table."""
    lines = ["| pipeline | CPU us / image | wall us / image | ratio |", "|---|---|---|---|"]
    for row in record["rows"]:
        ratio = "" if row["ratio_to_limit"] is None else f"{row['ratio_to_limit']:.2f}"
        lines.append(
            f"| {row['pipeline']} | {row['cpu_us_an_image']:.0f} | {row['wall_us_an_image']:.0f} | "
            f"{ratio} |"
        )
    scaled = record["scaled_decoding"]
    lines.append(
        f"\nscaled decoding applies to {100 * scaled['share_of_crops']:.0f} % of the crops, PSNR "
        f"there: median {scaled['psnr_db_median']} dB, least {scaled['psnr_db_min']} dB"
    )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, and writes the record if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, help="a tar file or a folder of JPEGs")
    parser.add_argument("--count", type=int, default=400, help="pictures to use (default 400)")
    parser.add_argument("--rounds", type=int, default=5, help="passes over each (default 5)")
    parser.add_argument("--out", type=Path, help="where to write the record as JSON")
    arguments = parser.parse_args()
    if not arguments.pictures.exists():
        parser.error(f"there are no pictures at {arguments.pictures}")
    record = run(arguments.pictures, arguments.count, arguments.rounds)
    print(format_table(record))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
