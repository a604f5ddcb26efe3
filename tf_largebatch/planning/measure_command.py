"""`tf-largebatch plan --measure --recipe goyal_8k --out speed.json`: this machine's own numbers."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_largebatch.planning.job import Find, find_row
from tf_largebatch.records.console import Parser, check_folder, number, place, run_command
from tf_largebatch.records.data_spec import ImageNetSpec
from tf_largebatch.records.datasets import DATASETS, ImageFacts
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.quiet import import_tensorflow
from tf_largebatch.records.recipe import Recipe

if TYPE_CHECKING:
    from tf_largebatch.data.dataset import DataSet

LARGEST = 2**16


def main(find: Find, argv: Sequence[str]) -> None:
    """Measures, writes the file, prints it, and exits: 0 done, 2 wrong input."""
    run_command(make_parser(), lambda arguments: _run(find, arguments), argv)


def make_parser() -> Parser:
    """Returns the flags."""
    parser = Parser(
        prog="python -m tf_largebatch plan --measure",
        description="Times updates of a recipe's network on this machine, alone and in several "
        "processes at once, their all-reduces, and the recipe's input, and writes them to a file "
        "for plan --device FILE. From Python, tf_largebatch.measure_speed does it for any model. "
        "Nothing else should run.",
        epilog="example: %(prog)s --recipe goyal_8k --micro-batches "
        "8,16,32 --out speed.json; then plan --batch 4096 --devices 64 --device speed.json "
        "--network infiniband-edr/8",
    )
    add = parser.add_argument
    add("--measure", action="store_true", required=True, help=argparse.SUPPRESS)
    add("--recipe", required=True, metavar="NAME", help="its network, optimizer and images")
    add("--row", metavar="ROW", help="of a family of recipes (default: its first)")
    text = "images an update, rising; the largest must fit the memory (default: 8,16,32)"
    add("--micro-batches", type=_counts(1), default=(8, 16, 32), metavar="N,N", help=text)
    text = "numbers of processes that train at once, and all-reduce (default: none)"
    add("--workers", type=_counts(2), default=(), metavar="K,K", help=text)
    text = "folder of the recipe's images, to time their decoding and augmentation too"
    add("--data", type=place, metavar="DIR", help=text)
    add("--out", type=Path, required=True, metavar="FILE", help="ends in .json; written whole")
    return parser


def _counts(least: int) -> Callable[[str], tuple[int, ...]]:
    one = number(int, least, LARGEST)

    def read(text: str) -> tuple[int, ...]:
        counts = tuple(int(one(part)) for part in text.split(","))
        if list(counts) != sorted(set(counts)):
            raise argparse.ArgumentTypeError(f"must rise, such as 8,16. Received: {text}")
        return counts

    return read


def _run(find: Find, arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    if out.suffix != ".json" or out.is_dir() or not out.parent.is_dir():
        rule = "--out must be a file that ends in .json, in a folder that is there"
        raise InputError(f"{rule}. Received: {out}")
    recipe = find_row(find, arguments.recipe, arguments.row)
    recipe.check_trains()
    if arguments.data is not None:
        check_folder("--data", arguments.data)
    import_tensorflow()
    from tf_largebatch.models.network import make_network
    from tf_largebatch.training.build import make_optimizer, open_dataset
    from tf_largebatch.training.speed import measure_input, measure_speed

    data: DataSet | None = None
    if arguments.data is not None or not isinstance(recipe.data, ImageNetSpec):
        data = open_dataset(recipe.data, arguments.data, epochs=recipe.epochs)
    # Ghost batches divide no micro-batch that a user may want to see.
    network = dataclasses.replace(recipe.model, bn_batch=None)
    model = make_network(network, data.facts if data else _facts(recipe), seed=0)
    try:
        speed = measure_speed(
            model,
            make_optimizer(recipe, recipe.phases()),
            micro_batches=arguments.micro_batches,
            workers=arguments.workers,
            input_seconds=None if data is None else measure_input(data),
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    speed = dataclasses.replace(speed, network=network.architecture)
    speed.save(out)
    print(f"{speed.network} with {speed.optimizer} on {speed.hardware}")
    for step in speed.steps:
        rate = step.workers * step.micro_batch / step.seconds
        size = f"{step.micro_batch:,} images"
        size += f" in each of {step.workers} processes" if step.workers > 1 else ""
        print(f"{size:>34}  {1e3 * step.seconds:10.1f} ms  {rate:10,.1f} images/s")
    for step in speed.joined:
        size = f"{step.micro_batch:,} images in each, one model"
        rate = step.workers * step.micro_batch / step.seconds
        print(f"{size:>34}  {1e3 * step.seconds:10.1f} ms  {rate:10,.1f} images/s")
    for one in speed.all_reduces:
        size = f"{one.byte_count / 1e6:.2f} MB between {one.workers} processes"
        print(f"{size:>34}  {1e3 * one.seconds:10.1f} ms")
    if speed.input_seconds is not None:
        print(f"input {1e6 * speed.input_seconds:,.0f} us an image on one core")
    print(out)


def _facts(recipe: Recipe) -> ImageFacts:
    """Of drawn images in the recipe's size."""
    facts = DATASETS[recipe.data.name]
    shape = facts.image_shape or (recipe.data.image_size, recipe.data.image_size, 3)  # type: ignore[union-attr]  # ImageNet's
    channels = shape[2]
    return ImageFacts(
        shape=shape,
        classes=facts.classes,
        pixel_mean=(0.0,) * channels,
        pixel_std=(1.0,) * channels,
    )
