"""Preparation from every layout end to end: the records, their labels, and the reader on top."""

import csv
import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import prepare_sources as fake
import pytest
import tensorflow as tf

from tf_largebatch.data import imagenet
from tf_largebatch.data.collection import Collection, Picture
from tf_largebatch.data.prepare import checks
from tf_largebatch.data.prepare.preparation import deal
from tf_largebatch.data.shards import find_shards
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.data_spec import ImageNetSpec

REAL = Path(__file__).parents[2] / "shared" / "data" / "imagenet_jpeg"
WRITERS = {
    "tars": fake.write_tars,
    "imagefolder": fake.write_folders,
    "kaggle": fake.write_kaggle,
    "tfds": fake.write_tfds,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Layout to the folder made from it."""
    root, found = tmp_path_factory.mktemp("prepared"), {}
    for layout, write in WRITERS.items():
        source = write(root / f"{layout}-source")
        assert fake.prepare(source, "--out", root / layout, *fake.SMALL) == 0
        found[layout] = root / layout
    return found


def records_of(folder, split):
    return fake.read_records(find_shards(folder)[split])


def test_the_tars_become_records_with_every_picture_once_and_its_bytes_kept(prepared):
    want = {
        name.encode(): (content, label + 1, wnid.encode())
        for label, (wnid, pictures) in enumerate(fake.train_pictures().items())
        for name, content in pictures.items()
    }
    records = records_of(prepared["tars"], "train")
    got = {
        r["image/filename"]: (r["image/encoded"], r["image/class/label"], r["image/class/synset"])
        for r in records
    }
    assert len(records) == 30 and got == want
    want = {
        name.encode(): (content, fake.CLASSES.index(wnid) + 1, wnid.encode())
        for name, wnid, content in fake.validation_pictures()
    }
    records = records_of(prepared["tars"], "validation")
    got = {
        r["image/filename"]: (r["image/encoded"], r["image/class/label"], r["image/class/synset"])
        for r in records
    }
    assert len(records) == 10 and got == want


def test_records_have_the_size_and_the_format_of_the_bytes_not_of_the_name(prepared):
    for record in records_of(prepared["tars"], "train"):
        pixels = tf.io.decode_image(record["image/encoded"], channels=3)
        assert (record["image/height"], record["image/width"]) == tuple(pixels.shape[:2])
        png = record["image/filename"] == fake.PNG.encode()
        assert record["image/format"] == (b"PNG" if png else b"JPEG")


def test_the_keys_of_a_record_are_in_sorted_order_so_that_its_bytes_are_one(prepared):
    path = find_shards(prepared["tars"])["train"][0]
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        keys = sorted(tf.train.Example.FromString(record).features.feature)
        # With its tag and length, as the map's entries have it.
        places = [record.find(bytes([10, len(key)]) + key.encode()) for key in keys]
        assert len(keys) == 7 and -1 not in places and places == sorted(places)


@pytest.mark.parametrize("layout", ["imagefolder", "kaggle", "tfds"])
def test_every_layout_gives_the_same_shards_as_the_tars(prepared, layout):
    want, got = fake.shard_contents(prepared["tars"]), fake.shard_contents(prepared[layout])
    assert len(want) == 6 and got == want


@pytest.mark.parametrize("layout", WRITERS)
def test_the_reader_delivers_every_picture_with_the_label_of_its_pixels(prepared, layout):
    source = imagenet.open_folder(
        prepared[layout], ImageNetSpec(image_size=32, eval_short_side=40), classes=5
    )
    plan = BatchPlan(global_batch=10, train_examples=30)
    train = list(source.train_batches(plan, seed=1).take(3).as_numpy_iterator())
    images, labels = (np.concatenate(part) for part in zip(*train, strict=True))
    assert sorted(labels) == sorted(list(range(5)) * 6)
    np.testing.assert_array_equal(fake.class_of(images), labels)
    ((images, labels, weights),) = source.eval_batches(10).as_numpy_iterator()
    assert weights.sum() == 10
    np.testing.assert_array_equal(fake.class_of(images), labels)


def test_labels_do_not_follow_the_numbers_of_the_development_kit(prepared):
    # The first validation picture is of n04336792: number 1 of this kit, fourth of the sorted ids.
    records = records_of(prepared["tars"], "validation")
    (first,) = [r for r in records if r["image/filename"].endswith(b"_00000001.JPEG")]
    assert fake.KIT_NUMBERS["n04336792"] == 1 and first["image/class/label"] == 4


@pytest.mark.parametrize("layout", ["tars", "kaggle"])
def test_the_label_map_has_a_line_per_class_with_its_words(prepared, layout):
    lines = (prepared[layout] / "labels.txt").read_text().splitlines()[1:]
    assert lines == [f"{n + 1}\t{w}\twords of {w}, more" for n, w in enumerate(fake.CLASSES)]


def test_the_manifest_counts_and_checksums_what_is_there(prepared):
    folder = prepared["tars"]
    manifest = json.loads((folder / "dataset.json").read_text())
    rows = [row for split in manifest["splits"].values() for row in split["shards"]]
    for row in rows:
        content = (folder / row["name"]).read_bytes()
        assert row["bytes"] == len(content)
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert row["records"] == len(fake.read_records([folder / row["name"]]))
    train, validation = manifest["splits"]["train"], manifest["splits"]["validation"]
    assert (train["pictures"], validation["pictures"]) == (30, 10)
    assert (len(train["shards"]), len(validation["shards"])) == (4, 2)
    assert train["odd"] == {"cmyk": 1, "grey": 1, "png": 1, "rotated": 1}
    assert validation["odd"] == {} and train["skipped"] == []
    assert not (folder / ".partial").exists()


def test_a_bounded_side_reduces_larger_pictures_only(tmp_path, prepared):
    source = prepared["tars"].parent / "tars-source"
    words = ("--max-short-side", "16", "--quality", "90")
    assert fake.prepare(source, "--out", tmp_path / "out", *fake.SMALL, *words) == 0
    for record in records_of(tmp_path / "out", "train"):
        # All are 24 high and wider: 24 x w becomes 16 x 2 w / 3.
        label = record["image/class/label"] - 1
        pixels = tf.io.decode_jpeg(record["image/encoded"], channels=3).numpy()
        assert record["image/height"] == 16 and record["image/format"] == b"JPEG"
        assert (record["image/height"], record["image/width"]) == pixels.shape[:2]
        assert fake.class_of(pixels) == label
    manifest = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert manifest["splits"]["train"]["odd"]["reencoded"] == 30
    assert 17 <= min(r["image/width"] for r in records_of(tmp_path / "out", "train"))


def test_a_side_that_no_picture_exceeds_changes_no_byte(tmp_path, prepared):
    source = prepared["tars"].parent / "tars-source"
    words = ("--max-short-side", "24")
    assert fake.prepare(source, "--out", tmp_path / "out", *fake.SMALL, *words) == 0
    assert fake.shard_contents(tmp_path / "out") == fake.shard_contents(prepared["tars"])


def test_odd_pictures_become_colour_jpegs_when_asked_and_others_keep_their_bytes(
    tmp_path, prepared
):
    source = prepared["tars"].parent / "tars-source"
    assert fake.prepare(source, "--out", tmp_path / "out", *fake.SMALL, "--reencode-odd") == 0
    before = {r["image/filename"]: r for r in records_of(prepared["tars"], "train")}
    after = {r["image/filename"]: r for r in records_of(tmp_path / "out", "train")}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {fake.PNG.encode(), fake.CMYK.encode()}
    for name in changed:
        record = after[name]
        assert record["image/format"] == b"JPEG"
        assert tf.io.decode_jpeg(record["image/encoded"]).shape[-1] == 3
        pixels = tf.io.decode_jpeg(record["image/encoded"]).numpy()
        assert fake.class_of(pixels) == record["image/class/label"] - 1


def test_each_picture_goes_to_the_shard_that_its_hash_decides():
    # Restated: sorted by BLAKE2b of "train/<class>/<name>", cut at i x 7 / 3: 2, 2 and 3 pictures.
    pictures = [Picture(f"{n}.JPEG", "ab"[n % 2], "file", n, 1) for n in range(7)]
    dealt = deal("train", pictures, 3)
    keys = {f"train/{'ab'[n % 2]}/{n}.JPEG": n for n in range(7)}
    order = sorted(keys, key=lambda key: hashlib.blake2b(key.encode(), digest_size=8).digest())
    numbers = [keys[key] for key in order]
    assert [[p.offset for p in shard] for shard in dealt] == [
        numbers[:2],
        numbers[2:4],
        numbers[4:],
    ]
    assert deal("train", pictures[::-1], 3) == dealt


def test_dealing_mixes_the_classes_in_every_shard():
    pictures = [Picture(f"{n}.JPEG", str(n // 100), "file", n, 1) for n in range(1000)]
    dealt = deal("train", pictures, 10)
    # 100 draws from 10 classes miss one with probability 10 x 0.9^100 = 3e-4.
    assert all(len({picture.wnid for picture in shard}) >= 9 for shard in dealt)


def test_both_tars_are_held_against_their_published_checksums(tmp_path, monkeypatch, capsys):
    source = fake.write_tars(tmp_path / "source")
    words = (source, "--out", tmp_path / "out", *fake.SMALL, "--verify-md5")
    assert fake.prepare(*words) == 2
    assert "1d675b47d978889d74fa0da5fadfb00e" in capsys.readouterr().err.splitlines()[-1]
    own = {
        name: hashlib.md5((source / name).read_bytes()).hexdigest() for name in checks.PUBLISHED_MD5
    }
    monkeypatch.setattr(checks, "PUBLISHED_MD5", own)
    assert fake.prepare(*words) == 0


def test_the_numbers_of_imagenet_pass_and_one_less_does_not():
    train = [Picture("p", f"n{n % 1000:08d}", "f", 0, 1) for n in range(1_281_167)]
    source = Collection(
        layout="tars",
        classes=tuple(f"n{n:08d}" for n in range(1000)),
        splits={"train": train, "validation": train[:50_000]},
    )
    checks.check_counts(source)
    train.pop()
    with pytest.raises(ValueError, match="1,281,166 training and 50,000 validation"):
        checks.check_counts(source)


@pytest.mark.skipif(not REAL.is_dir(), reason="the 400 ImageNet pictures are not here")
@pytest.mark.slow
def test_real_pictures_keep_their_bytes_and_get_the_label_of_their_class(tmp_path):
    with tarfile.open(REAL / "images.tar") as archive:
        archive.extractall(tmp_path / "source" / "train", filter="data")
        archive.extractall(tmp_path / "source" / "val", filter="data")
    words = ("--train-shards", "4", "--validation-shards", "4", "--expect", "any")
    words += ("--processes", "1", "--check-decode")
    assert fake.prepare(tmp_path / "source", "--out", tmp_path / "out", *words) == 0
    with open(REAL / "images.csv", newline="") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    ranks = {w: n + 1 for n, w in enumerate(sorted({n.split("_")[0] for n in rows}))}
    records = records_of(tmp_path / "out", "train")
    assert len(records) == len(rows) == 400
    for record in records:
        row = rows[record["image/filename"].decode()]
        assert hashlib.sha256(record["image/encoded"]).hexdigest() == row["sha256"]
        assert record["image/class/label"] == ranks[record["image/class/synset"].decode()]
        assert (record["image/height"], record["image/width"]) == (
            int(row["height"]),
            int(row["width"]),
        )
