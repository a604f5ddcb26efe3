"""What a command runs: its rows, each resolved to a plan for this machine. No framework."""

import dataclasses
from pathlib import Path
from typing import Any

from tf_largebatch.records import overrides
from tf_largebatch.records.architectures import Architecture
from tf_largebatch.records.console import check_folder
from tf_largebatch.records.data_spec import ImageNetSpec, SmallImagesSpec
from tf_largebatch.records.datasets import DATASETS
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import fingerprint
from tf_largebatch.records.local import LocalSchedule, LocalSpec
from tf_largebatch.records.plan import Plan, describe_data
from tf_largebatch.records.recipe import Miniature, Recipe, Row, deciding
from tf_largebatch.records.settings import Settings
from tf_largebatch.review.claims import rule
from tf_largebatch.training.options import Options

# A smoke run's own numbers: the smallest that walk the whole path.
SMOKE = {"global_batch": 8, "grown_batch": 16, "bn_batch": 4, "image_size": 80}
SMOKE_SMALL = 32  # side of small images
SMOKE_EPOCHS = 2.0
SMOKE_TRAIN_IMAGES, SMOKE_EVAL_IMAGES = 32, 20


def choose_rows(recipe: Recipe, miniature: Miniature, options: Options) -> list[Row]:
    """Returns the rows that this command runs, as published; InputError where there is none."""
    small = any(isinstance(row.recipe.data, SmallImagesSpec) for row in miniature.rows)
    if options.miniature_data and not (small and options.scale == "miniature"):
        where = "on the digits" if not small else f"not what runs at scale {options.scale}"
        raise InputError(
            f"--miniature-data must be left out: the miniature of {recipe.name} is {where}. "
            f"Received: {options.miniature_data}"
        )
    if options.scale == "miniature" and miniature.rows:
        return list(miniature.rows)
    recipe.check_trains()
    if options.scale == "miniature":
        raise InputError(f"--data must name a folder: {recipe.name} has no miniature")
    if options.scale == "full":
        shows, published = recipe.title, recipe.expected
        return [Row(label=recipe.label, shows=shows, recipe=recipe, published=published)]
    shows = "the path works; the numbers mean nothing"
    return [Row(label="smoke", shows=shows, recipe=make_smoke(recipe), published=None)]


def make_smoke(recipe: Recipe) -> Recipe:
    """Returns the same recipe in a few updates: its epochs squeezed into two."""
    ratio = SMOKE_EPOCHS / recipe.epochs
    data = recipe.data
    if isinstance(data, SmallImagesSpec):  # what is drawn is shards of pictures
        data = ImageNetSpec(image_size=SMOKE_SMALL, eval_short_side=SMOKE_SMALL)
    elif isinstance(data, ImageNetSpec):
        data = dataclasses.replace(
            data,
            image_size=SMOKE["image_size"],
            eval_image_size=data.eval_image_size and SMOKE["image_size"] + 8,
            eval_short_side=SMOKE["image_size"] + 8,
        )
    short = stretch(dataclasses.replace(recipe, data=data, stop=None, expected=None), ratio)
    return dataclasses.replace(
        short,
        global_batch=SMOKE["global_batch"],
        epochs=SMOKE_EPOCHS,
        model=dataclasses.replace(recipe.model, bn_batch=SMOKE["bn_batch"]),
        local=_smoke_local(short.local),
        growth=tuple((epoch, SMOKE["grown_batch"]) for epoch, _ in short.growth),
    )


def stretch(recipe: Recipe, factor: float) -> Recipe:
    """Returns the same course in `factor` times the epochs."""

    def times(record: Any) -> Any:
        """A record's own numbers of epochs."""
        ends = ("_epoch", "_epochs")
        own = {n: v for n, v in vars(record).items() if n.endswith(ends) and v is not None}
        return dataclasses.replace(record, **{n: round(v * factor, 9) for n, v in own.items()})

    return dataclasses.replace(
        recipe,
        epochs=round(recipe.epochs * factor, 9),
        data=times(recipe.data),
        optimizer=times(recipe.optimizer),
        schedule=recipe.schedule.stretched(factor, digits=9),
        local=times(recipe.local),
        growth=tuple((round(epoch * factor, 9), batch) for epoch, batch in recipe.growth),
    )


def _smoke_local(local: LocalSpec) -> LocalSpec:
    """Two workers that average every two updates."""
    if local.local_steps == 1:
        return local
    return dataclasses.replace(local, workers=2, local_steps=2)


