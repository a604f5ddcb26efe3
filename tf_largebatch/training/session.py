"""One command's rows: what they are, planned for this machine, run, and reported.

Imports no framework until something is run.
"""

import dataclasses
import sys
from pathlib import Path

from tf_largebatch.records import overrides, run_folder
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.plan import Plan
from tf_largebatch.records.recipe import Expected, ImageNetSpec, Recipe
from tf_largebatch.records.result import Result
from tf_largebatch.records.settings import Settings

AUTO = "auto"  # --micro-batch: the largest that fits
NOT_FINITE = 3  # exit status where no run's loss stayed finite

# A smoke run's own numbers: the smallest that walk the whole path.
SMOKE = {"global_batch": 8, "grown_batch": 16, "bn_batch": 4, "image_size": 80, "epochs": 2.0}
SMOKE_TRAIN_IMAGES, SMOKE_EVAL_IMAGES = 32, 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A recipe to run and how it is shown, before a plan can be made."""

    label: str
    shows: str
    recipe: Recipe
    departures: tuple[str, ...]
    published: Expected | None


def resolve_rows(recipe, miniature, arguments, scale) -> list[Row]:
    """The recipes that this command runs, with `--set` applied to each."""
    if scale == "miniature":
        wanted = [(r.label, r.shows, r.recipe, r.published) for r in miniature.rows]
    elif scale == "full":
        wanted = [(recipe.label, recipe.title, recipe, recipe.expected)]
    else:
        wanted = [("smoke", "the path works; the numbers mean nothing", _smoke(recipe), None)]
    rows = []
    for label, shows, base, published in wanted:
        changed, departures = overrides.apply(base, arguments.set)
        rows.append(
            Row(
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
    return dataclasses.replace(
        recipe,
        global_batch=SMOKE["global_batch"],
        epochs=SMOKE["epochs"],
        data=dataclasses.replace(
            recipe.data,
            image_size=SMOKE["image_size"],
            eval_image_size=recipe.data.eval_image_size and SMOKE["image_size"] + 8,
            eval_short_side=SMOKE["image_size"] + 8,
            plain_last_epochs=recipe.data.plain_last_epochs * ratio,
        ),
        model=dataclasses.replace(recipe.model, bn_batch=SMOKE["bn_batch"]),
        schedule=recipe.schedule.stretched(ratio),
        growth=tuple((e * ratio, SMOKE["grown_batch"]) for e, _ in recipe.growth),
        expected=None,
    )


def make_plan(
    recipe, arguments, departures, *, scale, data, train_examples=None, micro_batch=None
) -> Plan:
    """Plans one recipe for the devices of this command; InputError where its sizes do not fit."""
    try:
        phases = recipe.phases(
            replicas=arguments.replicas or 1,
            micro_batch=micro_batch if arguments.micro_batch == AUTO else arguments.micro_batch,
            train_examples=train_examples,
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    return Plan(
        recipe=recipe,
        phases=phases,
        scale=scale,
        settings=make_settings(recipe, arguments),
        data=data,
        departures=departures,
    )


def make_settings(recipe: Recipe, arguments) -> Settings:
    """Returns the machine's side of a run: the flags, and the paper's types beside them."""
    return Settings(
        precision=arguments.precision or recipe.precision,
        wire=arguments.wire or recipe.wire,
        pack_mb=arguments.pack_mb,
        checkpoint_updates=arguments.checkpoint_updates,
        checkpoint_minutes=arguments.checkpoint_minutes,
        keep=arguments.keep_checkpoints,
        skip_unreadable=arguments.skip_unreadable,
    )


def describe_rows(rows: list[tuple[str, Recipe]]) -> str:
    """One line for each (label, recipe): batch, updates and the rate with its arithmetic."""
    width = max(len(label) for label, _ in rows)
    return "\n".join(
        f"  {label:<{width}}  batch {recipe.global_batch}, "
        f"{recipe.updates:,} updates, rate {recipe.rate_arithmetic}"
        for label, recipe in rows
    )


def execute(recipe, miniature, arguments, folder, rows, scale, team) -> int:
    """Opens the data, runs the rows, and prints what was found."""
    from tf_largebatch.review import report
    from tf_largebatch.training import experiment

    sources, plans, problem = {}, [], None
    try:
        sources = _open_sources(arguments, folder, rows, scale, team)
    except InputError as error:
        problem = error
    data = " ".join(source.describe() for source in sources.values())
    team.agree("the data", data, problem=problem)
    try:
        plans = [_final_plan(r, sources[r.recipe.data], arguments, scale, team) for r in rows]
        _check_profile(arguments.profile, plans[0])
    except InputError as error:
        problem = error
    phases = " ".join(str(phase) for plan in plans for phase in plan.phases)
    team.agree("the plan", phases, problem=problem)
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
            experiment.Row(
                label=row.label,
                shows=row.shows,
                plan=plan,
                source=sources[row.recipe.data],
                published=row.published,
            )
            for row, plan in zip(rows, plans, strict=True)
        ],
        seeds=[arguments.seed + i for i in range(arguments.seeds)],
        folder=folder,
        team=team,
        interrupt=scale == "smoke",
        profile=arguments.profile,
    )
    if team.chief:
        _conclude(report.text_table(result), folder)
    diverged = all(run.diverged_at is not None for row in result.rows for run in row.runs)
    if diverged and team.chief:
        print(f"every run ended early; see {folder}/**/diverged.txt", file=sys.stderr)
    return NOT_FINITE if diverged else 0


def _check_profile(profile: tuple[int, int] | None, plan: Plan) -> None:
    if profile and profile[1] > plan.updates:
        raise InputError(
            f"--profile must end within the {plan.updates:,} updates of {plan.recipe.label}. "
            f"Received: {profile[0]}:{profile[1]}"
        )


def _open_sources(arguments, folder, rows, scale, team) -> dict:
    """Opens each row's data once."""
    from tf_largebatch.training.build import make_source

    data = arguments.data
    if scale == "smoke":
        from tf_largebatch.data import synthetic

        data = folder / "images"
        try:
            if team.chief and not data.exists():
                synthetic.write_shards(
                    data, train_examples=SMOKE_TRAIN_IMAGES, eval_examples=SMOKE_EVAL_IMAGES
                )
        finally:
            team.exchange("")  # the others wait until the pictures are there
    return {
        row.recipe.data: make_source(
            row.recipe.data,
            data,
            epochs=row.recipe.epochs,
            skip_unreadable=arguments.skip_unreadable > 0,
        )
        for row in {row.recipe.data: row for row in rows}.values()
    }


