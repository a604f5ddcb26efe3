"""Rates that fall smoothly: polynomial, cosine, exponential."""

import math
from typing import Self

import keras
from keras import ops

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.checks import check, check_count, check_number
from tf_largebatch.schedules.base import Schedule, Tensor, done_and_left, first_update, integer


@keras.saving.register_keras_serializable("tf_largebatch")
class Polynomial(Schedule):
    """Polynomial decay from `rate` to `end_rate`.

        rate(u) = end + (rate - end) * (1 - t / D) ** power,   t = clip(u - begin, 0, D)

    D is `decay_updates`. It is `rate` up to and including update `begin`, and `end_rate` from
    update `begin + D` on. The forms in use, for W warmup updates of T in all:

      MLPerf, NVIDIA     begin = W, D = T - W
      MLPerf, Google     begin = W, D = T - W + 1: the last update T - 1 is two steps above the end
      LARS paper         begin = 0, D = T, also under a warmup, after which the rate jumps down:
                         rate_0 * (1 - u / T) ** 2, You et al. (2017), arXiv:1708.03888
      LAMB paper (BERT)  begin = 0, D = T, power 1, You et al. (2019), arXiv:1904.00962

    Args:
        rate: float >= 0, before the decay.
        end_rate: float in [0, rate], after it.
        power: float > 0; 1 is a straight line.
        begin: update number >= 0 of the last update at `rate`.
        decay_updates: D, >= 1.

    Raises:
        ValueError: an argument outside its range.

    Example:
        >>> from tf_largebatch import Polynomial
        >>> rate = Polynomial(4.0, power=2, decay_updates=100)
        >>> [float(rate(update)) for update in (0, 50, 100)]
        [4.0, 1.0, 0.0]
    """

    def __init__(
        self,
        rate: float,
        end_rate: float = 0.0,
        power: float = 1.0,
        begin: int = 0,
        *,
        decay_updates: int,
    ) -> None:
        self.rate = check_number("rate", rate)
        self.end_rate = _checked_end(end_rate, self.rate)
        self.power = check_number("power", power, low_open=True)
        self.begin = check_count("begin", begin, 0)
        self.decay_updates = check_count("decay_updates", decay_updates, 1)
        self.last_update = self.begin + self.decay_updates

    @classmethod
    def from_epochs(
        cls,
        rate: float,
        end_rate: float = 0.0,
        power: float = 1.0,
        begin_epoch: float = 0,
        *,
        end_epoch: float,
        plan: BatchPlan,
        extra_updates: int = 0,
    ) -> Self:
        """Decays between the first updates at or after two epochs.

        Args:
            rate: as for the constructor.
            end_rate: as for the constructor.
            power: as for the constructor.
            begin_epoch: epochs, the end of the warmup or 0.
            end_epoch: epochs, the end of the training, > begin_epoch.
            plan: turns the epochs into updates.
            extra_updates: added to the length of the decay; 1 gives Google's T - W + 1.
        """
        extra = check_count("extra_updates", extra_updates, 0)
        begin, length = _span(begin_epoch, end_epoch, plan)
        return cls(rate, end_rate, power, begin, decay_updates=length + extra)

    def __call__(self, update: Tensor) -> Tensor:
        """The rate of update number `update`, float32, in its shape."""
        _, left = done_and_left(integer(update), self.begin, self.decay_updates)
        weight = ops.power(left, self.power)
        # Not end + (rate - end) * weight: this form is exact at both ends.
        return self.rate * weight + self.end_rate * (1.0 - weight)


