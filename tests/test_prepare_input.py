"""What the preparation refuses, in one line each; headers, label files, the plan, the progress."""

import csv
import gzip
import io
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import prepare_sources as fake
import pytest
import tensorflow as tf
from PIL import Image

from tf_largebatch.data.collection import Picture
from tf_largebatch.data.prepare import checks, labels, layouts, preparation, shard
from tf_largebatch.data.prepare.pictures import Header, PictureError, read_header
from tf_largebatch.data.prepare.preparation import Progress
from tf_largebatch.data.prepare.shard import Options
from tf_largebatch.data.shards import find_shards
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.progress import format_seconds

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data" / "imagenet_jpeg"


def refused(capsys, *words):
    """The one line of a command that ends with status 2."""
    assert fake.prepare(*words) == 2
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("python -m")]
    assert len(shown) == 1
    return shown[0]


def prepare_refused(capsys, source, *words):
    out = source.parent / "out"
    line = refused(capsys, source, "--out", out, *fake.SMALL, *words)
    if out.exists():
        with pytest.raises(InputError):
            find_shards(out)
    return line


@pytest.fixture
def tree(tmp_path):
    return fake.write_folders(tmp_path / "source")


def test_no_such_folder(tmp_path, capsys):
    assert "SOURCE does not exist" in prepare_refused(capsys, tmp_path / "nothing")


def test_a_folder_of_no_layout(tmp_path, capsys):
    (tmp_path / "source").mkdir()
    line = prepare_refused(capsys, tmp_path / "source")
    assert "no known layout" in line and "ILSVRC2012_img_train.tar" in line


def test_a_folder_of_two_layouts_needs_the_flag(tree, capsys):
    fake.write_tars(tree / "tars")
    for path in (tree / "tars").iterdir():
        path.rename(tree / path.name)
    assert "tars, imagefolder" in prepare_refused(capsys, tree)
    words = ("--out", tree.parent / "out", *fake.SMALL)
    assert fake.prepare(tree, *words, "--layout", "tars") == 0


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_each_layout_is_recognised(tmp_path, layout):
    write = {
        "tars": fake.write_tars,
        "imagefolder": fake.write_folders,
        "kaggle": fake.write_kaggle,
        "tfds": fake.write_tfds,
    }[layout]
    assert layouts.recognise(write(tmp_path / "source")) == layout


def test_one_tar_without_the_other(tmp_path, capsys):
    source = fake.write_tars(tmp_path / "source")
    (source / "ILSVRC2012_img_val.tar").unlink()
    assert "ILSVRC2012_img_val.tar is missing" in prepare_refused(capsys, source)


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
def test_a_tar_that_was_cut_short(tmp_path, capsys, name):
    source = fake.write_tars(tmp_path / "source")
    path = source / name
    # Without the two blocks of zeros, their padding, and the end of the last file.
    path.write_bytes(path.read_bytes().rstrip(b"\0")[:-600])
    assert "cannot be read near byte" in prepare_refused(capsys, source)


def nested(*inner):
    """A training tar of class tars as they are given."""
    return fake.tar_of(zip((f"{wnid}.tar" for wnid in fake.CLASSES), inner, strict=False))


def test_a_class_tar_that_was_cut_short_within_the_training_tar(tmp_path, capsys):
    source = fake.write_tars(tmp_path / "source")
    inner = [fake.tar_of(pictures.items()) for pictures in fake.train_pictures().values()]
    cut = inner[0].rstrip(b"\0")[:-600]
    (source / "ILSVRC2012_img_train.tar").write_bytes(nested(cut, *inner[1:]))
    assert "cannot be read near byte" in prepare_refused(capsys, source)


def test_a_class_tar_that_was_cut_between_two_of_its_files(tmp_path, capsys):
    source = fake.write_tars(tmp_path / "source")
    inner = [fake.tar_of(pictures.items()) for pictures in fake.train_pictures().values()]
    last = inner[0].rstrip(b"\0")
    unmarked = last + b"\0" * (-len(last) % 512)
    (source / "ILSVRC2012_img_train.tar").write_bytes(nested(unmarked, *inner[1:]))
    assert "it is cut short: there is no block of zeros" in prepare_refused(capsys, source)


def test_the_training_tar_that_was_cut_between_two_classes(tmp_path, capsys):
    source = fake.write_tars(tmp_path / "source")
    path = source / "ILSVRC2012_img_train.tar"
    with tarfile.open(path) as archive:
        path.write_bytes(path.read_bytes()[: archive.getmembers()[3].offset])
    assert "it is cut short: there is no block of zeros" in prepare_refused(capsys, source)


