"""The flags of a recipe, and what they say as one frozen record. Standard library only."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from tf_largebatch.records.console import LARGEST_SEED, Parser, number, span
from tf_largebatch.records.recipe import Recipe
from tf_largebatch.records.settings import JOIN_TIMEOUT, PRECISIONS, WORKER_TIMEOUT, Settings

AUTO = "auto"  # --micro-batch: the largest that fits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """One command line of a recipe; the flags' help says what each field means."""

    row: str | None = None
    data: Path | None
    skip_unreadable: int
    replicas: int | None
    micro_batch: int | str | None
    precision: str | None
    wire: str | None
    pack_mb: int
    tpu: str | None
    join_timeout: int
    worker_timeout: int
    run_dir: Path | None
    checkpoint_updates: int | None
    checkpoint_minutes: float
    keep_checkpoints: int
    seed: int
    seeds: int
    profile: tuple[int, int] | None
    plan: bool
    smoke: bool
    set: tuple[str, ...]

    @classmethod
    def read(cls, parser: Parser, argv: Sequence[str] | None) -> "Options":
        """Reads a command line; None for that of the process. A wrong one ends the process."""
        flags = vars(parser.parse_args(argv))
        return cls(**{**flags, "set": tuple(flags["set"])})

    @property
    def scale(self) -> str:
        """What runs: "full" with data, else the "miniature", or a "smoke" run."""
        return "smoke" if self.smoke else "full" if self.data else "miniature"

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
    """Returns the flags: they describe the machine; the hyperparameters are the recipe's."""
    parser = Parser(
        prog=f"python -m tf_largebatch.recipes.{recipe.name}",
        description=f"{recipe.title} ({recipe.paper}). Without --data a miniature of the same "
        "experiment runs, on real data that is already here.",
    )
    if rows is not None:
        parser.add_argument(
            "--row",
            choices=list(rows),
            default=recipe.row,
            help="which of the paper's rows to run with --data, or to --plan (default: "
            "%(default)s)",
        )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of ImageNet TFRecord shards: runs the recipe as published",
    )
    data.add_argument(
        "--skip-unreadable",
        type=number(int, 0),
        default=Settings.skip_unreadable,
        metavar="N",
        help="skip and name up to N images an epoch that cannot be read or decoded (default: 0, "
        "stop at the first)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--replicas",
        type=number(int, 1),
        metavar="N",
        help="devices that train in step (default: with --data every GPU, else one device)",
    )
    machine.add_argument(
        "--micro-batch",
        type=number(int, 1, word=AUTO),
        metavar="N",
        help="images per device per forward pass; smaller needs less memory and gives the same "
        "result; auto tries on a GPU which is the largest that fits (default, and auto without a "
        "GPU: the batch-norm batch on ImageNet, else the whole replica batch)",
    )
    machine.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of the forward and backward pass; weights and updates stay float32 (default: the "
        "recipe's)",
    )
    machine.add_argument(
        "--wire",
        choices=PRECISIONS,
        help="type in which gradients travel between devices; half the bytes, fewer digits "
        "(default: the recipe's)",
    )
    machine.add_argument(
        "--pack-mb",
        type=number(int, 1),
        default=Settings.pack_mb,
        metavar="M",
        help="MiB of gradients sent at a time (default: %(default)s)",
    )
    machine.add_argument(
        "--tpu",
        metavar="NAME",
        help='train on the TPU of this name, "local" on a TPU machine (never run: see the README)',
    )
    workers = parser.add_argument_group("several workers")
    workers.add_argument(
        "--join-timeout",
        type=number(int, 1),
        default=JOIN_TIMEOUT,
        metavar="S",
        help="seconds for all workers to be there (default: %(default)s)",
    )
    workers.add_argument(
        "--worker-timeout",
        type=number(int, 1),
        default=WORKER_TIMEOUT,
        metavar="S",
        help="seconds without a sign of life after which a worker counts as gone (default: "
        "%(default)s)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="where everything is written; a folder of this same run is continued (default: a new "
        f"folder runs/{recipe.name}-...)",
    )
    output.add_argument(
        "--checkpoint-updates",
        type=number(int, 1),
        metavar="N",
        help="write a checkpoint after every N updates (default: only by time and epoch)",
    )
    output.add_argument(
        "--checkpoint-minutes",
        type=number(float, 0, above=True),
        default=Settings.checkpoint_minutes,
        metavar="M",
        help="write a checkpoint after M minutes without one (default: %(default)g)",
    )
    output.add_argument(
        "--keep-checkpoints",
        type=number(int, 1),
        default=Settings.keep,
        metavar="K",
        help="how many of the newest stay (default: %(default)s)",
    )
    output.add_argument(
        "--seed",
        type=number(int, 0, LARGEST_SEED),
        default=0,
        metavar="N",
        help="the first seed (default: 0)",
    )
    output.add_argument(
        "--seeds", type=number(int, 1), default=1, metavar="N", help="runs per row (default: 1)"
    )
    output.add_argument(
        "--profile",
        type=span,
        metavar="A:B",
        help="trace updates A to B - 1, counted from 0, of the first row and seed, for "
        "TensorBoard's profiler",
    )
    check = parser.add_argument_group("check and change")
    check.add_argument("--plan", action="store_true", help="print what would run, and stop")
    check.add_argument(
        "--smoke",
        action="store_true",
        help="walk the whole path in a few updates on generated images, and stop",
    )
    check.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a number of the recipe, for example --set optimizer.momentum=0.95; marks the "
        "run as modified wherever it is shown (repeatable)",
    )
    return parser
