"""Writes recipes/<name>/card.md of every recipe, from its module and records.

    python tools/render_cards.py           # after a recipe or a record has changed
    python tools/render_cards.py --check   # exit 1 if a file says something else, names it

A card has every number of the recipe with its source, the paper's result, what differs from the
paper, how far it has been reproduced here, and the command lines. A record that was made before
the claims of its miniature were stated is given what it shows of them.
"""

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_largebatch.__main__ import load_recipes, recipe_modules  # noqa: E402
from tf_largebatch.records import overrides, papers, sources  # noqa: E402
from tf_largebatch.records.contrast import Contrast  # noqa: E402
from tf_largebatch.records.datasets import DATASETS  # noqa: E402
from tf_largebatch.records.files import read_json, write_json  # noqa: E402
from tf_largebatch.records.plan import describe_expected  # noqa: E402
from tf_largebatch.records.recipe import ImageNetSpec, Miniature, Recipe  # noqa: E402
from tf_largebatch.records.result import Found  # noqa: E402
from tf_largebatch.review import claims  # noqa: E402
from tf_largebatch.review.recipe_list import miniature_record, miniature_verdict  # noqa: E402

FOLDER = ROOT / "recipes"
SMOKE = ROOT / "tools" / "records" / "smoke.json"


def families() -> dict[str, list[Recipe]]:
    """The recipes of each module."""
    found: dict[str, list[Recipe]] = {}
    for recipe in load_recipes():
        found.setdefault(recipe.name, []).append(recipe)
    return dict(sorted(found.items()))


def call(recipe: Recipe, extra: str = "") -> str:
    """The module call of a recipe."""
    return f"python -m tf_largebatch.recipes.{_row(recipe)}{extra}"


def _row(recipe: Recipe) -> str:
    return recipe.name if recipe.row is None else f"{recipe.name} --row {recipe.row}"


