"""Frozen records of a published training set-up: every number that a paper states, and no code.

A `Recipe` checks itself when it is made; siblings are made with `dataclasses.replace`. What a
record means in TensorFlow is decided in `training/build.py` alone.
"""

import itertools
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from tf_largebatch.records import architectures
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.checks import check, check_fields, check_known
from tf_largebatch.records.contrast import Contrast
from tf_largebatch.records.curve import Reached, StopSpec
from tf_largebatch.records.data_spec import DataSpec, DigitsSpec, ImageNetSpec, SmallImagesSpec
from tf_largebatch.records.datasets import DATASETS
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.local import LocalSchedule, LocalSpec
from tf_largebatch.records.model_spec import LossSpec, ModelSpec
from tf_largebatch.records.optimizer_spec import (
    PLANNED,
    KFACSpec,
    LAMBSpec,
    LARSSpec,
    OptimizerSpec,
    RMSpropSGDSpec,
    SGDSpec,
    ShampooSpec,
)
from tf_largebatch.records.scaling import RULES, explain_rate, scaled_rate
from tf_largebatch.records.schedule_spec import CosineSpec, PolynomialSpec, ScheduleSpec, StepsSpec
from tf_largebatch.records.settings import PRECISIONS

LEAST_SIDE, IMAGENET_SIDE = 32, 224  # of a picture that 2 ** 5 leaves a pixel of; of ImageNet's
MICRO_BATCH = 64  # of ImageNet images, where batch norm does not decide

# What a module of `recipes` is written in.
__all__ = ["Contrast", "Expected", "Miniature", "Recipe", "Row", "ModelSpec", "LossSpec"]
__all__ += ["ImageNetSpec", "DigitsSpec", "SmallImagesSpec"]
__all__ += ["SGDSpec", "LARSSpec", "LAMBSpec", "RMSpropSGDSpec", "ShampooSpec", "KFACSpec"]
__all__ += ["CosineSpec", "PolynomialSpec", "StepsSpec", "StopSpec", "LocalSpec"]


