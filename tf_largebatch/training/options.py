"""The flags of a recipe, and what they say as one frozen record. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_largebatch.records.console import (
    LARGEST_SEED,
    Parser,
    local_place,
    number,
    place,
    span,
)
from tf_largebatch.records.recipe import Recipe
from tf_largebatch.records.settings import JOIN_TIMEOUT, PRECISIONS, WORKER_TIMEOUT, Settings

if TYPE_CHECKING:
    from tf_largebatch.data.dataset import DataSet
    from tf_largebatch.training.own_network import Network

AUTO = "auto"  # --micro-batch: the largest that fits
# What workers of one run may say differently. Each waits as long as it likes, and may see the data
# under another path: what that holds is compared, as are recipes and networks. The chief's folder
# counts.
NOT_COMPARED = (
    "data miniature_data run_dir replicas tpu join_timeout worker_timeout row set network".split()
)
# The titles in `--help`, each with the first flag under it.
GROUPS = {
    "data": "data",
    "replicas": "machine",
    "join_timeout": "several workers",
    "run_dir": "output",
    "plan": "check and change",
}


def _flag(help: str, metavar: str | None = None, default: Any = None, **options: Any) -> Any:
    """A field of `Options` that is a flag, with what argparse needs."""
    options |= {} if metavar is None else {"metavar": metavar}
    return field(default=default, metadata={"help": help, **options})


def _count(help: str, metavar: str = "N", default: int | None = None, least: int = 1) -> Any:
    return _flag(help, metavar, default, type=number(int, least))


@dataclass(frozen=True, kw_only=True)
class Options:
    """One command line of a recipe: every field is a flag. They describe the machine, no paper."""

    data: "Path | str | DataSet | None" = _flag(
        "folder of ImageNet TFRecord shards, or its URL, or of pictures in train/<class>/ and "
        "val/<class>/: runs the recipe as published",
        "DIR",
        type=place,
    )
    miniature_data: Path | None = _flag(
        "folder of the miniature's images, where it is on Fashion-MNIST (default: they are "
        "downloaded once, to ~/.keras)",
        "DIR",
        type=local_place,
    )
    skip_unreadable: int = _count(
        "skip and name up to N images an epoch that cannot be read or decoded (default: 0, stop at "
        "the first)",
        default=Settings.skip_unreadable,
        least=0,
    )
    replicas: int | None = _count(
        "devices that train in step (default: with --data every GPU, else one device)"
    )
    micro_batch: int | str | None = _flag(
        "images per device per forward pass; smaller needs less memory and gives the same result; "
        "auto tries on a GPU which is the largest that fits (default, and auto without a GPU: the "
        "batch-norm batch on ImageNet, else the whole replica batch)",
        "N",
        type=number(int, 1, word=AUTO),
    )
    precision: str | None = _flag(
        "of the forward and backward pass; weights and updates stay float32 (default: the "
        "recipe's)",
        choices=PRECISIONS,
    )
    wire: str | None = _flag(
        "type in which gradients travel between devices; half the bytes, fewer digits (default: "
        "the recipe's)",
        choices=PRECISIONS,
    )
    pack_mb: int = _count(
        "MiB of gradients sent at a time (default: %(default)s)", "M", Settings.pack_mb
    )
    tpu: str | None = _flag(
        'train on the TPU of this name, "local" on a TPU machine (never run: see the README)',
        "NAME",
    )
    join_timeout: int = _count(
        "seconds for all workers to be there (default: %(default)s)", "S", JOIN_TIMEOUT
    )
    worker_timeout: int = _count(
        "seconds without a sign of life after which a worker counts as gone (default: %(default)s)",
        "S",
        WORKER_TIMEOUT,
    )
    run_dir: Path | None = _flag(
        "where everything is written; a folder of this same run is continued (default: a new "
        "folder runs/RECIPE-...)",
        "DIR",
        type=local_place,
    )
    checkpoint_updates: int | None = _count(
        "write a checkpoint after every N updates (default: only by time and epoch)"
    )
    checkpoint_minutes: float = _flag(
        "write a checkpoint after M minutes without one (default: %(default)g)",
        "M",
        Settings.checkpoint_minutes,
        type=number(float, 0, above=True),
    )
    keep_checkpoints: int = _count(
        "how many of the newest stay (default: %(default)s)", "K", Settings.keep
    )
    seed: int = _flag("the first seed (default: 0)", "N", 0, type=number(int, 0, LARGEST_SEED))
    seeds: int = _count("runs per row (default: 1)", default=1)
    profile: tuple[int, int] | None = _flag(
        "trace updates A to B - 1, counted from 0, of the first row and seed, for TensorBoard's "
        "profiler",
        "A:B",
        type=span,
    )
    target: float | None = _flag(
        "top-1 accuracy in percent: result, report and table say when each run first had it "
        "(default: with --data the paper's, where the images are its own)",
        "PCT",
        type=number(float, 0, 100),
    )
    plan: bool = _flag("print what would run, and stop", default=False, action="store_true")
    smoke: bool = _flag(
        "walk the whole path in a few updates on generated images, and stop",
        default=False,
        action="store_true",
    )
    set: Sequence[str] | None = _flag(
        "change a number of the recipe, for example --set optimizer.momentum=0.95; marks the run "
        "as modified wherever it is shown (repeatable; --set help shows all)",
        "FIELD=VALUE",
        action="append",
    )
    scale_epochs: float | None = _flag(
        "make the whole course F times as long: epochs, warmup, drops, growth; marks the run as "
        "modified",
        "F",
        type=number(float, 0, above=True),
    )
    row: str | None = None
    network: "Network | None" = None  # in the place of the recipe's; from Python

    @property
    def scale(self) -> str:
        """What runs: "full" with data, else the "miniature", or a "smoke" run."""
        return "smoke" if self.smoke else "full" if self.data else "miniature"

    def compared(self) -> dict[str, str]:
        """Returns what must be the same on all workers of a run, besides the recipes: by flag."""
        return {
            f"--{name.replace('_', '-')}": str(value)
            for name, value in vars(self).items()
            if name not in NOT_COMPARED
        }

    def settings(self, recipe: Recipe) -> Settings:
        """Returns the machine's side of a run: the flags, and the paper's types beside them."""
        return Settings(
            precision=self.precision or recipe.precision,
            wire=self.wire or recipe.wire,
            pack_mb=self.pack_mb,
            checkpoint_updates=self.checkpoint_updates,
            checkpoint_minutes=self.checkpoint_minutes,
            keep=self.keep_checkpoints,
            skip_unreadable=self.skip_unreadable,
        )


def make_parser(recipe: Recipe, rows: Mapping[str, Recipe] | None = None) -> Parser:
    """Returns the flags of a recipe; `--row` too where it is one of a family."""
    parser = Parser(
        prog=f"python -m tf_largebatch.recipes.{recipe.name}",
        description=f"{recipe.title} ({recipe.paper}). Without --data a miniature of the same "
        "experiment runs, on real data that needs no download, or as --miniature-data says.",
    )
    if rows is not None:
        parser.add_argument(
            "--row",
            choices=list(rows),
            default=recipe.row,
            help="which of the paper's rows to run with --data, or to --plan (default: "
            "%(default)s)",
        )
    for one in fields(Options):
        if one.name in GROUPS:
            group = parser.add_argument_group(GROUPS[one.name])
        if one.metadata:
            flag = f"--{one.name.replace('_', '-')}"
            group.add_argument(flag, default=one.default, **one.metadata)
    return parser
