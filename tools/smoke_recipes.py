"""Runs the full-size network of every recipe for a few updates, and keeps what came of it.

    python tools/smoke_recipes.py --out tools/records/smoke.json            # all, minutes each
    python tools/smoke_recipes.py --out tools/records/smoke.json akiba_32k  # these modules, again

`--smoke` of each recipe: generated JPEGs, 80 px, eight images an update in two micro-batches, a
stop and a restart, evaluation, export. Of a family, one row for each kind of network, update rule,
course, precision and loss. The record is written after every run, so that a stopped one goes on
with what is missing. Exit status 1 if one failed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_largebatch.__main__ import load_recipes  # noqa: E402
from tf_largebatch.records import files, run_folder  # noqa: E402
from tf_largebatch.records.recipe import Recipe  # noqa: E402

ERROR_LINES = 5


def kind(recipe: Recipe) -> tuple:
    """What decides which code a recipe runs through."""
    return (
        recipe.model.architecture,
        type(recipe.optimizer).__name__,
        type(recipe.schedule).__name__,
        recipe.precision,
        recipe.wire,
        recipe.loss.kind,
        bool(recipe.growth),
        recipe.data.mixes,
        bool(recipe.data.plain_last_epochs),
        bool(recipe.model.bn_recompute_images),
    )


def chosen() -> list[Recipe]:
    """The rows to run: kinds that no other recipe shares first, so that a short run says most."""
    of_modules = {(r.name, kind(r)): r for r in reversed(load_recipes()) if not r.missing}
    first, later, known = [], [], set()
    for recipe in reversed(of_modules.values()):
        (later if kind(recipe) in known else first).append(recipe)
        known.add(kind(recipe))
    return first + later


def run(recipe: Recipe) -> dict:
    """One smoke run; its line of the record."""
    row = [] if recipe.row is None else ["--row", recipe.row]
    command = ["-m", f"tf_largebatch.recipes.{recipe.name}", *row, "--smoke"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *command, "--run-dir", str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        line = {
            "name": recipe.name,
            "row": recipe.row,
            "network": recipe.model.architecture,
            "status": done.returncode,
            "seconds": round(time.perf_counter() - started, 1),
        }
        if done.returncode:
            return {**line, "error": done.stderr.strip().splitlines()[-ERROR_LINES:]}
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        epochs = result["rows"][0]["runs"][0]["epochs"]
        losses = [epoch["train_loss"] for epoch in epochs]
        return {**line, "updates": epochs[-1]["update"], "train_loss": losses}


def main() -> int:
    """Runs what is missing or named, and writes the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="modules to run again (default: what is missing)")
    parser.add_argument("--out", type=Path, required=True, help="the record, JSON")
    arguments = parser.parse_args()
    recipes = chosen()
    if unknown := set(arguments.names) - {r.name for r in recipes}:
        parser.error(f"there is no recipe {', '.join(sorted(unknown))}")
    runs = {}
    if arguments.out.exists():
        record = json.loads(arguments.out.read_text(encoding="utf-8"))
        runs = {(line["name"], line["row"]): line for line in record["runs"]}
    if arguments.names:
        wanted = [r for r in recipes if r.name in arguments.names]
    else:
        wanted = [r for r in recipes if (r.name, r.row) not in runs]
    for number, recipe in enumerate(wanted, 1):
        line = runs[recipe.name, recipe.row] = run(recipe)
        print(f"{number} of {len(wanted)}: {json.dumps(line)}", flush=True)
        record = {
            "what": "smoke run of the full-size network of every recipe, generated images",
            "date": date.today().isoformat(),
            "environment": run_folder.environment(),
            "runs": [runs[key] for key in sorted(runs, key=str)],
        }
        files.write_json(arguments.out, record)
    return int(any(line["status"] for line in runs.values()))


if __name__ == "__main__":
    sys.exit(main())
