"""Steps to a target error against the batch, as Figure 1 of Shallue et al. 2018 (1811.03600).

`tf-largebatch study critical_batch` searches rate and momentum at every batch size on
its own, without a scaling rule, on the digits: minutes on two cores. Every trial that ended is kept
in the run folder, and a study that was killed goes on with the next one.

A miniature: a network with one hidden layer of 128 stands for the paper's three of 1,024, 8 x 8
digits with shifts and noise for MNIST, and the rate is constant. The batches are the miniature's
own; that steps fall in proportion at first and then no more is what can be set beside the paper.
"""

import argparse
import functools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from tf_largebatch.records import run_folder
from tf_largebatch.records.console import LARGEST_SEED, Parser, number, run_command
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import read_json, write_json
from tf_largebatch.records.progress import ProgressLine
from tf_largebatch.records.quiet import import_tensorflow
from tf_largebatch.studies.steps_record import FILES, PAGE, Tried, conclude

BATCHES = tuple(2**i for i in range(3, 11))  # powers of two, as the paper's
TRIALS = 24  # ours: the paper has 100
TARGET_PCT = 8.0  # ours
HIDDEN = (128,)  # ours: the paper's fully connected network has three of 1,024
TRAIN_EXAMPLES = 1_280
BUDGET_EPOCHS, BUDGET_UPDATES = 20, 200  # of a trial: the larger of the two, ours
RATES = (1e-3, 1.0)  # searched in the logarithm
ONE_MINUS_MOMENTUM = (0.03, 1.0)  # the same, as in the paper
REACHED, SLOWER = "reached", "slower than the best"
NOT_FINITE, SPENT = "not finite", "budget spent"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 2 wrong input."""
    run_command(make_parser(), _run, argv)


def make_parser() -> Parser:
    """Returns the flags."""
    parser = Parser(
        prog="python -m tf_largebatch study critical_batch",
        description="Updates to a validation error against the batch, with rate and momentum "
        "searched at every batch (Shallue et al. 2018, arXiv:1811.03600, Figure 1), and the fit "
        "(S/S_min - 1)(E/E_min - 1) = 1 (McCandlish et al. 2018, arXiv:1812.06162). On the digits: "
        "needs no data, takes minutes.",
    )
    add = parser.add_argument
    kind = number(int, 1, TRAIN_EXAMPLES)
    text = "three different ones or more (default: powers of two from 8 to 1024)"
    add("--batches", type=kind, nargs="+", default=list(BATCHES), metavar="B", help=text)
    text = "at each batch; the paper has 100 (default: %(default)s)"
    add("--trials", type=number(int, 1), default=TRIALS, metavar="N", help=text)
    kind = number(float, 0, 100, above=True)
    text = "validation error to reach, in percent (default: %(default)g)"
    add("--target", type=kind, default=TARGET_PCT, metavar="PCT", help=text)
    kind = number(int, 0, LARGEST_SEED)
    text = "of the search, the weights and the order of the data (default: 0)"
    add("--seed", type=kind, default=0, metavar="N", help=text)
    text = (
        "where everything is written; a folder of this same study is continued (default: a new "
        "folder runs/critical_batch-...)"
    )
    add("--run-dir", type=Path, metavar="DIR", help=text)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    batches = sorted(set(arguments.batches))
    if len(batches) < 3:
        raise InputError(
            f"--batches must be three different ones or more, to be fitted. Received: "
            f"{' '.join(map(str, arguments.batches))}"
        )
    settings = {
        "study": "critical_batch",
        "batches": batches,
        "trials": arguments.trials,
        "target_pct": arguments.target,
        "seed": arguments.seed,
        "search": {"rate": list(RATES), "1 - momentum": list(ONE_MINUS_MOMENTUM)},
        "budget": {"epochs": BUDGET_EPOCHS, "updates": BUDGET_UPDATES},
        "hidden": list(HIDDEN),
    }
    folder = arguments.run_dir or run_folder.default_folder("critical_batch")
    if run_folder.claim(folder, settings):
        print(f"continues {folder}", file=sys.stderr)
    import_tensorflow()
    (folder / "trials").mkdir(exist_ok=True)
    tried = []
    for batch in batches:
        make_train = functools.partial(_make_train, batch, settings)
        tried += search_batch(batch, settings, folder / "trials", make_train)
    print("\n".join(conclude(tried, settings, make_space(), folder)))
    for name in (PAGE, *FILES):
        print(f"{name:<12} {folder / name}")


def make_space() -> dict:
    """Returns what is searched, the same at every batch."""
    from tf_largebatch.diagnostics.steps_to_target import Range

    limits = {"rate": RATES, "one_minus_momentum": ONE_MINUS_MOMENTUM}
    return {name: Range(*ends, log=True) for name, ends in limits.items()}


def search_batch(
    batch: int, settings: dict, folder: Path, make_train: Callable[[], Callable]
) -> list[Tried]:
    """Makes the trials of one batch that the folder does not hold yet; returns all of them.

    A trial ends where the best one before it had reached the target: it can only be slower.
    `make_train` is called if there is anything to train, and returns train(rate=, momentum=, seed=,
    updates=), which yields (updates done, error in percent).
    """
    from tf_largebatch.diagnostics.steps_to_target import quasi_random

    # Its own points at every batch, whichever batches are with it.
    points = quasi_random(make_space(), settings["trials"], seed=settings["seed"] + batch)
    train, tried, best, progress = None, [], None, ProgressLine()
    for trial, point in enumerate(points):
        path = folder / f"batch-{batch:04d}-trial-{trial:03d}.json"
        if path.exists():
            one = Tried(**read_json(path))
        else:
            train = train or make_train()
            one = _try(train, batch, trial, point, settings, best)
            write_json(path, asdict(one))
        best = min((s for s in (best, one.steps) if s is not None), default=None)
        tried.append(one)
        text = f"batch {batch}: trial {trial + 1} of {len(points)}, {one.ended}; best "
        text += f"{best:,} updates" if best else "none yet"
        progress.show(text, at_once=trial + 1 == len(points))
    progress.end()
    return tried


def _try(train, batch: int, trial: int, point: dict, settings: dict, best: int | None) -> Tried:
    """Trains once, no longer than can matter."""
    budget = max(BUDGET_UPDATES, BUDGET_EPOCHS * TRAIN_EXAMPLES // batch)
    rate, momentum = point["rate"], 1.0 - point["one_minus_momentum"]
    limit = budget if best is None else min(budget, best)
    done, ended = 0, SLOWER if limit < budget else SPENT
    curve = train(rate=rate, momentum=momentum, seed=settings["seed"] + trial, updates=limit)
    for update, error in curve:
        done = update
        if not math.isfinite(error):
            ended = NOT_FINITE
            break
        if error <= settings["target_pct"]:
            ended = REACHED
            break
    steps = done if ended == REACHED else None
    return Tried(batch, trial, rate, momentum, steps=steps, updates=done, ended=ended)


def _make_train(batch: int, settings: dict) -> Callable:
    """Compiles the training of one batch."""
    from tf_largebatch.data import digits
    from tf_largebatch.models.fully_connected import make_fully_connected
    from tf_largebatch.studies.trial_training import TrialTraining

    dataset = digits.load()
    model = make_fully_connected(dataset.facts, hidden=HIDDEN, seed=settings["seed"])
    return TrialTraining(model, dataset, global_batch=batch).curve


if __name__ == "__main__":
    main()
