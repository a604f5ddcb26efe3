"""What is done to runs, and how each injection ended: for `chaos.py`."""

import functools
import json
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from chaos_faults import FAULTS, copy, files, harm, harm_shard, shown, step_file_times
from chaos_runs import (
    CHANGES,
    DIGITS,
    GROWS,
    IMAGES,
    Command,
    Ended,
    at_write,
    free_ports,
    kill_self,
    make_room,
    no_space,
    outcome,
    run,
    small_disk,
    step_clock,
    write_images,
)

UNHARMED, REFUSED, FAILED = "unharmed", "refused, then repaired", "failed"
TOGETHER = 12  # files of one folder that are harmed at once
# Flags of a second worker that decide the result.
OTHER_FLAGS = ("--seed=6", "--precision=bfloat16", "--wire=bfloat16", "--pack-mb=9")
OTHER_FLAGS += ("--checkpoint-updates=5", "--seeds=2", "--set=optimizer.momentum=0.8")
OTHER_FLAGS += ("--set=global_batch=128", "--keep-checkpoints=3")


class Chaos:
    """The undisturbed runs, and what is done to others like them.

    Attributes:
        done: of each kind, how many injections ended in which way.
        failures: each injection that ended otherwise.
    """

    def __init__(self, place: Path):
        self.place = place
        self.done: dict[str, Counter] = {}
        self.failures: list[dict] = []
        self.number = 0  # of commands, each with a log and mostly a folder of its own
        self.longest = 10.0
        self._calm: dict[str, str | None] = {}

    # The undisturbed runs, each made once, when it is first needed.

    def calm(self, name: str) -> Path:
        """The folder of one: "digits", "other" (another seed), "pair" (two workers), "images"."""
        folder = self.place / "calm" / name
        if name in self._calm:
            return folder
        if folder.exists():  # of an earlier command
            self._calm[name] = outcome(folder)
            return folder
        if name == "pair":
            both = self._pair(folder, ([], []))
            ended = both[0]
        else:
            started = time.monotonic()
            ended = run(self.flags(name, folder), self._log())
            self.longest = max(self.longest, time.monotonic() - started)
        if ended.status:
            sys.exit(f"the undisturbed run ended with status {ended.status}: {ended.text[-500:]}")
        self._calm[name] = outcome(folder)
        return folder

    def stopped(self, name: str) -> Path:
        """The same, stopped by SIGTERM in its second epoch."""
        folder = self.place / "stopped" / name
        if not folder.exists():
            command = Command(self.flags(name, folder), self._log())
            while not (folder / "metrics.csv").exists() and not command.poll():
                time.sleep(0.01)
            command.send(signal.SIGTERM)
            if command.wait().status != 128 + signal.SIGTERM:
                sys.exit("a run that was to be stopped was not")
        return folder

    def flags(self, name: str, folder: Path) -> list[str]:
        """The command line of an undisturbed run, into this folder."""
        seed = {"other": "--seed=6"}.get(name, "--seed=5")
        if name == "images":
            return [*IMAGES, seed, f"--data={self.images()}", f"--run-dir={folder}"]
        return [*DIGITS, seed, f"--run-dir={folder}"]

    def images(self) -> Path:
        """The shards."""
        folder = self.place / "images"
        if not folder.exists():
            write_images(folder)
        return folder

    def same(self, name: str, folder: Path) -> bool:
        """Whether a run ended as the undisturbed one."""
        self.calm(name)
        return outcome(folder) == self._calm[name] is not None

    def _log(self) -> Path:
        self.number += 1
        logs = self.place / "logs"
        logs.mkdir(exist_ok=True)
        return logs / f"{self.number}.txt"

    def _folder(self) -> Path:
        self.number += 1
        return self.place / f"run-{self.number}"

    def count(self, kind: str, how: str, what: str = "", why: str = "") -> None:
        """Keeps how one injection ended."""
        self.done.setdefault(kind, Counter())[how] += 1
        if how == FAILED:
            self.failures.append({"kind": kind, "what": what, "answer": why[-400:]})
            print(f"FAILED {kind}: {what}: {why[-400:]}", flush=True)

    # Files of a folder.

    def harm_files(self, rng: random.Random) -> None:
        """Several files of one folder, of a run that was stopped or had ended."""
        stage = rng.choice(["was stopped", "had ended"])
        source = self.stopped("digits") if stage == "was stopped" else self.calm("digits")
        other = self.stopped("other") if stage == "was stopped" else self.calm("other")
        names = files(source)
        chosen = rng.sample(names, min(TOGETHER, len(names)))
        harms = [(name, rng.choice(FAULTS), rng.random()) for name in chosen]
        self._try_files(stage, source, other, harms)

    def _try_files(self, stage: str, source: Path, other: Path, harms: list) -> None:
        """Harms these files together; where that ends wrongly, each half of them apart."""
        folder = copy(source, self._folder())
        harmed = {}
        for name, fault, number in harms:
            before = (folder / name).read_bytes()
            if harm(folder / name, fault, random.Random(number), _like(other, name)):
                harmed[name] = (fault, before)
        refused, ended = [], None
        while len(refused) <= len(harmed):
            ended = run(self.flags("digits", folder), self._log())
            named = [n for n in harmed if n not in refused and _names(ended.last, n)]
            if ended.status != 2 or "Traceback" in ended.text or not named:
                break
            (folder / named[0]).parent.mkdir(parents=True, exist_ok=True)
            (folder / named[0]).write_bytes(harmed[named[0]][1])
            refused.append(named[0])
        fine = ended.status == 0 and "Traceback" not in ended.text and self.same("digits", folder)
        if not fine and len(harmed) > 1:
            half = len(harms) // 2
            self._try_files(stage, source, other, harms[:half])
            self._try_files(stage, source, other, harms[half:])
            return
        why = f"status {ended.status}: {ended.last}"
        if ended.status == 0:
            why = f"status 0, and another end than undisturbed. {ended.text.strip()[-200:]}"
        for name, (fault, _) in harmed.items():
            how = (REFUSED if name in refused else UNHARMED) if fine else FAILED
            self.count(f"file {fault}", how, f"{shown(name)} of a run that {stage}", why)

    # The process.

    def hit(self, rng: random.Random) -> None:
        """One run, hit several times until it is left to end."""
        folder, hits, wrong = self._folder(), [], ""
        for _ in range(rng.randrange(2, 6)):
            kind = rng.choice(["kill", "kill at a write", "freeze and thaw", "terminate"])
            hook = functools.partial(
                at_write, rng.randrange(1, 25), folder, kill_self, events=CHANGES, always=False
            )
            command = Command(
                self.flags("digits", folder),
                self._log(),
                before=hook if kind == "kill at a write" else None,
            )
            reached = kind == "kill at a write"
            if not reached:
                time.sleep(rng.uniform(0.1, self.longest))
                number = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}
                reached = command.send(number.get(kind, signal.SIGSTOP))
                if kind == "freeze and thaw" and reached:
                    time.sleep(rng.uniform(0.1, 2.0))
                    command.send(signal.SIGCONT)
            ended = command.wait()
            if reached and (kind != "kill at a write" or ended.status == -signal.SIGKILL):
                hits.append(kind)
            # Outside the loop over updates SIGTERM ends a process at once, as it does any other.
            allowed = {"kill": (-9,), "kill at a write": (-9,), "terminate": (143, -15)}
            if ended.status not in (0, *allowed.get(kind, ())) or "Traceback" in ended.text:
                wrong = f"status {ended.status} after {kind}: {ended.text[-300:]}"
        ended = run(self.flags("digits", folder), self._log())
        self._conclude("digits", folder, hits, ended, wrong)

    def _conclude(self, name: str, folder: Path, hits: list[str], ended: Ended, wrong: str) -> None:
        """Keeps the injections of a run that was then left to end."""
        if ended.status or "Traceback" in ended.text:
            wrong = wrong or f"status {ended.status} at last: {ended.text[-300:]}"
        elif not self.same(name, folder):
            wrong = wrong or "another end than undisturbed"
        for kind in hits:
            self.count(kind, FAILED if wrong else UNHARMED, ", ".join(hits), wrong)

    def step(self, rng: random.Random) -> None:
        """A clock that jumps while a run works, and between its two parts."""
        folder = copy(self.stopped("digits"), self._folder())
        step_file_times(folder, rng)
        flags, number = self.flags("digits", folder), rng.random()
        ended = run(flags, self._log(), before=lambda: step_clock(random.Random(number)))
        self._conclude("digits", folder, ["clock stepped", "times of files stepped"], ended, "")

    def fill(self, rng: random.Random) -> None:
        """A disk that is full at a random write; then there is room."""
        place = self._folder()
        folder, log = place / "run", self._log()
        size = int(10 ** rng.uniform(0.9, 3.3))
        with small_disk(place, size) as mounted:
            injected = not mounted or rng.random() < 0.4
            kind = "ENOSPC at a write" if injected else "disk full"
            if injected and mounted:
                make_room(place)
            number = rng.randrange(1, 30)
            hook = (
                (lambda: at_write(number, folder, no_space, events=GROWS, always=True))
                if injected
                else None
            )
            ended, wrong = run(self.flags("digits", folder), log, before=hook), ""
            full = ended.status != 0
            if full and (ended.status != 2 or "Traceback" in ended.text):
                wrong = f"status {ended.status}: {ended.text[-300:]}"
            elif full and not any(w in ended.last for w in ("space", "room", "full")):
                wrong = f"the line names no cause: {ended.last}"
            elif not full and "Traceback" in ended.text:
                wrong = ended.text[-300:]
            make_room(place)
            ended = run(self.flags("digits", folder), self._log())
            if not wrong and (ended.status or not self.same("digits", folder)):
                wrong = f"after room was made: status {ended.status}: {ended.text[-300:]}"
            how = FAILED if wrong else REFUSED if full else UNHARMED
            self.count(kind, how, f"{size} kB" if not injected else f"write {number}", wrong)

    # Data.

    def harm_data(self, rng: random.Random) -> None:
        """A shard that changes before a run goes on, or while it reads."""
        fault = rng.choice(["deleted", "cut", "zeroed", "swapped"])
        data, folder = copy(self.images(), self._folder()), self._folder()
        flags = [f for f in self.flags("images", folder) if not f.startswith("--data")]
        flags += [f"--data={data}"]
        self.calm("images")
        command = Command(flags, self._log())
        time.sleep(rng.uniform(0.5, self.longest))
        name = harm_shard(data, fault, rng)
        ended, wrong, kind = command.wait(), "", f"shard {fault}"
        refused = ended.status == 2
        if ended.status not in (0, 2) or "Traceback" in ended.text:
            wrong = f"status {ended.status}: {ended.text[-300:]}"
        elif refused and not any(n in ended.last for n in (name, str(data), "shard")):
            wrong = f"the line names no cause: {ended.last}"
        copy(self.images(), data)
        if refused and not wrong:
            ended = run(flags, self._log())
        self._finish_data(kind, folder, ended, refused, wrong)

    def _finish_data(self, kind, folder, ended: Ended, refused: bool, wrong: str) -> None:
        if not wrong and (ended.status or not self.same("images", folder)):
            wrong = f"status {ended.status} and another end than undisturbed: {ended.text[-200:]}"
        self.count(kind, FAILED if wrong else REFUSED if refused else UNHARMED, kind, wrong)

    # Several processes.

    def _pair(self, folder: Path, extra: tuple[list[str], list[str]], act=None, version=None):
        """Two workers with further flags; how each ended."""
        workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
        commands = []
        for rank, more in enumerate(extra):
            task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}
            flags = [*self.flags("digits", folder), "--join-timeout=60", "--worker-timeout=10"]
            before = version if rank == 1 else None
            there = {"TF_CONFIG": json.dumps(task)}
            commands.append(Command([*flags, *more], self._log(), before=before, environment=there))
        if act is not None:
            act(commands)
        return [command.wait() for command in commands]

    def pair_with_others(self, rng: random.Random) -> None:
        """Two workers that would train something else."""
        kind, extra, version = "worker with another flag", [rng.choice(OTHER_FLAGS)], None
        if rng.random() < 0.2:
            kind, extra, version = "worker of another version", [], _other_version
        folder = self._folder()
        chief, other = self._pair(folder, ([], extra), version=version)
        named = extra[0].partition("=")[0] if extra else "version"
        named = "recipe" if named == "--set" else named
        fine = (chief.status, other.status) == (2, 2) and named in chief.last
        fine = fine and "Traceback" not in chief.text + other.text and not folder.exists()
        why = f"status {chief.status} and {other.status}: {chief.last} / {other.last}"
        self.count(kind, REFUSED if fine else FAILED, "".join(extra), why)

    def hit_pair(self, rng: random.Random) -> None:
        """One of two workers killed, frozen or ended; then both again."""
        self.calm("pair")
        kind, rank = rng.choice(["kill", "freeze", "terminate"]), rng.randrange(2)
        number = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "terminate": signal.SIGTERM}
        folder, hits = self._folder(), []

        def act(commands: list[Command]) -> None:
            time.sleep(rng.uniform(1.0, self.longest))
            if commands[rank].send(number[kind]):
                hits.append(f"one of two workers: {kind}")
            if kind == "freeze":
                commands[1 - rank].wait_quietly()
                commands[rank].send(signal.SIGKILL)

        ended, wrong = self._pair(folder, ([], []), act), ""
        if "Traceback" in ended[0].text + ended[1].text:
            wrong = f"{ended[0].text[-200:]} / {ended[1].text[-200:]}"
        again = self._pair(folder, ([], []))
        self._conclude("pair", folder, hits, again[0], wrong)

    def two_commands(self, rng: random.Random) -> None:
        """The same command twice at once, on one folder."""
        folder = self._folder()
        first = Command(self.flags("digits", folder), self._log())
        time.sleep(rng.uniform(0.0, self.longest / 2))
        second = Command(self.flags("digits", folder), self._log())
        ended, wrong = [first.wait(), second.wait()], ""
        statuses = sorted(one.status for one in ended)
        if statuses not in ([0, 0], [0, 2]) or any("Traceback" in one.text for one in ended):
            wrong = f"status {statuses}: {ended[0].last} / {ended[1].last}"
        elif not self.same("digits", folder):
            wrong = "another end than undisturbed"
        how = FAILED if wrong else REFUSED if 2 in statuses else UNHARMED
        self.count("two commands on one folder", how, "", wrong)


def _like(other: Path, name: str) -> Path:
    """The file of this name in another run, the events of the same folder for events."""
    if "tfevents" in name:
        return next((other / name).parent.glob("*tfevents*"), other / name)
    return other / name


def _names(line: str, name: str) -> bool:
    """Whether a line names a file, or the checkpoint that it is part of."""
    path = Path(name)
    if path.name == "run.json" and "belongs to another run" in line:
        return True
    return path.name in line or (path.name.startswith("ckpt-") and path.stem.split(".")[0] in line)


def _other_version() -> None:
    from tf_largebatch.training import session

    session.__version__ = "0.0.0"
