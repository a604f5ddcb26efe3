"""Rates that stay, and rates that drop at stated updates."""

from collections.abc import Sequence
from typing import Self

import keras
from keras import ops

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.checks import check, check_number, check_rising, check_sequence
from tf_largebatch.schedules.base import Schedule, Tensor, first_update, integer


@keras.saving.register_keras_serializable("tf_largebatch")
class Constant(Schedule):
    """The same rate at every update, for places that take a schedule.

    Args:
        rate: float >= 0.

    Raises:
        ValueError: a rate below 0 or not finite.

    Example:
        >>> from tf_largebatch import Constant
        >>> float(Constant(0.5)(1_000))
        0.5
    """

    def __init__(self, rate: float) -> None:
        self.rate = check_number("rate", rate)

    def __call__(self, update: Tensor) -> Tensor:
        """The rate, float32, in the shape of `update`."""
        return ops.full_like(integer(update), self.rate, dtype="float32")


@keras.saving.register_keras_serializable("tf_largebatch")
class Steps(Schedule):
    """A rate that changes at stated updates, as in Goyal et al. (2017), arXiv:1706.02677 §5.1.

        rate(u) = rate                 for u < boundaries[0]
                = rate * factor ** k   where k boundaries are <= u
                = rates[k - 1]         likewise, with `rates` in place of `factor`

    The new rate holds from the boundary itself on. Keras' `PiecewiseConstantDecay` still returns
    the old one there.

    Args:
        rate: float >= 0, the rate before the first boundary.
        boundaries: update numbers, >= 1, rising.
        factor: float > 0, by which every boundary multiplies the rate; 0.1 in Goyal et al.
        rates: in place of `factor`: the rate from each boundary on, one per boundary, >= 0.

    Raises:
        ValueError: boundaries out of order, a negative rate, both or neither of `factor` and
            `rates`, or not one rate per boundary.

    Example:
        >>> from tf_largebatch import Steps
        >>> rate = Steps(4.0, [30, 60], factor=0.1)
        >>> [round(float(rate(update)), 3) for update in (0, 29, 30, 60)]
        [4.0, 4.0, 0.4, 0.04]
    """

    def __init__(
        self,
        rate: float,
        boundaries: Sequence[int],
        *,
        factor: float | None = None,
        rates: Sequence[float] | None = None,
    ) -> None:
        self.rate = check_number("rate", rate)
        self.boundaries = check_rising("boundaries", boundaries)
        if (factor is None) == (rates is None):
            raise ValueError(
                f"`factor` or `rates` must be given, and not both. Received: factor={factor!r}, "
                f"rates={rates!r}. Pass `factor=0.1` for equal drops."
            )
        self.factor = None if factor is None else check_number("factor", factor, low_open=True)
        self.rates: tuple[float, ...] | None = None
        if rates is not None:
            self.rates = tuple(check_number("rates", r) for r in check_sequence("rates", rates))
            fits = len(self.rates) == len(self.boundaries)
            rule = f"one rate per boundary, of which there are {len(self.boundaries)}"
            check(fits, "rates", rule, self.rates, "The rate before the first one is `rate`.")

    @classmethod
    def from_epochs(
        cls,
        rate: float,
        epochs: Sequence[float],
        *,
        plan: BatchPlan,
        factor: float | None = None,
        rates: Sequence[float] | None = None,
    ) -> Self:
        """Drops at the first update at or after each of `epochs`."""
        boundaries = [first_update("epochs", e, plan) for e in check_sequence("epochs", epochs)]
        return cls(rate, boundaries, factor=factor, rates=rates)

    def __call__(self, update: Tensor) -> Tensor:
        """The rate of update number `update`, float32, in its shape."""
        count = integer(update)
        rate = ops.full_like(count, self.rate, dtype="float32")
        for drops, boundary in enumerate(self.boundaries, start=1):
            # One power per rate, not a running product, so that no rounding builds up.
            if self.factor is not None:
                new = self.rate * self.factor**drops
            elif self.rates is not None:
                new = self.rates[drops - 1]
            rate = ops.where(count >= boundary, ops.cast(new, "float32"), rate)
        return rate
