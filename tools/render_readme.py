"""Writes the marked parts of README.md, docs/getting_started.md and docs/recipes.md.

    python tools/render_readme.py           # after a new record was committed
    python tools/render_readme.py --check   # exit 1 if a file says something else, names it

README has the figure and the systems in short; the pages have the whole tables. All come from the
recipes and from the committed result records: of the results of the unmodified miniature below
recipes/goyal_8k/runs/, the newest with several seeds gives the table, and the newest with one seed,
run on an idle machine, gives the time.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tf_largebatch.__main__ import load_recipes, recipe_modules  # noqa: E402
from tf_largebatch.records import published  # noqa: E402
from tf_largebatch.records.result import Result, RowResult  # noqa: E402
from tf_largebatch.review import claims  # noqa: E402
from tf_largebatch.review.recipe_list import WITHOUT_RECIPE, describe  # noqa: E402

RUNS = ROOT / "recipes" / "goyal_8k" / "runs"
END = "<!-- end -->"
# The systems of the survey tables that this field compares itself with: (who, module, row).
SYSTEMS = (
    ("He et al. 2016", "he_256", None),
    ("Goyal et al. 2017", "goyal_8k", None),
    ("You et al. 2017, AlexNet-BN, SGD, 4k", "you_alexnet_bn", "sgd-4096"),
    ("You et al. 2017, AlexNet-BN, LARS, 4k", "you_alexnet_bn", "lars-4096"),
    ("You et al. 2017, AlexNet-BN, SGD, 8k", "you_alexnet_bn", "sgd-8192"),
    ("You et al. 2017, AlexNet-BN, LARS, 8k", "you_alexnet_bn", "lars-8192"),
    ("You et al. 2017, 90 epochs", "you_minutes_32k", "90"),
    ("You et al. 2017, 64 epochs", "you_minutes_32k", "64"),
    ("Codreanu et al. 2017", "codreanu_14k", None),
    ("Akiba et al. 2017", "akiba_32k", None),
    ("Smith et al. 2017", "smith_16k", None),
    ("Jia et al. 2018", "jia_64k", None),
    ("Ying et al. 2018, 32k", "ying_32k", None),
    ("Ying et al. 2018, 64k", "ying_64k", None),
    ("Mikami et al. 2018", "mikami_55k", None),
    ("Yamazaki et al. 2019", "yamazaki_81k", None),
    ("You et al. 2019, LAMB", "lamb_ladder", "32k"),
    ("Osawa et al. 2019, K-FAC", "osawa_kfac", "128k"),
    ("Fujitsu, MLPerf v0.6", "fujitsu_86k", None),
    ("NVIDIA, MLPerf v0.7, 44k", "mlperf", "nvidia-v0.7-44544"),
    ("NVIDIA, MLPerf v0.7, 53k", "mlperf", "nvidia-v0.7-53360"),
    ("Alibaba, MLPerf v0.7", "mlperf", "alibaba-v0.7-57600"),
    ("Google, MLPerf v0.7", "mlperf", "google-v0.7-65536-jax"),
    ("Google, MLPerf v1.0, Shampoo, 32k", "anil_shampoo", "32k"),
    ("Google, MLPerf v1.0, Shampoo, 64k", "anil_shampoo", "64k"),
)

# Of these README shows the first row alone.
SHORTENED = {"you_alexnet_bn", "mlperf", "anil_shampoo"}


def newest_record(*, several_seeds: bool) -> tuple[Path, Result]:
    """Returns the folder and the result of the newest committed run of the miniature."""
    for path in sorted(RUNS.glob("*/result.json"), reverse=True):
        result = Result.from_json(json.loads(path.read_text(encoding="utf-8")))
        unchanged = result.scale == "miniature" and not result.modified
        if unchanged and several_seeds == (len(result.rows[0].runs) > 1):
            return path.parent, result
    raise SystemExit(f"no result of the unmodified miniature below {RUNS}")


def figure() -> str:
    """Returns README's picture and what it is."""
    folder, result = newest_record(several_seeds=True)
    place = folder.relative_to(ROOT).as_posix()
    seeds = len(result.rows[0].runs)
    return (
        f"![Validation error against epoch]({place}/curves.png)\n\n"
        f"The miniature of Goyal et al. 2017, mean and range of {seeds} seeds: a 32 times larger "
        "batch, with and without the rate\n"
        "scaled, with and without warmup, and with LARS. [The table](docs/getting_started.md) "
        "stands beside the paper's own.\n"
    )


def section() -> str:
    """Returns the table of the first run, for docs/getting_started.md."""
    folder, result = newest_record(several_seeds=True)
    timed_folder, timed = newest_record(several_seeds=False)
    seeds = len(result.rows[0].runs)
    place = f"../{folder.relative_to(ROOT).as_posix()}"
    timed_place = f"../{timed_folder.relative_to(ROOT).as_posix()}"
    environment = timed.environment
    shown = claims.sentences(claims.find(recipe_modules()["goyal_8k"].MINIATURE, result))
    lines = [
        f"![Validation error against epoch]({place}/curves.png)",
        "",
        f"Test error in percent, mean ± deviation over {seeds} seeds, and the paper's own rows on "
        "ImageNet, another experiment of",
        "the same shape: the order of the rows can be compared, never the numbers. Here no warmup "
        "is the worst row; there the",
        "unscaled rate is.",
        "",
        "| row | batch | peak rate | updates | error % | paper, ImageNet |",
        "|---|---|---|---|---|---|",
        *(_row(row) for row in result.rows),
        "",
        *(f"- {line}" for line in shown),
        *[""] * bool(shown),
        f"[Record]({place}/result.json) and [report]({place}/report.html). One seed of all five "
        "rows takes",
        f"[{timed.wall_seconds:.0f} seconds]({timed_place}/result.json) on {environment['cores']} "
        f"cores of an {environment['processor']} (TensorFlow "
        f"{environment['versions']['tensorflow']}).",
        "",
    ]
    return "\n".join(lines)