@keras.saving.register_keras_serializable("tf_largebatch")
class Cosine(Schedule):
    """Half a cosine from `rate` to `end_rate`, Loshchilov & Hutter (2017), arXiv:1608.03983 Eq. 5.

        rate(u) = end + (rate - end) * (1 + cos(pi * t / D)) / 2,   t = clip(u - begin, 0, D)

    Args:
        rate: float >= 0, before the decay.
        end_rate: float in [0, rate], after it.
        begin: update number >= 0 of the last update at `rate`.
        decay_updates: D, >= 1.

    Raises:
        ValueError: an argument outside its range.

    Example:
        >>> from tf_largebatch import Cosine
        >>> rate = Cosine(4.0, decay_updates=100)
        >>> [round(float(rate(update)), 4) for update in (0, 50, 100)]
        [4.0, 2.0, 0.0]
    """

    def __init__(
        self, rate: float, end_rate: float = 0.0, begin: int = 0, *, decay_updates: int
    ) -> None:
        self.rate = check_number("rate", rate)
        self.end_rate = _checked_end(end_rate, self.rate)
        self.begin = check_count("begin", begin, 0)
        self.decay_updates = check_count("decay_updates", decay_updates, 1)
        self.last_update = self.begin + self.decay_updates

    @classmethod
    def from_epochs(
        cls,
        rate: float,
        end_rate: float = 0.0,
        begin_epoch: float = 0,
        *,
        end_epoch: float,
        plan: BatchPlan,
    ) -> Self:
        """Decays between the first updates at or after `begin_epoch` and `end_epoch`."""
        begin, length = _span(begin_epoch, end_epoch, plan)
        return cls(rate, end_rate, begin, decay_updates=length)

    def __call__(self, update: Tensor) -> Tensor:
        """The rate of update number `update`, float32, in its shape."""
        done, left = done_and_left(integer(update), self.begin, self.decay_updates)
        # (1 + cos(pi x)) / 2 = sin(pi (1 - x) / 2) ** 2, without the cancellation near x = 1.
        half_turn = math.pi / 2
        return self.rate * ops.square(ops.sin(half_turn * left)) + self.end_rate * ops.square(
            ops.sin(half_turn * done)
        )


@keras.saving.register_keras_serializable("tf_largebatch")
class Exponential(Schedule):
    """A rate multiplied by `factor` over every `every_updates` updates, smoothly.

        rate(u) = rate * factor ** (max(u - begin, 0) / every_updates)

    A factor above 1 gives the rising rate of a range test. For the same drops in steps, use
    `Steps`. float32 limits the relative error to about |ln(rate(u) / rate)| * 1e-7.

    Args:
        rate: float >= 0, up to and including update `begin`.
        factor: float > 0.
        every_updates: updates >= 1.
        begin: update number >= 0.

    Raises:
        ValueError: an argument outside its range.

    Example:
        >>> from tf_largebatch import Exponential
        >>> rate = Exponential(4.0, factor=0.5, every_updates=10)
        >>> [float(rate(update)) for update in (0, 10, 20)]
        [4.0, 2.0, 1.0]
    """

    def __init__(self, rate: float, factor: float, *, every_updates: int, begin: int = 0) -> None:
        self.rate = check_number("rate", rate)
        self.factor = check_number("factor", factor, low_open=True)
        self.every_updates = check_count("every_updates", every_updates, 1)
        self.begin = check_count("begin", begin, 0)

    @classmethod
    def from_epochs(
        cls,
        rate: float,
        factor: float,
        *,
        every_epochs: float,
        plan: BatchPlan,
        begin_epoch: float = 0,
    ) -> Self:
        """Begins at `begin_epoch`; `every_epochs` is rounded up to whole updates."""
        every = first_update("every_epochs", every_epochs, plan)
        begin = first_update("begin_epoch", begin_epoch, plan)
        return cls(rate, factor, every_updates=every, begin=begin)

    def __call__(self, update: Tensor) -> Tensor:
        """The rate of update number `update`, float32, in its shape."""
        done = ops.maximum(integer(update) - self.begin, 0)
        # Whole and broken spans apart: their float32 sum would lose the update past 2**24 spans.
        spans = ops.cast(done // self.every_updates, "float32")
        part = ops.cast(done % self.every_updates, "float32") / float(self.every_updates)
        log_factor = math.log(self.factor)
        return self.rate * ops.exp(log_factor * spans) * ops.exp(log_factor * part)


def _checked_end(end_rate: float, rate: float) -> float:
    end = check_number("end_rate", end_rate)
    check(end <= rate, "end_rate", f"at most rate={rate!r}", end, "For a rise, use `Warmup`.")
    return end


def _span(begin_epoch: float, end_epoch: float, plan: BatchPlan) -> tuple[int, int]:
    """The first update of a decay and its length in updates."""
    begin = first_update("begin_epoch", begin_epoch, plan)
    end = first_update("end_epoch", end_epoch, plan)
    if end <= begin:
        raise ValueError(
            "`end_epoch` must come at least one update after `begin_epoch`. Received: "
            f"end_epoch={end_epoch!r} (update {end}), begin_epoch={begin_epoch!r} (update {begin})."
            " Shorten the warmup or train longer."
        )
    return begin, end - begin
