"""What must hold before anything is written: counts, checksums of the tars, room on the disk."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tf_largebatch.data.collection import SPLITS, WNID, Collection
from tf_largebatch.data.prepare.tars import TRAIN_TAR, VALIDATION_TAR
from tf_largebatch.records.datasets import DATASETS
from tf_largebatch.records.errors import InputError

# As image-net.org states them beside the downloads; torchvision's `ImageNet` has the same.
PUBLISHED_MD5 = {
    TRAIN_TAR: "1d675b47d978889d74fa0da5fadfb00e",
    VALIDATION_TAR: "29b22e2961454d5413ddabcf34fc5622",
}
_RECORD_BYTES = 240  # keys, label, synset, name and framing around a picture: 220 to 232
_BLOCK = 1 << 24


def check_counts(collection: Collection) -> None:
    """Holds the numbers of pictures and the classes against those of ILSVRC 2012."""
    facts = DATASETS["imagenet2012"]
    wanted = (facts.train_examples, facts.eval_examples, facts.classes)
    found = (*(len(collection.splits[split]) for split in SPLITS), len(collection.classes))
    foreign = [name for name in collection.classes if not WNID.fullmatch(name)]
    if found == wanted and not foreign:
        return
    form = "{:,} training and {:,} validation pictures of {:,} classes"
    strange = f", of which {foreign[0]!r} is no WordNet id" if foreign else ""
    raise InputError(
        f"ImageNet must have {form.format(*wanted)}. Received: {form.format(*found)}{strange}. "
        f"Complete it, or say --expect any for another data set"
    )


def check_md5(folder: Path, note: Callable[[str], None]) -> None:
    """Holds both tars against their published MD5; reads all of their bytes."""
    for name, wanted in PUBLISHED_MD5.items():
        digest, done = hashlib.md5(usedforsecurity=False), 0
        size = (folder / name).stat().st_size
        with open(folder / name, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                done += len(block)
                note(f"MD5 of {name}: {done / 1e9:,.1f} of {size / 1e9:,.1f} GB")
        if digest.hexdigest() != wanted:
            raise InputError(
                f"the tar {folder / name} must have the published MD5 {wanted}. Received: "
                f"{digest.hexdigest()}. Download it again"
            )


def needed_bytes(collection: Collection) -> int:
    """Returns about how many bytes the shards take where no picture is made smaller."""
    return sum(p.length + _RECORD_BYTES for split in collection.splits.values() for p in split)


def check_space(folder: Path, needed: int) -> None:
    """Holds the bytes still to be written against the free space of `folder`'s disk."""
    free = free_bytes(folder)
    if needed > free:
        raise InputError(
            f"the disk of {folder} must have about {needed / 1e9:,.1f} GB free. Received: "
            f"{free / 1e9:,.1f} GB. Make room, pass another --out, or bound the pictures with "
            f"--max-short-side"
        )


def free_bytes(folder: Path) -> int:
    """Returns the free bytes of the disk that `folder`, or what exists of it, is on."""
    place = Path(os.path.abspath(folder))
    return shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
