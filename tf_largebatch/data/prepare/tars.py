"""The two ILSVRC 2012 tar files, read in place: nothing is unpacked. Standard library only.

The training tar holds one tar per class, named by its WordNet id. A picture's bytes lie whole in
the outer file, at the offset that the headers of both levels add up to.
"""

import tarfile
from collections.abc import Callable
from pathlib import Path

from tf_largebatch.data.collection import (
    WNID,
    Collection,
    Picture,
    check_class_of,
    is_picture,
    rank_classes,
)
from tf_largebatch.data.prepare.labels import label_validation
from tf_largebatch.records.errors import InputError

_BLOCK = 512  # bytes; a tar ends with two of zeros (POSIX.1-1988, ustar)
TRAIN_TAR, VALIDATION_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


def open_tars(folder: Path, labels: Path | None, note: Callable[[str], None]) -> Collection:
    """Returns the pictures of the two tars, by their headers alone; else as `open_collection`."""
    for name in (TRAIN_TAR, VALIDATION_TAR):
        if not (folder / name).is_file():
            raise InputError(
                f"the tar {name} is missing. Received: {folder}. Both {TRAIN_TAR} and "
                f"{VALIDATION_TAR} are needed; image-net.org hands them out to its members"
            )
    ignored: list[str] = []
    found = _index_train(folder / TRAIN_TAR, ignored, note)
    classes = rank_classes(found, folder / TRAIN_TAR)
    note(f"reading the headers of {VALIDATION_TAR}")
    path = folder / VALIDATION_TAR
    with open(path, "rb") as file:
        files = [Picture(m[0], "", str(path), *m[1:]) for m in _walk(path, file, 0)]
    ignored += [file.name for file in files if not is_picture(file.name)]
    flat = [file for file in files if is_picture(file.name)]
    validation, names = label_validation(folder, labels, flat, classes)
    train = [picture for pictures in found.values() for picture in pictures]
    splits = {"train": train, "validation": validation}
    return Collection("tars", classes, splits, names, tuple(ignored))


def _index_train(path: Path, ignored: list[str], note) -> dict[str, list[Picture]]:
    """Returns the pictures of each class; notes the other files as ignored."""
    found: dict[str, list[Picture]] = {}
    with open(path, "rb") as file:
        for tar, start, size in _walk(path, file, 0):
            wnid = tar.removesuffix(".tar")
            if not WNID.fullmatch(wnid) or wnid == tar:
                raise InputError(
                    f"the training tar must hold one tar per class, such as n01440764.tar. "
                    f"Received: {path}, with {tar}. Pass the tar as image-net.org has it"
                )
            if wnid in found:
                raise InputError(
                    f"the training tar must hold one tar per class. Received: {path}, with {tar} "
                    f"twice. Pass the tar as image-net.org has it"
                )
            if len(found) % 50 == 0:
                note(f"reading the headers of {path.name}: {len(found):,} classes")
            found[wnid] = []
            for name, offset, length in _walk(path, file, start, size):
                if is_picture(name):
                    picture = Picture(name, wnid, str(path), offset, length)
                    found[wnid].append(check_class_of(picture, f"{path}, {tar}"))
                else:
                    ignored.append(f"{tar}/{name}")
    return found


def _walk(path: Path, file, start: int, size: int | None = None):
    """Yields (name without folders, offset in `file`, length) of the tar at `start`."""
    end = path.stat().st_size if size is None else start + size
    place = file.seek(start)
    try:
        # An archive opened at a place within a file counts its offsets from the file's start.
        with tarfile.TarFile(fileobj=file, mode="r") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or 1.3 million stay in memory
                if member.offset >= end:
                    break  # the reader has gone on in the outer archive
                place = member.offset
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError("its last file is cut short")
                if member.isfile():
                    yield member.name.rsplit("/", 1)[-1], member.offset_data, member.size
                elif not member.isdir():
                    raise tarfile.ReadError(f"it holds a link, {member.name}")
            # A cut between two files would pass for a smaller archive.
            place = archive.offset
            file.seek(place)
            if place + _BLOCK > end or file.read(_BLOCK) != bytes(_BLOCK):
                raise tarfile.ReadError("it is cut short: there is no block of zeros at its end")
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"the tar {path} cannot be read near byte {place:,}: {error}. Copy it again; "
            f"--verify-md5 compares it with the published checksum"
        ) from error
