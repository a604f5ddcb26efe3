"""The command of a recipe: reads the flags, trains every row with every seed, reports.

Answers `--help` and `--plan` without importing TensorFlow.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence

from tf_largebatch.records import overrides
from tf_largebatch.records.console import NOT_FINITE, ending
from tf_largebatch.records.recipe import Miniature, Recipe
from tf_largebatch.training.options import Options, make_parser
from tf_largebatch.training.rows import describe_plan
from tf_largebatch.training.session import open_session


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

            runs, started = [], time.perf_counter()
            for row, run in session.runs():
                done = session.finished(run)
                if done is None:
                    if options.smoke:  # stop after the first epoch, to show that it continues
                        train(dataclasses.replace(run, stop_epoch=1.0))
                    done = train(run)
                    session.keep(run, done)
                runs.append((row, run, done))
            result = conclude(session, runs, started)
            end.status = NOT_FINITE if result.diverged else 0
