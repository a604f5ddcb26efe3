"""Does to runs what machines do to them, and checks that each ends as if nothing had been done.

    python tools/chaos.py --injections 1000 --seed 0 --out tools/records/chaos.json

A miniature on the digits, and one on a few drawn pictures in shards, are trained undisturbed. Then
the same commands are killed, frozen and ended at random moments; their disks fill up; files of
their folders are lost and harmed; shards change while they are read; the clock steps; workers with
other flags join; two commands share a folder. Each injection must end in one of two ways: weights,
curve and record are those of the undisturbed run, bit for bit; or the command ends in one line that
names the cause, and the same command after a repair ends so. The record holds every failure.

Several injections share a run. Where it ends wrongly its harmed files are tried again in halves. A
record that is there is continued; the same seed gives the same rounds, but moments depend on the
machine. A full disk is a small tmpfs where mounting is allowed, and ENOSPC from Python's writes
otherwise and beside it; the clock is Python's `time.time` and the times of files. Exit status 1 if
an injection failed. Linux only.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

from chaos_injections import Chaos

from tf_largebatch.records.files import read_json, write_json
from tf_largebatch.records.run_folder import environment

WHAT = (
    "injections of faults into runs, by kind and how they ended: unharmed (weights, curve and "
    "record bit for bit those of the undisturbed run), refused in one line and the same after a "
    "repair, or failed"
)
# Rounds in turn; most cost seconds, those of files have six injections.
ROUNDS: tuple[Callable, ...] = (Chaos.harm_files, Chaos.hit, Chaos.harm_files, Chaos.fill)
ROUNDS += (Chaos.harm_files, Chaos.harm_data, Chaos.harm_files, Chaos.pair_with_others)
ROUNDS += (Chaos.harm_files, Chaos.hit, Chaos.step, Chaos.harm_files, Chaos.hit_pair)
ROUNDS += (Chaos.harm_files, Chaos.two_commands)


def injections(record: dict) -> int:
    """How many the record holds."""
    return sum(sum(kind.values()) for kind in record["kinds"].values())


def carry_on(record: dict, wanted: int, place: Path, out: Path | None) -> dict:
    """Makes rounds until the record has as many injections as wanted, and writes it after each."""
    chaos = Chaos(place)
    chaos.done = {kind: Counter(ways) for kind, ways in record["kinds"].items()}
    chaos.failures = record["failures"]
    there = environment()
    while injections(record) < wanted:
        rng = random.Random(f"{record['seed']}/{record['rounds']}")
        ROUNDS[record["rounds"] % len(ROUNDS)](chaos, rng)
        record["rounds"] += 1
        record |= {"date": date.today().isoformat(), "commit": there["commit"]}
        record |= {"versions": there["versions"], "failures": chaos.failures}
        record["kinds"] = {kind: dict(ways) for kind, ways in sorted(chaos.done.items())}
        record["injections"] = injections(record)
        if out:
            write_json(out, record)
        _tidy(place)
    return record


def _tidy(place: Path) -> None:
    for folder in place.glob("run-*"):
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Makes the injections, prints how they ended, and keeps the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    text = "in the record at last, those that it holds included (default: %(default)s)"
    parser.add_argument("--injections", type=int, default=1000, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="the record, continued where it is there")
    arguments = parser.parse_args()
    record = {
        "what": WHAT,
        "seed": arguments.seed,
        "rounds": 0,
        "injections": 0,
        "kinds": {},
        "failures": [],
    }
    if arguments.out and arguments.out.exists():
        record = read_json(arguments.out)
    with tempfile.TemporaryDirectory() as place:
        record = carry_on(record, arguments.injections, Path(place), arguments.out)
    print(json.dumps(record["kinds"], indent=1))
    print(f"{record['injections']:,} injections, {len(record['failures'])} failed")
    sys.exit(1 if record["failures"] else 0)


if __name__ == "__main__":
    main()
