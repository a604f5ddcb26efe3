"""Runs side by side: `tf-largebatch compare RUN RUN ...`.

Answers `--help` and refuses wrong input without importing a framework; it never needs TensorFlow.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tf_largebatch.records import run_folder
from tf_largebatch.records.console import Parser, local_place, number, run_command
from tf_largebatch.records.errors import InputError
from tf_largebatch.review import comparison

PAGE, FIGURE = "comparison.html", "comparison.png"
ROWS, EPOCHS = "comparison.csv", "comparison_epochs.csv"
FILES = {ROWS: "the table", EPOCHS: "every epoch of every run", FIGURE: "the figure"}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 2 wrong input."""
    run_command(make_parser(), _run, argv)


def make_parser() -> Parser:
    """Returns the flags."""
    parser = Parser(
        prog="python -m tf_largebatch compare",
        description="Sets finished runs side by side, of any recipes, scales and seeds: one page "
        "that needs no network, with table, curves, what differs in their plans, and "
        "environments; the table and the curves also as CSV. Runs that differ in their seed "
        "alone become one line with mean and deviation. Rows of one name are set against each "
        "other, and all others against the first.",
        epilog="example: %(prog)s runs/goyal_8k-mini-A runs/lamb-mini-B",
    )
    text = "folder of a command (all its rows), of one row, or of one run: FOLDER/<row>/seed-<n>"
    parser.add_argument("runs", type=local_place, nargs="+", metavar="RUN", help=text)
    text = "top-1 accuracy in percent: says when each run first had it (default: the run's own)"
    parser.add_argument("--target", type=number(float, 0, 100), metavar="PCT", help=text)
    text = (
        "where comparison.{html,csv,png} and comparison_epochs.csv are written, made where it is "
        "missing (default: a new folder runs/comparison-...)"
    )
    parser.add_argument("--out", type=local_place, metavar="DIR", help=text)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    entries = comparison.read_entries(arguments.runs, arguments.target)
    folder = arguments.out or run_folder.default_folder("comparison")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(entries, folder)
    except OSError as error:
        raise InputError(
            f"--out must be a folder that can be written to. Received: {folder} "
            f"({error.strerror or error})"
        ) from None
    print("\n".join(comparison.say(entries)))
    for name in (PAGE, *FILES):
        print(f"{name:<22} {folder / name}")


def _write(entries: list[comparison.Entry], folder: Path) -> None:
    from tf_largebatch.review import figures
    from tf_largebatch.review.page import flatten, split_shared, write_page

    comparison.write_rows_csv(entries, folder / ROWS)
    comparison.write_epochs_csv(entries, folder / EPOCHS)
    named = [(entry.label, entry.row, entry.train_examples) for entry in entries]
    plans, differing = split_shared([entry.plan["rows"] for entry in entries])
    alike, environment = split_shared([flatten(entry.result.environment) for entry in entries])
    write_page(
        "comparison.html.j2",
        folder / PAGE,
        entries=entries,
        verdict=comparison.say(entries),
        header=comparison.HEADER,
        rows=[(figures.colour(i), c) for i, c in enumerate(comparison.table(entries))],
        picture=figures.draw_comparison(named, folder / FIGURE),
        departures=comparison.departures(entries),
        differing=differing,
        shared=plans,
        environment=environment,
        alike=alike,
        places=[(entry.label, comparison.places(entry)) for entry in entries],
        files=list(FILES.items()),
    )
