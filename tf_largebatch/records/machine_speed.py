"""How fast a machine trains one network: what was measured there, and the file that keeps it."""

import dataclasses
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_largebatch.records.checks import check, check_count, check_number
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import write_json

VERSION = 3


@dataclass(frozen=True, kw_only=True)
class StepSpeed:
    """Processes of this machine that train at once: an update of each, not accumulated.

    Attributes:
        workers: processes, >= 1.
        micro_batch: images of each, >= 1.
        seconds: wall time of an update, > 0.
    """

    workers: int
    micro_batch: int
    seconds: float

    def __post_init__(self) -> None:
        check_count("workers", self.workers, 1)
        check_count("micro_batch", self.micro_batch, 1)
        check_number("seconds", self.seconds, low_open=True)


@dataclass(frozen=True, kw_only=True)
class AllReduceSpeed:
    """Processes of this machine that do nothing else.

    Attributes:
        workers: processes, >= 2.
        byte_count: that each adds, >= 1.
        seconds: wall time of one all-reduce, > 0.
    """

    workers: int
    byte_count: int
    seconds: float

    def __post_init__(self) -> None:
        check_count("workers", self.workers, 2)
        check_count("byte_count", self.byte_count, 1)
        check_number("seconds", self.seconds, low_open=True)


@dataclass(frozen=True, kw_only=True)
class MachineSpeed:
    """A machine and a network.

    Attributes:
        network: as the user calls it.
        optimizer: name of its class.
        parameters: trainable numbers, what an all-reduce carries in float32.
        slots: numbers that the optimizer keeps for each of them.
        hardware: of the machine, as a person would name it.
        cores: that its processes share, >= 1.
        steps: of processes that train each on its own, by rising workers and micro-batch; of one
            process, and of as many as all-reduce.
        all_reduces: of each number of workers, two sizes at least; empty: not measured.
        joined: of processes that train one model and sum its gradients, as `steps` otherwise; none
            of one process.
        input_seconds: of one core for an image; None: not measured.
        made: date, versions and the command, as text.
    """

    network: str
    optimizer: str
    parameters: int
    slots: int
    hardware: str
    cores: int
    steps: tuple[StepSpeed, ...]
    all_reduces: tuple[AllReduceSpeed, ...] = ()
    joined: tuple[StepSpeed, ...] = ()
    input_seconds: float | None = None
    made: str = ""

    def __post_init__(self) -> None:
        check_count("parameters", self.parameters, 1)
        check_count("slots", self.slots, 0)
        check_count("cores", self.cores, 1)
        sizes = [(step.workers, step.micro_batch) for step in self.steps]
        rising = "by rising workers and micro-batch"
        check(sizes == sorted(set(sizes)), "steps", rising, sizes)
        known = [1, *sorted({one.workers for one in self.all_reduces})]
        check(self.workers == known, "steps", f"of {known} processes", self.workers)
        joined = [(one.workers, one.micro_batch) for one in self.joined]
        rule = "of the same processes and micro-batches as `steps`"
        check(joined == [size for size in sizes if size[0] > 1], "joined", rule, joined)
        if self.input_seconds is not None:
            check_number("input_seconds", self.input_seconds, low_open=True)

    @property
    def workers(self) -> list[int]:
        """The numbers of processes that were measured, rising from 1."""
        return sorted({step.workers for step in self.steps})

    @property
    def largest_micro_batch(self) -> int:
        """That was measured, and so fits the memory."""
        return max(step.micro_batch for step in self.steps)

    def step_seconds(self, micro_batch: int, workers: int = 1) -> float:
        """An update of so many images: on the line between its measured neighbours.

        ValueError: so many processes of this machine were not measured.
        """
        return self._seconds_of(self.steps, micro_batch, workers)

    def all_reduce_seconds(self, byte_count: float, workers: int) -> float:
        """Of so many processes of this machine; ValueError where they were not measured."""
        alike = sorted(
            (one for one in self.all_reduces if one.workers == workers),
            key=lambda one: one.byte_count,
        )
        self._check_workers(bool(alike), workers)
        return _between([a.byte_count for a in alike], [a.seconds for a in alike], byte_count)

    def waiting_seconds(self, micro_batch: int, workers: int) -> float:
        """What an update of so many processes takes beyond their own updates and the all-reduce.

        They wait for the slowest of them, and copy what they send. ValueError where they were not
        measured.
        """
        joined = self._seconds_of(self.joined, micro_batch, workers)
        sent = self.all_reduce_seconds(4.0 * self.parameters, workers)
        return max(joined - self.step_seconds(micro_batch, workers) - sent, 0.0)

    def _seconds_of(self, steps: Sequence[StepSpeed], micro_batch: int, workers: int) -> float:
        alike = [step for step in steps if step.workers == workers]
        self._check_workers(bool(alike), workers)
        sizes = [step.micro_batch for step in alike]
        return _between(sizes, [step.seconds for step in alike], micro_batch)

    def _check_workers(self, known: bool, workers: int) -> None:
        rule = f"a number of processes that was measured ({self.workers})"
        check(known, "workers", rule, workers, "Measure it, or give a network.")

    def save(self, path: Path | str) -> None:
        """Writes the file that `plan --device FILE` reads."""
        write_json(Path(path), {"machine_speed": VERSION, **dataclasses.asdict(self)})


def load(path: Path) -> MachineSpeed:
    """Returns what `save` wrote. InputError: it is none, of another version, or damaged."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = data.pop("machine_speed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"--device must be a device or a file of plan --measure. Received: {path}, which is "
            "neither"
        ) from None
    if version != VERSION:
        raise InputError(f"{path} must have format {VERSION}. Received: {version}. Measure again")
    try:
        steps = tuple(StepSpeed(**step) for step in data.pop("steps"))
        all_reduces = tuple(AllReduceSpeed(**one) for one in data.pop("all_reduces"))
        joined = tuple(StepSpeed(**step) for step in data.pop("joined"))
        return MachineSpeed(steps=steps, all_reduces=all_reduces, joined=joined, **data)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}). Measure again") from None


def _between(places: Sequence[float], values: Sequence[float], place: float) -> float:
    """On the line between the neighbours; beyond an end in proportion or, below, the least value.

    Half the images of the smallest batch take as long as all of them: what is left then is mostly
    what an update costs without images.
    """
    right = bisect_left(places, place)
    if right == 0:
        return values[0]
    if right == len(places):
        return values[-1] * place / places[-1]
    share = (place - places[right - 1]) / (places[right] - places[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])
