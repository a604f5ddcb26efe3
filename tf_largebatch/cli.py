"""The command line of a recipe. Answers `--help` and `--plan` without importing TensorFlow."""

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tf_largebatch import __version__, cluster, overrides, run_folder
from tf_largebatch.errors import InputError, StoppedError
from tf_largebatch.plan import Plan, describe_data
from tf_largebatch.recipe import Expected, ImageNetSpec, Miniature, Recipe
from tf_largebatch.result import Result

WRONG_INPUT, NOT_FINITE, WORKER_LOST = 2, 3, 4

# A smoke run's own numbers: the smallest that walk the whole path.
SMOKE = {"global_batch": 8, "bn_batch": 4, "image_size": 64, "epochs": 2.0}
SMOKE_TRAIN_IMAGES, SMOKE_EVAL_IMAGES = 32, 20


def main(recipe: Recipe, miniature: Miniature, argv: Sequence[str] | None = None) -> None:
    """Runs a recipe module's command line and exits.

    Status 0: done. 2: something the user gave is wrong, said in one line. 3: no run's loss stayed
    finite. 4: another worker of this run is gone. 128 + n: signal n asked for an end, and a
    checkpoint was written.

    Args:
        recipe: the published set-up.
        miniature: what runs where no data is at hand.
        argv: arguments; None for those of the process.
    """
    parser = make_parser(recipe)
    arguments = parser.parse_args(argv)
    try:
        status = _run(recipe, miniature, arguments)
    except InputError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        status = WRONG_INPUT
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        status = 128 + stopped.signal
    sys.exit(status)


