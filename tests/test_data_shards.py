"""Finding and indexing shards: against TensorFlow's writer, and everything that can be wrong."""

import gzip
import shutil
import struct

import numpy as np
import pytest
import shards as toy
import tensorflow as tf

from tf_largebatch.data.shards import find_shards, index_shards, masked_crc32c
from tf_largebatch.errors import InputError


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
        numbers = [path.name.split("-of-")[0][-5:] for path in found[split]]
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
