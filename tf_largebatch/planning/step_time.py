"""How long an update takes: a model with two kinds of constants, fitted to published systems.

    compute = images per device x operations per image / (share x peak of the device)
    update  = compute + overhead + max(all-reduce - hidden, 0)

`share` is fitted for each kind of device, `overhead` (what a published system's all-reduce,
optimizer and input leave over) for all together. The network of the published systems is not stated
well enough to be a part of the fit: where the user gives his own, the all-reduce of a ring that the
backward pass does not hide is added, and marked as modelled.

`tools/fit_step_time.py` fits, and tests on systems that it has left out: `step_time.json`.
"""

import functools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_largebatch.planning.devices import DEVICES, Device, System
from tf_largebatch.records.checks import check, check_count, check_number

FITTED = Path(__file__).with_suffix(".json")
# ResNet-50 at 224 px: 4.09e9 multiply-adds forward [He et al. 2016 say 3.8e9 for stride 2 on the
# first 1 x 1; torchvision's count for the other, quoted from memory], two operations each, and
# twice the forward pass for the backward [derived].
RESNET50_OPERATIONS = 3 * 2 * 4.09e9
BACKWARD_SHARE = 2 / 3  # of the compute: what an all-reduce can hide behind [derived]
PRIOR = 0.3  # deviation of a share's logarithm from the mean of its class, for few systems


@dataclass(frozen=True)
class Constants:
    """What the fit found.

    Attributes:
        shares: of a device's peak that training reaches, by the device's name.
        overhead: seconds of an update.
    """

    shares: Mapping[str, float]
    overhead: float

    def share(self, device: Device) -> float:
        """The share of a device; of one that no system has, the mean of its class."""
        if device.name in self.shares:
            return self.shares[device.name]
        alike = [
            share
            for name, share in self.shares.items()
            if DEVICES[name].matrix_units == device.matrix_units
        ]
        return statistics.geometric_mean(alike or [*self.shares.values()])


# GB/s of one link each way, and microseconds of a message [signalling rates of the standards over
# 8 bits; latencies of about that size with MPI or NCCL, and with TCP, quoted from memory].
NETWORKS = {
    "ethernet-10": (1.25, 30.0),
    "ethernet-25": (3.125, 30.0),
    "ethernet-100": (12.5, 30.0),
    "infiniband-fdr": (6.8, 2.0),
    "infiniband-edr": (12.1, 2.0),
    "infiniband-hdr": (24.2, 2.0),
    "infiniband-ndr": (48.5, 2.0),
}


@dataclass(frozen=True)
class Network:
    """What joins the devices.

    Attributes:
        gigabytes_a_second: that a device sends while it receives as much, > 0.
        microseconds: latency of a message, >= 0.
    """

    gigabytes_a_second: float
    microseconds: float = 0.0

    def __post_init__(self) -> None:
        fix = "Give what one device gets: a node's divided by its devices."
        check_number("network", self.gigabytes_a_second, low_open=True, fix=fix)
        check_number("latency", self.microseconds)

    @classmethod
    def read(cls, text: str) -> "Network":
        """From "GB/S[,US]", or a name of `NETWORKS`, of which "NAME/8" is what eight share."""
        name, _, sharers = text.partition("/")
        if name in NETWORKS:
            gigabytes, microseconds = NETWORKS[name]
            return cls(gigabytes / int(sharers or 1), microseconds)
        speed, _, latency = text.partition(",")
        return cls(float(speed), float(latency or 0.0))

    def all_reduce_seconds(self, byte_count: float, devices: int) -> float:
        """Of a ring: 2 (K - 1) messages of 1 / K of the bytes."""
        messages = 2 * (devices - 1)
        a_message = byte_count / devices / (self.gigabytes_a_second * 1e9)
        return messages * (a_message + self.microseconds * 1e-6)


@dataclass(frozen=True)
class StepTime:
    """Seconds of an update, by part."""

    compute: float
    overhead: float
    all_reduce: float  # whole, as if nothing else ran
    exposed: float  # of it, what the backward pass does not hide

    @property
    def seconds(self) -> float:
        """Of the update."""
        return self.compute + self.overhead + self.exposed


