"""One preparation from its first shard to the finished folder, through any number of restarts.

Everything is written below DIR/.partial, where no reader looks, and moved to DIR when all of it is
there: first the shards, last dataset.json. Until then a reader finds no shards in DIR, or, during
the moves, some of them, which `find_shards` refuses by number. Renaming a whole folder to DIR would
be one step, but DIR may be a mounted disk, which cannot be renamed into its place.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tf_largebatch.data.prepare.collection import SPLITS, Collection
from tf_largebatch.data.prepare.dealing import deal
from tf_largebatch.data.prepare.labels import label_map
from tf_largebatch.data.prepare.options import Options
from tf_largebatch.data.prepare.pool import spread
from tf_largebatch.data.prepare.progress import Progress
from tf_largebatch.data.prepare.shard import Shard, make_shard
from tf_largebatch.records import __version__
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import DRAFT, read_json, write_text

MANIFEST, LABEL_MAP, PARTIAL = "dataset.json", "labels.txt", ".partial"
_IDENTITY = "identity.json"
_FORM = 1  # of the records and of the manifest; another number means other bytes


class Preparation:
    """The shards of one collection with one set of options, in one folder.

    Args:
        collection: the pictures.
        options: of the output.
        out: the folder to make; may exist.

    Raises:
        InputError: more shards than pictures, a picture twice, or `out` holds something else.
    """

    def __init__(self, collection: Collection, options: Options, out: Path):
        self._collection, self._options, self._out = collection, options, out
        self._partial = out / PARTIAL
        self.shards = [
            Shard(
                name=f"{split}-{number:05d}-of-{count:05d}",
                split=split,
                pictures=pictures,
                synsets=tuple(collection.classes[picture.label] for picture in pictures),
                folder=self._partial,
                final=out,
                options=options,
            )
            for split, count in zip(SPLITS, options.shards, strict=True)
            for number, pictures in enumerate(
                deal(split, collection.splits[split], collection.classes, count)
            )
        ]
        self._identity = self._identify()
        self._check_out()

    def finished(self) -> dict | None:
        """Returns the manifest where `out` is complete already, else None.

        Raises:
            InputError: the manifest is there and a shard is not, or has another size.
        """
        manifest = _read_json(self._out / MANIFEST)
        if not manifest or manifest.get("identity") != self._identity:
            return None
        if manifest["options"] != asdict(self._options):
            return None
        for row in _rows(manifest):
            path = self._out / row["name"]
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
        names = {shard.name for shard in self.shards}
        if not self._partial.is_dir():
            return 0
        return sum(p.stat().st_size for p in self._partial.iterdir() if p.name in names)

    def run(self, *, processes: int, progress: Progress) -> dict:
        """Writes what is missing and completes the folder; returns the manifest.

        Raises:
            InputError: a broken picture, a full disk, or another run at work in the same folder.
        """
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--out must be a folder that can be written to. Received: {self._out} "
                f"({error.strerror})"
            ) from error
        with self._locked():
            self._remove_drafts()
            _write_json(self._partial / _IDENTITY, self._identity)
            try:
                entries = self._make(processes, progress)
            except BaseException:
                self._remove_drafts()
                raise
            manifest = self._manifest(entries)
            self._complete(manifest)
        return manifest

    def _make(self, processes: int, progress: Progress) -> dict[str, dict]:
        pictures = sum(len(shard.pictures) for shard in self.shards)
        progress.begin(pictures=pictures, shards=len(self.shards))
        entries = {}
        for entry, kept in spread(make_shard, self.shards, processes=processes):
            entries[entry["name"]] = entry
            count = entry["records"] + len(entry["skipped"])
            progress.advance(pictures=count, size=entry["bytes"], kept=kept)
        return entries

    def _identify(self) -> str:
        """Returns a digest of all that decides about the bytes; of neither place nor layout."""
        digest = hashlib.sha256()
        facts = {
            "form": _FORM,
            # A run that met a broken picture may be continued with --skip-broken.
            "options": self._options.of_content(),
            "tensorflow": importlib.metadata.version("tensorflow"),
        }
        digest.update(json.dumps(facts, sort_keys=True).encode())
        for shard in self.shards:
            for picture, synset in zip(shard.pictures, shard.synsets, strict=True):
                row = f"{shard.name}/{synset}/{picture.name}/{picture.label}/{picture.length}\n"
                digest.update(row.encode())
        return digest.hexdigest()

    def _check_out(self) -> None:
        out = self._out
        if out.exists() and not out.is_dir():
            raise InputError(f"--out must be a folder. Received: {out}, a file")
        if (out / MANIFEST).exists() and self.finished() is None:
            raise InputError(
                f"--out must not hold another data set. Received: {out}, prepared from other "
                f"pictures or with other options. Pass another folder"
            )
        begun = _read_json(self._partial / _IDENTITY)
        if begun is not None and begun != self._identity:
            raise InputError(
                f"--out must not hold another preparation. Received: {out}, begun from other "
                f"pictures or with other options. Repeat those, or remove {self._partial}"
            )
        if begun is None and not (out / MANIFEST).exists() and out.is_dir():
            foreign = [p.name for p in out.iterdir() if p.name.startswith(SPLITS)]
            if foreign:
                raise InputError(
                    f"--out must not hold files of another data set. Received: {out}, with "
                    f"{min(foreign)}. Pass another folder"
                )

    @contextmanager
    def _locked(self):
        """Keeps a second run out of the folder; the lock ends with the process."""
        with open(self._partial / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"another preparation is at work. Received: {self._out}. Wait for it or pass "
                    f"another folder"
                ) from error
            yield

    def _remove_drafts(self) -> None:
        for draft in self._partial.glob(f"*{DRAFT}"):
            draft.unlink(missing_ok=True)

    def _manifest(self, entries: dict[str, dict]) -> dict:
        """Returns dataset.json: no time and no path, so that equal data have equal manifests."""
        splits = {}
        for split in SPLITS:
            rows = [entries[shard.name] for shard in self.shards if shard.split == split]
            odd = sum((Counter(row["odd"]) for row in rows), Counter())
            splits[split] = {
                "pictures": sum(row["records"] for row in rows),
                "bytes": sum(row["bytes"] for row in rows),
                "odd": dict(sorted(odd.items())),
                "skipped": [name for row in rows for name in row["skipped"]],
                "shards": [
                    {key: row[key] for key in ("name", "records", "bytes", "sha256")}
                    for row in rows
                ],
            }
        return {
            "form": _FORM,
            "identity": self._identity,
            "layout": self._collection.layout,
            "classes": len(self._collection.classes),
            "first_label": 1,
            "options": asdict(self._options),
            "versions": {
                "tf-largebatch": __version__,
                "tensorflow": importlib.metadata.version("tensorflow"),
            },
            "splits": splits,
        }

    def _complete(self, manifest: dict) -> None:
        """Moves everything to its place, the manifest last, and removes the traces of the work."""
        for row in _rows(manifest):
            made = self._partial / row["name"]
            if made.exists():
                os.replace(made, self._out / row["name"])
        text = label_map(self._collection.classes, self._collection.names)
        write_text(self._partial / LABEL_MAP, text, sync=True)
        os.replace(self._partial / LABEL_MAP, self._out / LABEL_MAP)
        _write_json(self._partial / MANIFEST, manifest)
        _sync_folder(self._out)
        os.replace(self._partial / MANIFEST, self._out / MANIFEST)
        _sync_folder(self._out)
        self.tidy()


def _rows(manifest: dict):
    """Yields the row of every shard."""
    for split in SPLITS:
        yield from manifest["splits"][split]["shards"]


def _read_json(path: Path):
    """Returns the content; None where there is no such file or it is not whole."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None


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