def test_a_class_tar_that_is_there_twice(tmp_path, capsys):
    source = fake.write_tars(tmp_path / "source")
    inner = [(f"{w}.tar", fake.tar_of(p.items())) for w, p in fake.train_pictures().items()]
    other = ("n01440764.tar", fake.tar_of([("n01440764_9.JPEG", fake.jpeg(9))]))
    (source / "ILSVRC2012_img_train.tar").write_bytes(fake.tar_of([*inner, other]))
    assert "with n01440764.tar twice" in prepare_refused(capsys, source)


def test_a_tar_of_pictures_instead_of_class_tars(tmp_path, capsys):
    source = fake.write_tars(tmp_path / "source")
    content = fake.tar_of([("n01440764_1.JPEG", fake.jpeg(9))])
    (source / "ILSVRC2012_img_train.tar").write_bytes(content)
    assert "one tar per class" in prepare_refused(capsys, source)


def test_validation_pictures_without_labels_say_what_is_needed_and_where_it_is(tmp_path, capsys):
    source = fake.write_tars(tmp_path / "source", kit=False)
    line = prepare_refused(capsys, source)
    assert "ILSVRC2012_devkit_t12.tar.gz" in line and "--val-labels" in line
    assert "LOC_val_solution.csv" in line and "image-net.org" in line


LABELS = {
    "a class per line": lambda rows: "".join(f"{wnid}\n" for _, wnid, _ in rows),
    "picture and class": lambda rows: "".join(f"{n} {w}\n" for n, w, _ in reversed(rows)),
}


@pytest.mark.parametrize("form", LABELS)
def test_labels_may_be_text(tmp_path, form):
    source = fake.write_tars(tmp_path / "source", kit=False)
    file = tmp_path / "labels.txt"
    file.write_text(LABELS[form](fake.validation_pictures()))
    words = ("--out", tmp_path / "out", *fake.SMALL, "--val-labels", file)
    assert fake.prepare(source, *words) == 0
    got = {
        r["image/filename"].decode(): r["image/class/synset"].decode()
        for r in fake.read_records(find_shards(tmp_path / "out")["validation"])
    }
    assert got == {name: wnid for name, wnid, _ in fake.validation_pictures()}


def test_labels_may_be_the_unpacked_kit_and_flat_pictures_need_no_tars(tmp_path):
    source = fake.write_folders(tmp_path / "source", flat=True)
    import tarfile

    with tarfile.open(fake.write_kit(tmp_path / "kit.tar.gz")) as archive:
        archive.extractall(source, filter="data")
    assert fake.prepare(source, "--out", tmp_path / "out", *fake.SMALL) == 0


def test_the_order_of_pictures_for_a_class_per_line_is_that_of_their_names():
    known = labels._in_order(["a", "b"], ["n2", "n1"], "file")
    assert known == {"a": "n2", "b": "n1"}


