"""Instruments on a finished run: `tf-largebatch diagnose RUN --noise-scale --landscape`.

Answers `--help` and refuses wrong input without importing TensorFlow where it can.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tf_largebatch.records import extras
from tf_largebatch.records.console import (
    LARGEST_SEED,
    NOT_FINITE,
    Parser,
    check_folder,
    local_place,
    number,
    place,
    run_command,
)
from tf_largebatch.records.data_spec import DigitsSpec
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.quiet import import_tensorflow
from tf_largebatch.review.findings import FOLDER

if TYPE_CHECKING:
    from tf_largebatch.data.dataset import DataSet
    from tf_largebatch.diagnostics.finished_run import FinishedRun
    from tf_largebatch.diagnostics.objective import Objective
    from tf_largebatch.review.findings import Finding

PROGRAM = "python -m tf_largebatch diagnose"
AT_MOST = 4096  # images, unless --images says otherwise
DEFAULT = ("noise_scale", "layers")
INSTRUMENTS = {
    "noise_scale": "gradient noise scale B_simple, and what it says about the batch",
    "sharpness": "Keskar's sharpness, in the full space and on a random manifold",
    "hessian": "largest eigenvalues of the Hessian",
    "landscape": "loss along one and over two filter-normalised random directions",
    "layers": "weight norm over gradient norm by layer, at the first weights and the last",
    "drift": "distance from the first weights at every checkpoint that is kept",
}
SAID = " (default: %(default)s)"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 2 wrong input, 3 nothing finite was measured."""
    run_command(make_parser(), _run, argv)


def make_parser() -> Parser:
    """Returns the flags."""
    parser = Parser(
        prog=PROGRAM,
        description="Measures the model of a finished run on its training images, without "
        f"augmentation. Writes arrays, figures, a page and TensorBoard events to RUN/{FOLDER}.",
    )
    parser.add_argument(
        "run", type=local_place, metavar="RUN", help="a run folder with its model.keras"
    )
    what = parser.add_argument_group("instruments (default: --noise-scale --layers)")
    for name, text in INSTRUMENTS.items():
        what.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)
    text = (
        "loss between this run's model (0) and another's of the same network (1), with "
        "batch-norm statistics interpolated and recomputed"
    )
    what.add_argument("--interpolate", type=local_place, metavar="RUN2", help=text)
    data = parser.add_argument_group("data")
    text = "folder of ImageNet shards, where the run had one"
    data.add_argument("--data", type=place, metavar="DIR", help=text)
    fine = parser.add_argument_group("settings of the instruments")

    def add(group, flag, metavar, least, default, text, most=math.inf):
        kind = number(int, least, most)
        group.add_argument(flag, type=kind, default=default, metavar=metavar, help=text)

    text = "training images to measure on (default: all, 4096 at most)"
    add(data, "--images", "N", 1, None, text)
    text = (
        "images per forward pass, and per group of batch norm in --layers and recomputed statistics"
    )
    add(data, "--micro-batch", "N", 1, 256, text + SAID)
    text = "images behind each gradient of the noise scale; 1 takes every example by itself"
    add(fine, "--noise-batch", "N", 1, 16, text + SAID)
    add(fine, "--eigenvalues", "K", 1, 5, SAID)
    add(fine, "--products", "M", 1, 60, "Hessian-vector products at most" + SAID)
    text = "random directions of the manifold of --sharpness; each takes 8 bytes a weight"
    add(fine, "--directions", "P", 1, 100, text + " (default: %(default)s, the paper's)")
    text = "points of a line; a plane has half of them on each side"
    add(fine, "--points", "P", 3, 51, text + SAID)
    add(fine, "--seed", "N", 0, 0, "of directions and starts (default: 0)", LARGEST_SEED)
    return parser


@dataclass(frozen=True, kw_only=True)
class _Setting:
    arguments: argparse.Namespace
    run: "FinishedRun"
    other: "FinishedRun | None"
    dataset: "DataSet"
    objective: "Objective"


def _run(arguments: argparse.Namespace) -> int:
    try:
        _diagnose(arguments)
    except ArithmeticError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return NOT_FINITE
    return 0


def _diagnose(arguments: argparse.Namespace) -> None:
    if arguments.eigenvalues > arguments.products:
        raise InputError(
            f"--products must be at least --eigenvalues ({arguments.eigenvalues}). Received: "
            f"{arguments.products}"
        )
    for folder in filter(None, (arguments.run, arguments.interpolate)):
        check_folder("RUN", folder)
    data = arguments.data
    if data is not None:
        check_folder("--data", data)
    wanted = [name for name in INSTRUMENTS if getattr(arguments, name)]
    wanted += ["interpolate"] * (arguments.interpolate is not None)
    extras.require("review")
    import_tensorflow()
    from tf_largebatch.diagnostics.finished_run import open_run
    from tf_largebatch.diagnostics.progress import InstrumentProgress
    from tf_largebatch.review import report
    from tf_largebatch.review.findings import write_findings
    from tf_largebatch.review.tensorboard.noise import keep_noise

    run = open_run(arguments.run)
    if data is not None and isinstance(run.data, DigitsSpec):
        why = "the run's images are the digits, which come with scikit-learn"
        raise InputError(f"--data must be left out: {why}. Received: {data}")
    other = open_run(arguments.interpolate) if arguments.interpolate else None
    progress = InstrumentProgress()
    progress.start("images")
    setting = _prepare(arguments, wanted or DEFAULT, run, other, progress.advance)
    images = setting.objective.examples
    facts = {
        "images": images,
        "weights": int(setting.objective.vector.size),
        "updates": run.updates,
        "global batch": run.global_batch,
        "seed": arguments.seed,
    }
    found: list[Finding] = []
    pages: list[Path] = []
    try:
        for name in wanted or DEFAULT:
            progress.start(name.replace("_", " "), _batches(name, setting))
            new = _measure(name, setting)
            # Each on its own: one that is stopped, or meets no number, loses none before it.
            write_findings(new, run.folder / FOLDER, step=run.updates, facts=facts)
            found += new
    except ValueError as error:
        raise InputError(str(error)) from None
    finally:
        progress.end()
        if found:
            keep_noise(run.folder, global_batch=run.global_batch)
            pages = [report.write_instruments_page(run.folder), *report.refresh(run.folder)]
    lines = [line for one in found for line in one.lines]
    width = max(len(label) for label, _ in lines)
    print("\n".join(f"{label:<{width}}  {text}" for label, text in lines))
    print(f"{images:,} training images without augmentation")
    print("\n".join(f"page: {page}" for page in pages))


