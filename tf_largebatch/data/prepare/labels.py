"""Classes of the validation pictures, which their file names do not say, and the label map.

Four forms are read, told apart by their content:

    the development kit, ILSVRC2012_devkit_t12.tar.gz, or the folder it unpacks to
    Kaggle's LOC_val_solution.csv            ILSVRC2012_val_00000001,n01751748 1 2 3 4
    a picture and its class on each line     ILSVRC2012_val_00000001.JPEG n01751748
    a class on each line                     n01751748, for the pictures in the order of their names
"""

import csv
import io
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tf_largebatch.data.collection import Picture
from tf_largebatch.records.errors import InputError

DEVKIT, DEVKIT_FOLDER = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12"
KAGGLE_LABELS, KAGGLE_NAMES = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_LARGEST_KIT = 16 << 20  # bytes; the kit of 2012 unpacks to a few million
_NEED = (
    f"Put {DEVKIT} (image-net.org, ILSVRC 2012, development kit of task 1) or {KAGGLE_LABELS} "
    f"(Kaggle's ImageNet competition) beside the pictures, or pass one of them, or a text file "
    f"with one WordNet id per picture in the order of their names, as --val-labels"
)


def label_validation(
    folder: Path, given: Path | None, flat: Sequence[Picture], classes: Sequence[str]
) -> tuple[list[Picture], dict[str, str]]:
    """Returns the validation pictures with their class, and the words of a class where known.

    `folder` is looked through for the kit and Kaggle's file unless one is `given`. `classes` are
    those of the training pictures, among which all must be.
    """
    pictures = sorted(picture.name for picture in flat)
    places = [folder / name for name in (DEVKIT, DEVKIT_FOLDER, KAGGLE_LABELS)]
    path = given or next((place for place in places if place.exists()), None)
    if path is None:
        raise InputError(f"the validation pictures in {folder} have no labels. {_NEED}")
    if not path.exists():
        raise InputError(f"--val-labels must be an existing file. Received: {path}. {_NEED}")
    if not (path.is_dir() or path.is_file()):
        raise InputError(f"--val-labels must be a file or a folder. Received: {path}. {_NEED}")
    words: dict[str, str] = {}
    try:
        if path.is_dir() or tarfile.is_tarfile(path):
            wnids, words = _read_devkit(path, pictures)
        else:
            wnids = _read_text(path, pictures)
    except (OSError, UnicodeDecodeError, tarfile.TarError) as error:
        raise InputError(f"the labels {path} cannot be read: {error}. {_NEED}") from error
    if missing := [name for name in pictures if name not in wnids]:
        raise InputError(
            f"{len(missing):,} of {len(pictures):,} validation pictures have no label. Received: "
            f"{path}, without {missing[0]}. Pass the label file of these pictures"
        )
    if strange := {wnids[name] for name in pictures} - set(classes):
        raise InputError(
            f"the labels name {len(strange):,} classes without training pictures, such as "
            f"{re.sub(r'[^ -~]', '?', min(strange))[:40]}. Received: {path}. Training and "
            f"validation must have the same classes"
        )
    return [picture._replace(wnid=wnids[picture.name]) for picture in flat], words


def label_map(classes: Sequence[str], names: dict[str, str]) -> str:
    """Returns labels.txt: a line per class with its label, WordNet id and words, tab-separated."""
    head = "# label in the records, from 1\tWordNet id or folder\twords, where known\n"
    rows = (f"{rank + 1}\t{wnid}\t{names.get(wnid, '')}\n" for rank, wnid in enumerate(classes))
    return head + "".join(rows)


def read_kaggle_names(folder: Path) -> dict[str, str]:
    """Returns class to words from Kaggle's file in `folder`; empty where there is none."""
    if not (folder / KAGGLE_NAMES).is_file():
        return {}
    lines = (folder / KAGGLE_NAMES).read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)


