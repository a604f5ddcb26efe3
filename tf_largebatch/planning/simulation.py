"""Training on many devices, event by event: stragglers, averages, failures, checkpoints.

    cluster = Cluster(devices=1024, step=StepTime("lognormal", 0.25, 0.02), communication=0.01,
                      device_between_failures=5e7)
    simulate(cluster, updates=14_076, checkpoint_updates=500, checkpoint_cost=10, restart=120)

A round is `local_steps` updates of every device and one average. It lasts as long as its slowest
device, without those that `backups` lets fall behind (Chen et al. 2016, arXiv:1604.00981).
"""

import math
import random
from dataclasses import dataclass
from typing import Literal

from tf_largebatch.records.checks import check, check_choice, check_count, check_number

KINDS = ("constant", "lognormal", "exponential")
ROUNDS = 2_000  # that are drawn; a longer training draws among them again
AT_ONCE = 2_000_000  # numbers drawn at a time


@dataclass(frozen=True)
class StepTime:
    """Seconds that one device takes for an update's forward and backward pass.

    Attributes:
        kind: "constant"; "lognormal"; "exponential": a least time and an exponential rest.
        mean: seconds, > 0.
        deviation: standard deviation in seconds, >= 0; at most the mean for "exponential".
    """

    kind: Literal["constant", "lognormal", "exponential"]
    mean: float
    deviation: float = 0.0

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_number("mean", self.mean, low_open=True, fix="In seconds.")
        check_number("deviation", self.deviation)
        rest = self.kind != "constant" or self.deviation == 0
        check(rest, "deviation", "0 for constant times", self.deviation)
        fits = self.kind != "exponential" or self.deviation <= self.mean
        check(fits, "deviation", f"at most the mean of {self.mean:g}", self.deviation)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What trains.

    Attributes:
        devices: K, >= 1.
        step: of one device.
        communication: seconds of an average or all-reduce that nothing hides, >= 0.
        local_steps: updates of a device between two averages, >= 1; 1 is synchronous.
        backups: devices whose part a round does not wait for, >= 0 and < K.
        device_between_failures: mean seconds between two failures of one device; infinite: none.
    """

    devices: int
    step: StepTime
    communication: float = 0.0
    local_steps: int = 1
    backups: int = 0
    device_between_failures: float = math.inf

    def __post_init__(self) -> None:
        check_count("devices", self.devices, 1)
        check_number("communication", self.communication, fix="In seconds.")
        check_count("local_steps", self.local_steps, 1)
        check_count("backups", self.backups, 0)
        check(self.backups < self.devices, "backups", f"below {self.devices=}", self.backups)
        above = self.device_between_failures > 0
        rule = "above 0 seconds; infinite for none"
        check(above, "device_between_failures", rule, self.device_between_failures)

    @property
    def between_failures(self) -> float:
        """Mean seconds between two failures of any of the devices."""
        return self.device_between_failures / self.devices


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Where the time of a simulated training went, in seconds.

    Attributes:
        seconds: all of it.
        compute: what one device of mean speed needs for the updates.
        waiting: for the slowest device, beyond that.
        communication: averages and all-reduces.
        checkpoints: writing them.
        lost: work and checkpoints that failures undid.
        restarts: from failures to the next update.
        failures: how many.
    """

    seconds: float
    compute: float
    waiting: float
    communication: float
    checkpoints: float
    lost: float
    restarts: float
    failures: int

    @property
    def efficiency(self) -> float:
        """Share of the time that a device of mean speed would need alone."""
        return self.compute / self.seconds