def _prepare(arguments, wanted, run, other, after_batch) -> _Setting:
    import numpy as np

    from tf_largebatch.diagnostics.finished_run import read_images
    from tf_largebatch.diagnostics.objective import Objective
    from tf_largebatch.diagnostics.requirements import check_memory
    from tf_largebatch.training.build import make_loss, open_dataset

    # One epoch, of which the last one is plain.
    dataset = open_dataset(run.data, arguments.data or run.images_folder, epochs=1.0)
    batches = read_images(
        dataset, arguments.images, at_most=AT_MOST, micro_batch=arguments.micro_batch
    )
    model = run.load_model()
    check_memory(
        wanted,
        weights=sum(int(np.prod(v.shape)) for v in model.trainable_variables),
        products=arguments.products,
        directions=arguments.directions,
        image_bytes=sum(images.numpy().nbytes for images, _ in batches),
    )
    objective = Objective(model, make_loss(run.loss), batches, after_batch=after_batch)
    return _Setting(arguments=arguments, run=run, other=other, dataset=dataset, objective=objective)


def _batches(name: str, setting: _Setting) -> int | None:
    """How many an instrument evaluates; None where that follows from what it meets."""
    objective, points = setting.objective, setting.arguments.points
    once = len(objective.batches)
    match name:
        case "noise_scale":
            return objective.examples // setting.arguments.noise_batch
        case "landscape":
            return once * (points + _side(points) ** 2)
        case "layers":
            return 2 * once
        case "interpolate":  # with recomputed statistics: the point, the statistics, the point
            return once * points * (3 if objective.has_statistics else 1)
    return None


def _side(points: int) -> int:
    """Points on a side of the plane: odd, so that the solution itself is one."""
    return points // 2 | 1


def _measure(name: str, setting: _Setting) -> "list[Finding]":
    from tf_largebatch.diagnostics import measurements as m

    arguments, run, objective = setting.arguments, setting.run, setting.objective
    seed, points = arguments.seed, arguments.points
    match name:
        case "noise_scale":
            batches = {"global_batch": run.global_batch, "updates": run.updates}
            return [m.measure_noise_scale(objective, micro_batch=arguments.noise_batch, **batches)]
        case "sharpness":
            return [m.measure_sharpness(objective, manifold=arguments.directions, seed=seed)]
        case "hessian":
            count, products = arguments.eigenvalues, arguments.products
            return [m.measure_hessian(objective, count=count, products=products, seed=seed)]
        case "landscape":
            return [
                m.measure_line(objective, points=points, seed=seed),
                m.measure_plane(objective, points=_side(points), seed=seed),
            ]
        case "layers":
            solutions = {"first": _first_weights(setting), "last": objective.vector}
            return [m.measure_layers(objective, solutions)]
        case "drift":
            kept = run.checkpoint_weights()
            later = {update: objective.flat(weights) for update, weights in kept.items()}
            later[run.updates] = objective.vector
            return [m.measure_drift(_first_weights(setting), later)]
        case "interpolate" if setting.other:
            return [_between(setting, setting.other)]
    raise ValueError(f"no instrument {name}")


def _first_weights(setting: _Setting):
    """The weights that the run started from, made again from its seed."""
    from tf_largebatch.training.build import make_model

    run = setting.run
    if run.seed is None:
        raise InputError(f"{run.folder} has no seed.json: its first weights are not known")
    # Of a recipe it asks the network alone, which a finished run has too.
    return _weights(make_model(cast(Any, run), setting.dataset, run.seed), setting, run.folder)


def _between(setting: _Setting, other: "FinishedRun") -> "Finding":
    from tf_largebatch.diagnostics.measurements import measure_between

    model = other.load_model()
    solution = (
        _weights(model, setting, other.folder),
        [v.numpy() for v in model.non_trainable_variables],
    )
    ends = [run.folder.resolve() for run in (setting.run, other)]
    names = ends[0].name, ends[1].name
    if names[0] == names[1]:  # two seeds of two rows
        names = "/".join(ends[0].parts[-2:]), "/".join(ends[1].parts[-2:])
    points = setting.arguments.points
    return measure_between(setting.objective, solution, points=points, names=names)


def _weights(model, setting: _Setting, folder: Path):
    """A model's weights as one vector, if it is the network of RUN."""
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    if shapes != setting.objective.shapes:
        raise InputError(
            f"the network must be the one of RUN. Received: {folder}, with {len(shapes)} tensors "
            f"of other shapes than the {len(setting.objective.shapes)} there"
        )
    return setting.objective.flat([v.numpy() for v in model.trainable_variables])
