"""Gradual and constant warmup in front of any other schedule."""

import math
from typing import Self

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.checks import check, check_choice, check_count, check_number
from tf_largebatch.schedules.base import (
    Schedule,
    Tensor,
    check_schedule,
    done_and_left,
    first_update,
    integer,
)
from tf_largebatch.schedules.steps import Steps

SHAPES = ("linear", "quadratic", "power", "cosine", "constant")


@keras.saving.register_keras_serializable("tf_largebatch")
class Warmup(Schedule):
    """A ramp over the first W updates, then another schedule.

        rate(u) = start + (peak - start) * s(u / W)   for u < W
                = after(u)                            for u >= W

    with s(x) = x (linear: Goyal et al. 2017, arXiv:1706.02677 §2.2, and MLPerf), x ** 2
    (quadratic: NVCaffe, by the authors of LARS), x ** power (power), (1 - cos(pi x)) / 2 (cosine)
    or 0 (constant: a low rate that jumps, He et al. 2016).

    `after` is asked for the update number of the whole run, not counted from W. The ramp aims at
    `peak`, which by default is `after(W)`, so that there is no jump. With `after=Polynomial(base,
    power=2, decay_updates=T)` and `peak=base` it is the NVCaffe form, in which the polynomial runs
    over the whole run and the rate falls to base * (1 - W / T) ** 2 as the warmup ends.

    Args:
        after: LearningRateSchedule from update W on.
        updates: W >= 0; 0 is no warmup.
        start_rate: float >= 0, the rate at update 0; 0.1 in Goyal et al., 0 in MLPerf.
        shape: one of "linear", "quadratic", "power", "cosine", "constant".
        power: float > 0, with shape "power" only.
        peak: float >= start_rate, the rate the ramp aims at, or None for `after(W)`.

    Raises:
        ValueError: an argument outside its range, or a warmup that outlasts the decay in `after` or
            covers its first drop.

    Example:
        >>> from tf_largebatch import Steps, Warmup
        >>> rate = Warmup(Steps(0.4, [4], factor=0.1), updates=2, start_rate=0.1)
        >>> [round(float(rate(update)), 3) for update in (0, 1, 2, 4)]
        [0.1, 0.25, 0.4, 0.04]
    """

    def __init__(
        self,
        after: LearningRateSchedule,
        updates: int,
        start_rate: float,
        shape: str = "linear",
        *,
        power: float | None = None,
        peak: float | None = None,
    ) -> None:
        self.after = check_schedule("after", after)
        self.updates = check_count("updates", updates, 0)
        self.start_rate = check_number("start_rate", start_rate)
        self.shape = check_choice("shape", shape, SHAPES)
        fits = (power is not None) == (shape == "power")
        check(fits, "power", 'given with shape="power", and only then', power, f"shape={shape!r}.")
        self.power = None if power is None else check_number("power", power, low_open=True)
        self.peak = None if peak is None else check_number("peak", peak)
        if self.peak is not None:
            rule, rises = f"at most peak={self.peak!r}", self.start_rate <= self.peak
            check(rises, "start_rate", rule, start_rate, "A warmup rises.")
        _check_room(after, self.updates, self.peak)

    @classmethod
    def from_epochs(
        cls,
        after: LearningRateSchedule,
        epochs: float,
        start_rate: float,
        shape: str = "linear",
        *,
        plan: BatchPlan,
        power: float | None = None,
        peak: float | None = None,
    ) -> Self:
        """Ends the warmup at the first update at or after `epochs`."""
        updates = first_update("epochs", epochs, plan)
        return cls(after, updates, start_rate, shape, power=power, peak=peak)

    def __call__(self, update: Tensor) -> Tensor:
        """The rate of update number `update`, float32, in its shape."""
        count = integer(update)
        after = ops.cast(self.after(count), "float32")
        if self.updates == 0:
            return after
        peak = self.after(self.updates) if self.peak is None else self.peak
        start_weight, peak_weight = self._weights(count)
        ramp = self.start_rate * start_weight + ops.cast(peak, "float32") * peak_weight
        return ops.where(count < self.updates, ramp, after)

    def _weights(self, count: Tensor) -> tuple[Tensor, Tensor]:
        """Returns 1 - s and s of the equation above, for each update in `count`."""
        done, left = done_and_left(count, 0, self.updates)
        if self.shape == "linear":
            return left, done
        if self.shape == "cosine":
            half_turn = math.pi / 2
            return ops.square(ops.sin(half_turn * left)), ops.square(ops.sin(half_turn * done))
        if self.shape == "constant":
            return ops.ones_like(done), ops.zeros_like(done)
        raised = ops.square(done) if self.shape == "quadratic" else ops.power(done, self.power)
        return 1.0 - raised, raised


def _check_room(after: LearningRateSchedule, updates: int, peak: float | None) -> None:
    """Raises where the warmup outlasts what it leads up to."""
    last = getattr(after, "last_update", None)
    if last is not None and updates >= last:
        raise ValueError(
            f"`updates` must end before the decay in `after` ends, at update {last}. "
            f"Received: updates={updates}. Shorten the warmup or train longer."
        )
    if isinstance(after, Steps) and after.boundaries:
        first = after.boundaries[0]
        # The drop would be lost under the ramp; without a `peak` the ramp would aim below it, too.
        if updates > first or (updates == first and peak is None):
            raise ValueError(
                f"`updates` must end before the first drop in `after`, at update {first}. "
                f"Received: updates={updates}. Shorten the warmup or train longer."
            )