def _announce(recipe, miniature, rows, plans, departures) -> None:
    if len(plans) == 1:
        print(plans[0].text())
    else:
        print(f"{recipe.title} · miniature\n{miniature.contrast}")
        print(describe_rows([(row.label, row.recipe) for row in rows]))
        for change in departures:
            print(f"modified: {change}")
    sys.stdout.flush()


def _conclude(table: str, folder: Path) -> None:
    print(table)
    for name in ("report.html", "curves.png", "rates.png", "rows.csv", "result.json"):
        print(f"{name:<12} {folder / name}")
    print(f"TensorBoard  tensorboard --logdir {folder}")


def _final_plan(row: Row, source, arguments, scale, team) -> Plan:
    """The plan with the sizes of the data that is really there, and the micro-batch that fits."""
    departures = row.departures
    expected = row.recipe.batch_plan().train_examples
    if isinstance(row.recipe.data, ImageNetSpec) and source.train_examples != expected:
        departures += (f"training images {expected:,} -> {source.train_examples:,}",)
    found = None
    if arguments.micro_batch == AUTO:
        from tf_largebatch.training import micro_batch

        precision = make_settings(row.recipe, arguments).precision
        found = micro_batch.find(row.recipe, source, team, precision=precision)
    return make_plan(
        row.recipe,
        arguments,
        departures,
        scale=scale,
        data=source.describe(),
        train_examples=source.train_examples,
        micro_batch=found,
    )