def resolve(
    recipe: Recipe,
    options: Options,
    *,
    dataset=None,
    replicas: int | None = None,
    micro_batch: int | None = None,
    network: Architecture | None = None,
) -> Plan:
    """Plans a published recipe, with `--set` applied, for the devices of this command.

    Without a data set that is really there it has the published sizes; `micro_batch` stands in the
    place of "auto", `network` says what a network of the caller's is. InputError: a change that
    cannot be, or sizes that do not fit.
    """
    try:
        short = stretch(recipe, options.scale_epochs) if options.scale_epochs else recipe
    except ValueError as error:
        raise InputError(f"--scale-epochs {options.scale_epochs:g}: {error}") from None
    changed, _ = overrides.apply(short, list(options.set or ()))
    departures = overrides.differences(recipe, changed)
    departures += _departures_of_caller(changed, options)
    if dataset is not None and isinstance(changed.data, ImageNetSpec):
        published = changed.batch_plan().train_examples, DATASETS[changed.data.name].classes
        there = dataset.train_examples, dataset.classes
        sizes = zip(("training images", "classes"), published, there, strict=True)
        departures += tuple(f"{what} {a:,} -> {b:,}" for what, a, b in sizes if a != b)
    asked = options.micro_batch
    try:
        phases = changed.phases(
            replicas=replicas or options.replicas or 1,
            micro_batch=asked if isinstance(asked, int) else micro_batch,
            train_examples=dataset and dataset.train_examples,
        )
        local = changed.local_schedule(phases[0])
    except ValueError as error:
        raise InputError(str(error)) from None
    settings = options.settings(changed)
    if local is not None:
        _check_local(settings, local)
    return Plan(
        recipe=changed,
        phases=phases,
        scale=options.scale,
        settings=settings,
        data=describe_data(changed) if dataset is None else dataset.describe(),
        departures=departures,
        classes=None if dataset is None else dataset.classes,
        network=network,
    )


def _check_local(settings: Settings, local: LocalSchedule) -> None:
    """Refuses flags that would spoil an average, or never find one."""
    if settings.precision == "float16" or settings.wire != "float32":
        rule = "--precision must not be float16, nor --wire below float32, where updates are local"
        given = f"--precision {settings.precision} --wire {settings.wire}"
        raise InputError(f"{rule}: it is weights that are sent. Received: {given}")
    count, steps = settings.checkpoint_updates, local.local_steps
    if count and count % steps:
        raise InputError(
            f"--checkpoint-updates must be a multiple of the {steps} updates between averages: "
            f"only there can a run go on. Received: {count}"
        )


def _departures_of_caller(recipe: Recipe, options: Options) -> tuple[str, ...]:
    """What comes from Python in the place of the recipe's own."""
    found = []
    if not isinstance(options.data, str | Path | None):
        found.append(f"data {recipe.data.name} -> {options.data.name}")
    if options.network is not None:
        name = getattr(options.network, "name", getattr(options.network, "__name__", "a network"))
        found.append(f"network {recipe.model.architecture} -> {name}")
    return tuple(found)


def describe_plan(recipe: Recipe, miniature: Miniature, options: Options) -> str:
    """Returns what `--plan` prints: the published run, and the rows of the miniature."""
    full = dataclasses.replace(resolve(recipe, options), scale="full")
    if not miniature.rows:
        return f"{full.text()}\n\n{miniature.contrast}"
    changed = [(row.label, resolve(row.recipe, options).recipe) for row in miniature.rows]
    check_different(changed)
    rows = describe_rows(changed)
    start = f"{full.text()}\n\nWithout --data the miniature runs. {miniature.contrast}"
    return "\n".join([start, rows, *describe_claims(miniature)])


def check_different(rows: list[tuple[str, Recipe]]) -> None:
    """Refuses changes that make two rows of a table the same: their labels would be untrue."""
    seen: dict[str, str] = {}
    for label, recipe in rows:
        same = seen.setdefault(fingerprint(deciding(dataclasses.asdict(recipe))), label)
        if same != label:
            raise InputError(
                f"--set must leave the rows different. Received: one that makes {same!r} and "
                f"{label!r} the same. Change another field, or run one row with --data"
            )


def describe_claims(miniature: Miniature) -> list[str]:
    """Returns what would agree with each claim and what would contradict it, one line each."""
    return [f"  {c.claim}: {rule(c).explain(c.difference)}" for c in miniature.claims]


def check_flags(options: Options, plans: list[Plan], *, alone: bool) -> None:
    """Refuses a flag without effect, and, on a single process, data that is not there.

    Of several workers each says what it lacks once all have come.
    """
    data = options.data
    if options.smoke and data is not None:
        given = f"--smoke --data {data}"
        raise InputError(f"--smoke must stand without --data: it draws images. Received: {given}")
    reads = any(isinstance(plan.recipe.data, ImageNetSpec) for plan in plans)
    if options.skip_unreadable and not reads:
        rule = "--skip-unreadable must be left out without ImageNet: arrays have no such images"
        raise InputError(f"{rule}. Received: {options.skip_unreadable}")
    if data is None:  # the published sizes are those that are there
        check_profile(options.profile, plans[0])
    elif alone and isinstance(data, str | Path):
        check_folder("--data", data)
    if alone and options.miniature_data is not None:
        check_folder("--miniature-data", options.miniature_data)


def check_profile(profile: tuple[int, int] | None, plan: Plan) -> None:
    """Refuses a trace that would end after the run."""
    if profile and profile[1] > plan.updates:
        raise InputError(
            f"--profile must end within the {plan.updates:,} updates of {plan.recipe.label}. "
            f"Received: {profile[0]}:{profile[1]}"
        )


def departures_of(plans: list[Plan]) -> tuple[str, ...]:
    """Returns every change to the published set-ups, once each."""
    return tuple(sorted({change for plan in plans for change in plan.departures}))


def describe_rows(rows: list[tuple[str, Recipe]]) -> str:
    """One line for each (label, recipe): batch, updates and the rate with its arithmetic."""
    width = max(len(label) for label, _ in rows)
    return "\n".join(
        f"  {label:<{width}}  batch {recipe.global_batch}, "
        f"{recipe.updates:,} updates, rate {recipe.rate_arithmetic}"
        for label, recipe in rows
    )