def _facts() -> dict[tuple[str, str | None], dict]:
    modules = recipe_modules()
    return {(r.name, r.row): describe(r, modules[r.name].MINIATURE) for r in load_recipes()}


def _batch(facts: dict) -> str:
    return f"{facts['global_batch']:,}" + "".join(f" → {b:,}" for _, b in facts["growth"])


def _link(name: str, row: str | None, cards: str) -> str:
    return f"[`{name}{'' if row is None else f' --row {row}'}`]({cards}{name}/card.md)"


def systems() -> str:
    """Returns README's table of systems: the first row of each recipe, in few columns."""
    rows, lines, shown = _facts(), [], set()
    for who, name, row in SYSTEMS:
        facts = rows[name, row]
        if name in shown and name in SHORTENED:
            continue
        shown.add(name)
        lines.append(
            f"| {who} | {_batch(facts)} | {facts['updates']:,} | {_top1(facts)} | "
            f"{facts['time'] or '–'} | {facts['verdict'] or facts['rung']} | "
            f"{_link(name, row, 'recipes/')} |"
        )
    return "\n".join(
        [
            "| system | batch | updates | published top-1 % | time then | here | recipe |",
            "|---|---|---|---|---|---|---|",
            *lines,
            "",
            "*here*: what the recipe's miniature shows of the paper's claims; `plan`: its numbers "
            "are held against the published ones",
            "by tests. Nobody has run these on ImageNet with this code yet. "
            "[docs/recipes.md](docs/recipes.md) has all rows, hardware and libraries.",
            "",
        ]
    )


def all_systems() -> str:
    """Returns the table of all systems, and the other modules, for docs/recipes.md."""
    rows = _facts()
    lines = [
        "| system | batch | updates | published top-1 % | hardware | library | time | here "
        "| recipe |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for who, name, row in SYSTEMS:
        facts = rows[name, row]
        then = " | ".join(facts[name] or "–" for name in ("hardware", "software", "time"))
        lines.append(
            f"| {who} | {_batch(facts)} | {facts['updates']:,} | {_top1(facts)} | {then} | "
            f"{facts['verdict'] or facts['rung']} | {_link(name, row, '../recipes/')} |"
        )
    known = published.load()
    lines += [_without_recipe(who, known[i]) for who, i in WITHOUT_RECIPE.items()]
    families: dict[str, list[dict]] = {}
    for (name, _), facts in rows.items():
        families.setdefault(name, []).append(facts)
    shown = {name for _, name, _ in SYSTEMS}
    others = [
        _link(name, None, "../recipes/") + (f" ({len(facts)} rows)" if len(facts) > 1 else "")
        for name, facts in sorted(families.items())
        if name not in shown or len(facts) > 2
    ]
    return "\n".join([*lines, "", "Also: " + ", ".join(others) + ".", ""])


def _without_recipe(who: str, row: published.PublishedResult) -> str:
    facts = [row.global_batch and f"{row.global_batch:,}", row.updates and f"{row.updates:,}"]
    facts += [row.value and f"{row.value:.2f}", row.hardware, row.software, row.time]
    cells = " | ".join(fact or "–" for fact in facts)
    return f"| {who} | {cells} | – | [arXiv:{row.arxiv}](https://arxiv.org/abs/{row.arxiv}) |"


def _top1(facts: dict) -> str:
    if facts["published_top1_pct"] is None:
        return "–"
    std = facts["published_std_pct"]
    return f"{facts['published_top1_pct']:.2f}" + ("" if std is None else f" ± {std:g}")


def _row(row: RowResult) -> str:
    error = "diverged"
    if row.mean_error_pct is not None:
        error = f"{row.mean_error_pct:.1f} ± {row.std_error_pct:.1f}"
    if row.diverged:
        error += f" ({row.diverged} diverged)"
    paper = "–"
    if row.published_error_pct is not None:
        paper = f"{row.published_error_pct:.2f} ± {row.published_std_pct:.2f}"
    return (
        f"| {row.label} | {row.global_batch} | {row.peak_rate:.4g} | {row.updates:,} | {error} "
        f"| {paper} |"
    )


# File, marker, and what stands between the marker and its end.
PARTS = (
    ("README.md", "miniature", figure),
    ("README.md", "systems", systems),
    ("docs/getting_started.md", "miniature", section),
    ("docs/recipes.md", "systems", all_systems),
)


def main() -> int:
    """Renders, or checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    arguments = parser.parse_args()
    stale = False
    for name, marker, make in PARTS:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        begin = f"<!-- {marker} -->\n"
        before, _, rest = text.partition(begin)
        fresh = before + begin + make() + END + rest.partition(END)[2]
        if fresh != text and arguments.check:
            print(f"{name} is stale: run python tools/render_readme.py", file=sys.stderr)
            stale = True
        elif fresh != text:
            path.write_text(fresh, encoding="utf-8")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
