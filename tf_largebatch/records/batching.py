"""One global batch as replicas x micro-batches, and epochs as updates.

Training data is one endless stream of epochs: update `u` takes examples `u * B` to
`(u + 1) * B - 1` of it, so every training batch is full, every image is seen once per epoch, and a
batch may hold the end of one epoch and the start of the next. An epoch therefore ends *within* an
update, and "the first update at or after epoch e" is `ceil(e * N / B)`: 90 epochs of ImageNet at
8,192 are 14,076 updates, as published. Systems that round the updates of each epoch up (16 at
81,920: 1,440 updates in 90 epochs) set `whole_epochs`.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from tf_largebatch.records.checks import check_fields


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How one update's examples are spread over devices and time.

    `global_batch = replicas x micro_batch x accumulation`.

    Attributes:
        global_batch: examples per update over all replicas, > 0.
        train_examples: examples per epoch, > 0.
        replicas: devices that train in step, > 0.
        micro_batch: examples per replica per forward pass; the whole replica batch if left out.
        whole_epochs: round the updates of each epoch up instead of those of the whole run.
        start_update: the first update that is split so; others came before it where the batch
            changes during training (see `followed_by`).
        start_position: examples used before that update.
        start_epoch: the epoch, exact, at which that update starts.

    Raises:
        ValueError: a size below 1, or sizes that do not divide the global batch.

    Example:
        >>> from tf_largebatch import BatchPlan
        >>> plan = BatchPlan(
        ...     global_batch=8192, train_examples=1_281_167, replicas=8, micro_batch=64
        ... )
        >>> plan.accumulation, plan.updates_at(90)  # 8192 = 8 x 64 x 16
        (16, 14076)
    """

    global_batch: int
    train_examples: int
    replicas: int = 1
    micro_batch: int = None  # type: ignore[assignment]  # set below
    whole_epochs: bool = False
    start_update: int = 0
    start_position: int = 0
    start_epoch: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        whole = "a whole number of at least 1"
        check_fields(self, "", whole, "global_batch", "train_examples", "replicas")
        if self.global_batch % self.replicas:
            raise ValueError(
                f"`global_batch` must be a multiple of the replicas. Received: "
                f"global_batch={self.global_batch}, replicas={self.replicas}. Replica counts that "
                f"divide it: {_nearest_divisors(self.global_batch, self.replicas)}"
            )
        if self.micro_batch is None:
            object.__setattr__(self, "micro_batch", self.replica_batch)
        check_fields(self, "", whole, "micro_batch")
        if self.replica_batch % self.micro_batch:
            raise ValueError(
                f"`micro_batch` must divide the replica batch of {self.replica_batch} "
                f"({self.global_batch} / {self.replicas} replicas). Received: "
                f"micro_batch={self.micro_batch}. Nearest that do: "
                f"{_nearest_divisors(self.replica_batch, self.micro_batch)}"
            )

    @property
    def replica_batch(self) -> int:
        """Examples per replica per update."""
        return self.global_batch // self.replicas

    @property
    def accumulation(self) -> int:
        """Micro-steps per update."""
        return self.replica_batch // self.micro_batch

    @property
    def updates_per_epoch(self) -> Fraction:
        """Updates per epoch, exact: 1281167/8192, or its ceiling with `whole_epochs`."""
        exact = Fraction(self.train_examples, self.global_batch)
        return Fraction(math.ceil(exact)) if self.whole_epochs else exact

    def updates_at(self, epoch: float) -> int:
        """Returns the number of the first update at or after `epoch` (may be fractional)."""
        # limit_denominator turns 0.3125 and 0.1 + 0.2 into what was meant, so that a binary
        # rounding error of an epoch count never costs an update.
        exact = Fraction(epoch).limit_denominator(1_000_000) - self.start_epoch
        return self.start_update + max(math.ceil(exact * self.updates_per_epoch), 0)

    def epoch_at(self, update: int) -> float:
        """Returns the fractional epoch at which update number `update` starts."""
        return float(self._exact_epoch_at(update))

    def _exact_epoch_at(self, update: int) -> Fraction:
        return self.start_epoch + (update - self.start_update) / self.updates_per_epoch

    def position_at(self, update: Any) -> Any:
        """Returns the examples used before `update`: a number, or a tensor for a tensor."""
        return self.start_position + (update - self.start_update) * self.global_batch

    def followed_by(self, epoch: float, global_batch: int, micro_batch: int) -> "BatchPlan":
        """Returns the plan of another batch from the first update at or after `epoch` on."""
        update = self.updates_at(epoch)
        position, start = self.position_at(update), self._exact_epoch_at(update)
        split = replace(self, global_batch=global_batch, micro_batch=micro_batch)
        return replace(split, start_update=update, start_position=position, start_epoch=start)

    def of_workers(self, count: int) -> "BatchPlan":
        """Returns the same batch in the shares of so many workers, and no larger micro-batches."""
        share = math.gcd(self.micro_batch, max(self.global_batch // count, 1))
        return replace(self, replicas=count, micro_batch=share)

    def __str__(self) -> str:
        return (
            f"{self.global_batch} = {self.replicas} replicas x {self.micro_batch} micro-batch "
            f"x {self.accumulation} accumulation"
        )


def _nearest_divisors(number: int, wanted: int) -> str:
    """Names the largest divisor below and the smallest above `wanted`."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    below = [d for d in divisors if d <= wanted][-1:]
    above = [d for d in divisors if d > wanted][:1]
    return " or ".join(str(d) for d in below + above)
