"""Courses of the rate, in epochs."""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any, Literal, Self

from tf_largebatch.records.checks import check, check_fields

Milestone = tuple[float, float, str]  # epoch, rate, what happens there


@dataclass(frozen=True, kw_only=True)
class WarmupSpec:
    """A warmup to the peak rate; the base of every course."""

    warmup_epochs: float = 0.0
    warmup_start_rate: float = 0.0  # of the first update
    # "linear" rises at every update, "quadratic" and "power" slowly first; "constant" stays.
    warmup_shape: Literal["linear", "quadratic", "power", "cosine", "constant"] = "linear"
    warmup_power: float | None = None  # of the shape "power"

    def __post_init__(self) -> None:
        check_fields(self, "schedule.", "at least 0", "warmup_epochs", "warmup_start_rate")
        power = self.warmup_power
        fits = (power is None) == (self.warmup_shape != "power")
        rule = 'given with the shape "power", and only then'
        check(fits, "schedule.warmup_power", rule, power)

    def stretched(self, factor: float, digits: int | None = None) -> Self:
        """Returns the same course in `factor` times the epochs, rounded where `digits` says so."""

        def times(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(times, value))
            return factor * value if digits is None else round(factor * value, digits)

        return dataclasses.replace(self, **{n: times(value) for n, value in self._times().items()})

    def _times(self) -> dict[str, Any]:
        """The fields that are epochs, where they are given."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        ends = ("_epoch", "_epochs")
        return {n: v for n, v in values.items() if n.endswith(ends) and v is not None}

    def check_epochs(self, epochs: float) -> None:
        """Checks that the course ends within `epochs`."""
        ends = {
            n: max(v, default=0.0) if isinstance(v, tuple) else v for n, v in self._times().items()
        }
        name, last = max(ends.items(), key=lambda item: item[1])
        rule, fix = f"at least the schedule's last change ({last:g})", f"Set schedule.{name} too."
        check(last <= epochs, "epochs", rule, epochs, fix)

    def milestones(self, peak_rate: float, epochs: float) -> list[Milestone]:
        """Returns where the rate, `peak_rate` after the warmup, changes its course."""
        if not self.warmup_epochs:
            return [(0.0, peak_rate, "no warmup")]
        # A batch below the reference batch has a peak below the rate that the paper starts from.
        way = "falls" if self.warmup_start_rate > peak_rate else "rises"
        shapes = {"linear": f"{way} with every update", "constant": "waits"}
        how = shapes.get(self.warmup_shape, f"{way} with every update, {self.warmup_shape}")
        return [
            (0.0, self.warmup_start_rate, f"warmup starts: {how}"),
            (self.warmup_epochs, self._after_warmup(peak_rate, epochs), "warmup ends"),
        ]

    def _after_warmup(self, peak_rate: float, epochs: float) -> float:
        return peak_rate


@dataclass(frozen=True, kw_only=True)
class StepsSpec(WarmupSpec):
    """The peak rate, changed at each of `drop_epochs`."""

    drop_epochs: tuple[float, ...]  # since the start of training, rising
    drop_factor: float = 0.1  # by which each of them multiplies the rate, in (0, 1]
    drop_shares: tuple[float, ...] | None = None  # in its place: shares of the peak rate

    def __post_init__(self) -> None:
        drops, shares = self.drop_epochs, self.drop_shares
        rising = all(a < b for a, b in itertools.pairwise((0.0, *drops)))
        check(rising, "schedule.drop_epochs", "rising and above 0", drops)
        check(0 < self.drop_factor <= 1, "schedule.drop_factor", "in (0, 1]", self.drop_factor)
        fits = shares is None or len(shares) == len(drops)
        check(fits, "schedule.drop_shares", "one for each of schedule.drop_epochs", shares)
        super().__post_init__()
        if drops:
            rule, warmup = f"at most the first drop ({drops[0]:g})", self.warmup_epochs
            check(warmup <= drops[0], "schedule.warmup_epochs", rule, warmup)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of the peak rate from each drop on."""
        if self.drop_shares is not None:
            return self.drop_shares
        return tuple(self.drop_factor ** (n + 1) for n in range(len(self.drop_epochs)))

    def milestones(self, peak_rate: float, epochs: float) -> list[Milestone]:
        """Returns the warmup and the drops."""
        points = super().milestones(peak_rate, epochs)
        for epoch, share in zip(self.drop_epochs, self.shares, strict=True):
            what = f"x {self.drop_factor:g}" if self.drop_shares is None else f"peak x {share:g}"
            points.append((epoch, peak_rate * share, what))
        return points


@dataclass(frozen=True, kw_only=True)
class PolynomialSpec(WarmupSpec):
    """A polynomial fall from the peak: rate = end + (peak - end) (1 - t / D)^power."""

    power: float = 2.0  # 1 is a straight line
    end_rate: float = 0.0  # of the last update
    # Where it is reached, or would be: training may end before. None for the end of training.
    end_epoch: float | None = None
    # t counts from the first update, under the warmup too, after which the rate jumps down (You et
    # al. 2017, arXiv:1708.03888); else from the end of the warmup.
    whole_run: bool = False
    extra_updates: int = 0  # added to D; 1 in Google's MLPerf code

    def __post_init__(self) -> None:
        check_fields(self, "schedule.", "above 0", "power")
        check_fields(self, "schedule.", "at least 0", "end_rate", "extra_updates")
        super().__post_init__()
        warmup, end = self.warmup_epochs, self.end_epoch
        rule = f"after the warmup ({warmup:g})"
        check(end is None or end > warmup, "schedule.end_epoch", rule, end)

    def check_epochs(self, epochs: float) -> None:
        """Checks that there is a fall within `epochs`."""
        warmup = self.warmup_epochs
        check(warmup < epochs, "schedule.warmup_epochs", f"below epochs ({epochs:g})", warmup)

    def _after_warmup(self, peak_rate: float, epochs: float) -> float:
        if not self.whole_run:
            return peak_rate
        return self._rate(peak_rate, 1.0 - self.warmup_epochs / (self.end_epoch or epochs))

    def _rate(self, peak_rate: float, left: float) -> float:
        return float(self.end_rate + (peak_rate - self.end_rate) * left**self.power)

    def milestones(self, peak_rate: float, epochs: float) -> list[Milestone]:
        """Returns the warmup, the middle of the fall and its end."""
        points = super().milestones(peak_rate, epochs)
        end = self.end_epoch or epochs
        begin = 0.0 if self.whole_run else self.warmup_epochs
        middle = max((begin + min(end, epochs)) / 2, self.warmup_epochs)
        rate = self._rate(peak_rate, (end - middle) / (end - begin))
        points.append((middle, rate, f"on a polynomial of power {self.power:g}"))
        if self.end_epoch is not None and self.end_epoch <= epochs:
            points.append((end, self.end_rate, "stays there"))
        return points


@dataclass(frozen=True, kw_only=True)
class CosineSpec(WarmupSpec):
    """Half a cosine from the end of the warmup to the end of training (arXiv:1608.03983)."""

    end_rate: float = 0.0  # of the last update

    def __post_init__(self) -> None:
        check_fields(self, "schedule.", "at least 0", "end_rate")
        super().__post_init__()

    def milestones(self, peak_rate: float, epochs: float) -> list[Milestone]:
        """Returns the warmup and the middle of the fall."""
        middle = (self.warmup_epochs + epochs) / 2
        rate = (peak_rate + self.end_rate) / 2
        return [*super().milestones(peak_rate, epochs), (middle, rate, "on a cosine")]


ScheduleSpec = StepsSpec | PolynomialSpec | CosineSpec
