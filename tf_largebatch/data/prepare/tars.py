"""The two ILSVRC 2012 tar files, read in place: nothing is unpacked. Standard library only.

The training tar holds one tar per class, named by its WordNet id. A picture's bytes lie whole in
the outer file, at the offset that the headers of both levels add up to.
"""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from tf_largebatch.data.prepare.collection import (
    WNID,
    Collection,
    Picture,
    check_class_of,
    is_picture,
    rank_classes,
)
from tf_largebatch.data.prepare.labels import find_validation_labels
from tf_largebatch.records.errors import InputError

TRAIN_TAR, VALIDATION_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


def open_tars(folder: Path, labels: Path | None, note: Callable[[str], None]) -> Collection:
    """Returns the pictures of the two tars in `folder`, by their headers alone.

    Args:
        folder: holds both, under the names they are handed out with.
        labels: of the validation pictures; None to look beside the tars.
        note: told what is going on, in a few words.

    Raises:
        InputError: a tar is missing, damaged or of other content, or there are no labels.
    """
    for name in (TRAIN_TAR, VALIDATION_TAR):
        if not (folder / name).is_file():
            raise InputError(
                f"the tar {name} is missing. Received: {folder}. Both {TRAIN_TAR} and "
                f"{VALIDATION_TAR} are needed; image-net.org hands them out to its members"
            )
    found, ignored = _index_train(folder / TRAIN_TAR, note)
    classes = rank_classes(found, folder / TRAIN_TAR)
    note(f"reading the headers of {VALIDATION_TAR}")
    members, other = _members(folder / VALIDATION_TAR)
    known = find_validation_labels(folder, labels, sorted(m[0] for m in members), classes)
    ranks = {wnid: rank for rank, wnid in enumerate(classes)}
    path = os.fspath(folder / VALIDATION_TAR)
    validation = [
        Picture(name, ranks[known.wnids[name]], path, offset, length)
        for name, offset, length in members
    ]
    path = os.fspath(folder / TRAIN_TAR)
    train = [
        Picture(name, ranks[wnid], path, offset, length)
        for wnid, pictures in found.items()
        for name, offset, length in pictures
    ]
    return Collection(
        layout="tars",
        classes=classes,
        splits={"train": train, "validation": validation},
        names=known.names,
        ignored=(*ignored, *other),
    )


def _index_train(path: Path, note) -> tuple[dict[str, list], list[str]]:
    """Returns class to its pictures (name, offset, length), and what is no picture."""
    found: dict[str, list] = {}
    ignored = []
    with open(path, "rb") as file:
        for name, offset, length in _walk(path, file, 0, path.stat().st_size):
            wnid = name.removesuffix(".tar")
            if not WNID.fullmatch(wnid) or wnid == name:
                raise InputError(
                    f"the training tar must hold one tar per class, such as n01440764.tar. "
                    f"Received: {path}, with {name}. Pass the tar as image-net.org has it"
                )
            if len(found) % 50 == 0:
                note(f"reading the headers of {path.name}: {len(found):,} classes")
            found[wnid] = pictures = []
            for member in _walk(path, file, offset, offset + length):
                if is_picture(member[0]):
                    check_class_of(member[0], wnid, f"{path}, {name}")
                    pictures.append(member)
                else:
                    ignored.append(f"{name}/{member[0]}")
    return found, ignored


def _members(path: Path) -> tuple[list[tuple[str, int, int]], list[str]]:
    with open(path, "rb") as file:
        members = list(_walk(path, file, 0, path.stat().st_size))
    return (
        [member for member in members if is_picture(member[0])],
        [member[0] for member in members if not is_picture(member[0])],
    )


def _walk(path: Path, file, start: int, end: int):
    """Yields (name without folders, offset in `file`, length) of the tar at `start`."""
    file.seek(start)
    place = start
    try:
        # An archive opened at a place within a file counts its offsets from the file's start.
        with tarfile.TarFile(fileobj=file, mode="r") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or 1.3 million stay in memory
                if member.offset >= end:
                    break  # without a mark at its end the reader would go on in the outer archive
                place = member.offset
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError("its last file is cut short")
                if member.isfile():
                    yield member.name.rsplit("/", 1)[-1], member.offset_data, member.size
                elif not member.isdir():
                    raise tarfile.ReadError(f"it holds a link, {member.name}")
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"the tar {path} cannot be read near byte {place:,}: {error}. Copy it again; "
            f"--verify-md5 compares it with the published checksum"
        ) from error