def slowest_rounds(cluster: Cluster, rounds: int, seed: int) -> list[float]:
    """Draws how long the devices of so many rounds take, in seconds, without communication."""
    step, steps = cluster.step, cluster.local_steps
    if step.kind == "constant":
        return [step.mean * steps] * rounds
    import numpy as np

    rng = np.random.default_rng(seed)
    most = cluster.devices - 1 - cluster.backups
    found: list[float] = []
    size = max(AT_ONCE // (cluster.devices * steps), 1)
    while len(found) < rounds:
        shape = (min(size, rounds - len(found)), cluster.devices, steps)
        if step.kind == "lognormal":
            spread = math.log1p((step.deviation / step.mean) ** 2)
            times = rng.lognormal(math.log(step.mean) - spread / 2, math.sqrt(spread), shape)
        else:
            times = step.mean - step.deviation + rng.exponential(step.deviation, shape)
        found += np.partition(times.sum(axis=2), most, axis=1)[:, most].tolist()
    return found


def simulate(
    cluster: Cluster,
    *,
    updates: int,
    checkpoint_updates: int | None = None,
    checkpoint_cost: float = 0.0,
    restart: float = 0.0,
    seed: int = 0,
) -> Simulated:
    """Runs a training of `updates` updates, checkpoint by checkpoint.

    Args:
        cluster: what trains.
        updates: >= 1.
        checkpoint_updates: updates between two checkpoints, >= 1; None: one at the end.
        checkpoint_cost: seconds that training stands still for one, >= 0.
        restart: seconds from a failure to the next update, >= 0; failures may come in it too.
        seed: of the draws.

    Raises:
        ValueError: an argument out of range; failures so frequent that no checkpoint is reached.
    """
    check_count("updates", updates, 1)
    every = check_count("checkpoint_updates", checkpoint_updates or updates, 1)
    check_number("checkpoint_cost", checkpoint_cost)
    check_number("restart", restart)
    steps, step = cluster.local_steps, cluster.step.mean
    rounds = math.ceil(updates / steps)
    drawn = slowest_rounds(cluster, min(rounds, ROUNDS), seed)
    rng, mean = random.Random(seed), cluster.between_failures
    _check_progress(cluster, min(every, updates), checkpoint_cost, restart)
    next_failure = rng.expovariate(1.0 / mean) if mean < math.inf else math.inf
    clock = waiting = communication = checkpoints = lost = restarts = 0.0
    failures = done = 0
    while done < rounds:
        part = min(max(every // steps, 1), rounds - done)
        work = sum(_slowest(drawn, rng, done, part)) + part * cluster.communication
        end = clock + work + checkpoint_cost
        while next_failure < end:
            failures += 1
            lost += max(next_failure - clock, 0.0)
            clock = next_failure
            next_failure += rng.expovariate(1.0 / mean)
            while next_failure < clock + restart:  # again, while it starts
                failures += 1
                restarts += next_failure - clock
                clock = next_failure
                next_failure += rng.expovariate(1.0 / mean)
            clock += restart
            restarts += restart
            end = clock + work + checkpoint_cost
        clock = end
        communication += part * cluster.communication
        waiting += work - part * (cluster.communication + steps * step)
        checkpoints += checkpoint_cost
        done += part
    return Simulated(
        seconds=clock,
        compute=rounds * steps * step,
        waiting=waiting,
        communication=communication,
        checkpoints=checkpoints,
        lost=lost,
        restarts=restarts,
        failures=failures,
    )


def _slowest(drawn: list[float], rng: random.Random, first: int, count: int) -> list[float]:
    """The rounds' own draws, and beyond them draws among these."""
    own = drawn[first : first + count]
    return own + rng.choices(drawn, k=count - len(own))


def _check_progress(cluster: Cluster, updates: int, cost: float, restart: float) -> None:
    """Refuses what would simulate for ever: exp(10) = 22,000 attempts a checkpoint."""
    longest = updates * (cluster.step.mean + cluster.communication) + cost
    attempts = max(longest, restart) / cluster.between_failures
    fix = f"A checkpoint is {longest:.3g} s away, a failure {cluster.between_failures:.3g} s."
    check(attempts < 10.0, "checkpoint_updates", "reached between two failures", updates, fix)
