"""Frozen records of a published training set-up: every number that a paper states, and no code.

A `Recipe` checks itself when it is made; siblings are made with `dataclasses.replace`. What a
record means in TensorFlow is decided in `train.py` alone. Standard library only.
"""

from dataclasses import dataclass
from typing import Literal

from tf_largebatch import architectures
from tf_largebatch.batching import BatchPlan
from tf_largebatch.datasets import DATASETS
from tf_largebatch.scaling import RULES, explain_rate, scaled_rate
from tf_largebatch.settings import PRECISIONS


def _check(ok: bool, name: str, rule: str, value: object) -> None:
    if not ok:
        raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}")


@dataclass(frozen=True, kw_only=True)
class ImageNetSpec:
    """ImageNet from TFRecord shards, cropped at random for training (recipes differ in the ranges).

    Attributes:
        name: always "imagenet2012".
        image_size: side of the square the model sees, pixels.
        min_area, max_area: range of the crop's share of the picture's area.
        min_aspect, max_aspect: range of the crop's width / height.
        eval_short_side: shorter side before the central crop of `image_size` at evaluation, pixels.
    """

    name: Literal["imagenet2012"] = "imagenet2012"
    image_size: int = 224
    min_area: float = 0.08
    max_area: float = 1.0
    min_aspect: float = 3 / 4
    max_aspect: float = 4 / 3
    eval_short_side: int = 256

    def __post_init__(self):
        _check(self.image_size >= 32, "data.image_size", "at least 32", self.image_size)
        _check(0 < self.min_area <= self.max_area, "data.min_area", "in (0, max]", self.min_area)
        _check(self.max_area <= 1, "data.max_area", "at most 1", self.max_area)
        _check(
            0 < self.min_aspect <= self.max_aspect,
            "data.min_aspect",
            "in (0, data.max_aspect]",
            self.min_aspect,
        )
        _check(
            self.eval_short_side >= self.image_size,
            "data.eval_short_side",
            f"at least data.image_size ({self.image_size})",
            self.eval_short_side,
        )


@dataclass(frozen=True, kw_only=True)
class DigitsSpec:
    """scikit-learn's handwritten digits: 1797 real images of 8 x 8 that need no download.

    Attributes:
        name: always "digits".
        shift: largest shift of a training image along each axis, pixels.
        noise: standard deviation of the Gaussian noise on training images, of pixels in 0..1.
    """

    name: Literal["digits"] = "digits"
    shift: int = 1
    noise: float = 0.3

    def __post_init__(self):
        _check(0 <= self.shift <= 7, "data.shift", "in 0..7", self.shift)
        _check(self.noise >= 0, "data.noise", "at least 0", self.noise)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The network and the switches that recipes set on it.

    Attributes:
        architecture: one of `architectures.ARCHITECTURES`, by name.
        last_gamma: initial scale of the last batch norm of every residual block.
        bn_batch: images whose statistics are shared by one batch normalisation; None for those of
            one forward pass.
        bn_decay: decay of the running statistics per update.
        bn_epsilon: added to the variance.
        bn_recompute_images: training images from which the statistics of evaluation are taken
            afresh after every epoch; 0 for the running ones.
        head_std: deviation of the initial weights of the classifier.
    """

    architecture: str
    last_gamma: float = 0.0
    bn_batch: int | None = None
    bn_decay: float = 0.9
    bn_epsilon: float = 1e-5
    bn_recompute_images: int = 0
    head_std: float = 0.01

    def __post_init__(self):
        architectures.get(self.architecture)
        _check(
            self.bn_batch is None or self.bn_batch >= 2,
            "model.bn_batch",
            "at least 2 or none",
            self.bn_batch,
        )
        _check(0 <= self.bn_decay < 1, "model.bn_decay", "in [0, 1)", self.bn_decay)
        _check(self.bn_epsilon > 0, "model.bn_epsilon", "above 0", self.bn_epsilon)
        _check(
            self.bn_recompute_images >= 0,
            "model.bn_recompute_images",
            "at least 0",
            self.bn_recompute_images,
        )
        _check(self.head_std >= 0, "model.head_std", "at least 0", self.head_std)


def _check_optimizer(spec) -> None:
    _check(0 <= spec.momentum < 1, "optimizer.momentum", "in [0, 1)", spec.momentum)
    _check(spec.weight_decay >= 0, "optimizer.weight_decay", "at least 0", spec.weight_decay)
    _check(
        spec.exempt_rank_below >= 0,
        "optimizer.exempt_rank_below",
        "at least 0",
        spec.exempt_rank_below,
    )


@dataclass(frozen=True, kw_only=True)
class SGDSpec:
    """Momentum SGD with the rate outside the velocity (arXiv:1706.02677 eq. 9).

    Attributes:
        momentum: decay of the velocity per update.
        nesterov: look ahead by one momentum step.
        weight_decay: L2 coefficient inside the gradient.
        exempt_rank_below: tensors of lower rank have no decay (2: biases and batch norm).
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    exempt_rank_below: int = 2

    __post_init__ = _check_optimizer