@dataclass(frozen=True)
class Expected:
    """What the paper reports for a recipe: `Expected(23.74, std=0.09, runs=5, source="Table 1")`.

    Validation error by the paper's own rule and its deviation over the runs, both in percent.
    """

    top1_error_pct: float
    _: KW_ONLY
    std: float | None = None
    runs: int | None = None
    reached: Reached | None = None  # what the median run took, where runs stop at an accuracy
    source: str

    def __post_init__(self) -> None:
        error = self.top1_error_pct
        check(0 <= error <= 100, "expected.top1_error_pct", "in 0..100", error)

    @property
    def top1_accuracy_pct(self) -> float:
        """100 - error, in the digits of the tables."""
        return round(100 - self.top1_error_pct, 6)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One row of one table: everything that decides a result; ValueError where it cannot be."""

    name: str  # the module's
    row: str | None = None  # which one, in a module that states a family of recipes
    title: str  # one line
    paper: str  # arXiv number and table
    data: DataSpec
    model: ModelSpec
    global_batch: int  # images per update over all replicas
    epochs: float
    reference_rate: float  # at `reference_batch`
    reference_batch: int
    scaling: Literal["linear", "sqrt", "none"] = "linear"  # of that rate (see `scaling.py`)
    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    loss: LossSpec = LossSpec()
    # (epoch, global batch) of every later phase of a batch that changes; the rate follows the
    # images seen, and is scaled to the first batch.
    growth: tuple[tuple[float, int], ...] = ()
    # Of the forward and backward pass, and of gradients between devices, both as published.
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    wire: Literal["float32", "bfloat16", "float16"] = "float32"
    whole_epochs: bool = False  # round the updates of each epoch up (see `batching.py`)
    stop: StopSpec | None = None  # before the schedule's end, at an accuracy
    local: LocalSpec = LocalSpec()  # updates that workers take apart (see `local.py`)
    expected: Expected | None = None
    # Where this code must differ from the paper, or cannot know; printed at every start.
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "", "at least 1", "global_batch", "reference_batch")
        check_fields(self, "", "above 0", "epochs", "reference_rate")
        check_known(self, "", precision=PRECISIONS, wire=PRECISIONS, scaling=RULES)
        self._check_network()
        self.schedule.check_epochs(self.epochs)
        plain = self.data.plain_last_epochs
        check(plain <= self.epochs, "data.plain_last_epochs", f"at most {self.epochs:g}", plain)
        growth = self.growth
        starts = [0.0, *(epoch for epoch, _ in growth), self.epochs]
        rising = all(a < b for a, b in itertools.pairwise(starts))
        check(rising, "growth", f"at rising epochs within 0 to {self.epochs:g}", growth)
        check(not growth or not self.whole_epochs, "growth", "empty with whole_epochs", growth)
        check(all(batch >= 1 for _, batch in growth), "growth", "of batches >= 1", growth)
        if self.local.local_steps > 1:
            self._check_local()

    def _check_local(self) -> None:
        """Workers that train apart agree by a mean of plain numbers, over shares of one size."""
        local, optimizer = self.local, type(self.optimizer).__name__.removesuffix("Spec")
        name, steps = "local.local_steps", local.local_steps
        known = isinstance(self.optimizer, SGDSpec | LARSSpec | LAMBSpec | RMSpropSGDSpec)
        check(known, name, f"1 with {optimizer}, whose state is of all workers", steps)
        check(not self.growth, name, "1 with growth, a batch that changes", steps)
        sent = self.precision != "float16" and self.wire == "float32"
        rule = "1 with precision float16, or with a wire that is not float32"
        check(sent, name, rule, steps)
        plain = isinstance(self.optimizer, SGDSpec | LARSSpec) or local.slots != "reset"
        rule = f"kept or averaged with {optimizer}, which counts its updates"
        check(plain, "local.slots", rule, local.slots)
        share, bn_batch = self.global_batch / local.workers, self.model.bn_batch or 1
        rule = f"such that each has a multiple of {bn_batch} of the {self.global_batch} images"
        check(share % bn_batch == 0, "local.workers", rule, local.workers)

    def local_schedule(self, plan: BatchPlan) -> LocalSchedule | None:
        """Returns which updates are local; None where none is.

        ValueError: there is no such epoch, or workers and replicas do not divide.
        """
        drops = self.schedule.drop_epochs if isinstance(self.schedule, StepsSpec) else ()
        return self.local.schedule(plan, self.epochs, drops[0] if drops else None)

    def _check_network(self) -> None:
        """A network that halves its pictures five times leaves nothing of the digits."""
        shape, name = DATASETS[self.data.name].image_shape, self.model.architecture
        if shape is not None and min(shape[:2]) < LEAST_SIDE:
            large = min(architectures.get(name).image_shape[:2]) >= IMAGENET_SIDE
            rule = f"a network for pictures of {shape[0]} x {shape[1]}"
            check(not large, "model.architecture", rule, name, "Use digits_resnet.")

    @property
    def missing(self) -> str:
        """What this package would need to train it; nothing for most."""
        name = PLANNED.get(type(self.optimizer))
        return f"the optimizer {name}" if name else ""

    def check_trains(self) -> None:
        """Raises InputError where something is missing."""
        if self.missing:
            raise InputError(
                f"{self.label} must have all that it needs to train. Received: a plan without "
                f"{self.missing}, which is not here yet. --plan shows its numbers"
            )

    @property
    def label(self) -> str:
        """The name, with the row of a family."""
        return self.name if self.row is None else f"{self.name}, {self.row}"

    @property
    def peak_rate(self) -> float:
        """The reference rate, scaled to the global batch."""
        return scaled_rate(*self._rule)

    @property
    def rate_arithmetic(self) -> str:
        """The same as text: `3.2 = 0.1 x 8192 / 256 (linear)`."""
        return explain_rate(*self._rule)

    @property
    def _rule(self) -> tuple[str, float, int, int]:
        return self.scaling, self.reference_rate, self.global_batch, self.reference_batch

    @property
    def updates(self) -> int:
        """Updates of the whole training on one device, at the data set's published size."""
        return self.phases()[-1].updates_at(self.epochs)

    def batch_plan(self, **sizes: int | None) -> BatchPlan:
        """Returns how the first update is split; arguments and errors as for `phases`."""
        return self.phases(**sizes)[0]  # type: ignore[arg-type]

    def phases(
        self,
        *,
        replicas: int = 1,
        micro_batch: int | None = None,
        train_examples: int | None = None,
    ) -> tuple[BatchPlan, ...]:
        """Returns how updates are split in each phase of the batch; one where it does not change.

        Args:
            replicas: devices that train in step.
            micro_batch: examples per replica per forward pass; None takes the batch-norm batch
                on ImageNet (always right, and small) and the whole replica batch on small images.
            train_examples: None takes the data set's published size.

        Raises:
            ValueError: sizes that do not divide, or that would change the batch-norm batch.
        """
        first = BatchPlan(
            global_batch=self.global_batch,
            train_examples=train_examples or DATASETS[self.data.name].train_examples,
            replicas=replicas,
            micro_batch=self._micro_batch(self.global_batch, replicas, micro_batch),
            whole_epochs=self.whole_epochs,
        )
        phases = [first]
        for epoch, batch in self.growth:
            micro = self._micro_batch(batch, replicas, micro_batch)
            phases.append(phases[-1].followed_by(epoch, batch, micro))
        groups = {self._checked_bn_replicas(phase) for phase in phases}
        if len(groups) > 1:
            rule = "batch norm must be shared by as many replicas in every phase"
            given = f"{groups} for batches {[phase.global_batch for phase in phases]}"
            raise ValueError(f"{rule}. Received: {given}. Use fewer replicas.")
        return tuple(phases)

    def _micro_batch(self, global_batch: int, replicas: int, wanted: int | None) -> int:
        """The default on ImageNet is the batch-norm batch, or what nearly every device can hold."""
        replica_batch = max(global_batch // replicas, 1)
        if wanted is not None or not isinstance(self.data, ImageNetSpec):
            return replica_batch if wanted is None else wanted
        if self.model.bn_batch is not None:
            return min(self.model.bn_batch, replica_batch)
        return max(d for d in range(1, MICRO_BATCH + 1) if replica_batch % d == 0)

    def _checked_bn_replicas(self, phase: BatchPlan) -> int:
        bn_batch, replicas = self.model.bn_batch, self.bn_replicas(phase)
        if bn_batch is None or phase.micro_batch % bn_batch == 0 or replicas > 1:
            return replicas
        raise ValueError(
            f"`micro_batch` must be a multiple of the batch-norm batch of {bn_batch}, or a part of "
            f"it that whole groups of replicas make up. Received: micro_batch={phase.micro_batch} "
            f"({phase}). Use fewer replicas or another --micro-batch."
        )

    def bn_replicas(self, phase: BatchPlan) -> int:
        """Returns how many replicas share batch-norm statistics, 1 if each has its own.

        Several share them where a replica's part of an update is smaller than the batch-norm
        batch: consecutive replicas hold consecutive images, so a group holds one batch-norm batch.
        """
        bn_batch = self.model.bn_batch or 0
        group = bn_batch // phase.micro_batch
        whole = bn_batch % phase.micro_batch == 0 and phase.accumulation == 1
        return group if whole and group > 1 and phase.replicas % group == 0 else 1


# Names that fields of an optimizer had in the folders of earlier versions.
_RENAMED = {
    "exempt_rank_below": "exclude_rank_below",
    "clip_norm": "global_clipnorm",
    "rmsprop_rate": "rmsprop_learning_rate",
}


def deciding(recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns of a recipe's plain data what decides a run: all but what it says beside that."""
    beside = ("title", "expected", "notes")
    kept = {name: value for name, value in recipe.items() if name not in beside}
    # Earlier versions had no such fields.
    if kept.get("stop") is None:
        kept.pop("stop", None)
    if kept.get("local", {}).get("local_steps", 1) == 1:
        kept.pop("local", None)
    optimizer = {_RENAMED.get(k, k): value for k, value in kept.get("optimizer", {}).items()}
    return {**kept, "optimizer": optimizer}


@dataclass(frozen=True)
class Row:
    """One row of a table: what is run, and the paper's result beside it."""

    label: str  # a few words, unique in the table
    shows: str  # what to look for
    recipe: Recipe  # what is run; in a miniature at the miniature's scale
    published: Expected | None = None  # for this row, at the paper's scale
    of: str | None = None  # the row that it stands for, where the module states several


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """The same experiment on data and a network that fit a laptop, with the paper's ratio kept.

    Without rows there is none, and `contrast` says why.
    """

    contrast: str  # what the paper's rows and these have in common, in one sentence
    rows: tuple[Row, ...]  # run in this order
    claims: tuple[Contrast, ...] = ()  # what would agree with the paper; the verdict is of all

    def __post_init__(self) -> None:
        labels = [row.label for row in self.rows]
        check(len(set(labels)) == len(labels), "rows", "labelled uniquely", labels)
        for claim in self.claims:
            claim.check_rows(labels)

    def about(self, recipe: Recipe) -> tuple[Contrast, ...]:
        """Returns the claims that a published recipe takes part in; none where no row is of it."""
        of = {row.label: row.of for row in self.rows}
        return tuple(c for c in self.claims if recipe.row in (None, of[c.row], of[c.minus]))
