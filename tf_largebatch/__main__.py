"""`python -m tf_largebatch` lists the recipes, without importing a framework."""

import importlib
import pkgutil
import sys

from tf_largebatch import recipes
from tf_largebatch.recipe import Recipe

HEADER = ("recipe", "batch", "optimizer", "epochs", "updates", "published top-1 %", "paper")


def load_recipes() -> list[Recipe]:
    """Returns the record of every recipe module, by paper and batch."""
    modules = [
        importlib.import_module(f"tf_largebatch.recipes.{info.name}")
        for info in pkgutil.iter_modules(recipes.__path__)
    ]
    rows = [r for m in modules for r in getattr(m, "ROWS", {"": m.RECIPE}).values()]
    return sorted(rows, key=lambda r: (r.paper, r.name, r.global_batch))


def table() -> str:
    """Returns the recipes as aligned columns."""
    lines = [HEADER]
    for recipe in load_recipes():
        top1 = "-"
        if recipe.expected is not None:
            std = recipe.expected.std_pct
            top1 = f"{100 - recipe.expected.top1_error_pct:.2f}"
            top1 += "" if std is None else f" +- {std:g}"
        lines.append(
            (
                recipe.name if recipe.row is None else f"{recipe.name} --row {recipe.row}",
                f"{recipe.global_batch:,}",
                type(recipe.optimizer).__name__.removesuffix("Spec"),
                f"{recipe.epochs:g}",
                f"{recipe.updates:,}",
                top1,
                recipe.paper,
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main() -> None:
    """Prints the table and how to go on."""
    if len(sys.argv) > 1 and sys.argv[1] not in ("-h", "--help"):
        print(
            f"python -m tf_largebatch takes no arguments. Received: {sys.argv[1]}. Run a recipe "
            "with python -m tf_largebatch.recipes.NAME",
            file=sys.stderr,
        )
        sys.exit(2)
    print(table())
    print("\nrun one:    python -m tf_largebatch.recipes.NAME [--data DIR]")
    print("look first: python -m tf_largebatch.recipes.NAME --plan")


if __name__ == "__main__":
    main()