def make_parser(recipe: Recipe) -> argparse.ArgumentParser:
    """Returns the flags: they describe the machine; the hyperparameters are the recipe's."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tf_largebatch.recipes.{recipe.name}",
        description=f"{recipe.title} ({recipe.paper}). Without --data a miniature of the same "
        "experiment runs, on real data that is already here.",
        allow_abbrev=False,
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of ImageNet TFRecord shards: runs the recipe as published",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--replicas",
        type=_positive,
        metavar="N",
        help="devices that train in step (default: with --data every GPU, else one device)",
    )
    machine.add_argument(
        "--micro-batch",
        type=_positive,
        metavar="N",
        help="images per device per forward pass; smaller needs less memory and gives the same "
        "result (default: the batch-norm batch on ImageNet, else the whole replica batch)",
    )
    machine.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the forward and backward pass; weights and updates stay float32 (default: "
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
    output.add_argument("--seed", type=_seed, default=0, help="the first seed (default: 0)")
    output.add_argument(
        "--seeds", type=_positive, default=1, metavar="N", help="runs per row (default: 1)"
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


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1. Received: {text}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"must be in 0..2147483647. Received: {text}")
    return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Row:
    """A recipe to run and how it is shown, before a plan can be made."""

    label: str
    shows: str
    recipe: Recipe
    departures: tuple[str, ...]
    published: Expected | None


def _run(recipe: Recipe, miniature: Miniature, arguments: argparse.Namespace) -> int:
    if arguments.plan:
        changed, departures = overrides.apply(recipe, arguments.set)
        full = _plan(changed, arguments, departures, scale="full", data=describe_data(changed))
        print(full.text())
        print(f"\nWithout --data the miniature runs. {miniature.contrast}")
        print(_describe_rows([(row.label, row.recipe) for row in miniature.rows]))
        return 0
    scale = "smoke" if arguments.smoke else "full" if arguments.data else "miniature"
    rows = _rows(recipe, miniature, arguments, scale)
    workers = cluster.resolve()
    if workers is not None and workers.size > 1:
        return _run_worker(recipe, miniature, arguments, rows, scale, workers)
    if arguments.replicas is None:
        arguments.replicas = _count_gpus() if scale == "full" else 1
    folder = _claim(recipe, arguments, scale, rows)
    try:
        _import_tensorflow()
        from tf_largebatch.distribution.team import Team

        team = Team(arguments.replicas)
        return _execute(recipe, miniature, arguments, folder, rows, scale, team)
    except InputError:
        run_folder.release(folder)  # nothing came of it: leave no empty run behind
        raise


def _run_worker(recipe, miniature, arguments, rows, scale, workers) -> int:
    """The same as one of several workers, of which the chief owns the folder and speaks."""
    gpus = cluster.gpu_for_local_rank(workers)
    if gpus is not None:
        os.environ[cluster.GPUS] = gpus
    folder = _claim(recipe, arguments, scale, rows) if workers.is_chief else None
    tf = _import_tensorflow()
    from tf_largebatch.distribution.team import Team

    try:
        team = Team(arguments.replicas)
        arguments.replicas = team.replicas
        recipes = run_folder.fingerprint([dataclasses.asdict(row.recipe) for row in rows])
        team.agree("recipe, settings and version", f"{__version__} {recipes}")
        folder = Path(team.exchange(str(folder))[0])
        return _execute(recipe, miniature, arguments, folder, rows, scale, team)
    except InputError:
        if workers.is_chief:
            run_folder.release(folder)
            raise
        return WRONG_INPUT
    except (
        tf.errors.UnavailableError,
        tf.errors.DeadlineExceededError,
        tf.errors.AbortedError,
    ) as e:
        reason = str(e).strip().splitlines()[0][:160]
        print(
            f"another worker is gone; the last checkpoint is unharmed ({reason})", file=sys.stderr
        )
        return WORKER_LOST


def _rows(recipe, miniature, arguments, scale) -> list[_Row]:
    """The recipes that this command runs, with `--set` applied to each."""
    if scale == "miniature":
        wanted = [(r.label, r.shows, r.recipe, r.published) for r in miniature.rows]
    elif scale == "full":
        wanted = [(recipe.name, recipe.title, recipe, recipe.expected)]
    else:
        wanted = [("smoke", "the path works; the numbers mean nothing", _smoke(recipe), None)]
    rows = []
    for label, shows, base, published in wanted:
        changed, departures = overrides.apply(base, arguments.set)
        rows.append(
            _Row(
                label=label,
                shows=shows,
                recipe=changed,
                departures=departures,
                published=published,
            )
        )
    return rows


def _smoke(recipe: Recipe) -> Recipe:
    """The same recipe in a few updates: its epochs squeezed into two."""
    ratio = SMOKE["epochs"] / recipe.epochs
    schedule = dataclasses.replace(
        recipe.schedule,
        warmup_epochs=recipe.schedule.warmup_epochs * ratio,
        drop_epochs=tuple(e * ratio for e in recipe.schedule.drop_epochs),
    )
    return dataclasses.replace(
        recipe,
        global_batch=SMOKE["global_batch"],
        epochs=SMOKE["epochs"],
        data=dataclasses.replace(
            recipe.data, image_size=SMOKE["image_size"], eval_short_side=SMOKE["image_size"] + 8
        ),
        model=dataclasses.replace(recipe.model, bn_batch=SMOKE["bn_batch"]),
        schedule=schedule,
        expected=None,
    )


def _plan(recipe, arguments, departures, *, scale, data, train_examples=None) -> Plan:
    try:
        batch = recipe.batch_plan(
            replicas=arguments.replicas or 1,
            micro_batch=arguments.micro_batch,
            train_examples=train_examples,
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    return Plan(
        recipe=recipe,
        batch=batch,
        scale=scale,
        precision=arguments.precision,
        data=data,
        departures=departures,
    )


def _describe_rows(rows: list[tuple[str, Recipe]]) -> str:
    """One line for each (label, recipe): batch, updates and the rate with its arithmetic."""
    width = max(len(label) for label, _ in rows)
    return "\n".join(
        f"  {label:<{width}}  batch {recipe.global_batch}, "
        f"{recipe.batch_plan().updates_at(recipe.epochs):,} updates, rate {recipe.rate_arithmetic}"
        for label, recipe in rows
    )


def _claim(recipe, arguments, scale, rows) -> Path:
    """Makes the run folder this run's own, once the recipes fit the devices."""
    plans = [
        _plan(row.recipe, arguments, row.departures, scale=scale, data=describe_data(row.recipe))
        for row in rows
    ]
    modified = any(plan.departures for plan in plans)
    name = recipe.name + {"full": "", "miniature": "-mini", "smoke": "-smoke"}[scale]
    name += "-modified" if modified else ""
    folder = arguments.run_dir or run_folder.default_folder(name)
    identity = {
        "recipe": recipe.name,
        "scale": scale,
        "settings": sorted({change for plan in plans for change in plan.departures}),
        "precision": arguments.precision,
        "seeds": [arguments.seed, arguments.seeds],
        "recipes": [dataclasses.asdict(plan.recipe) for plan in plans],
    }
    if run_folder.claim(folder, identity):
        print(f"continues {folder}", file=sys.stderr)
    return folder


