"""The command of a recipe: reads the flags, trains every row with every seed, reports.

Answers `--help` and `--plan` without importing TensorFlow.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tf_largebatch.records import overrides
from tf_largebatch.records.console import NOT_FINITE, ending, one_line
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.recipe import Miniature, Recipe
from tf_largebatch.records.result import Result
from tf_largebatch.training.options import Options, make_parser
from tf_largebatch.training.rows import describe_plan
from tf_largebatch.training.session import open_session

if TYPE_CHECKING:
    from tf_largebatch.data.dataset import DataSet
    from tf_largebatch.training.own_network import Network


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
    with ending(parser) as end:
        options = Options(**vars(parser.parse_args(argv)))
        if rows is not None and options.row is not None:
            recipe = rows[options.row]
        if options.set and "help" in options.set:
            print(overrides.describe(recipe))
            return
        if options.plan:
            print(describe_plan(recipe, miniature, options))
            return
        with open_session(recipe, miniature, options) as session:
            from tf_largebatch.training.results import conclude
            from tf_largebatch.training.train import train

            for row, run in session.unfinished():
                session.keep(row, run, train(run))
            result = conclude(session)
        end.status = NOT_FINITE if result.diverged else 0


def run(
    recipe: Recipe,
    *,
    data: "DataSet | Path | str",
    model: "Network | None" = None,
    **flags: Any,
) -> Result:
    """Trains a recipe on data or a network of yours; what differs is shown as a departure.

        from tf_largebatch.recipes.goyal_8k import RECIPE
        result = run(RECIPE, data="shards", model=make, run_dir="runs/mine", set=["epochs=30"])

    The same path as the recipe's command: the run folder, resume, several workers, reports.

        >>> from tf_largebatch.recipes.goyal_8k import RECIPE
        >>> run(RECIPE, data="pictures")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        tf_largebatch.records.errors.InputError: --data must be a folder ... pictures ...

    Args:
        recipe: whose batch, rate, schedule, optimizer and loss are taken.
        data: folder of pictures in train/<class>/ and val/<class>/, or of shards as `tf-largebatch
            prepare` makes them, of any classes; or a data set in memory,
            `tf_largebatch.data.arrays.ArrayData`, whose pictures come as they are.
        model: function of the images' facts (shape, classes, pixel_mean, pixel_std) that makes a
            Keras model from raw pixels [n, *shape] to logits [n, classes]; or such a model, which
            is copied with its weights. None for the recipe's network.
        **flags: those of the recipe's command, `run_dir`, `seed`, `set`, `micro_batch`, ..., with
            underscores; a flag without a value is True.

    Raises:
        InputError: something given is wrong, in one line, before training starts.
    """
    parser = make_parser(recipe)
    parser.error = _refuse  # type: ignore[method-assign]
    wrong = {"data", "plan", "help", "smoke"} & set(flags)
    if wrong:
        raise InputError(f"flags must be without {', '.join(sorted(wrong))} here")
    options = Options(**vars(parser.parse_args(_as_arguments(flags))))
    options = dataclasses.replace(options, data=data, network=model)
    none = Miniature(contrast="none: data of one's own", rows=())
    with open_session(recipe, none, options) as session:
        from tf_largebatch.training.results import conclude
        from tf_largebatch.training.train import train

        for row, one in session.unfinished():
            session.keep(row, one, train(one))
        return conclude(session)


def _as_arguments(flags: Mapping[str, Any]) -> list[str]:
    """The command line of keyword arguments."""
    found = []
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        values = value if isinstance(value, list | tuple) else [value]
        for each in values:
            if each is not None and each is not False:
                found += [flag] if each is True else [flag, str(each)]
    return found


def _refuse(message: str) -> NoReturn:
    raise InputError(one_line(message))
