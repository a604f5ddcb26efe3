"""`tf-largebatch plan --batch 8192 --devices 256 --device v100`: before the cluster is rented."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from tf_largebatch.planning import step_time, sweep_page
from tf_largebatch.planning.devices import DEVICES
from tf_largebatch.planning.forecast import (
    COSTS,
    MEASURED,
    Forecast,
    Machine,
    Work,
    forecast,
)
from tf_largebatch.planning.job import Find, find_row
from tf_largebatch.planning.step_time import Network
from tf_largebatch.planning.sweep import knee, strong_scaling, weak_scaling
from tf_largebatch.records.console import Parser, choose, make_folder, number, run_command
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.optimizer_spec import LAMBSpec, LARSSpec
from tf_largebatch.records.recipe import Recipe

EPOCHS = 90  # without a recipe


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
        epilog="example: python -m tf_largebatch plan --recipe goyal_8k --devices 256 "
        "--device v100 --sweep --out forecast",
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    text = "its network, batch, epochs and optimizer"
    what.add_argument("--recipe", metavar="NAME", help=text)
    text = "images an update; ResNet-50 for 90 epochs of ImageNet"
    what.add_argument("--batch", type=number(int, 1), metavar="B", help=text)
    add("--row", metavar="ROW", help="of a family of recipes (default: its first)")
    text = "how many train in step"
    add("--devices", type=number(int, 1), required=True, metavar="K", help=text)
    text = f"one of {', '.join(DEVICES)}"
    add("--device", required=True, metavar="NAME", help=text)
    above = number(float, 0, above=True)
    add("--memory", type=above, metavar="GB", help="of a device (default: the data sheet's)")
    text = "GB/s that a device sends, and the latency of a message (default: what the published "
    text += "systems had, which is in the model's overhead)"
    add("--network", metavar="GB/S[,US]", help=text)
    text = "of one device, where you measured it (default: modelled)"
    add("--images-per-second", type=above, metavar="R", help=text)
    text = "images at which twice the updates of the fewest are needed, from a study or "
    text += "tf-largebatch diagnose (default: the epochs are enough at any batch)"
    add("--critical-batch", type=above, metavar="N", help=text)
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
    work, recipe = _work(find, arguments)
    device = DEVICES[choose(arguments.device, DEVICES, "--device")]
    machine = Machine(
        device=device,
        devices=arguments.devices,
        memory_gb=arguments.memory,
        network=_network(arguments.network),
        images_per_second=arguments.images_per_second,
        hours_between_failures=arguments.failure_hours or math.inf,
    )
    if arguments.out is not None:
        make_folder("--out", arguments.out)
    found = forecast(work, machine)
    near = recipe or nearest(recipes, work.global_batch)
    lines = describe(work, machine, found, near)
    width = max(len(label) for label, _ in lines)
    print("\n".join(f"{label:<{width}}  {text}" for label, text in lines))
    if arguments.sweep:
        fitted = arguments.fitted_to or 0.0
        weak = weak_scaling(work, machine, largest_fitted=fitted)
        strong = strong_scaling(work, machine, largest_fitted=fitted)
        print(f"\n{sweep_page.table(weak, 'weak scaling: images a device stay')}")
        print(f"\n{sweep_page.table(strong, 'strong scaling: the batch stays')}")
        end = knee(weak)
        print(
            f"\nknee: {end.devices:,} devices (batch {end.global_batch:,}), {end.hours:.3g} h; "
            f"twice as many save less than a quarter of the hours"
        )
        if arguments.out is not None:
            for path in sweep_page.write(arguments.out, lines, weak, strong, end):
                print(path)


def _work(find: Find, arguments: argparse.Namespace) -> tuple[Work, Recipe | None]:
    critical = arguments.critical_batch
    if arguments.recipe is None:
        if arguments.row is not None:
            raise InputError(f"--row is for --recipe. Received: {arguments.row}. Leave it out")
        return Work(global_batch=arguments.batch, epochs=EPOCHS, critical_batch=critical), None
    recipe = find_row(find, arguments.recipe, arguments.row)
    network = recipe.model.architecture
    if network not in COSTS:
        raise InputError(
            f"--recipe must have a network whose operations are known: {', '.join(COSTS)}. "
            f"Received: {arguments.recipe}, of {network}"
        )
    kind = type(recipe.optimizer)
    optimizer = {LARSSpec: "LARS", LAMBSpec: "LAMB"}.get(kind, "SGD")
    work = Work(
        network=network,
        optimizer=optimizer,  # type: ignore[arg-type]  # one of the three
        global_batch=recipe.global_batch,
        epochs=recipe.epochs,
        critical_batch=critical,
    )
    return work, recipe


def _network(text: str | None) -> Network | None:
    if text is None:
        return None
    speed, _, latency = text.partition(",")
    try:
        return Network(float(speed), float(latency or 0.0))
    except ValueError:
        rule = "--network must be GB/s above 0, and a latency in microseconds of 0 or more"
        raise InputError(f"{rule}, such as 10,5. Received: {text}") from None


def nearest(recipes: Sequence[Recipe], global_batch: int) -> Recipe:
    """The published ResNet-50 row whose batch is nearest, by factor."""
    alike = [r for r in recipes if r.model.architecture == "resnet50" and r.expected]
    return min(alike, key=lambda r: abs(math.log(r.global_batch / global_batch)))


def describe(work: Work, machine: Machine, found: Forecast, near: Recipe) -> list[tuple[str, str]]:
    """(label, text) pairs in reading order."""
    record = step_time.load_record()
    step, devices = found.step, machine.devices
    parts = [f"compute {1e3 * step.compute:.1f} ({found.step_kind})"]
    parts.append(f"overhead {1e3 * step.overhead:.1f} (fitted)")
    if machine.network is not None:
        hidden = f"of {1e3 * step.all_reduce:.1f}, the rest hidden (modelled)"
        parts.append(f"all-reduce {1e3 * step.exposed:.1f} {hidden}")
    one = work.global_batch / devices / step.compute
    split = f"{work.global_batch:,} = {devices:,} devices x {found.micro_batch} micro-batch "
    split += f"x {found.accumulation} accumulation"
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
        ("an update", f"{1e3 * step.seconds:.1f} ms: {', '.join(parts)}"),
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
        (
            "input",
            f"{found.images_per_second:,.0f} images/s need {math.ceil(found.input_cores):,} cores "
            "(measured: one core of an AMD EPYC)",
        ),
        ("checkpoint", _checkpoint_line(machine, found)),
    ]
    if found.step_kind != MEASURED:
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


def _checkpoint_line(machine: Machine, found: Forecast) -> str:
    text = f"{found.checkpoint_gb:.2g} GB, {found.checkpoint_gb / machine.disk_gb_s:.2g} s"
    if found.checkpoint_minutes is not None:
        text += f", every {found.checkpoint_minutes:.3g} min (Daly 2006); with failures "
        text += f"{found.expected_seconds / 3600:.3g} h"
    return f"{text} (modelled)"