def _execute(recipe, miniature, arguments, folder, rows, scale, team) -> int:
    """Opens the data, runs the rows, and prints what was found."""
    from tf_largebatch import experiment, report

    sources, plans, problem = {}, [], None
    try:
        sources = _open_sources(arguments, folder, rows, scale, team)
        plans = [_final_plan(r, sources[r.recipe.data], arguments, scale) for r in rows]
    except InputError as error:
        problem = error
    team.agree("the data", " ".join(plan.data for plan in plans), problem=problem)
    departures = tuple(sorted({change for plan in plans for change in plan.departures}))
    if team.chief:
        _announce(recipe, miniature, rows, plans, departures)

    blank = Result(
        recipe=recipe.name,
        title=recipe.title,
        paper=recipe.paper,
        scale=scale,
        departures=departures,
        notes=recipe.notes if scale == "full" else (miniature.contrast,),
        environment=run_folder.environment(),
    )
    result = experiment.run(
        blank,
        [
            experiment.Row(label=row.label, shows=row.shows, plan=plan, published=row.published)
            for row, plan in zip(rows, plans, strict=True)
        ],
        seeds=[arguments.seed + i for i in range(arguments.seeds)],
        folder=folder,
        team=team,
        open_source=lambda plan: sources[plan.recipe.data],
        interrupt=scale == "smoke",
    )
    if team.chief:
        _conclude(report.text_table(result), folder)
    diverged = all(run.diverged_at is not None for row in result.rows for run in row.runs)
    if diverged and team.chief:
        print(f"every run ended early; see {folder}/**/diverged.txt", file=sys.stderr)
    return NOT_FINITE if diverged else 0


def _open_sources(arguments, folder, rows, scale, team) -> dict:
    """Opens each row's data once."""
    from tf_largebatch.train import make_source

    data = arguments.data
    if scale == "smoke":
        from tf_largebatch.data import synthetic

        data = folder / "images"
        if team.chief and not data.exists():
            synthetic.write_shards(
                data, train_examples=SMOKE_TRAIN_IMAGES, eval_examples=SMOKE_EVAL_IMAGES
            )
        team.exchange("")  # the pictures are there
    return {spec: make_source(spec, data) for spec in {row.recipe.data for row in rows}}


def _announce(recipe, miniature, rows, plans, departures) -> None:
    if len(plans) == 1:
        print(plans[0].text())
    else:
        print(f"{recipe.title} · miniature\n{miniature.contrast}")
        print(_describe_rows([(row.label, row.recipe) for row in rows]))
        for change in departures:
            print(f"modified: {change}")
    sys.stdout.flush()


def _conclude(table: str, folder: Path) -> None:
    print(table)
    for name in ("report.html", "curves.png", "rates.png", "rows.csv", "result.json"):
        print(f"{name:<12} {folder / name}")
    print(f"TensorBoard  tensorboard --logdir {folder}")


def _final_plan(row: _Row, source, arguments, scale) -> Plan:
    """The plan with the sizes of the data that is really there."""
    departures = row.departures
    expected = row.recipe.batch_plan().train_examples
    if isinstance(row.recipe.data, ImageNetSpec) and source.train_examples != expected:
        departures += (f"training images {expected:,} -> {source.train_examples:,}",)
    return _plan(
        row.recipe,
        arguments,
        departures,
        scale=scale,
        data=source.describe(),
        train_examples=source.train_examples,
    )


def _count_gpus() -> int:
    """Counts the GPUs that TensorFlow can use; 1 where there is none."""
    return max(len(_import_tensorflow().config.list_physical_devices("GPU")), 1)


def _import_tensorflow():
    """Imports TensorFlow without its start-up notes, which go past every log setting.

    They are kept in a file meanwhile, and shown if the import fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
            # Each row of a table compiles its own functions, which TensorFlow takes for a mistake.
            tf.get_logger().setLevel("ERROR")
        except BaseException:
            notes.seek(0)
            os.write(screen, notes.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)
    return tf
