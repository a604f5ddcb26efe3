"""Finding and indexing shards: against TensorFlow's writer, and everything that can be wrong."""

import gzip
import os
import shutil
import struct
import time

import numpy as np
import prepare_sources
import pytest
import shards as toy
import tensorflow as tf

from tf_largebatch.data import shard_index, shards
from tf_largebatch.data.shard_index import index_places, load_lengths
from tf_largebatch.data.shards import find_shards, index_shards, masked_crc32c
from tf_largebatch.records.errors import InputError


def payloads(count, *, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.bytes(int(n)) for n in rng.integers(0, 300, count)]


def refused(words, function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def test_checksum_is_crc32c_with_the_tfrecord_mask():
    # CRC-32C of "123456789" is E3069283 (RFC 3720's polynomial, the usual check value).
    crc = 0xE3069283
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    got = masked_crc32c(np.frombuffer(b"123456789", np.uint8)[np.newaxis])
    assert got.tolist() == [masked]


def test_index_finds_every_payload_in_the_order_of_the_shards(tmp_path):
    records = payloads(5_000)  # more than one round of checksums in a file
    paths = toy.write_split(tmp_path, "train", records[:4_500])
    paths += toy.write_split(tmp_path / "b", "train", records[4_500:])
    index = index_shards(tuple(paths))
    assert len(index) == 5_000
    assert index.lengths.tolist() == [len(r) for r in records]
    assert all(index.payload(n) == records[n] for n in range(0, 5_000, 7))
    assert index.place(0) == f"record 0 of {paths[0]}"
    assert index.place(4_503) == f"record 3 of {paths[1]}"


@pytest.mark.parametrize("convention", ["image", "image/encoded"])
@pytest.mark.parametrize("layout", ["flat", "subfolders", "suffix"])
def test_both_families_of_names_are_found_in_order(tmp_path, convention, layout):
    for split in ("train", "validation"):
        place = tmp_path / split if layout == "subfolders" else tmp_path
        for path in toy.write_split(place, split, payloads(12), shards=11, convention=convention):
            if layout == "suffix":
                path.rename(path.with_name(path.name + ".tfrecord"))
    (tmp_path / "dataset_info.json").write_text("{}")
    found = find_shards(tmp_path)
    for split in ("train", "validation"):
        numbers = [path.rsplit("-of-", 1)[0][-5:] for path in found[split]]
        assert numbers == [f"{n:05d}" for n in range(11)]


def test_missing_folder_and_file_in_its_place_are_named(tmp_path):
    refused(["does not exist", tmp_path / "no"], find_shards, tmp_path / "no")
    (tmp_path / "file").write_text("x")
    refused(["is not a folder", tmp_path / "file"], find_shards, tmp_path / "file")


def test_empty_folder_and_wrong_kinds_of_files_are_described(tmp_path):
    refused(["has no shards", "holds nothing", "train-00000-of-01024"], find_shards, tmp_path)
    for name in ("a.txt", "b.csv", "c.zip", "d.zip", "e.zip"):
        (tmp_path / name).write_text("x")
    refused(["holds a.txt, b.csv, c.zip and 2 more"], find_shards, tmp_path)
    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    refused(["the pictures themselves (n01440764"], find_shards, tmp_path)


def test_one_split_alone_is_refused(tmp_path):
    toy.write_split(tmp_path, "train", payloads(3))
    refused(["no validation shards"], find_shards, tmp_path)


def test_missing_shard_numbers_are_named(tmp_path):
    toy.write_split(tmp_path, "validation", payloads(3))
    paths = toy.write_split(tmp_path, "train", payloads(8), shards=8)
    paths[2].unlink(), paths[7].unlink()
    refused(["2 of 8 train shards are missing", "number 00002"], find_shards, tmp_path)


def test_shard_numbered_above_its_total_is_named(tmp_path):
    toy.write_split(tmp_path, "validation", payloads(3))
    paths = toy.write_split(tmp_path, "train", payloads(2), shards=2)
    shutil.copy(paths[0], tmp_path / paths[0].name.replace("00000", "00009"))
    refused(["above its total", "00009-of-00002"], find_shards, tmp_path)


def test_two_sets_of_shards_are_refused(tmp_path):
    toy.write_split(tmp_path, "validation", payloads(3))
    toy.write_split(tmp_path, "train", payloads(4), shards=2)
    toy.write_split(tmp_path, "train", payloads(4), shards=4)
    refused(["two sets of train shards", "of-00002", "of-00004"], find_shards, tmp_path)


@pytest.mark.parametrize("kept", [1, 11, 12, 13, -1, -5])
def test_shard_cut_short_is_named_with_its_byte(tmp_path, kept):
    (path,) = toy.write_split(tmp_path, "train", [b"x" * 100, b"y" * 50])
    last = 16 + 100
    whole = path.read_bytes()
    cut = whole[: last + kept] if kept > 0 else whole[:kept]
    path.write_bytes(cut)
    refused(
        ["cut short", path, "record 1 starts at byte 116", f"at byte {len(cut)}"],
        index_shards,
        (path,),
    )


def test_shard_cut_between_two_records_keeps_its_whole_records(tmp_path):
    # Nothing in the file says that a record is missing: the count in the plan does.
    (path,) = toy.write_split(tmp_path, "train", [b"x" * 100, b"y" * 50])
    path.write_bytes(path.read_bytes()[:116])
    assert len(index_shards((path,))) == 1


def test_empty_shard_is_named(tmp_path):
    (path,) = toy.write_split(tmp_path, "train", [])
    refused([path, "is empty (0 bytes)"], index_shards, (path,))


@pytest.mark.parametrize("record", [1, 4_200])
def test_damaged_length_is_named_with_record_and_byte(tmp_path, record):
    (path,) = toy.write_split(tmp_path, "train", [b"x" * 10] * 5_000)
    content = bytearray(path.read_bytes())
    content[record * 26 + 1] ^= 4
    path.write_bytes(content)
    refused(
        [path, f"damaged at byte {record * 26:,}", f"record {record} does"], index_shards, (path,)
    )


def test_other_files_named_like_shards_are_not_taken_for_records(tmp_path):
    path = tmp_path / "train-00000-of-00001"
    for content in (b"not a record file at all", bytes(4_000), struct.pack("<Q", 2**62) * 3):
        path.write_bytes(content)
        refused([path, "is not a TFRecord file"], index_shards, (path,))
    (plain,) = toy.write_split(tmp_path / "plain", "train", payloads(5))
    path.write_bytes(gzip.compress(plain.read_bytes()))
    refused([path, "or a compressed one", "1f8b"], index_shards, (path,))


def test_offsets_agree_with_tensorflow_reading_the_same_file(tmp_path):
    (path,) = toy.write_split(tmp_path, "train", payloads(200))
    index = index_shards((path,))
    read = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert [index.payload(n) for n in range(200)] == read


@pytest.fixture
def kept_index(tmp_path, monkeypatch):
    """Shards whose index is kept, as if the walk had taken long; its paths and its index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "_SLOW_WALK_SECONDS", -1.0)
    paths = [str(p) for p in toy.write_split(tmp_path / "data", "train", payloads(40), shards=3)]
    return paths, index_shards(tuple(paths))


def no_walk(*_):
    raise AssertionError("the shards were walked again")


def assert_same(index, other):
    for name in ("shards", "offsets", "lengths"):
        np.testing.assert_array_equal(getattr(index, name), getattr(other, name))


def test_kept_index_is_used_beside_the_shards_or_moved_with_them(kept_index, tmp_path, monkeypatch):
    paths, index = kept_index
    assert tf.io.gfile.exists(paths[0] + ".index.npz") and not (tmp_path / "cache").exists()
    (tmp_path / "data").rename(tmp_path / "moved")
    monkeypatch.setattr(shards, "_record_lengths", no_walk)
    moved = tuple(path.replace("/data/", "/moved/") for path in paths)
    assert_same(index_shards(moved), index)
    toy.write_split(tmp_path / "moved", "validation", payloads(3))
    assert find_shards(tmp_path / "moved")["train"] == moved


@pytest.mark.parametrize("damage", ["shard replaced", "index cut", "index of others", "no index"])
def test_kept_index_that_does_not_fit_is_not_used(kept_index, damage):
    paths, index = kept_index
    kept = paths[0] + ".index.npz"
    with open(kept, "rb") as file:
        content = file.read()
    if damage == "shard replaced":
        with tf.io.TFRecordWriter(paths[1]) as writer:
            writer.write(b"one long record")
    elif damage == "index cut":
        with open(kept, "wb") as file:
            file.write(content[: len(content) // 2])
    elif damage == "index of others":
        np.savez(kept, names=["other"], counts=[1], lengths=[1])
    else:
        tf.io.gfile.remove(kept)
    sizes = [tf.io.gfile.stat(path).length for path in paths]
    assert load_lengths(tuple(paths), sizes) is None
    fresh = index_shards(tuple(paths))
    assert len(fresh) == (len(index) - 12 if damage == "shard replaced" else len(index))


def test_index_of_a_read_only_folder_is_kept_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "_SLOW_WALK_SECONDS", -1.0)
    (path,) = map(str, toy.write_split(tmp_path / "data", "train", payloads(9)))
    beside, cached = index_places((path,))
    # A folder in its way refuses the file whoever writes, the superuser included.
    tf.io.gfile.makedirs(beside + "/taken")
    index = index_shards((path,))
    assert tf.io.gfile.exists(cached) and cached.startswith(str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "_record_lengths", no_walk)
    assert_same(index_shards((path,)), index)


def test_shards_open_where_no_index_can_be_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_SLOW_WALK_SECONDS", -1.0)
    (tmp_path / "file").write_text("x")
    places = (str(tmp_path / "file" / "a"), str(tmp_path / "file" / "b"))
    monkeypatch.setattr(shard_index, "index_places", lambda paths: places)
    (path,) = toy.write_split(tmp_path / "data", "train", payloads(9))
    assert len(index_shards((path,))) == 9


def test_quick_walk_writes_nothing(tmp_path):
    (path,) = toy.write_split(tmp_path / "data", "train", payloads(9))
    index_shards((path,))
    assert [p.name for p in (tmp_path / "data").iterdir()] == [path.name]


def test_folder_of_another_file_system_is_found_and_indexed():
    # TensorFlow's own file system in memory; gs:// goes the same way.
    root, records = "ram://largebatch-shards/data", payloads(20)
    tf.io.gfile.makedirs(root)
    for split in ("train", "validation"):
        for n in range(2):
            with tf.io.TFRecordWriter(f"{root}/{split}-{n:05d}-of-00002") as writer:
                for record in records[n::2]:
                    writer.write(record)
    found = find_shards(root)
    assert found["train"] == tuple(f"{root}/train-{n:05d}-of-00002" for n in range(2))
    index = index_shards(found["train"])
    assert [index.payload(n) for n in range(20)] == records[0::2] + records[1::2]
    refused(["does not exist", "ram://largebatch-shards/no"], find_shards, f"{root[:-5]}/no")


def test_unknown_file_system_is_named_in_one_line():
    refused(["nosuch://bucket/data"], find_shards, "nosuch://bucket/data")


@pytest.mark.slow
def test_full_sized_set_opens_in_seconds_and_faster_again(tmp_path, monkeypatch):
    # ImageNet's 1,281,167 records in 1,024 shards; the payloads are short, only headers are read.
    monkeypatch.setattr(shards, "_SLOW_WALK_SECONDS", 0.0)
    header = struct.pack("<Q", 20)
    crc = masked_crc32c(np.frombuffer(header, np.uint8)[np.newaxis]).astype("<u4").tobytes()
    record, paths = header + crc + bytes(24), []
    for n in range(1024):
        paths.append(tmp_path / f"train-{n:05d}-of-01024")
        paths[-1].write_bytes(record * (1251 + (n < 143)))
    seconds = []
    for _ in range(2):
        start = time.monotonic()
        assert len(index_shards(tuple(paths))) == 1_281_167
        seconds.append(time.monotonic() - start)
    print(f"first {seconds[0]:.2f} s, again {seconds[1]:.2f} s")
    assert seconds[0] < 60 and seconds[1] < 10 and seconds[1] < seconds[0]


def test_a_shard_that_was_cut_between_two_records_is_found_by_what_prepare_noted(tmp_path):
    source = prepare_sources.write_folders(tmp_path / "source")
    words = ("--out", tmp_path / "out", *prepare_sources.SMALL)
    assert prepare_sources.prepare(source, *words) == 0
    paths = find_shards(tmp_path / "out")["train"]
    whole = index_shards(paths)
    last = int(np.flatnonzero(whole.shards == 0)[-1])
    os.truncate(paths[0], int(whole.offsets[last]))
    with pytest.raises(InputError, match=r"must have the [\d,]+ bytes that dataset.json says"):
        index_shards(paths)
    # Without the note it looks whole.
    (tmp_path / "out" / "dataset.json").unlink()
    assert len(index_shards(paths)) == len(whole) - 1
