"""Tries five rates for every row of a miniature on held-out training images.

    python tools/tune_miniature.py you_alexnet [--miniature-data DIR]

Every row is trained at a quarter, half, once, twice and four times its rate, without the last
10,000 training images, and its error is measured on these: the test set is for the rows at their
best rates. Writes recipes/NAME/tuning.json, which the card shows; put the best rates into the
module. Run again from there until the best of each row is inside its grid: only rates that are not
in the file are tried.
"""

import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_largebatch.__main__ import find_recipe  # noqa: E402
from tf_largebatch.records.console import NOT_FINITE, Parser, run_command  # noqa: E402
from tf_largebatch.records.data_spec import SMALL_IMAGES, SmallImagesSpec  # noqa: E402
from tf_largebatch.records.errors import InputError  # noqa: E402
from tf_largebatch.records.files import (  # noqa: E402
    fingerprint,  # noqa: E402
    read_json,
    write_json,
)
from tf_largebatch.records.recipe import Miniature, Recipe, Row, deciding  # noqa: E402

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the rate that the row has, the same for all rows
HELD_OUT = 10_000
SEED = 9  # none of those that a record has


def setup(recipe: Recipe) -> str:
    """What a trial is of, besides its rate."""
    return fingerprint(deciding(dataclasses.asdict(recipe)) | {"reference_rate": None})


def trials(miniature: Miniature) -> dict[str, list[tuple[float, Row]]]:
    """The rates that are tried for each row, and what runs."""
    found: dict[str, list[tuple[float, Row]]] = {}
    for row in miniature.rows:
        if row.recipe.stop is not None:  # at a target all good rates look alike
            continue
        data = row.recipe.data
        if not isinstance(data, SmallImagesSpec):
            raise InputError(
                f"the miniature must be on one of {', '.join(SMALL_IMAGES)}, of which a part can "
                f"be held out. Received: {data.name}"
            )
        held_out = dataclasses.replace(data, held_out=HELD_OUT)
        for factor in FACTORS:
            rate = factor * row.recipe.reference_rate
            recipe = dataclasses.replace(row.recipe, data=held_out, reference_rate=rate)
            tried = dataclasses.replace(row, label=f"{row.label}, rate {rate:g}", recipe=recipe)
            found.setdefault(row.label, []).append((rate, tried))
    return found


def best(tried: list[list[float | None]]) -> float:
    """The rate of the least error; of equal ones the smaller, the smallest where all diverged."""
    found = [(error, rate) for rate, error in tried if error is not None]
    return min(found)[1] if found else tried[0][0]


def main() -> None:
    """Tunes one miniature."""
    parser = Parser(prog="python tools/tune_miniature.py", description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", help="of the recipe")
    parser.add_argument("--miniature-data", metavar="DIR", help="folder of its images")
    run_command(parser, _tune)


def known_errors(path: Path, setups: dict[str, str]) -> dict[tuple[str, float], float | None]:
    """Errors of the (row, rate) that were tried before, of rows that are what they were."""
    kept = read_json(path) if path.exists() else {"setups": {}}
    return {
        (label, rate): error
        for label, before in kept["setups"].items()
        if setups.get(label) == before
        for rate, error in kept["rows"][label]
    }


def try_rates(module, rows: tuple[Row, ...], data: str | None) -> dict:
    """The result of one command over these rows; one that was killed is continued."""
    from tf_largebatch.training.command import main as run

    which = fingerprint([row.label for row in rows])[:6]
    folder = ROOT / "runs" / f"tune-{module.RECIPE.name}-{which}"
    argv = ["--run-dir", str(folder), "--seed", str(SEED)]
    argv += ["--miniature-data", data] if data else []
    try:
        run(module.RECIPE, Miniature(contrast="Rates are tried.", rows=rows), argv)
    except SystemExit as end:
        if end.code not in (0, NOT_FINITE):  # that every rate diverges is a result too
            raise
    return read_json(folder / "result.json")


def _tune(arguments) -> None:
    module = find_recipe(arguments.name)
    path = ROOT / "recipes" / arguments.name / "tuning.json"
    tried = trials(module.MINIATURE)
    setups = {label: setup(pairs[0][1].recipe) for label, pairs in tried.items()}
    errors = known_errors(path, setups)
    missing = {
        row.label: ((label, rate), row)
        for label, pairs in tried.items()
        for rate, row in pairs
        if (label, rate) not in errors
    }
    environment = read_json(path)["environment"] if path.exists() else {}
    if missing:
        rows = tuple(row for _, row in missing.values())
        result = try_rates(module, rows, arguments.miniature_data)
        environment = result["environment"]
        errors |= {missing[row["label"]][0]: row["mean_error_pct"] for row in result["rows"]}
    kept = {
        "recipe": arguments.name,
        "held_out": HELD_OUT,
        "seed": SEED,
        "environment": environment,
        "setups": setups,
        "rows": {
            label: [[rate, errors[label, rate]] for rate, _ in pairs]
            for label, pairs in tried.items()
        },
    }
    write_json(path, kept)
    for label, pairs in kept["rows"].items():
        rate = best(pairs)
        edge = " at an end of the grid: go on from there" * (rate in (pairs[0][0], pairs[-1][0]))
        print(f"{label}: rate {rate:g}{edge}")


if __name__ == "__main__":
    main()