def _read_text(path: Path, pictures: Sequence[str]) -> dict[str, str]:
    _is_small(path, path.stat().st_size)
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if lines and lines[0].startswith("ImageId,"):
        return _read_kaggle(lines, path, pictures)
    if lines and all(line.isdecimal() for line in lines):
        raise InputError(
            f"the labels must be WordNet ids, not numbers. Received: {path}. The development kit's "
            f"numbers are not in the order of the ids: pass the whole kit, {DEVKIT}"
        )
    pairs = [line.split() for line in lines]
    if pairs and all(len(pair) == 2 for pair in pairs):
        return dict(pairs)
    if not all(len(pair) == 1 for pair in pairs):
        raise InputError(
            f"the labels must have one or two words on every line. Received: {path}. {_NEED}"
        )
    return _in_order(pictures, lines, path)


def _in_order(pictures: Sequence[str], wnids: Sequence[str], path: Path | str) -> dict[str, str]:
    if len(wnids) != len(pictures):
        raise InputError(
            f"the labels must be as many as the validation pictures, {len(pictures):,}. Received: "
            f"{path}, with {len(wnids):,}. Pass the label file of these pictures"
        )
    return dict(zip(pictures, wnids, strict=True))


def _read_kaggle(lines: list[str], path: Path, pictures: Sequence[str]) -> dict[str, str]:
    """A row is the name without suffix, then class and box, repeated."""
    by_stem, known = {PurePosixPath(name).stem: name for name in pictures}, {}
    for row in csv.DictReader(lines):
        words = (row.get("PredictionString") or "").split()
        if not words:
            raise InputError(f"the labels {path} have no class for {row['ImageId']}. {_NEED}")
        if row["ImageId"] in by_stem:
            known[by_stem[row["ImageId"]]] = words[0]
    return known


def _read_devkit(path: Path, pictures: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns what meta.mat and the ground truth say together.

    The ground truth has the kit's own numbers 1 to 1000, which meta.mat leads to WordNet ids: they
    are not in the order of these ids, so never labels as they are.
    """
    files = _devkit_files(path)
    if missing := [name for name in (_TRUTH, _META) if name not in files]:
        raise InputError(f"the development kit {path} has no {' and no '.join(missing)}. {_NEED}")
    try:
        # SciPy comes with scikit-learn; imported here because nobody else needs it.
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError

        synsets = loadmat(io.BytesIO(files[_META]), squeeze_me=True)["synsets"]
    except (ValueError, KeyError, TypeError, MatReadError) as error:
        raise InputError(f"{_META} of {path} cannot be read: {error}. Copy it again") from error
    leaves = [row for row in synsets if int(row["num_children"]) == 0]
    by_number = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    numbers = [int(word) for word in files[_TRUTH].split()]
    if strange := [number for number in numbers if number not in by_number]:
        raise InputError(f"{_TRUTH} of {path} has the number {strange[0]}, which {_META} has not")
    names = {str(row["WNID"]): str(row["words"]) for row in leaves}
    return _in_order(pictures, [by_number[number] for number in numbers], path), names


def _devkit_files(path: Path) -> dict[str, bytes]:
    """Returns the two files of the kit, from the archive or from the folder."""
    if path.is_dir():
        inside = [(name, p) for name in (_TRUTH, _META) for p in path.rglob(name)]
        return {name: p.read_bytes() for name, p in inside if _is_small(path, p.stat().st_size)}
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            # Before it is unpacked: a few bytes can stand for gigabytes.
            _is_small(path, member.offset_data + member.size)
            name = PurePosixPath(member.name).name
            if name in (_TRUTH, _META) and (file := archive.extractfile(member)) is not None:
                found[name] = file.read()
    return found


def _is_small(path: Path, size: int) -> bool:
    if size > _LARGEST_KIT:
        raise InputError(
            f"the labels must be of at most {_LARGEST_KIT >> 20} MiB unpacked. Received: {path}, "
            f"with {size:,} bytes. {_NEED}"
        )
    return True