def predict(
    device: Device,
    devices: int,
    global_batch: int,
    constants: Constants | None = None,
    *,
    operations: float = RESNET50_OPERATIONS,
    images_per_second: float | None = None,
    network: Network | None = None,
    gradient_bytes: float = 0.0,
) -> StepTime:
    """The time of an update.

    Args:
        device: what computes.
        devices: how many, >= 1.
        global_batch: images per update over all devices, >= 1.
        constants: those of the fit by default.
        operations: forward and backward, of one image.
        images_per_second: of one device, where it was measured: takes the model's place.
        network: the user's own; None is that of the published systems, in `overhead`.
        gradient_bytes: that an update sends, with `network`.
    """
    check_count("devices", devices, 1)
    check_count("global_batch", global_batch, 1)
    fitted = constants or load()
    images = global_batch / devices
    if images_per_second is None:
        compute = images * operations / (fitted.share(device) * device.teraflops * 1e12)
    else:
        check_number("images_per_second", images_per_second, low_open=True)
        compute = images / images_per_second
    alone = devices == 1
    whole = network.all_reduce_seconds(gradient_bytes, devices) if network and not alone else 0.0
    exposed = max(whole - BACKWARD_SHARE * compute, 0.0)
    return StepTime(compute, 0.0 if alone else fitted.overhead, whole, exposed)


def fit(systems: Sequence[System]) -> Constants:
    """Least squares of the logarithms; one system off the line does not pull it (soft L1)."""
    from scipy.optimize import least_squares

    check(len(systems) >= 2, "systems", "two or more", len(systems))
    names = sorted({system.device.name for system in systems})

    def constants_of(x: Sequence[float]) -> Constants:
        shares = {name: math.exp(value) for name, value in zip(names, x[:-1], strict=True)}
        return Constants(shares, math.exp(x[-1]))

    def residuals(x: Sequence[float]) -> list[float]:
        constants = constants_of(x)
        errors = [math.log(_ratio(constants, system)) for system in systems]
        middle = statistics.fmean(x[:-1])
        # In units of the errors' own deviation, about 0.2.
        return errors + [0.2 / PRIOR * (value - middle) for value in x[:-1]]

    start = [math.log(0.3)] * len(names) + [math.log(0.005)]
    return constants_of(least_squares(residuals, start, loss="soft_l1", f_scale=0.1).x.tolist())


def fit_line(systems: Sequence[System]) -> float:
    """The straight line that the model has to beat: one share of the peak for everything."""
    logs = (
        math.log(s.global_batch / s.devices * RESNET50_OPERATIONS / s.device.teraflops / 1e12)
        - math.log(s.seconds)
        for s in systems
    )
    return math.exp(statistics.fmean(logs))


def leave_one_out(systems: Sequence[System]) -> list[dict[str, Any]]:
    """Predicts each group of systems from the others; a row a system, of plain data."""
    rows = []
    for group in sorted({system.group for system in systems}):
        others = [system for system in systems if system.group != group]
        constants, share = fit(others), fit_line(others)
        for system in (s for s in systems if s.group == group):
            straight = Constants({system.device.name: share}, 0.0)
            rows.append(
                {
                    "id": system.id,
                    "device": system.device.name,
                    "devices": system.devices,
                    "global_batch": system.global_batch,
                    "published_ms": round(1e3 * system.seconds, 2),
                    "predicted_ms": round(1e3 * system.seconds * _ratio(constants, system), 2),
                    "line_ms": round(1e3 * system.seconds * _ratio(straight, system), 2),
                    "device_known": system.device.name in constants.shares,
                }
            )
    return rows


def typical_error(rows: Sequence[Mapping[str, Any]], column: str = "predicted_ms") -> float:
    """The median of max(a / b, b / a) - 1 over predictions and published values."""
    logs = [abs(math.log(row[column] / row["published_ms"])) for row in rows]
    return math.expm1(statistics.median(logs))


def _ratio(constants: Constants, system: System) -> float:
    """Predicted over published."""
    found = predict(system.device, system.devices, system.global_batch, constants)
    return found.seconds / system.seconds


@functools.lru_cache(maxsize=1)
def load() -> Constants:
    """The committed fit."""
    fitted = load_record()["constants"]
    return Constants(fitted["shares"], fitted["overhead"])


def load_record() -> dict[str, Any]:
    """The committed fit with its leave-one-out table."""
    record: dict[str, Any] = json.loads(FITTED.read_text(encoding="utf-8"))
    return record
