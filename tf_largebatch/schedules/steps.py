"""Rates that stay, and rates that drop at stated updates."""

import keras
from keras import ops

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.schedules.arguments import (
    check_positive,
    check_rate,
    check_rising,
    check_sequence,
    config_arguments,
)
from tf_largebatch.schedules.counting import integer


@keras.saving.register_keras_serializable("tf_largebatch")
class Constant(keras.optimizers.schedules.LearningRateSchedule):
    """The same rate at every update, for places that take a schedule.

    Args:
        rate: float >= 0.

    Raises:
        ValueError: a rate below 0 or not finite.
    """

    def __init__(self, rate: float):
        self.rate = check_rate("rate", rate)

    def __call__(self, update):
        """Returns the rate, float32, in the shape of `update`."""
        return ops.full_like(integer(update), self.rate, dtype="float32")

    def get_config(self):
        """Returns the constructor arguments."""
        return {"rate": self.rate}

    @classmethod
    def from_config(cls, config):
        """Rebuilds the schedule, or raises ValueError for a config of another version."""
        return cls(**config_arguments(cls, config))


@keras.saving.register_keras_serializable("tf_largebatch")
class Steps(keras.optimizers.schedules.LearningRateSchedule):
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
    """

    def __init__(self, rate: float, boundaries, *, factor: float | None = None, rates=None):
        self.rate = check_rate("rate", rate)
        self.boundaries = check_rising("boundaries", boundaries)
        if (factor is None) == (rates is None):
            raise ValueError(
                f"`factor` or `rates` must be given, and not both. Received: factor={factor!r}, "
                f"rates={rates!r}. Pass `factor=0.1` for equal drops."
            )
        self.factor = None if factor is None else check_positive("factor", factor)
        self.rates = rates
        if rates is not None:
            self.rates = tuple(
                check_rate("rates", value) for value in check_sequence("rates", rates)
            )
            if len(self.rates) != len(self.boundaries):
                raise ValueError(
                    f"`rates` must have one rate per boundary. Received: rates={self.rates} for "
                    f"boundaries={self.boundaries}. The rate before the first one is `rate`."
                )

    @classmethod
    def from_epochs(
        cls, rate: float, epochs, *, plan: BatchPlan, factor: float | None = None, rates=None
    ) -> "Steps":
        """Drops at the first update at or after each of `epochs`."""
        boundaries = [plan.updates_at(epoch) for epoch in check_sequence("epochs", epochs)]
        return cls(rate, boundaries, factor=factor, rates=rates)

    def __call__(self, update):
        """Returns the rate of update number `update`, float32, in its shape."""
        count = integer(update)
        rate = ops.full_like(count, self.rate, dtype="float32")
        for drops, boundary in enumerate(self.boundaries, start=1):
            # One power per rate, not a running product, so that no rounding builds up.
            new = self.rate * self.factor**drops if self.rates is None else self.rates[drops - 1]
            rate = ops.where(count >= boundary, ops.cast(new, "float32"), rate)
        return rate

    def get_config(self):
        """Returns the constructor arguments."""
        return {
            "rate": self.rate,
            "boundaries": list(self.boundaries),
            "factor": self.factor,
            "rates": None if self.rates is None else list(self.rates),
        }

    @classmethod
    def from_config(cls, config):
        """Rebuilds the schedule, or raises ValueError for a config of another version."""
        return cls(**config_arguments(cls, config))


def slow_start(base_rate: float, *, plan: BatchPlan) -> Steps:
    """Returns the slow-start rate of Akiba, Suzuki & Fukuda (2017), arXiv:1711.04325.

    0.5, 0.075, 0.01 and 0.001 of `base_rate` from epochs 0, 40, 70 and 85 of 90 on, without another
    warmup: the transition from RMSprop takes its place.

    Args:
        base_rate: float >= 0; the paper's is 0.1 x batch / 256.
        plan: turns the epochs into updates.
    """
    base = check_rate("base_rate", base_rate)
    return Steps.from_epochs(
        0.5 * base, (40, 70, 85), plan=plan, rates=(0.075 * base, 0.01 * base, 0.001 * base)
    )
