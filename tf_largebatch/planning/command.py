"""`tf-largebatch plan --batch 8192 --devices 256 --device v100`: before the cluster is rented."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tf_largebatch.planning import step_time, sweep_page
from tf_largebatch.planning.critical_batch import CriticalBatch
from tf_largebatch.planning.devices import DEVICES, Device
from tf_largebatch.planning.forecast import (
    COSTS,
    MEASURED,
    MODELLED,
    Forecast,
    Machine,
    Work,
    forecast,
    optimizer_seconds,
)
from tf_largebatch.planning.job import Find, find_row
from tf_largebatch.planning.step_time import NETWORKS, Network, StepTime
from tf_largebatch.planning.sweep import say_knee, strong_scaling, weak_scaling
from tf_largebatch.records.console import Parser, choose, make_folder, number, run_command
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.machine_speed import MachineSpeed, load
from tf_largebatch.records.optimizer_spec import LAMBSpec, LARSSpec
from tf_largebatch.records.recipe import Recipe
from tf_largebatch.review.noise_scale import say_doubling

EPOCHS, IMAGES = 90.0, 1_281_167  # without a recipe


def main(find: Find, recipes: Callable[[], list[Recipe]], argv: Sequence[str]) -> None:
    """Prints the forecast and exits: 0 done, 2 wrong input."""
    run_command(make_parser(), lambda arguments: _run(find, recipes(), arguments), argv)


def make_parser() -> Parser:
    """Returns the flags."""
    parser = Parser(
        prog="python -m tf_largebatch plan",
        description="Prints what a training takes before it runs: split, memory, time by part, "
        "hours, input, checkpoints, and the published row that is nearest. Every figure says "
        "whether it was measured, published or modelled.",
        epilog="example: %(prog)s --recipe goyal_8k --devices 256 "
        "--device v100 --sweep --out forecast",
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    text = "its network, batch, epochs and optimizer"
    what.add_argument("--recipe", metavar="NAME", help=text)
    text = "images an update of ResNet-50, or of the network that was measured"
    what.add_argument("--batch", type=number(int, 1), metavar="B", help=text)
    text = f"of --batch (default: {EPOCHS:g})"
    add("--epochs", type=number(float, 0, above=True), metavar="E", help=text)
    text = f"in an epoch, of --batch (default: {IMAGES:,}, of ImageNet)"
    add("--train-examples", type=number(int, 1), metavar="N", help=text)
    add("--row", metavar="ROW", help="of a family of recipes (default: its first)")
    text = "how many train in step"
    add("--devices", type=number(int, 1), required=True, metavar="K", help=text)
    text = f"one of {', '.join(DEVICES)}; or a file that plan --measure wrote on a machine of yours"
    add("--device", required=True, metavar="NAME|FILE", help=text)
    above = number(float, 0, above=True)
    add("--memory", type=above, metavar="GB", help="of a device (default: the data sheet's)")
    text = "GB/s that a device sends, and the latency of a message (default: what the published "
    text += "systems had, which is in the model's overhead; of a measured machine, its processes); "
    text += f"or one of {', '.join(NETWORKS)}, with /8 where eight devices share it"
    add("--network", metavar="GB/S[,US]|NAME", help=text)
    text = "of one device, where you measured it (default: modelled)"
    add("--images-per-second", type=above, metavar="R", help=text)
    text = "images at which twice the updates of the fewest are needed: a number, one with its "
    text += "interval, or a run whose noise scale was measured (default: the epochs are enough at "
    text += "any batch)"
    add("--critical-batch", metavar="N[,LOW,HIGH]|RUN", help=text)
    text = "the largest batch that it was fitted on: what lies beyond is marked"
    add("--fitted-to", type=above, metavar="B", help=text)
    text = "mean hours between two failures of one device (default: none fail)"
    add("--failure-hours", type=above, metavar="H", help=text)
    text = "tables from 1 to 8,192 devices: weak and strong scaling, and where more stop paying"
    add("--sweep", action="store_true", help=text)
    text = "with --sweep: folder for plan.html, sweep.csv and the figures"
    add("--out", type=Path, metavar="DIR", help=text)
    return parser


def _run(find: Find, recipes: list[Recipe], arguments: argparse.Namespace) -> None:
    if arguments.out is not None and not arguments.sweep:
        raise InputError(f"--out is for --sweep. Received: {arguments.out}. Add --sweep")
    if arguments.fitted_to is not None and arguments.critical_batch is None:
        given = f"{arguments.fitted_to:g}"
        raise InputError(f"--fitted-to is for --critical-batch. Received: {given}. Give both")
    device = _device(arguments.device)
    critical = arguments.critical_batch and CriticalBatch.read(arguments.critical_batch)
    work, recipe = _work(find, arguments, device, critical)
    machine = Machine(
        device=device,
        devices=arguments.devices,
        memory_gb=arguments.memory,
        network=_network(arguments.network),
        images_per_second=arguments.images_per_second,
        hours_between_failures=arguments.failure_hours or math.inf,
    )
    if isinstance(device, MachineSpeed):
        _check_measured(device, arguments)
    found = forecast(work, machine)
    if arguments.out is not None:
        make_folder("--out", arguments.out)
    near = recipe or nearest(recipes, work.global_batch)
    lines = describe(work, machine, found, near, critical)
    width = max(len(label) for label, _ in lines)
    print("\n".join(f"{label:<{width}}  {text}" for label, text in lines))
    if arguments.sweep:
        law: dict[str, Any] = {
            "largest_fitted": arguments.fitted_to or 0.0,
            "interval": critical and (critical.low, critical.high),
        }
        weak, strong = weak_scaling(work, machine, **law), strong_scaling(work, machine, **law)
        print(f"\n{sweep_page.table(weak, 'weak scaling: images a device stay')}")
        print(f"\n{sweep_page.table(strong, 'strong scaling: the batch stays')}")
        print(f"\nknee: {say_knee(weak)}")
        if arguments.out is not None:
            for path in sweep_page.write(arguments.out, lines, weak, strong):
                print(path)


def _device(text: str) -> Device | MachineSpeed:
    if text == "cpu":
        raise InputError(
            "--device must be a device whose data sheet tells its speed, or a file. Received: cpu. "
            "Measure yours: tf-largebatch plan --measure --recipe NAME --out speed.json"
        )
    if text not in DEVICES and (text.endswith(".json") or Path(text).exists()):
        return load(Path(text))
    return DEVICES[choose(text, DEVICES, "--device")]


def _check_measured(speed: MachineSpeed, arguments: argparse.Namespace) -> None:
    """Refuses what a measured machine has no use for, and processes that were not measured."""
    for flag, value in (
        ("--images-per-second", arguments.images_per_second),
        ("--memory", arguments.memory),
    ):
        if value is not None:
            given = f"{value:g} with {arguments.device}"
            raise InputError(f"{flag} is for a device by its name. Received: {given}. Leave it out")
    if arguments.network is not None:
        return
    if arguments.devices not in speed.workers or arguments.sweep:
        given = "--sweep" if arguments.sweep else f"--devices {arguments.devices}"
        raise InputError(
            "--network must be given for other machines like the measured one, on which "
            f"{', '.join(map(str, speed.workers))} processes were measured. Received: {given} "
            "without it"
        )


def _work(
    find: Find,
    arguments: argparse.Namespace,
    device: Device | MachineSpeed,
    critical: CriticalBatch | None,
) -> tuple[Work, Recipe | None]:
    own: dict[str, Any] = {"critical_batch": critical and critical.value}
    if isinstance(device, MachineSpeed):
        own |= {"network": device.network, "weights": device.parameters}
    if arguments.recipe is None:
        if arguments.row is not None:
            raise InputError(f"--row is for --recipe. Received: {arguments.row}. Leave it out")
        epochs, examples = arguments.epochs or EPOCHS, arguments.train_examples or IMAGES
        work = Work(global_batch=arguments.batch, epochs=epochs, train_examples=examples, **own)
        return work, None
    for flag, value in (
        ("--epochs", arguments.epochs),
        ("--train-examples", arguments.train_examples),
    ):
        if value is not None:
            raise InputError(f"{flag} is for --batch. Received: {value:g}. The recipe has its own")
    recipe = find_row(find, arguments.recipe, arguments.row)
    network = recipe.model.architecture
    if isinstance(device, MachineSpeed) and network != device.network:
        raise InputError(
            f"--device must be measured with {network}, the network of {arguments.recipe}. "
            f"Received: {arguments.device}, with {device.network}"
        )
    if isinstance(device, Device) and network not in COSTS:
        raise InputError(
            f"--recipe must have a network whose operations are known: {', '.join(COSTS)}. "
            f"Received: {arguments.recipe}, of {network}"
        )
    kind = type(recipe.optimizer)
    optimizer = {LARSSpec: "LARS", LAMBSpec: "LAMB"}.get(kind, "SGD")
    work = Work(
        **{"network": network, **own},
        optimizer=optimizer,  # type: ignore[arg-type]  # one of the three
        global_batch=recipe.global_batch,
        epochs=recipe.epochs,
    )
    return work, recipe


def _network(text: str | None) -> Network | None:
    if text is None:
        return None
    try:
        return Network.read(text)
    except (ValueError, ZeroDivisionError):
        rule = "--network must be GB/s above 0, and a latency in microseconds of 0 or more"
        names = f"such as 10,5, or one of {', '.join(NETWORKS)}"
        raise InputError(f"{rule}, {names}. Received: {text}") from None


def nearest(recipes: Sequence[Recipe], global_batch: int) -> Recipe:
    """The published ResNet-50 row whose batch is nearest, by factor."""
    alike = [r for r in recipes if r.model.architecture == "resnet50" and r.expected]
    return min(alike, key=lambda r: abs(math.log(r.global_batch / global_batch)))


def describe(
    work: Work,
    machine: Machine,
    found: Forecast,
    near: Recipe,
    critical: CriticalBatch | None = None,
) -> list[tuple[str, str]]:
    """(label, text) pairs in reading order."""
    step, devices = found.step, machine.devices
    one = work.global_batch / devices / step.compute
    split = f"{work.global_batch:,} = {devices:,} devices x {found.micro_batch} micro-batch "
    split += f"x {found.accumulation} accumulation"
    if found.memory_gb is None:
        room = "a micro-batch that ran there (measured)"
    else:
        room = f"{found.memory_gb:.1f} of {machine.usable_bytes / 1e9:.1f} GB a device (modelled)"
    hours = found.seconds / 3600.0
    end = "the end" if work.critical_batch is None else "the target (by the law)"
    optimizer = near.optimizer
    momentum = getattr(optimizer, "momentum", None)
    momentum_text = "" if momentum is None else f", momentum {momentum:g}"
    lines = [
        ("nearest published", f"{near.label}, batch {near.global_batch:,}, {near.epochs:g} epochs"),
        (
            "  with",
            f"{type(optimizer).__name__.removesuffix('Spec')}, rate {near.rate_arithmetic}, warmup "
            f"{near.schedule.warmup_epochs:g} epochs{momentum_text}, decay "
            f"{optimizer.weight_decay:g} (published)",
        ),
        ("split", f"{split}: {room}"),
        ("an update", f"{1e3 * step.seconds:.1f} ms: {', '.join(_parts(work, machine, step))}"),
        (
            "efficiency",
            f"{found.efficiency:.0%}: {found.images_per_second:,.0f} images/s of "
            f"{devices:,} x {one:,.0f}",
        ),
        (
            "training",
            f"{found.updates:,.0f} updates, {hours:.3g} h, {hours * devices:,.0f} device-hours to "
            f"{end}",
        ),
        *([("critical batch", _critical_line(work, critical))] if critical else []),
        (
            "input",
            f"{found.images_per_second:,.0f} images/s need {math.ceil(found.input_cores):,} cores "
            f"(measured: {_input_source(machine)})",
        ),
        ("checkpoint", _checkpoint_line(machine, found)),
    ]
    if isinstance(machine.device, MachineSpeed):
        speed = machine.device
        text = f"{speed.network} with {speed.optimizer} on {speed.hardware}: {speed.made}"
        lines.append(("measured", text))
    elif not machine.measured:
        record = step_time.load_record()
        lines.append(
            (
                "error",
                f"the model is {record['typical_error']:.0%} off on published systems that it has "
                f"not seen (median); a straight line {record['typical_error_of_a_line']:.0%}",
            )
        )
        if machine.device.name not in step_time.load().shares:
            text = "no published system has this device: the mean of its class is taken"
            lines.append(("warning", text))
    return lines


def _critical_line(work: Work, critical: CriticalBatch) -> str:
    saved = say_doubling(work.global_batch, critical.value)
    return f"{critical.value:,.0f}, {critical.source}: {saved} (by the law)"


def _parts(work: Work, machine: Machine, step: StepTime) -> list[str]:
    """An update's time, with what each part is known by."""
    parts = [f"compute {1e3 * step.compute:.1f} ({MEASURED if machine.measured else MODELLED})"]
    if isinstance(machine.device, MachineSpeed):
        if machine.network is None:
            parts.append(f"sharing the machine {1e3 * step.overhead:.1f} (measured)")
            parts.append(f"all-reduce {1e3 * step.exposed:.1f} (measured)")
        else:
            parts.append(f"all-reduce {1e3 * step.exposed:.1f}, nothing of it hidden (modelled)")
        return parts
    optimizer = 1e3 * optimizer_seconds(work, machine.device)
    text = f"overhead {1e3 * step.overhead:.1f} (fitted; the optimizer's part {optimizer:.1f}"
    parts.append(f"{text}, modelled)")
    if machine.network is not None:
        hidden = f"of {1e3 * step.all_reduce:.1f}, the rest hidden (modelled)"
        parts.append(f"all-reduce {1e3 * step.exposed:.1f} {hidden}")
    return parts


def _input_source(machine: Machine) -> str:
    if isinstance(machine.device, MachineSpeed) and machine.device.input_seconds is not None:
        return "there"
    return "one core of an AMD EPYC, ImageNet"


def _checkpoint_line(machine: Machine, found: Forecast) -> str:
    text = f"{found.checkpoint_gb:.2g} GB, {found.checkpoint_gb / machine.disk_gb_s:.2g} s"
    if found.checkpoint_minutes is not None:
        text += f", every {found.checkpoint_minutes:.3g} min (Daly 2006); with failures "
        text += f"{found.expected_seconds / 3600:.3g} h"
    return f"{text} (modelled)"