def card(name: str, recipes: list[Recipe]) -> str:
    """The text of card.md."""
    main = _default(name, recipes)
    parts = [
        f"# {name}",
        f"{main.title}. {_paper(main.paper)}",
        _rows_table(recipes, _module(name).MINIATURE) if len(recipes) > 1 else "",
        f"Published: {describe_expected(main.expected)}.",
        "## Run it",
        _run_it(main, _module(name).MINIATURE),
        "## How far it is reproduced here",
        _reproduced(name),
        f"## Numbers{_of(main)}",
        _numbers_table(main),
        f"{sources.count(sources.read_recipe(main))}. Read: in the paper (`[paper]`: its text, "
        "abstract, or a digest of it), in a public implementation or log (`[code]`), on a slide "
        "(`[seed]`). `[recall]` is quoted from memory, `[derived]` arithmetic; ours are choices, "
        "where the paper does not say (`[unknown]`) or another paper's number is taken.",
    ]
    if main.notes:
        parts += ["## Differs from the paper", "\n".join(f"- {note}" for note in main.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _run_it(main: Recipe, miniature: Miniature) -> str:
    lines = [(call(main, " --plan"), "every number, without TensorFlow")]
    if miniature.rows:
        lines.append((call(main), "the miniature, minutes on a laptop"))
    if not main.missing:
        lines.append((call(main, " --data DIR"), f"as published, on {_data(main)} in DIR"))
    lines.append((f"python -m tf_largebatch cite {main.name}", "BibTeX of the papers behind it"))
    width = max(len(command) for command, _ in lines)
    commands = "\n".join(f"{command:<{width}}  # {why}" for command, why in lines)
    text = f"```bash\n{commands}\n```"
    if main.missing:
        return f"{text}\n\nIt cannot train yet: {main.missing} is missing."
    job = f"`python -m tf_largebatch job {_row(main)} --on slurm --workers N --gpus G`"
    end = "the same for a cluster; `--on` also takes kubernetes, kubeflow, tpu and local."
    return f"{text}\n\n{job} prints {end}"


def _data(main: Recipe) -> str:
    return "ImageNet" if isinstance(main.data, ImageNetSpec) else DATASETS[main.data.name].title


def _module(name: str):
    return recipe_modules()[name]


def _default(name: str, recipes: list[Recipe]) -> Recipe:
    return next(r for r in recipes if r == _module(name).RECIPE)


def _of(recipe: Recipe) -> str:
    return "" if recipe.row is None else f" of the row `{recipe.row}`"


def _paper(name: str) -> str:
    """The paper's whole title, with a link where it is on arXiv."""
    paper = papers.PAPERS[name]
    link = f", [{name}]({paper.link})" if paper.link else ""
    return f"*{paper.title}*{link}."


def _rows_table(recipes: list[Recipe], miniature: Miniature) -> str:
    stops = any(recipe.stop is not None for recipe in recipes)
    lines = [
        "| row | batch | peak rate | warmup epochs | epochs | updates | published error % "
        f"| {'published, to the target | ' * stops}miniature |",
        "|---|---|---|---|---|---|---|---|" + "---|" * stops,
    ]
    for recipe in recipes:
        batch = f"{recipe.global_batch:,}" + "".join(f" → {b:,}" for _, b in recipe.growth)
        lines.append(
            f"| `{recipe.row}` | {batch} | {recipe.peak_rate:.6g} | "
            f"{recipe.schedule.warmup_epochs:g} | {recipe.epochs:g} | {recipe.updates:,} | "
            f"{_error(recipe)} | {f'{_reached(recipe)} | ' * stops}"
            f"{miniature_verdict(recipe, miniature) or '–'} |"
        )
    return "\n".join(lines)


def _reached(recipe: Recipe) -> str:
    return str((recipe.expected and recipe.expected.reached) or "–")


def _error(recipe: Recipe) -> str:
    if recipe.expected is None:
        return "–"
    std = "" if recipe.expected.std is None else f" ± {recipe.expected.std:g}"
    return f"{recipe.expected.top1_error_pct:.2f}{std}"


def _reproduced(name: str) -> str:
    lines = [
        "- `plan`: rate, warmup, updates and decay are held against the published numbers by tests."
    ]
    lines.append(f"- `smoke`: {_smoke(name)}")
    record = miniature_record(name)
    if not _module(name).MINIATURE.rows:
        lines.append(f"- `mini`: none. {_module(name).MINIATURE.contrast}")
    elif not _module(name).MINIATURE.claims:
        contrast = _module(name).MINIATURE.contrast
        lines.append(f"- `mini`: states no claim, and so has no verdict. {contrast}")
    elif record is None:
        miniature = _module(name).MINIATURE
        lines += [f"- `mini`: not yet run with five seeds. {miniature.contrast}", ""]
        lines += ["| claim | points of error | agrees where the difference is |", "|---|---|---|"]
        lines += [f"| {' | '.join(_stated(contrast))} |" for contrast in miniature.claims]
        lines += ["", *_tuning(name), "```bash", *_commands(name), "```", ""]
    else:
        path, result = record
        place = path.parent.relative_to(FOLDER / name).as_posix()
        seeds = len(result.rows[0].runs)
        miniature = _module(name).MINIATURE
        shows = {row.label: row.shows for row in miniature.rows}
        found = claims.find(miniature, result)
        lines += [
            f"- `mini`: **{claims.combined(found)}** ({seeds} seeds, "
            f"[record]({place}/result.json)). {miniature.contrast}",
            "",
            "| claim | points of error | agrees where the difference is | found | verdict |",
            "|---|---|---|---|---|",
            *(_claim(one) for one in found),
            "",
            f"{_STATED[all(one.stated_before for one in found)]} A verdict needs five seeds.",
            "",
            *_tuning(name),
            f"| row | batch | updates | error % | paper, {_data(_module(name).RECIPE)} | shows |",
            "|---|---|---|---|---|---|",
            *(_miniature_row(row, shows[row.label]) for row in result.rows),
            "",
        ]
    lines.append(f"- `full`: not run on {_data(_module(name).RECIPE)}. Not run on a TPU.")
    return "\n".join(lines)


def _on_digits(name: str) -> bool:
    return all(row.recipe.data.name == "digits" for row in _module(name).MINIATURE.rows)


def _commands(name: str) -> list[str]:
    """What makes the record of a miniature."""
    call = f"python -m tf_largebatch.recipes.{name} --seeds 5"
    return [call] if _on_digits(name) else [f"python tools/tune_miniature.py {name}", call]


def _tuning(name: str) -> list[str]:
    """The rates that were tried for each row, with their errors on held-out images."""
    path = FOLDER / name / "tuning.json"
    if _on_digits(name):
        return []
    where = (
        "Fashion-MNIST is downloaded when it is first needed; `--miniature-data DIR` names a "
        "folder that has it."
    )
    if not path.exists():
        return [f"{where} The rates are guesses: none was tuned yet.", ""]
    tuning = json.loads(path.read_text(encoding="utf-8"))
    lines = [f"| {label} | {_tried(pairs)} |" for label, pairs in tuning["rows"].items()]
    return [
        f"{where} Error % on {tuning['held_out']:,} held-out training images, one seed, at each "
        "rate tried:",
        "",
        "| row | rate: error % |",
        "|---|---|",
        *lines,
        "",
    ]


def _tried(pairs: list[list[float | None]]) -> str:
    return ", ".join(
        f"{rate:g}: " + ("diverged" if error is None else f"{error:.2f}") for rate, error in pairs
    )


_STATED = {
    True: "Claims and sizes were stated before the run.",
    False: "Claims and sizes were stated after this record was made.",
}


def _stated(contrast: Contrast) -> tuple[str, str, str]:
    size = {
        "more": f"{contrast.smallest:g} or more",
        "equal": f"within {contrast.smallest:g}",
        "no_worse": f"below {contrast.smallest:g}",
    }[contrast.kind]
    return contrast.claim, f"{contrast.row} − {contrast.minus}", size


def _claim(found: Found) -> str:
    cells = (*_stated(found.contrast), claims.numbers(found), found.verdict)
    return f"| {' | '.join(cells)} |"


def _smoke(name: str) -> str:
    """What came of the full-size network on generated images, by the record."""
    record = json.loads(SMOKE.read_text(encoding="utf-8"))
    networks = {(r.name, r.row): r.model.architecture for r in load_recipes()}
    # A record of the network that the recipe had before is none of the one that it has.
    runs = [
        run
        for run in record["runs"]
        if run["name"] == name and networks.get((name, run["row"])) == run["network"]
    ]
    if any(run["status"] for run in runs):
        return "**fails** with the full-size network: [record](../../tools/records/smoke.json)."
    if not runs:
        return "the full-size network has not run by itself on generated images."
    rows = ", ".join(f"`{run['row']}`" for run in runs if run["row"] is not None)
    return (
        f"the full-size network ran {runs[0]['updates']} updates on generated images of 80 px, a "
        f"stop and a restart among them{f' (rows {rows})' if rows else ''}: "
        "[record](../../tools/records/smoke.json)."
    )


def _miniature_row(row, shows: str) -> str:
    mean, std = row.mean_error_pct, row.std_error_pct
    error = "not finite" if mean is None or math.isnan(mean) else f"{mean:.1f}"
    if std is not None and error != "not finite":
        error += f" ± {std:.1f}"
    published = "–"
    if row.published_error_pct is not None:
        published = f"{row.published_error_pct:.2f}"
        if row.published_std_pct is not None:
            published += f" ± {row.published_std_pct:g}"
    return (
        f"| {row.label} | {row.global_batch:,} | {row.updates:,} | {error} | {published} | "
        f"{shows} |"
    )


def _numbers_table(recipe: Recipe) -> str:
    found = sources.read_recipe(recipe)
    lines = ["| field | value | source |", "|---|---|---|"]
    for name, value in overrides.fields(recipe).items():
        if name not in found:
            continue
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        text = found[name].text.replace("|", "\\|")
        lines.append(f"| `{name}` | {shown} | {text} |")
    return "\n".join(lines)


def files() -> dict[Path, str]:
    """Every file that belongs to the recipes, with its text."""
    return {FOLDER / name / "card.md": card(name, recipes) for name, recipes in families().items()}


def unjudged() -> dict[Path, tuple[Found, ...]]:
    """Records that do not say what they show of the claims as they are now, and what it is."""
    newest = {name: miniature_record(name) for name in families()}
    found = {
        path: (claims.find(_module(name).MINIATURE, result), result.claims)
        for name, record in newest.items()
        if record is not None
        for path, result in [record]
    }
    return {path: new for path, (new, old) in found.items() if new != old}


def stale() -> list[str]:
    """The files that say something else than their recipe, and folders without a recipe."""
    wanted = files()
    names = {path.parent.name for path in wanted}
    found = [
        str(path.relative_to(ROOT))
        for path, text in wanted.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    found += [str(path.relative_to(ROOT)) for path in unjudged()]
    return found + [f"recipes/{p.name}" for p in FOLDER.iterdir() if p.name not in names]


def main() -> None:
    """Writes the files, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if stale")
    if parser.parse_args().check:
        if old := stale():
            sys.exit(f"stale: {', '.join(old)}. Run python tools/render_cards.py")
        return
    for path, found in unjudged().items():
        write_json(path, read_json(path) | {"claims": [dataclasses.asdict(one) for one in found]})
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
