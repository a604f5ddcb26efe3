"""The command line of a recipe. Answers `--help` and `--plan` without importing TensorFlow."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tf_largebatch.records import __version__, overrides, run_folder
from tf_largebatch.records.console import LARGEST_SEED, WRONG_INPUT, Parser, number, span
from tf_largebatch.records.errors import InputError, StoppedError
from tf_largebatch.records.plan import describe_data
from tf_largebatch.records.quiet import import_tensorflow
from tf_largebatch.records.recipe import Miniature, Recipe
from tf_largebatch.records.settings import JOIN_TIMEOUT, PRECISIONS, WORKER_TIMEOUT, Settings
from tf_largebatch.training import session
from tf_largebatch.training.workers import cluster, gpus

WORKER_LOST = 4  # exit status


def main(
    recipe: Recipe,
    miniature: Miniature,
    argv: Sequence[str] | None = None,
    *,
    rows: Mapping[str, Recipe] | None = None,
) -> None:
    """Runs a recipe module's command line and exits.

    Status 0: done. 2: something the user gave is wrong, said in one line. 3: no run's loss stayed
    finite. 4: another worker of this run is gone. 128 + n: signal n asked for an end, and a
    checkpoint was written.

    Args:
        recipe: the published set-up.
        miniature: what runs where no data is at hand.
        argv: arguments; None for those of the process.
        rows: further set-ups of a family, by the name that `--row` takes; `recipe` is one of them.
    """
    parser = make_parser(recipe, rows)
    arguments = parser.parse_args(argv)
    if rows is not None:
        recipe = rows[arguments.row]
    try:
        status = _run(recipe, miniature, arguments)
    except InputError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        status = WRONG_INPUT
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        status = 128 + stopped.signal
    sys.exit(status)


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
        type=number(int, 1, word=session.AUTO),
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


def _run(recipe: Recipe, miniature: Miniature, arguments: argparse.Namespace) -> int:
    if arguments.plan:
        changed, departures = overrides.apply(recipe, arguments.set)
        full = session.make_plan(
            changed, arguments, departures, scale="full", data=describe_data(changed)
        )
        print(full.text())
        print(f"\nWithout --data the miniature runs. {miniature.contrast}")
        print(session.describe_rows([(row.label, row.recipe) for row in miniature.rows]))
        return 0
    scale = "smoke" if arguments.smoke else "full" if arguments.data else "miniature"
    rows = session.resolve_rows(recipe, miniature, arguments, scale)
    workers = cluster.resolve()
    if workers is not None and workers.size > 1:
        if arguments.tpu:
            raise InputError(
                f"--tpu must be given to a single process, which drives the whole TPU. Received: "
                f"--tpu {arguments.tpu} on worker {workers.rank} of {workers.size}"
            )
        return _run_worker(recipe, miniature, arguments, rows, scale, workers)
    if arguments.tpu and arguments.precision == "float16":
        raise InputError("--precision must be float32 or bfloat16 on a TPU. Received: float16")
    if arguments.replicas is None and not arguments.tpu:
        arguments.replicas = _count_gpus() if scale == "full" else 1
    folder = _claim(recipe, arguments, scale, rows)
    try:
        import_tensorflow()
        from tf_largebatch.training.workers.team import Team

        team = Team(arguments.replicas, tpu=arguments.tpu)
        arguments.replicas = team.replicas
        return session.execute(recipe, miniature, arguments, folder, rows, scale, team)
    except InputError:
        run_folder.release(folder)  # nothing came of it: leave no empty run behind
        raise


def _run_worker(recipe, miniature, arguments, rows, scale, workers) -> int:
    """The same as one of several workers, of which the chief owns the folder and speaks."""
    assigned = gpus.gpu_for_local_rank(workers)
    if assigned is not None:
        os.environ[gpus.GPUS] = assigned
    folder = _claim(recipe, arguments, scale, rows) if workers.is_chief else None
    tf = import_tensorflow()
    from tf_largebatch.training.workers.absence import describe_loss
    from tf_largebatch.training.workers.team import Team

    team = None
    try:
        team = Team(
            arguments.replicas,
            worker_timeout=arguments.worker_timeout,
            join_timeout=arguments.join_timeout,
        )
        arguments.replicas = team.replicas
        # The last two decide where blocks of updates end.
        blocks = [arguments.checkpoint_updates, arguments.profile]
        recipes = run_folder.fingerprint([[dataclasses.asdict(row.recipe) for row in rows], blocks])
        team.agree("recipe, settings and version", f"{__version__} {recipes}")
        folder = Path(team.exchange(str(folder))[0])
        return session.execute(recipe, miniature, arguments, folder, rows, scale, team)
    except InputError:
        if workers.is_chief:
            run_folder.release(folder)
        elif team is not None:
            return WRONG_INPUT  # the chief says it
        raise
    except (
        tf.errors.UnavailableError,
        tf.errors.DeadlineExceededError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
    ) as error:
        print(describe_loss(error, workers, arguments.worker_timeout), file=sys.stderr)
        return WORKER_LOST


def _claim(recipe, arguments, scale, rows) -> Path:
    """Makes the run folder this run's own, once the recipes fit the devices."""
    plans = [
        session.make_plan(
            row.recipe, arguments, row.departures, scale=scale, data=describe_data(row.recipe)
        )
        for row in rows
    ]
    modified = any(plan.departures for plan in plans)
    name = recipe.name if recipe.row is None or scale != "full" else f"{recipe.name}-{recipe.row}"
    name += {"full": "", "miniature": "-mini", "smoke": "-smoke"}[scale]
    name += "-modified" if modified else ""
    folder = arguments.run_dir or run_folder.default_folder(name)
    identity = {
        "recipe": recipe.name,
        "scale": scale,
        "settings": sorted({change for plan in plans for change in plan.departures}),
        "precision": [plan.settings.precision for plan in plans],
        "wire": [plan.settings.wire for plan in plans],
        "seeds": [arguments.seed, arguments.seeds],
        "recipes": [dataclasses.asdict(plan.recipe) for plan in plans],
    }
    if run_folder.claim(folder, identity):
        print(f"continues {folder}", file=sys.stderr)
    return folder


def _count_gpus() -> int:
    """Counts the GPUs that TensorFlow can use; 1 where there is none."""
    return max(len(import_tensorflow().config.list_physical_devices("GPU")), 1)
