"""From one device to thousands: weak scaling, strong scaling, time to the end, and the knee."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tf_largebatch.planning.forecast import Machine, Work, update_time

DEVICES = tuple(2**i for i in range(14))  # 1 to 8,192
WORTH = 0.25  # a doubling that saves a smaller share of the hours is past the knee [ours]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One number of devices.

    Attributes:
        devices: K.
        global_batch: images an update.
        images_per_second: of all devices.
        efficiency: of K times one device's.
        updates: to the end or to the target.
        updates_low: the same at the end of the critical batch's interval that has fewer.
        updates_high: at the other end.
        hours: to it.
        device_hours: K times that.
        extrapolated: whether the batch is beyond what the law was fitted for.
    """

    devices: int
    global_batch: int
    images_per_second: float
    efficiency: float
    updates: float
    updates_low: float
    updates_high: float
    hours: float
    device_hours: float
    extrapolated: bool


def weak_scaling(
    work: Work,
    machine: Machine,
    devices: Sequence[int] = DEVICES,
    largest_fitted: float = 0,
    interval: tuple[float, float] | None = None,
) -> list[Point]:
    """The batch grows with the devices: each keeps the images of an update that it has.

    `largest_fitted` is the largest batch that the law of `work` was fitted on; 0: it says nothing.
    `interval` is that of its critical batch.
    """
    replica = max(work.global_batch // machine.devices, 1)
    return [_point(work, machine, k, replica * k, largest_fitted, interval) for k in devices]


def strong_scaling(
    work: Work,
    machine: Machine,
    devices: Sequence[int] = DEVICES,
    largest_fitted: float = 0,
    interval: tuple[float, float] | None = None,
) -> list[Point]:
    """The batch stays: devices that it does not divide over are left out."""
    batch = work.global_batch
    fitting = [k for k in devices if batch % k == 0]
    return [_point(work, machine, k, batch, largest_fitted, interval) for k in fitting]


def knee(points: Sequence[Point]) -> Point | None:
    """The first point whose next, of more devices, saves less than `WORTH` of its hours."""
    for point, after in zip(points, points[1:], strict=False):
        if 1.0 - after.hours / point.hours < WORTH:
            return point
    return None


def say_knee(points: Sequence[Point]) -> str:
    """Where more devices stop paying, as a sentence."""
    end = knee(points)
    if end is None:
        last = points[-1].devices
        return f"none up to {last:,} devices: each doubling saves a quarter of the hours or more"
    return (
        f"{end.devices:,} devices (batch {end.global_batch:,}), {end.hours:.3g} h; twice as many "
        "save less than a quarter of the hours"
    )


def _point(
    work: Work,
    machine: Machine,
    devices: int,
    batch: int,
    largest_fitted: float,
    interval: tuple[float, float] | None,
) -> Point:
    here = replace(work, global_batch=batch, law_batch=work.law_batch or work.global_batch)
    time = update_time(here, replace(machine, devices=devices))
    updates = here.updates()
    ends = [replace(here, critical_batch=end).updates() for end in interval or ()] or [updates]
    hours = updates * time.seconds / 3600.0
    return Point(
        devices=devices,
        global_batch=batch,
        images_per_second=batch / time.seconds,
        efficiency=time.compute / time.seconds,
        updates=updates,
        updates_low=min(ends),
        updates_high=max(ends),
        hours=hours,
        device_hours=hours * devices,
        extrapolated=0 < largest_fitted < batch,
    )
