"""A training before it runs: how it fits the memory, how long, where more devices stop paying.

Figures are measured (by the user, or on a machine that the source names), published, or modelled,
and say which. Networks are those of ImageNet whose operations are known.
"""

import math
from dataclasses import dataclass
from typing import Literal

from tf_largebatch.planning import measured, step_time
from tf_largebatch.planning.devices import Device
from tf_largebatch.planning.failures import daly_interval, expected_seconds
from tf_largebatch.planning.step_time import Constants, Network, StepTime
from tf_largebatch.records import architectures
from tf_largebatch.records.checks import check, check_count, check_known, check_number
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.machine_speed import MachineSpeed

MEASURED, PUBLISHED, MODELLED = "measured", "published", "modelled"
# tools/records/benchmark_input.json: "training", one core of an AMD EPYC, mean of 109 kB.
INPUT_SECONDS_AN_IMAGE = 1_989.3e-6
MEMORY_SHARE = 0.9  # of a device's, for the model; the rest is the framework's [ours]
VALUES_KEPT = 3  # of each convolution: its output, normalised, rectified [ours: an upper bound]
NUMBERS_A_WEIGHT = {"SGD": 3, "LARS": 3, "LAMB": 4}  # weight, gradient, slots; float32 each


@dataclass(frozen=True)
class Cost:
    """What an image costs a network at its published size.

    Attributes:
        multiply_adds: forward, of one image.
        activations: outputs of all convolutions and dense layers, of one image.
    """

    multiply_adds: float
    activations: float


