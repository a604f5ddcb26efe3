"""One training: what is trained, where, on which data, and by whom."""

from dataclasses import dataclass
from pathlib import Path

from tf_largebatch.data.dataset import DataSet as DataSet
from tf_largebatch.records.plan import Plan
from tf_largebatch.training.workers.team import Team


@dataclass(frozen=True, kw_only=True)
class Run:
    """One recipe with one seed.

    Attributes:
        label: shown while it runs.
        plan: the resolved recipe and batch.
        dataset: where the pictures come from.
        seed: of weights, order and augmentation.
        folder: the run's own folder; all workers see the same one, and the chief writes it.
        team: the workers that train it.
        stop_epoch: end here instead of at the recipe's end, to be continued later.
        profile: (first, end) updates to trace; none where they are equal.
    """

    label: str
    plan: Plan
    dataset: DataSet
    seed: int
    folder: Path
    team: Team
    stop_epoch: float | None = None
    profile: tuple[int, int] = (0, 0)
