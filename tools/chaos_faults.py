"""What can happen to the files of a run: for `chaos.py`."""

import json
import os
import random
import shutil
from pathlib import Path

# Of each file: gone, without a byte, cut in the middle, of zeros, with wrong bytes, another run's,
# as an earlier version wrote it.
FAULTS = ("missing", "empty", "cut", "zeroed", "garbled", "of another run", "of an older version")
OLD_NAMES = {"global_clipnorm": "clip_norm", "exclude_rank_below": "exempt_rank_below"}


def files(folder: Path) -> list[str]:
    """Returns every file of a run folder, relative to it, in order."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def shown(name: str) -> str:
    """The name of a file with what differs from run to run left out."""
    parts = Path(name).parts
    last = "events" if "tfevents" in parts[-1] else parts[-1]
    if last.startswith("ckpt-"):
        last = "ckpt-N" + "".join(Path(last).suffixes)
    return "/".join((*parts[:-1], last))


def harm(path: Path, fault: str, rng: random.Random, other: Path) -> bool:
    """Does this to the file; False where it cannot be done to this one, or would change nothing.

    `other` is the same file of another run.
    """
    data = path.read_bytes()
    changed: bytes | None = b""
    match fault:
        case "missing":
            changed = None
        case "cut":
            changed = data[: rng.randrange(1, max(len(data), 2))]
        case "zeroed":
            changed = bytes(len(data))
        case "garbled":
            mixed = bytearray(data)
            for _ in range(min(8, len(mixed))):
                mixed[rng.randrange(len(mixed))] ^= rng.randrange(1, 256)
            changed = bytes(mixed)
        case "of another run":
            if not other.is_file():
                return False
            changed = other.read_bytes()
        case "of an older version":
            changed = _older(path, data)
    if changed == data or (changed is None and fault != "missing"):
        return False
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)
    return True


def _older(path: Path, data: bytes) -> bytes | None:
    """The file as earlier versions wrote it; None where they wrote no other."""
    match path.name:
        case "metrics.csv":
            lines = [line.split(",") for line in data.decode().splitlines()]
            kept = [i for i, name in enumerate(lines[0]) if "unread" not in name]
            return "".join(",".join(v[i] for i in kept) + "\n" for v in lines).encode()
        case "run.json" | "plan.json":
            text = data.decode()
            for new, old in OLD_NAMES.items():
                text = text.replace(f'"{new}"', f'"{old}"')
            return text.encode()
        case "result.json":
            return json.dumps(json.loads(data) | {"schema": 0}).encode()
        case "seed.json":
            old = {
                k: v for k, v in json.loads(data).items() if k not in ("seal", "stopped", "stop")
            }
            return json.dumps(old).encode()
    return None


def harm_shard(folder: Path, fault: str, rng: random.Random) -> str:
    """Harms one shard of the training pictures; returns its name."""
    shards = sorted(folder.glob("*train*"))
    path, other = rng.sample(shards, 2)
    data = path.read_bytes()
    match fault:
        case "deleted":
            path.unlink()
        case "cut":
            path.write_bytes(data[: rng.randrange(1, len(data))])
        case "zeroed":
            path.write_bytes(bytes(len(data)))
        case "swapped":
            path.write_bytes(other.read_bytes())
            other.write_bytes(data)
    return path.name


def step_file_times(folder: Path, rng: random.Random) -> None:
    """Moves the times of all files, as a clock that jumped leaves them."""
    jump = rng.choice([-1, 1]) * 10 ** rng.uniform(3.5, 8.5)
    for path in folder.rglob("*"):
        if path.is_file():
            there = path.stat().st_mtime
            os.utime(path, (there + jump, there + jump))


def copy(source: Path, target: Path) -> Path:
    """Copies a folder to a place that is new or gone."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target