# Counts of torchvision's networks (fvcore) and of the papers [quoted from memory].
COSTS = {
    "resnet50": Cost(4.09e9, 11.1e6),
    "resnet50_v1": Cost(3.86e9, 10.6e6),
    "resnet101": Cost(7.80e9, 16.2e6),
    "resnet152": Cost(11.5e9, 22.6e6),
    "alexnet": Cost(0.72e9, 0.66e6),
    "alexnet_bn": Cost(0.72e9, 0.66e6),
    "alexnet_owt": Cost(0.71e9, 0.48e6),
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What trains: a device as its data sheet has it, or one whose speed was measured.

    Attributes:
        devices: how many, >= 1.
        device: accelerator, or what was measured on the user's machine for his network. Those are
            processes of that machine; with `network`, machines like it.
        memory_gb: of each; the data sheet's by default.
        network: the user's own; None: that of the published systems.
        images_per_second: of one device, measured; None: modelled.
        hours_between_failures: of one device; infinite: none.
        disk_gb_s: at which a checkpoint is written.
        restart_seconds: from a failure to the next update.
    """

    devices: int
    device: Device | MachineSpeed
    memory_gb: float | None = None
    network: Network | None = None
    images_per_second: float | None = None
    hours_between_failures: float = math.inf
    disk_gb_s: float = 1.0  # ours
    restart_seconds: float = 120.0  # ours

    def __post_init__(self) -> None:
        check_count("devices", self.devices, 1)
        for name in ("memory_gb", "images_per_second"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), low_open=True)
        check_number("disk_gb_s", self.disk_gb_s, low_open=True)
        check_number("restart_seconds", self.restart_seconds)
        above = self.hours_between_failures > 0
        check(above, "hours_between_failures", "above 0", self.hours_between_failures)

    @property
    def usable_bytes(self) -> float:
        """Of one device, for the model."""
        sheet = self.device.memory_gb if isinstance(self.device, Device) else math.inf
        return MEMORY_SHARE * (self.memory_gb or sheet) * 1e9

    @property
    def measured(self) -> bool:
        """Whether the user measured the time of an update's forward and backward pass."""
        return isinstance(self.device, MachineSpeed) or self.images_per_second is not None


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is trained.

    Attributes:
        network: one of `COSTS`; any name with `weights`.
        weights: trainable numbers of a network that is not in `COSTS`, whose operations and memory
            are then not modelled.
        optimizer: "SGD", "LARS" or "LAMB".
        global_batch: images an update, >= 1.
        train_examples: images an epoch, >= 1.
        epochs: > 0.
        critical_batch: of the law below, in images; None where it is not known.
        law_batch: the batch at which `epochs` are enough; the global batch by default.
    """

    network: str = "resnet50"
    weights: int | None = None
    optimizer: Literal["SGD", "LARS", "LAMB"] = "SGD"
    global_batch: int
    train_examples: int = 1_281_167
    epochs: float = 90
    critical_batch: float | None = None
    law_batch: int | None = None

    def __post_init__(self) -> None:
        check_known(self, "", optimizer=NUMBERS_A_WEIGHT)
        if self.weights is None:
            check_known(self, "", network=COSTS)
        check_count("global_batch", self.global_batch, 1)
        check_count("train_examples", self.train_examples, 1)
        check_number("epochs", self.epochs, low_open=True)
        if self.critical_batch is not None:
            check_number("critical_batch", self.critical_batch, low_open=True)

    @property
    def operations(self) -> float:
        """Forward and backward, of one image; a multiplication and an addition are two."""
        check_known(self, "", network=COSTS)
        return 3 * 2 * COSTS[self.network].multiply_adds

    @property
    def parameters(self) -> int:
        """Trainable numbers."""
        return self.weights or architectures.get(self.network).parameters

    def updates(self) -> float:
        """To the end, or to the target by the law.

        Without a critical batch: `epochs` of the data at any batch. With one, McCandlish et al.
        2018, arXiv:1812.06162: updates(B) = S_min (1 + B_crit / B), through `law_batch`.
        """
        if self.critical_batch is None:
            return self.epochs * self.train_examples / self.global_batch
        known = self.law_batch or self.global_batch
        least = self.epochs * self.train_examples / (known + self.critical_batch)
        return least * (1.0 + self.critical_batch / self.global_batch)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is to be expected.

    Attributes:
        micro_batch: images per device per forward pass, the largest that fits and divides.
        accumulation: micro-steps an update.
        memory_gb: of one device at that micro-batch, modelled; None: not known.
        step: an update's time, by part.
        updates: to the end or target.
        seconds: of the training, checkpoints and failures not counted.
        efficiency: images a second over those of as many single devices.
        images_per_second: of all devices.
        input_cores: cores that deliver so many images.
        checkpoint_gb: bytes / 1e9.
        checkpoint_minutes: Daly's interval; None without failures.
        expected_seconds: with checkpoints and failures.
    """

    micro_batch: int
    accumulation: int
    memory_gb: float | None
    step: StepTime
    updates: float
    seconds: float
    efficiency: float
    images_per_second: float
    input_cores: float
    checkpoint_gb: float
    checkpoint_minutes: float | None
    expected_seconds: float


def forecast(work: Work, machine: Machine, constants: Constants | None = None) -> Forecast:
    """Returns what a training on a machine is to be expected to take.

    InputError: the batch does not divide by the devices, or no micro-batch fits the memory.
    """
    if work.global_batch % machine.devices:
        raise InputError(
            f"--batch must be a multiple of --devices. Received: {work.global_batch} and "
            f"{machine.devices}. Nearest: {nearest_multiple(work.global_batch, machine.devices)}"
        )
    replica = work.global_batch // machine.devices
    micro = _micro_batch(work, machine, replica)
    found = update_time(work, machine, constants)
    updates = work.updates()
    seconds = updates * found.seconds
    device = machine.device
    own = device if isinstance(device, MachineSpeed) else None
    # A checkpoint has the weights and the slots, not the gradient.
    slots = own.slots if own else NUMBERS_A_WEIGHT[work.optimizer] - 2
    checkpoint = 4.0 * work.parameters * (1 + slots)
    cost = checkpoint / (machine.disk_gb_s * 1e9)
    between = machine.hours_between_failures * 3600.0 / machine.devices
    interval, expected = None, seconds
    if not math.isinf(between):
        interval = daly_interval(cost, between)
        costs = {"interval": interval, "cost": cost, "between_failures": between}
        expected = expected_seconds(seconds, restart=machine.restart_seconds, **costs)
    rate = work.global_batch / found.seconds
    own_input = own.input_seconds if own else None
    return Forecast(
        micro_batch=micro,
        accumulation=replica // micro,
        memory_gb=None if own else _memory(work, machine, micro) / 1e9,
        step=found,
        updates=updates,
        seconds=seconds,
        efficiency=found.compute / found.seconds,
        images_per_second=rate,
        input_cores=rate * (own_input or INPUT_SECONDS_AN_IMAGE),
        checkpoint_gb=checkpoint / 1e9,
        checkpoint_minutes=None if interval is None else interval / 60.0,
        expected_seconds=expected,
    )


def update_time(work: Work, machine: Machine, constants: Constants | None = None) -> StepTime:
    """How long an update takes: from the user's measurement, or from the fitted model."""
    sent, device = 4.0 * work.parameters, machine.device
    if isinstance(device, Device):
        return step_time.predict(
            device,
            machine.devices,
            work.global_batch,
            constants,
            operations=work.operations,
            images_per_second=machine.images_per_second,
            network=machine.network,
            gradient_bytes=sent,
        )
    replica = work.global_batch // machine.devices
    micro = _micro_batch(work, machine, replica)
    return measured.update_time(
        device, machine.devices, micro, replica // micro, network=machine.network
    )


def optimizer_seconds(work: Work, device: Device) -> float:
    """Of an update: every number is read once, and all but the gradient are written."""
    moved = 4.0 * work.parameters * (2 * NUMBERS_A_WEIGHT[work.optimizer] - 1)
    return moved / (device.memory_gb_s * 1e9)


def nearest_multiple(batch: int, devices: int) -> int:
    """The multiple of `devices` nearest to `batch`, at least one."""
    return max(round(batch / devices), 1) * devices


def _memory(work: Work, machine: Machine, micro: int) -> float:
    """Bytes of one device; of a measured one, none up to the largest batch that ran there."""
    device = machine.device
    if isinstance(device, MachineSpeed):
        return 0.0 if micro <= device.largest_micro_batch else math.inf
    size = 4 if device.precision == "float32" else 2
    weights = 4.0 * work.parameters * NUMBERS_A_WEIGHT[work.optimizer]
    return weights + micro * size * VALUES_KEPT * COSTS[work.network].activations


def _micro_batch(work: Work, machine: Machine, replica: int) -> int:
    """The largest divisor of the replica batch that fits."""
    for steps in range(1, replica + 1):
        if replica % steps == 0:
            micro = replica // steps
            if _memory(work, machine, micro) <= machine.usable_bytes:
                return micro
    least = _memory(work, machine, 1) / MEMORY_SHARE / 1e9
    raise InputError(
        f"--memory must hold one image: {least:.2g} GB for {work.network} with {work.optimizer}. "
        f"Received: {machine.usable_bytes / MEMORY_SHARE / 1e9:g} GB a device"
    )
