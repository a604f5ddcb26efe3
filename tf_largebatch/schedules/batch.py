"""Rates that follow the batch: scaled by a rule, or changed as the batch grows."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Self

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.checks import check_count, check_number, check_sequence
from tf_largebatch.records.scaling import scale_factor
from tf_largebatch.schedules.base import Schedule, Tensor, check_schedule, integer


@keras.saving.register_keras_serializable("tf_largebatch")
class Scaled(Schedule):
    """A schedule found at a reference batch, scaled to another batch by a rule.

        rate(u) = scale_factor(rule, global_batch, reference_batch) * schedule(u)

    Args:
        schedule: LearningRateSchedule with the rates of the reference batch.
        rule: "linear" (Goyal et al. 2017, arXiv:1706.02677 §2.1), "sqrt" (Hoffer et al. 2017,
            arXiv:1705.08741) or "none".
        global_batch: examples per update, >= 1.
        reference_batch: the batch at which the rates were found, >= 1.

    Raises:
        ValueError: an unknown rule or a batch below 1.

    Example:
        >>> from tf_largebatch import Constant, Scaled
        >>> rate = Scaled(Constant(0.1), "linear", global_batch=8192, reference_batch=256)
        >>> round(float(rate(0)), 3)
        3.2
    """

    def __init__(
        self, schedule: LearningRateSchedule, rule: str, *, global_batch: int, reference_batch: int
    ) -> None:
        self.schedule = check_schedule("schedule", schedule)
        self.rule = rule
        self.global_batch = check_count("global_batch", global_batch, 1)
        self.reference_batch = check_count("reference_batch", reference_batch, 1)
        self.factor = scale_factor(rule, self.global_batch, self.reference_batch)
        self.last_update = getattr(schedule, "last_update", None)

    def __call__(self, update: Tensor) -> Tensor:
        """The rate of update number `update`, float32, in its shape."""
        return self.factor * ops.cast(self.schedule(integer(update)), "float32")


@keras.saving.register_keras_serializable("tf_largebatch")
class BatchPhases(Schedule):
    """The rate of a training whose batch changes, as in Smith et al. (2017), arXiv:1711.00489.

        rate(u) = rates[k] * over_images(images(u))
        images(u) = sum over earlier phases of batches[i] * updates[i]
                    + batches[k] * (u - first update of phase k)

    k is the phase of update u; the last phase goes on for ever. Without `over_images` the second
    factor is 1. With it, `rates` are usually 1 and the decay is stated in images, as in Mikami et
    al. (2018), arXiv:1811.05233, where the batch changes and the curve over epochs does not.

    Image counts are integers: 64 bits on TensorFlow, 32 bits (2.1e9 images, 1,676 epochs of
    ImageNet) on Keras' other backends.

    Args:
        batches: global batch of each phase, >= 1.
        updates: updates of each phase, >= 1.
        rates: float >= 0, the rate of each phase.
        over_images: None, or a LearningRateSchedule of the images seen before the update.

    Raises:
        ValueError: lists of different or no length, or a value outside its range.

    Example:
        >>> from tf_largebatch import BatchPhases
        >>> rate = BatchPhases(batches=[256, 512], updates=[100, 50], rates=[0.1, 0.2])
        >>> [round(float(rate(update)), 1) for update in (99, 100)]
        [0.1, 0.2]
    """

    def __init__(
        self,
        batches: Sequence[int],
        updates: Sequence[int],
        rates: Sequence[float],
        *,
        over_images: LearningRateSchedule | None = None,
    ) -> None:
        self.batches, self.updates = (
            tuple(check_count(name, value, 1) for value in check_sequence(name, values))
            for name, values in (("batches", batches), ("updates", updates))
        )
        self.rates = tuple(check_number("rates", r) for r in check_sequence("rates", rates))
        if not len(self.batches) == len(self.updates) == len(self.rates) > 0:
            raise ValueError(
                "`batches`, `updates` and `rates` must have one value per phase, at least one. "
                f"Received: batches={self.batches}, updates={self.updates}, rates={self.rates}"
            )
        if over_images is not None:
            check_schedule("over_images", over_images)
        self.over_images = over_images

    @classmethod
    def from_epochs(
        cls,
        plans: Sequence[BatchPlan],
        starts: Sequence[float],
        rates: Sequence[float],
        *,
        total_epochs: float,
        over_images: LearningRateSchedule | None = None,
    ) -> Self:
        """Starts each phase at the first update at or after its epoch, given those before it.

        Args:
            plans: one BatchPlan per phase.
            starts: the epoch at which each phase starts; the first is 0.
            rates: as for the constructor.
            total_epochs: epochs of the whole run.
            over_images: as for the constructor.

        Raises:
            ValueError: starts that do not rise from 0 to `total_epochs`.
        """
        check_sequence("plans", plans)
        check_sequence("starts", starts)
        edges = [_exact(epoch) for epoch in (*starts, total_epochs)]
        if len(plans) != len(starts) or edges[0] != 0 or sorted(set(edges)) != edges:
            raise ValueError(
                "`starts` must have one epoch per plan, rising from 0 and below `total_epochs`. "
                f"Received: starts={starts}, total_epochs={total_epochs!r} for {len(plans)} plans"
            )
        updates: list[int] = []
        epoch = Fraction(0)
        for plan, end in zip(plans, edges[1:], strict=True):
            # A phase that ends within an update leaves the next one a little less to do.
            updates.append(math.ceil((end - epoch) * plan.updates_per_epoch))
            epoch += updates[-1] / plan.updates_per_epoch
        batches = [plan.global_batch for plan in plans]
        return cls(batches, updates, rates, over_images=over_images)

    @property
    def first_updates(self) -> tuple[int, ...]:
        """The number of the first update of each phase."""
        return tuple(sum(self.updates[:phase]) for phase in range(len(self.updates)))

    @property
    def total_updates(self) -> int:
        """Updates of all phases."""
        return sum(self.updates)

    def images_before(self, update: Tensor) -> Tensor:
        """Returns the images seen before update number `update`, integer, in its shape."""
        count = integer(update)
        images, seen = count * self.batches[0], 0
        for phase, first in enumerate(self.first_updates):
            images = ops.where(count >= first, (count - first) * self.batches[phase] + seen, images)
            seen += self.batches[phase] * self.updates[phase]
        return images

    def __call__(self, update: Tensor) -> Tensor:
        """The rate of update number `update`, float32, in its shape."""
        count = integer(update)
        rate = ops.full_like(count, self.rates[0], dtype="float32")
        for first, new in zip(self.first_updates, self.rates, strict=True):
            rate = ops.where(count >= first, ops.cast(new, "float32"), rate)
        if self.over_images is None:
            return rate
        return rate * ops.cast(self.over_images(self.images_before(count)), "float32")


def follow_phases(
    phases: Sequence[BatchPlan], epochs: float, course: Callable[[BatchPlan], LearningRateSchedule]
) -> LearningRateSchedule:
    """The rate of every update of a training that ends after `epochs`.

    Where the batch changes, the rate follows the images: `course` makes it for updates of a plan,
    and a batch of 1 counts images where updates are counted.
    """
    if len(phases) == 1:
        return course(phases[0])
    starts = [plan.start_update for plan in phases] + [phases[-1].updates_at(epochs)]
    return BatchPhases(
        [plan.global_batch for plan in phases],
        [max(b - a, 1) for a, b in zip(starts, starts[1:], strict=False)],
        [1.0] * len(phases),
        over_images=course(BatchPlan(global_batch=1, train_examples=phases[0].train_examples)),
    )


def _exact(epoch: float) -> Fraction:
    """Returns an epoch as `BatchPlan.updates_at` reads it."""
    return Fraction(epoch).limit_denominator(1_000_000)