@dataclass(frozen=True, kw_only=True)
class LARSSpec:
    """LARS (arXiv:1708.03888 Algorithm 1): momentum SGD with a rate per tensor.

    Attributes:
        momentum: decay of the velocity per update.
        nesterov: look ahead by one momentum step.
        weight_decay: L2 coefficient inside the update.
        trust_coefficient: the paper's eta.
        epsilon: added to the denominator of the ratio.
        momentum_placement: "inside" (the rate in the velocity: the paper), "outside" or "update".
        decay_in_norm: "sum" for |g| + decay |w| (the paper), "combined" for |g + decay w|.
        exempt_rank_below: tensors of lower rank have no decay and no ratio.
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    trust_coefficient: float = 0.001
    epsilon: float = 0.0
    momentum_placement: Literal["inside", "outside", "update"] = "inside"
    decay_in_norm: Literal["sum", "combined"] = "sum"
    exempt_rank_below: int = 2

    def __post_init__(self):
        _check_optimizer(self)
        _check(
            self.trust_coefficient > 0,
            "optimizer.trust_coefficient",
            "above 0",
            self.trust_coefficient,
        )
        _check(self.epsilon >= 0, "optimizer.epsilon", "at least 0", self.epsilon)


@dataclass(frozen=True, kw_only=True)
class StepsSpec:
    """A warmup, then the peak rate, multiplied by `drop_factor` at each of `drop_epochs`.

    Attributes:
        drop_epochs: epochs since the start of training, rising.
        drop_factor: in (0, 1].
        warmup_epochs: 0 for none.
        warmup_start_rate: the rate of the first update.
        warmup_shape: "linear" rises at every update; "constant" stays at the start rate.
    """

    drop_epochs: tuple[float, ...]
    drop_factor: float = 0.1
    warmup_epochs: float = 0.0
    warmup_start_rate: float = 0.0
    warmup_shape: Literal["linear", "constant"] = "linear"

    def __post_init__(self):
        rising = all(a < b for a, b in zip(self.drop_epochs, self.drop_epochs[1:], strict=False))
        _check(
            rising and all(e > 0 for e in self.drop_epochs),
            "schedule.drop_epochs",
            "rising and above 0",
            self.drop_epochs,
        )
        _check(0 < self.drop_factor <= 1, "schedule.drop_factor", "in (0, 1]", self.drop_factor)
        _check(self.warmup_epochs >= 0, "schedule.warmup_epochs", "at least 0", self.warmup_epochs)
        _check(
            self.warmup_start_rate >= 0,
            "schedule.warmup_start_rate",
            "at least 0",
            self.warmup_start_rate,
        )
        if self.drop_epochs:
            _check(
                self.warmup_epochs <= self.drop_epochs[0],
                "schedule.warmup_epochs",
                f"at most the first drop ({self.drop_epochs[0]:g})",
                self.warmup_epochs,
            )

    def milestones(self, peak_rate: float, plan: BatchPlan) -> list[tuple[float, int, float, str]]:
        """Returns (epoch, update, rate, what happens) wherever the rate changes its course."""
        points = []
        if self.warmup_epochs:
            how = "rises with every update" if self.warmup_shape == "linear" else "waits"
            points.append((0.0, self.warmup_start_rate, f"warmup starts: {how}"))
            points.append((self.warmup_epochs, peak_rate, "warmup ends"))
        else:
            points.append((0.0, peak_rate, "no warmup"))
        for n, epoch in enumerate(self.drop_epochs, start=1):
            points.append((epoch, peak_rate * self.drop_factor**n, f"x {self.drop_factor:g}"))
        return [(epoch, plan.updates_at(epoch), rate, what) for epoch, rate, what in points]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the paper reports for a recipe.

    Attributes:
        top1_error_pct: validation error in percent, by the paper's own rule.
        std_pct: deviation over its runs, or None where it gives none.
        runs: number of runs behind it.
        source: table or section.
    """

    top1_error_pct: float
    std_pct: float | None = None
    runs: int | None = None
    source: str

    def __post_init__(self):
        _check(
            0 <= self.top1_error_pct <= 100,
            "expected.top1_error_pct",
            "in 0..100",
            self.top1_error_pct,
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One row of one table: everything that decides a result.

    Attributes:
        name: the module's name.
        title: one line.
        paper: arXiv number and table.
        data: the data set and its augmentation.
        model: the network.
        global_batch: images per update over all replicas.
        epochs: length of training.
        reference_rate: the rate at `reference_batch`.
        reference_batch: the batch at which the reference rate holds.
        scaling: "linear", "sqrt" or "none" (see `scaling.py`).
        optimizer: the update rule.
        schedule: the course of the rate.
        precision: of the forward and backward pass, as published.
        wire: type in which gradients travel between devices, as published.
        whole_epochs: round the updates of each epoch up (see `batching.py`).
        expected: the published result.
        notes: where this code must differ from the paper, or cannot know; printed at every start.

    Raises:
        ValueError: a value out of its range.
    """

    name: str
    title: str
    paper: str
    data: ImageNetSpec | DigitsSpec
    model: ModelSpec
    global_batch: int
    epochs: float
    reference_rate: float
    reference_batch: int
    scaling: Literal["linear", "sqrt", "none"] = "linear"
    optimizer: SGDSpec | LARSSpec
    schedule: StepsSpec
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    wire: Literal["float32", "bfloat16", "float16"] = "float32"
    whole_epochs: bool = False
    expected: Expected | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        _check(self.global_batch >= 1, "global_batch", "at least 1", self.global_batch)
        _check(self.epochs > 0, "epochs", "above 0", self.epochs)
        _check(self.reference_rate > 0, "reference_rate", "above 0", self.reference_rate)
        _check(self.reference_batch >= 1, "reference_batch", "at least 1", self.reference_batch)
        for name in ("precision", "wire"):
            value = getattr(self, name)
            _check(value in PRECISIONS, name, f"one of {', '.join(PRECISIONS)}", value)
        _check(self.scaling in RULES, "scaling", f"one of {', '.join(RULES)}", self.scaling)
        ends = (self.schedule.warmup_epochs, *self.schedule.drop_epochs)
        _check(
            max(ends) <= self.epochs,
            "epochs",
            f"at least the schedule's last change ({max(ends):g})",
            self.epochs,
        )

    @property
    def peak_rate(self) -> float:
        """The reference rate, scaled to the global batch."""
        return scaled_rate(
            self.scaling, self.reference_rate, self.global_batch, self.reference_batch
        )

    @property
    def rate_arithmetic(self) -> str:
        """The same as text: `3.2 = 0.1 x 8192 / 256 (linear)`."""
        return explain_rate(
            self.scaling, self.reference_rate, self.global_batch, self.reference_batch
        )

    def batch_plan(
        self,
        *,
        replicas: int = 1,
        micro_batch: int | None = None,
        train_examples: int | None = None,
    ) -> BatchPlan:
        """Returns the plan of one update on this many replicas.

        Args:
            replicas: devices that train in step.
            micro_batch: examples per replica per forward pass; None takes the batch-norm batch
                on ImageNet (always right, and small) and the whole replica batch on small images.
            train_examples: of the data at hand; None takes the data set's published size.

        Raises:
            ValueError: sizes that do not divide, or that would change the batch-norm batch.
        """
        plan = BatchPlan(
            global_batch=self.global_batch,
            train_examples=train_examples or DATASETS[self.data.name].train_examples,
            replicas=replicas,
            micro_batch=micro_batch,
            whole_epochs=self.whole_epochs,
        )
        bn_batch = self.model.bn_batch
        if bn_batch is None:
            return plan
        if micro_batch is None and isinstance(self.data, ImageNetSpec):
            micro_batch = min(bn_batch, plan.replica_batch)
            return self.batch_plan(
                replicas=replicas, micro_batch=micro_batch, train_examples=train_examples
            )
        if plan.micro_batch % bn_batch == 0 or self.bn_replicas(plan) > 1:
            return plan
        raise ValueError(
            f"`micro_batch` must be a multiple of the batch-norm batch of {bn_batch}, or a part of "
            f"it that whole groups of replicas make up. Received: micro_batch={plan.micro_batch} "
            f"({plan}). Use fewer replicas or another --micro-batch."
        )

    def bn_replicas(self, plan: BatchPlan) -> int:
        """Returns how many replicas share batch-norm statistics, 1 if each has its own.

        Several share them where a replica's part of an update is smaller than the batch-norm
        batch: consecutive replicas hold consecutive images, so a group holds one batch-norm batch.
        """
        bn_batch = self.model.bn_batch or 0
        group = bn_batch // plan.micro_batch
        whole = bn_batch % plan.micro_batch == 0 and plan.accumulation == 1
        return group if whole and group > 1 and plan.replicas % group == 0 else 1


@dataclass(frozen=True, kw_only=True)
class MiniatureRow:
    """One run of a miniature, and the row of the paper that it mirrors.

    Attributes:
        label: a few words, unique in the miniature.
        shows: what to look for.
        recipe: the row's own recipe, at the miniature's scale.
        published: the paper's result for the mirrored row, at the paper's scale.
    """

    label: str
    shows: str
    recipe: Recipe
    published: Expected | None = None


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """The same experiment on data and a network that fit a laptop, with the paper's ratio kept.

    Attributes:
        contrast: what the paper's rows and these have in common, in one sentence.
        rows: run in this order.
    """

    contrast: str
    rows: tuple[MiniatureRow, ...]

    def __post_init__(self):
        labels = [row.label for row in self.rows]
        _check(len(set(labels)) == len(labels), "rows", "labelled uniquely", labels)