BAD_LABELS = {
    "numbers": ("1\n2\n3\n4\n5\n" * 2, "must be WordNet ids, not numbers"),
    "one less": ("n01440764\n" * 9, "must be as many as the validation pictures, 10"),
    "strange": ("n99999999\n" * 10, "without training pictures, such as n99999999"),
    "three words": ("a b c\n" * 10, "one or two words on every line"),
    "other names": ("x.JPEG n01440764\n", "10 of 10 validation pictures have no label"),
    "empty": ("", "must be as many as the validation pictures, 10"),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_labels_that_do_not_fit(tmp_path, capsys, kind):
    text, rule = BAD_LABELS[kind]
    source = fake.write_tars(tmp_path / "source")
    (tmp_path / "labels.txt").write_text(text)
    line = prepare_refused(capsys, source, "--val-labels", tmp_path / "labels.txt")
    assert rule in line


def test_a_development_kit_without_its_table(tmp_path, capsys):
    source = fake.write_tars(tmp_path / "source")
    content = fake.tar_of([("data/ILSVRC2012_validation_ground_truth.txt", b"1\n")])
    (source / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(content)
    assert "has no meta.mat" in prepare_refused(capsys, source)


def test_fewer_pictures_than_imagenet_need_another_word(tree, capsys):
    words = [word for word in fake.SMALL if word not in ("--expect", "any")]
    line = refused(capsys, tree, "--out", tree.parent / "out", *words)
    assert "Received: 30 training and 10 validation pictures of 5 classes" in line
    assert "1,281,167" in line and "--expect any" in line
    assert not (tree.parent / "out").exists()


def test_a_picture_named_after_another_class(tree, capsys):
    path = tree / "train" / "n01440764" / "n01440764_0.JPEG"
    path.rename(tree / "train" / "n01739381" / path.name)
    line = prepare_refused(capsys, tree)
    assert "n01440764_0.JPEG is named after class n01440764 and lies in n01739381" in line


def test_a_record_whose_label_contradicts_its_name(tmp_path, capsys):
    import shards as toy

    source = fake.write_tfds(tmp_path / "source")
    record = fake.tfds_record("n01440764_0.JPEG", fake.jpeg(9), 1)
    toy.write_split(source, "train", [record] * 3, shards=3)
    assert "is named after class n01440764" in prepare_refused(capsys, source)


def test_a_damaged_record_of_tensorflow_datasets_is_not_taken_over(tmp_path, capsys):
    source = fake.write_tfds(tmp_path / "source")
    path = source / "imagenet2012-train.tfrecord-00001-of-00003"
    content = bytearray(path.read_bytes())
    place = content.find(b"\xff\xd8")
    content[place + 200] ^= 0xFF
    path.write_bytes(content)
    assert "is in a damaged record" in prepare_refused(capsys, source)


def test_an_empty_class_folder_would_shift_the_labels(tree, capsys):
    (tree / "train" / "n00000001").mkdir()
    assert "every class must have training pictures" in prepare_refused(capsys, tree)


def test_a_validation_class_that_is_not_trained(tree, capsys):
    (tree / "val" / "n00000001").mkdir()
    assert "must be among the training classes" in prepare_refused(capsys, tree)


def test_a_picture_that_is_there_twice(tmp_path, capsys):
    train = fake.train_pictures()
    source = fake.write_tars(tmp_path / "source", train=train)
    inner = [
        (f"{w}.tar", fake.tar_of([*p.items(), *list(p.items())[:1]])) for w, p in train.items()
    ]
    (source / "ILSVRC2012_img_train.tar").write_bytes(fake.tar_of(inner))
    assert "a picture must be there once" in prepare_refused(capsys, source)


def test_validation_pictures_both_in_folders_and_beside_them(tree, capsys):
    (tree / "val" / "ILSVRC2012_val_00000011.JPEG").write_bytes(fake.jpeg(9))
    assert "in class folders or beside each other, not both" in prepare_refused(capsys, tree)


def test_a_picture_that_changed_since_it_was_listed(tree, capsys, monkeypatch):
    path = tree / "train" / "n01440764" / "n01440764_3.JPEG"
    run = preparation.Preparation.run

    def cut_and_run(self, **keywords):
        path.write_bytes(path.read_bytes()[:-1])
        return run(self, **keywords)

    monkeypatch.setattr(preparation.Preparation, "run", cut_and_run)
    assert f"{path} has changed" in prepare_refused(capsys, tree)


def test_files_that_are_no_pictures_are_named_and_left_out(tree, capsys):
    (tree / "train" / "n01440764" / ".DS_Store").write_bytes(b"x")
    (tree / "train" / "n01440764" / "notes.txt").write_bytes(b"x")
    assert fake.prepare(tree, "--out", tree.parent / "out", *fake.SMALL) == 0
    assert "ignored     2 files that are no pictures: .DS_Store, notes.txt" in (
        capsys.readouterr().out
    )


def test_links_that_lead_nowhere_and_pipes_are_named_as_ignored(tree, capsys):
    (tree / "train" / "n01440764" / "a.JPEG").symlink_to("nowhere")
    os.mkfifo(tree / "train" / "n01440764" / "b.JPEG")
    assert fake.prepare(tree, "--out", tree.parent / "out", *fake.SMALL) == 0
    assert "ignored     2 files that are no pictures: a.JPEG, b.JPEG" in capsys.readouterr().out


def test_a_pictures_name_need_not_be_utf8_and_a_class_must_be(tree, capsys):
    folder = tree / "train" / "n01440764"
    name = os.fsdecode(b"n01440764_\xff\xfe.JPEG")
    (folder / name).write_bytes(fake.jpeg(9))
    out = tree.parent / "out"
    assert fake.prepare(tree, "--out", out, *fake.SMALL) == 0
    names = [record["image/filename"] for record in fake.read_records(find_shards(out)["train"])]
    assert len(names) == 31 and b"n01440764_\xff\xfe.JPEG" in names
    folder.rename(tree / "train" / os.fsdecode(b"n0144076\xe9"))
    line = refused(capsys, tree, "--out", tree.parent / "other", *fake.SMALL)
    assert "the name of a class must be UTF-8" in line and "udce9" in line


def test_a_file_of_gigabytes_is_no_picture_and_is_not_read(tree, capsys, monkeypatch):
    with (tree / "train" / "n01440764" / "n01440764_3.JPEG").open("wb") as file:
        file.truncate(4 << 30)  # sparse
    monkeypatch.setattr(checks, "free_bytes", lambda folder: 1 << 40)
    line = prepare_refused(capsys, tree)
    assert "has 4,294,967,296 bytes, more than the 256 MiB of any" in line


def test_a_development_kit_that_unpacks_to_gigabytes_is_refused_before_it_is(tmp_path, capsys):
    source = fake.write_tars(tmp_path / "source")
    kit = source / "ILSVRC2012_devkit_t12.tar.gz"
    member = tarfile.TarInfo("data/meta.mat")
    member.size = 3 << 30  # in the header alone: what follows is not looked at
    with gzip.open(kit, "wb") as file:
        file.write(member.tobuf())
        file.write(bytes(1 << 20))
    line = prepare_refused(capsys, source)
    assert "must be of at most 16 MiB unpacked" in line and "3,221,22" in line


def test_labels_in_a_pipe_are_refused_and_not_waited_for(tmp_path, capsys):
    source = fake.write_tars(tmp_path / "source")
    os.mkfifo(tmp_path / "labels")
    line = prepare_refused(capsys, source, "--val-labels", tmp_path / "labels")
    assert "--val-labels must be a file or a folder" in line


BROKEN = {
    "empty": (b"", "is empty (0 bytes)"),
    "gif": (b"GIF89a....", "is neither JPEG nor PNG"),
    "cut": (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x01", "is a JPEG cut short in its header"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_picture_is_named_or_left_out_and_listed(tree, capsys, kind):
    content, reason = BROKEN[kind]
    path = tree / "train" / "n01440764" / "n01440764_3.JPEG"
    path.write_bytes(content)
    line = prepare_refused(capsys, tree)
    assert f"n01440764_3.JPEG of class n01440764 {reason}" in line
    # The same folder goes on with the flag that the line names.
    out = tree.parent / "out"
    assert fake.prepare(tree, "--out", out, *fake.SMALL, "--skip-broken") == 0
    assert len(fake.read_records(find_shards(out)["train"])) == 29
    import json

    manifest = json.loads((out / "dataset.json").read_text())
    assert manifest["splits"]["train"]["skipped"] == ["n01440764/n01440764_3.JPEG"]
    assert manifest["splits"]["train"]["pictures"] == 29


def test_shards_are_kept_only_if_they_were_checked_as_asked(tree, tmp_path):
    path = tree / "train" / "n01440764" / "n01440764_3.JPEG"
    plain, decoded = Options(), Options(check_decode=True)
    skip = Options(skip_broken=True)
    task = shard.Shard(
        name="train-00000-of-00001",
        pictures=tuple(
            Picture(p.name, "n01440764", str(p), 0, p.stat().st_size)
            for p in sorted(path.parent.iterdir())
        ),
        classes=("n01440764",),
        out=tmp_path,
        options=plain,
    )
    (tmp_path / ".partial").mkdir()

    def is_kept(options):
        return shard.make_shard(task._replace(options=options))[1]

    assert [is_kept(o) for o in (plain, plain, skip)] == [False, True, True]
    assert [is_kept(o) for o in (decoded, decoded, plain)] == [False, True, True]
    path.write_bytes(b"\xff\xd8" + path.read_bytes()[2:].replace(b"\xff\xc0", b"\xff\xd9"))
    (tmp_path / ".partial" / "train-00000-of-00001.json").unlink()
    assert [is_kept(o) for o in (skip, skip)] == [False, True]
    with pytest.raises(InputError, match="n01440764_3.JPEG"):
        is_kept(plain)


def test_a_picture_cut_short_after_its_header_is_found_by_decoding_alone(tree, capsys):
    path = tree / "train" / "n01440764" / "n01440764_3.JPEG"
    path.write_bytes(path.read_bytes()[:-40])
    assert fake.prepare(tree, "--out", tree.parent / "plain", *fake.SMALL) == 0
    assert "n01440764_3.JPEG of class n01440764 does not decode" in prepare_refused(
        capsys, tree, "--check-decode"
    )


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--train-shards", "0"), "--train-shards: must be a whole number in 1..99999"),
        (("--train-shards", "31"), "at most the number of train pictures, 30"),
        (("--validation-shards", "11"), "at most the number of validation pictures, 10"),
        (("--max-short-side", "3"), "--max-short-side: must be a whole number of at least 16"),
        (("--quality", "101"), "--quality: must be a whole number in 1..100"),
        (("--verify-md5",), "--verify-md5 must be left out unless SOURCE is the two tars"),
        (("--layout", "kaggle"), "Kaggle's layout must have"),
        (("--layout", "tfds"), "must have label.labels.txt"),
        (("--layout", "tars"), "ILSVRC2012_img_train.tar is missing"),
    ],
)
def test_flags_out_of_range(tree, capsys, words, rule):
    assert rule in prepare_refused(capsys, tree, *words)


def test_an_output_folder_that_is_something_else(tree, capsys):
    file = tree.parent / "file"
    file.write_bytes(b"")
    assert "--out must be a folder" in refused(capsys, tree, "--out", file, *fake.SMALL)
    assert "--out must not be SOURCE" in refused(capsys, tree, "--out", tree, *fake.SMALL)
    other = tree.parent / "other"
    other.mkdir()
    (other / "train-00000-of-00001").write_bytes(b"x")
    line = refused(capsys, tree, "--out", other, *fake.SMALL)
    assert "files of another data set" in line and "train-00000-of-00001" in line


def test_too_small_a_disk_is_refused_before_anything_is_written(tree, capsys, monkeypatch):
    monkeypatch.setattr(checks, "free_bytes", lambda folder: 1000)
    assert "GB free" in prepare_refused(capsys, tree)
    assert not (tree.parent / "out").exists()


def test_the_needed_space_is_what_the_shards_take_within_a_fifth(tree):
    # Toy pictures of some 700 bytes: framing and keys are a larger part than on real ones.
    source = layouts.open_collection(tree, "imagefolder", None, lambda text: None)
    out = tree.parent / "out"
    assert fake.prepare(tree, "--out", out, *fake.SMALL) == 0
    taken = sum(len(content) for content in fake.shard_contents(out).values())
    assert taken <= checks.needed_bytes(source) <= 1.2 * taken


def test_the_plan_writes_nothing_and_says_what_would_be_done(tree, capsys):
    out = tree.parent / "out"
    assert fake.prepare(tree, "--out", out, *fake.SMALL, "--plan") == 0
    shown = capsys.readouterr().out
    assert "layout      imagefolder" in shown
    assert "30 training, 10 validation, 5 classes" in shown and "4 training, 2 valid" in shown
    assert not out.exists()


def test_help_and_plan_do_not_load_tensorflow(tree):
    code = (
        "import sys; from tf_largebatch.data.prepare.__main__ import main\n"
        f"try: main([{str(tree)!r}, '--out', {str(tree.parent / 'out')!r}, '--plan', "
        "'--expect', 'any', '--train-shards', '4', '--validation-shards', '2'])\n"
        "except SystemExit as end: print(end.code, 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"


def pillow(mode, form, **options):
    file = io.BytesIO()
    Image.new(mode, (37, 21)).save(file, form, **options)
    return file.getvalue()


def tables_first(encoded):
    """The same JPEG with a Huffman table before its frame, whose marker is like a frame's."""
    return encoded[:2] + b"\xff\xc4" + struct.pack(">H", 21) + b"\x0f" + b"\0" * 18 + encoded[2:]


@pytest.mark.parametrize(
    ("encoded", "header", "odd"),
    [
        (pillow("RGB", "JPEG"), Header("JPEG", 37, 21, 3), ()),
        (pillow("RGB", "JPEG", progressive=True), Header("JPEG", 37, 21, 3), ()),
        (pillow("L", "JPEG"), Header("JPEG", 37, 21, 1), ("grey",)),
        (pillow("CMYK", "JPEG"), Header("JPEG", 37, 21, 4), ("cmyk",)),
        (pillow("RGB", "JPEG", icc_profile=b"\xff\xc0" * 40_000), Header("JPEG", 37, 21, 3), ()),
        (pillow("RGB", "JPEG", comment=b"\xff\xd8\xff\xc0"), Header("JPEG", 37, 21, 3), ()),
        (tables_first(pillow("RGB", "JPEG")), Header("JPEG", 37, 21, 3), ()),
        (pillow("RGB", "PNG"), Header("PNG", 37, 21, 3), ("png",)),
        (pillow("LA", "PNG"), Header("PNG", 37, 21, 2), ("grey", "png")),
        (pillow("P", "PNG"), Header("PNG", 37, 21, 3), ("png",)),
    ],
    ids=(
        "colour",
        "progressive",
        "grey",
        "cmyk",
        "icc",
        "comment",
        "tables",
        "png",
        "alpha",
        "palette",
    ),
)
def test_a_header_says_what_pillow_wrote(encoded, header, odd):
    assert read_header(encoded) == header
    assert header.oddities() == odd


@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 9])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_is_read_in_both_byte_orders_and_only_if_valid(orientation, order):
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = orientation
    exif[0x010F] = "a maker, before it"
    encoded = pillow("RGB", "JPEG", exif=exif.tobytes())
    want = orientation if orientation <= 8 else 1
    assert read_header(encoded).orientation == want
    assert read_header(encoded).oddities() == (() if want == 1 else ("rotated",))


def test_no_prefix_of_a_header_crashes_the_reader():
    for encoded in (fake.rotated(fake.jpeg(9)), pillow("RGB", "PNG")):
        complete = next(n for n in range(2000) if headed(encoded[:n]))
        for end in range(complete):
            with pytest.raises(PictureError):
                read_header(encoded[:end])


def headed(encoded):
    try:
        return read_header(encoded)
    except PictureError:
        return None


@pytest.mark.parametrize("height", [0, 5])
def test_a_frame_of_no_pixels_or_two_channels_is_broken(height):
    frame = struct.pack(">HBHHB", 8, 8, height, 0 if height else 9, 3)
    with pytest.raises(PictureError, match="pixels with"):
        read_header(b"\xff\xd8\xff\xc0" + frame + b"\0" * 9)


@pytest.mark.skipif(not REAL.is_dir(), reason="the 400 ImageNet pictures are not here")
def test_headers_of_real_pictures_say_what_their_list_says():
    import tarfile

    with open(REAL / "images.csv", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    seen = 0
    with tarfile.open(REAL / "images.tar") as archive:
        for member in archive:
            row = rows.get(member.name.split("/", 1)[-1]) or rows.get(member.name)
            if member.isfile() and row:
                header = read_header(archive.extractfile(member).read())
                want = (int(row["width"]), int(row["height"]), {"L": 1, "RGB": 3}[row["mode"]])
                assert (header.width, header.height, header.channels) == want, member.name
                # One says 0, which is none of the eight.
                assert header.orientation == (int(row["exif_orientation"] or 1) or 1), member.name
                seen += 1
    assert seen == 400


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_progress_tells_rate_and_time_left_without_what_was_kept():
    seconds = iter([0.0, 10.0, 10.0, 20.0, 20.0])
    progress = Progress(Terminal(), clock=lambda: next(seconds))
    progress.begin(pictures=1000, shards=10)
    # 100 kept, then 100 made in 20 s: 5 a second, so 800 more take 160 s.
    progress.advance(pictures=100, size=7, kept=True)
    progress.advance(pictures=100, size=40_000_000, kept=False)
    text = progress._stream.getvalue().split("\r\x1b[K")[-1]
    want = "200 of 1,000 pictures · 2 of 10 shards (1 from before) · 5/s, 2 MB/s · 2 min 40 s left"
    assert want.startswith(text) and "5/s" in text


def test_a_log_gets_a_line_now_and_then_and_the_last_one():
    time = [0.0]
    stream = io.StringIO()
    progress = Progress(stream, clock=lambda: time[0])
    progress.begin(pictures=100, shards=100)
    for _ in range(100):
        time[0] += 1
        progress.advance(pictures=1, size=1, kept=False)
    lines = stream.getvalue().splitlines()
    assert [line.split(" ")[0] for line in lines] == ["30", "60", "90", "100"]
    assert "\r" not in stream.getvalue()


def test_times_are_told_in_their_two_largest_units():
    assert [format_seconds(s) for s in (8.4, 200, 7500)] == ["8 s", "3 min 20 s", "2 h 5 min"]


def test_tensorflow_agrees_on_the_sizes_of_the_odd_pictures():
    for pictures in fake.train_pictures().values():
        for name, encoded in pictures.items():
            header = read_header(encoded)
            shape = tf.io.decode_image(encoded, channels=3).shape
            assert (header.height, header.width) == tuple(shape[:2]), name
