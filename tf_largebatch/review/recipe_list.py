"""The recipes as a table: what was published, and how far it is reproduced here."""

import functools
from collections.abc import Iterable
from pathlib import Path

from tf_largebatch.records import published
from tf_largebatch.records.committed import committed
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.files import read_json
from tf_largebatch.records.recipe import Miniature, Recipe
from tf_largebatch.records.result import Result
from tf_largebatch.review.claims import combined, find

HEADER: tuple[str, ...] = ("recipe", "batch", "optimizer", "epochs", "updates", "top-1 %")
HEADER += ("hardware, library, time then", "here")
# Systems of which what can be read is not enough for a recipe: ids of `records/published.json`.
WITHOUT_RECIPE = {
    "Cho et al. 2017, IBM DDL": "ddl2017-rn50",
    "Sun et al. 2019, SenseTime": "sun2019-alexnet",
    "Osawa et al. 2020, SP-NGD, 32k": "spngd-32768",
    "Osawa et al. 2020, SP-NGD, 128k": "spngd-131072",
    "Liu et al. 2021, ConAdv": "conadv-96k",
    "Liu et al. 2021, ConAdv, augmented": "conadv-96k-aug",
}
RECORDS = committed("recipes")
SEEDS = 3  # that a miniature's record has at least


def describe(recipe: Recipe, miniature: Miniature) -> dict:
    """Returns one recipe's line of the table as plain data.

    `rung` is how far this project has reproduced it: "plan" (its numbers are held against the
    published ones by tests) or "mini" (a row of the miniature stands for it, and a record over
    several seeds has a `verdict` on its claims); "full", ImageNet, has not been run.
    """
    expected = recipe.expected
    batches = [recipe.global_batch, *(batch for _, batch in recipe.growth)]
    error_pct = None if expected is None else expected.top1_error_pct
    record = published.match(recipe.paper, batches, error_pct)
    verdict = miniature_verdict(recipe, miniature)
    return {
        "name": recipe.name,
        "row": recipe.row,
        "title": recipe.title,
        "paper": recipe.paper,
        "global_batch": recipe.global_batch,
        "growth": [list(phase) for phase in recipe.growth],
        "optimizer": type(recipe.optimizer).__name__.removesuffix("Spec"),
        "peak_rate": recipe.peak_rate,
        "epochs": recipe.epochs,
        "updates": recipe.updates,
        "published_top1_pct": expected and round(expected.top1_accuracy_pct, 2),
        "published_std_pct": expected and expected.std,
        "hardware": record and record.hardware,
        "software": record and record.software,
        "time": record and record.time,
        "rung": "mini" if verdict else "plan",
        "verdict": verdict,
    }


def miniature_verdict(recipe: Recipe, miniature: Miniature) -> str | None:
    """What the record of a module's miniature says of the claims that a recipe takes part in.

    None without a record, or where no row of the miniature stands for it.
    """
    record, claims = miniature_record(recipe.name), miniature.about(recipe)
    if record is None or not claims:
        return None
    return combined(one for one in find(miniature, record[1]) if one.contrast in claims)


@functools.cache
def miniature_record(name: str) -> tuple[Path, Result] | None:
    """The newest committed result of a module's unmodified miniature, over several seeds."""
    for path in sorted((RECORDS / name / "runs").glob("*/result.json"), reverse=True):
        try:
            result = Result.from_json(read_json(path))
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                "a result record must be readable: restore or remove it. Received: "
                f"{path}, damaged or of another version ({type(error).__name__})"
            ) from None
        own = result.scale == "miniature" and not result.modified
        if own and len(result.rows[0].runs) >= SEEDS:
            return path, result
    return None


def table(recipes: Iterable[tuple[Recipe, Miniature]]) -> str:
    """Returns the recipes, each with its module's miniature, as aligned columns."""
    lines = [HEADER, *(_line(describe(recipe, miniature)) for recipe, miniature in recipes)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _line(row: dict) -> tuple[str, ...]:
    top1 = "-" if row["published_top1_pct"] is None else f"{row['published_top1_pct']:.2f}"
    if row["published_std_pct"] is not None:
        top1 += f" +- {row['published_std_pct']:g}"
    largest = row["growth"][-1][1] if row["growth"] else None
    return (
        row["name"] if row["row"] is None else f"{row['name']} --row {row['row']}",
        f"{row['global_batch']:,}" + (f" to {largest:,}" if largest else ""),
        row["optimizer"],
        f"{row['epochs']:g}",
        f"{row['updates']:,}",
        top1,
        ", ".join(filter(None, [row["hardware"], row["software"], row["time"]])) or "-",
        row["verdict"] or row["rung"],
    )


def others() -> str:
    """Returns the systems without a recipe, one a line, with what is known of each."""
    rows = published.load()
    return "\n".join(f"{who}: {_known(rows[i])}" for who, i in WITHOUT_RECIPE.items())


def _known(row: published.PublishedResult) -> str:
    batch = None if row.global_batch is None else f"{row.global_batch:,} images"
    epochs = None if row.epochs is None else f"{row.epochs:g} epochs"
    top1 = None if row.value is None else f"top-1 {row.value:g} %"
    where = f"arXiv:{row.arxiv}, {row.source}"
    facts = [row.model, batch, epochs, top1, row.hardware, row.software, row.time, where]
    return ", ".join(filter(None, facts))
