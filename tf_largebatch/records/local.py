"""Local SGD: workers that take updates of their own and then average, as a schedule of updates.

Post-local SGD is synchronous up to an epoch, local from there (Lin et al. 2018, arXiv:1808.07217).
"""

from dataclasses import dataclass
from typing import Literal

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.checks import check, check_fields, check_known

# What becomes of the optimizer's slots where the weights are averaged.
SLOTS = ("kept", "averaged", "reset")


@dataclass(frozen=True, kw_only=True)
class LocalSchedule:
    """Which updates are local, and after which of them the workers agree again.

    Up to `start_update` updates are synchronous. From there each of `workers` takes them on its own
    share of the global batch, with its own weights, slots and batch-norm statistics. All of these
    but the slots are averaged after every update whose number, counted from 1 over the whole run,
    is a multiple of `local_steps`, and after the last of all `updates`: a function of the update
    alone, so that a run that was stopped averages where it would have. The slots are "kept" by each
    worker, "averaged" too, or "reset" to zero. ValueError: a number below its least.

        >>> plan = LocalSchedule(workers=4, local_steps=8, start_update=20, updates=50)
        >>> [u for u in range(51) if u > 20 and plan.is_average(u)]
        [24, 32, 40, 48, 50]
    """

    workers: int  # >= 1; one never averages
    local_steps: int  # updates between two averages, >= 1
    start_update: int = 0  # the first local one, >= 0
    updates: int  # of the whole run, >= 1
    slots: Literal["kept", "averaged", "reset"] = "kept"

    def __post_init__(self) -> None:
        check_fields(self, "", "a whole number of at least 1", "workers", "local_steps", "updates")
        check_fields(self, "", "at least 0", "start_update")
        check_known(self, "", slots=SLOTS)

    def steps_at(self, update: int) -> int:
        """The updates between two averages where `update` is one of them; 1 is synchronous."""
        return self.local_steps if update >= self.start_update else 1

    def is_average(self, update: int) -> bool:
        """Whether all workers have the same weights once so many updates are done."""
        return self.averages(update - 1, update) == 1

    def averages(self, first: int, end: int) -> int:
        """How often workers agree after the updates `first` to `end` - 1."""
        return self._agreed(end) - self._agreed(first)

    def _agreed(self, done: int) -> int:
        local = max(done - self.start_update, 0)
        if not local:
            return done
        start, steps = self.start_update, self.local_steps
        rest = done >= self.updates and done % steps != 0
        return start + done // steps - start // steps + rest

    def block_end(self, first: int, longest: int) -> int:
        """The last average that at most `longest` updates from `first` on reach, or the next one.

        The updates before it run without a visit to the host.
        """
        if first < self.start_update:
            return self.start_update
        steps = self.local_steps
        end = max((first + longest) // steps, first // steps + 1) * steps
        return min(end, self.updates)


@dataclass(frozen=True, kw_only=True)
class LocalSpec:
    """What a paper says of it, in epochs; without it, training is synchronous."""

    local_steps: int = 1  # updates of a worker between two averages; 1 is synchronous
    workers: int = 1  # that share the global batch
    start_epoch: float | None = 0.0  # of local updates; None: where the rate first drops
    slots: Literal["kept", "averaged", "reset"] = "kept"  # of the optimizer, at an average

    def __post_init__(self) -> None:
        whole = "a whole number of at least 1"
        check_fields(self, "local.", whole, "local_steps", "workers")
        check_known(self, "local.", slots=SLOTS)
        start = self.start_epoch
        check(start is None or start >= 0, "local.start_epoch", "at least 0 or none", start)
        alone, rule = self.local_steps > 1 and self.workers == 1, "at least 2 with local_steps"
        check(not alone, "local.workers", rule, self.workers, "Set it to the paper's workers.")

    def schedule(
        self, plan: BatchPlan, epochs: float, first_drop: float | None
    ) -> LocalSchedule | None:
        """Returns it in updates of `plan`; None where all of them are synchronous.

        ValueError: there is no such epoch, or workers and replicas do not divide each other so that
        each replica stands for as many workers.
        """
        if self.local_steps == 1:
            return None
        start = first_drop if self.start_epoch is None else self.start_epoch
        if start is None:
            rule, fix = "an epoch where the rate never drops", "Give the epoch."
            check(False, "local.start_epoch", rule, self.start_epoch, fix)
        name, rule = "local.start_epoch", f"at most {epochs:g}, the epochs"
        check(start <= epochs, name, rule, start)  # type: ignore[operator]
        for what, whole, part in (
            ("a multiple of the replicas", self.workers, plan.replicas),
            ("a divisor of the global batch", plan.global_batch, self.workers),
        ):
            given = f"{self.workers} ({plan})"
            fix = f"--replicas may be what divides {self.workers}."
            check(whole % part == 0, "local.workers", what, given, fix)
        return LocalSchedule(
            workers=self.workers,
            local_steps=self.local_steps,
            start_update=plan.updates_at(start),  # type: ignore[arg-type]
            updates=plan.updates_at(epochs),
            slots=self.slots,
        )
