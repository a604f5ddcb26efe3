"""One preparation from its first shard to the finished folder, through any number of restarts.

Everything is written below DIR/.partial, where no reader looks, and moved to DIR when all of it is
there: first the shards, last dataset.json. Until then a reader finds no shards in DIR, or, during
the moves, some of them, which `find_shards` refuses by number. Renaming a whole folder to DIR would
be one step, but DIR may be a mounted disk, which cannot be renamed into its place.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from tf_largebatch.data.collection import SPLITS, Collection, Picture, name_bytes
from tf_largebatch.data.prepare.labels import label_map
from tf_largebatch.data.prepare.pool import spread
from tf_largebatch.data.prepare.shard import PARTIAL, Options, Shard, make_shard, read_if_whole
from tf_largebatch.records import __version__
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import DRAFT, write_text
from tf_largebatch.records.locks import lock
from tf_largebatch.records.progress import ProgressLine, format_seconds

MANIFEST, LABEL_MAP = "dataset.json", "labels.txt"
_IDENTITY = "identity.json"
_FORM = 1  # of the records and of the manifest; another number means other bytes


class Progress(ProgressLine):
    """Tells pictures, bytes, rate and time left; before they are counted, what is going on."""

    def begin(self, *, pictures: int, shards: int) -> None:
        """Starts the clock of `advance`."""
        self._start = self._clock()
        # The first shard's time has the start of the workers in it: a log waits for more.
        self._shown = None if self.live else self._start
        self._pictures, self._shards = pictures, shards
        self._done = self._written = self._files = self._bytes = self._kept = 0

    def advance(self, *, pictures: int, size: int, kept: bool) -> None:
        """Counts a shard of so many pictures and bytes, one `kept` not towards the rate."""
        self._done += pictures
        self._files += 1
        self._kept += kept
        if not kept:
            self._written += pictures
            self._bytes += size
        seconds = self._clock() - self._start
        before = f" ({self._kept:,} from before)" if self._kept else ""
        text = f"{self._done:,} of {self._pictures:,} pictures · "
        text += f"{self._files:,} of {self._shards:,} shards{before}"
        if self._written and seconds > 0:
            rate = self._written / seconds
            text += f" · {rate:,.0f}/s, {self._bytes / seconds / 1e6:,.0f} MB/s"
            text += f" · {format_seconds((self._pictures - self._done) / rate)} left"
        self.show(text, at_once=self._files == self._shards)


def deal(split: str, pictures: Sequence[Picture], shards: int) -> list[tuple[Picture, ...]]:
    """Returns the pictures of each shard, in order; the shards' sizes differ by at most one.

    The order is that of a hash of split, class and file name: a fixed shuffle that mixes the
    classes in every shard and depends on neither the layout, the machine, nor a generator's code.
    """
    count = len(pictures)
    if shards > count:
        raise InputError(
            f"`{split}_shards` must be at most the number of {split} pictures, {count:,}. "
            f"Received: {split}_shards={shards}"
        )

    def place(picture: Picture) -> tuple[bytes, str]:
        key = f"{split}/{picture.wnid}/{picture.name}"
        return hashlib.blake2b(name_bytes(key), digest_size=8).digest(), key

    keyed = sorted((*place(picture), picture) for picture in pictures)
    for (_, key, one), (_, other, two) in pairwise(keyed):
        if key == other:
            raise InputError(
                f"a picture must be there once. Received: {key}, at byte {one.offset:,} of "
                f"{one.path} and at byte {two.offset:,} of {two.path}"
            )
    bounds = [number * count // shards for number in range(shards + 1)]
    return [tuple(row[2] for row in keyed[low:high]) for low, high in pairwise(bounds)]


class Preparation:
    """The shards of one collection with one set of options, in one folder, which may exist."""

    def __init__(self, collection: Collection, options: Options, out: Path):
        self.collection, self.options, self.out = collection, options, out
        self._partial = out / PARTIAL
        counts = (options.train_shards, options.validation_shards)
        self._shards = [
            Shard(f"{split}-{n:05d}-of-{count:05d}", pictures, collection.classes, out, options)
            for split, count in zip(SPLITS, counts, strict=True)
            for n, pictures in enumerate(deal(split, collection.splits[split], count))
        ]
        self._identity = self._identify()
        self._check_out()

    def finished(self) -> dict | None:
        """Returns the manifest where `out` is complete already, with every shard, else None."""
        manifest = read_if_whole(self.out / MANIFEST)
        wanted = (self._identity, asdict(self.options))
        if not manifest or (manifest.get("identity"), manifest.get("options")) != wanted:
            return None
        for row in _rows(manifest):
            path = self.out / row["name"]
            if not path.is_file() or path.stat().st_size != row["bytes"]:
                raise InputError(
                    f"{path} must be a file of {row['bytes']:,} bytes, as {MANIFEST} says. Remove "
                    f"the shards and {MANIFEST}, and prepare them again"
                )
        return manifest

    def tidy(self) -> None:
        """Removes the traces of the work, where a run was killed while it did that."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def finished_bytes(self) -> int:
        """Returns the bytes of the shards that an earlier run left, unchecked."""
        paths = (self._partial / shard.name for shard in self._shards)
        return sum(path.stat().st_size for path in paths if path.exists())

    def run(self, *, processes: int, progress: Progress) -> dict:
        """Writes what is missing and completes the folder; returns the manifest."""
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--out must be a folder that can be written to. Received: {self.out} "
                f"({error.strerror})"
            ) from error
        with self._locked():
            _write_json(self._partial / _IDENTITY, self._identity)
            pictures = sum(len(shard.pictures) for shard in self._shards)
            progress.begin(pictures=pictures, shards=len(self._shards))
            entries = {}
            for entry, kept in spread(make_shard, self._shards, processes=processes):
                entries[entry["name"]] = entry
                count = entry["records"] + len(entry["skipped"])
                progress.advance(pictures=count, size=entry["bytes"], kept=kept)
            manifest = self._manifest(entries)
            self._complete(manifest)
        return manifest

    def _identify(self) -> str:
        """Returns a digest of all that decides about the bytes; of neither place nor layout."""
        options = asdict(self.options)
        # A run that met a broken picture may be continued with --skip-broken.
        del options["check_decode"], options["skip_broken"]
        version = importlib.metadata.version("tensorflow")
        facts = {"form": _FORM, "options": options, "tensorflow": version}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        ranks = {wnid: rank for rank, wnid in enumerate(self.collection.classes)}
        for shard in self._shards:
            for name, wnid, _, _, length, _ in shard.pictures:
                line = f"{shard.name}/{wnid}/{name}/{ranks[wnid]}/{length}\n"
                digest.update(name_bytes(line))
        return digest.hexdigest()

    def _check_out(self) -> None:
        out = self.out
        if out.exists() and not out.is_dir():
            raise InputError(f"--out must be a folder. Received: {out}, a file")
        if (out / MANIFEST).exists() and self.finished() is None:
            raise InputError(
                f"--out must not hold another data set. Received: {out}, prepared from other "
                f"pictures or with other options. Pass another folder"
            )
        begun = read_if_whole(self._partial / _IDENTITY)
        if begun is not None and begun != self._identity:
            raise InputError(
                f"--out must not hold another preparation. Received: {out}, begun from other "
                f"pictures or with other options. Repeat those, or remove {self._partial}"
            )
        if begun is not None or (out / MANIFEST).exists():
            return
        if foreign := [shard.name for split in SPLITS for shard in out.glob(f"{split}*")]:
            raise InputError(
                f"--out must not hold files of another data set. Received: {out}, with "
                f"{min(foreign)}. Pass another folder"
            )

    @contextmanager
    def _locked(self):
        """Keeps a second run and drafts out of the folder; the lock ends with the process."""
        with open(self._partial / "lock", "w") as file:
            try:
                lock(file)
            except BlockingIOError as error:
                raise InputError(
                    f"another preparation is at work. Received: {self.out}. Wait for it or pass "
                    f"another folder"
                ) from error
            try:
                self._remove_drafts()
                yield
            finally:
                self._remove_drafts()

    def _remove_drafts(self) -> None:
        for draft in self._partial.glob(f"*{DRAFT}"):
            draft.unlink(missing_ok=True)

    def _manifest(self, entries: dict[str, dict]) -> dict:
        """Returns dataset.json: no time and no path, so that equal data have equal manifests."""
        splits = {}
        for split in SPLITS:
            rows = [entries[s.name] for s in self._shards if s.name.startswith(split)]
            odd = sum((Counter(row["odd"]) for row in rows), Counter())
            keys = ("name", "records", "bytes", "sha256")
            splits[split] = {
                "pictures": sum(row["records"] for row in rows),
                "bytes": sum(row["bytes"] for row in rows),
                "odd": dict(sorted(odd.items())),
                "skipped": [name for row in rows for name in row["skipped"]],
                "shards": [{key: row[key] for key in keys} for row in rows],
            }
        tensorflow = importlib.metadata.version("tensorflow")
        return {
            "form": _FORM,
            "identity": self._identity,
            "layout": self.collection.layout,
            "classes": len(self.collection.classes),
            "first_label": 1,
            "options": asdict(self.options),
            "versions": {"tf-largebatch": __version__, "tensorflow": tensorflow},
            "splits": splits,
        }

    def _complete(self, manifest: dict) -> None:
        """Moves everything to its place, the manifest last, and removes the traces of the work."""
        for row in _rows(manifest):
            made = self._partial / row["name"]
            if made.exists():
                os.replace(made, self.out / row["name"])
        text = label_map(self.collection.classes, self.collection.names)
        write_text(self._partial / LABEL_MAP, text, sync=True)
        os.replace(self._partial / LABEL_MAP, self.out / LABEL_MAP)
        _write_json(self._partial / MANIFEST, manifest)
        _sync_folder(self.out)
        os.replace(self._partial / MANIFEST, self.out / MANIFEST)
        _sync_folder(self.out)
        self.tidy()


def _rows(manifest: dict):
    """Yields the row of every shard."""
    for split in SPLITS:
        yield from manifest["splits"][split]["shards"]


def _write_json(path: Path, content) -> None:
    # ASCII: names of pictures need not be valid UTF-8.
    write_text(path, json.dumps(content, indent=1) + "\n", sync=True)


def _sync_folder(folder: Path) -> None:
    """Brings renames to the disk, so that the manifest cannot outlive the shards."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
