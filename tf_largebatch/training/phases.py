"""The phases of a batch that changes: which step and which data each update takes."""

import sys
from collections.abc import Callable, Iterator, Sequence

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.training.step import TrainingStep


class Phases:
    """The step and the data of each update, made anew where the batch changes.

    Each phase is compiled once; optimizer state and weights go on. `batches` gives for a plan and
    an update the data that starts there.
    """

    def __init__(
        self,
        step: TrainingStep,
        later: Sequence[BatchPlan],
        batches: Callable[[BatchPlan, int], Iterator],
    ):
        self._plans = [step.plan, *later]
        self._step, self._batches = step, batches
        self._iterator: Iterator | None = None

    def updates_at(self, epoch: float) -> int:
        """The first update at or after `epoch`."""
        return [p for p in self._plans if p.start_epoch <= epoch][-1].updates_at(epoch)

    def position_at(self, update: int) -> int:
        """The examples used before `update`."""
        return [p for p in self._plans if p.start_update <= update][-1].position_at(update)

    def at(self, update: int) -> tuple[TrainingStep, Iterator, int]:
        """The step, the data, and the update at which they end."""
        number = max(i for i, p in enumerate(self._plans) if p.start_update <= update)
        plan = self._plans[number]
        if self._iterator is None or plan is not self._step.plan:
            if plan is not self._step.plan:
                self._step = self._step.for_plan(plan)
            self._iterator = self._batches(plan, update)
        later = self._plans[number + 1 :]
        return self._step, self._iterator, later[0].start_update if later else sys.maxsize
