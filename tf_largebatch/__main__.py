"""The front door: `python -m tf_largebatch COMMAND`, or `tf-largebatch COMMAND` once installed.

A command's own module is imported when it is called, so that `--help` costs nothing. Recipes and
studies are named here one by one: nothing is imported by name.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from tf_largebatch.records.console import Parser, choose, run_command
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.recipe import Recipe

if TYPE_CHECKING:
    from tf_largebatch.studies.study import Study

PROGRAM = "python -m tf_largebatch"
COMMANDS = {
    "list": "the recipes: batch, updates, published accuracy, how far each is reproduced here",
    "plan": "every number of a recipe with its source; or memory, hours and cost on a machine",
    "launch": "the workers of one training on this machine, started and ended as one",
    "prepare": "ImageNet as TFRecord shards, from tars, folders, Kaggle or TensorFlow Datasets",
    "diagnose": "a finished run measured: noise scale, sharpness, Hessian, landscape, layers",
    "compare": "finished runs side by side on one page",
    "study": "a claim of a paper tried: many runs, a figure, an interval and a verdict",
    "cite": "BibTeX of the papers behind a recipe",
    "job": "the script or manifest of a recipe for a cluster, a TPU or this machine",
}
NEXT = """
first:      python -m tf_largebatch.recipes.goyal_8k           a miniature, minutes on a laptop
run one:    python -m tf_largebatch.recipes.NAME [--row ROW] [--data DIR]
look first: python -m tf_largebatch plan NAME"""
RUNGS = """\
here:       what its miniature shows of the paper's claims (agrees, contradicts, cannot tell); \
plan = it has no row there, its numbers are held against the paper's by tests; \
ImageNet: none yet"""


def recipe_modules() -> dict[str, ModuleType]:
    """Returns every module of `recipes/` by its name."""
    from tf_largebatch.recipes import (  # noqa: F401, what locals() returns
        akiba_32k,
        anil_shampoo,
        codreanu_14k,
        fujitsu_86k,
        goyal_8k,
        goyal_8k_constant_warmup,
        goyal_8k_no_warmup,
        goyal_256,
        goyal_gamma,
        goyal_rates,
        goyal_resnet101,
        goyal_sweep,
        he_256,
        hoffer,
        jia_64k,
        jia_alexnet_64k,
        krizhevsky_owt,
        lamb_ladder,
        lin_local,
        mccord_dash,
        mikami_55k,
        mikami_119k,
        mlperf,
        nado_32k,
        osawa_kfac,
        smith_16k,
        smith_inception,
        strikes_back_a3,
        yamazaki_81k,
        ying_32k,
        ying_64k,
        you_alexnet,
        you_alexnet_bn,
        you_minutes_32k,
        you_minutes_alexnet,
        you_resnet50,
    )

    return dict(locals())


def study_modules() -> dict[str, ModuleType]:
    """Returns every study of `studies/` by its name."""
    from tf_largebatch.studies import (  # noqa: F401, what locals() returns
        beyond_sgd,
        cifar10,
        critical_batch,
        generalization_gap,
        lars_or_sgd,
        post_local,
        sharp_minima,
        warmup,
    )

    return dict(locals())


def load_studies() -> "dict[str, Study]":
    """Returns the record of every study by its name."""
    return {name: module.STUDY for name, module in study_modules().items()}


def load_recipes() -> list[Recipe]:
    """Returns the record of every recipe module, all rows of a family, by paper and batch."""
    modules = recipe_modules().values()
    rows = [r for m in modules for r in getattr(m, "ROWS", {"": m.RECIPE}).values()]
    return sorted(rows, key=lambda r: (r.paper, r.name, r.global_batch))


def find_recipe(name: str) -> ModuleType:
    """Returns a recipe's module; InputError where there is none of this name."""
    modules = recipe_modules()
    return modules[choose(name, modules, "the recipe")]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its status: 0 done, 2 wrong input, others as it says."""
    match list(sys.argv[1:] if argv is None else argv):
        case ["list", *rest]:
            run_command(_list_parser(f"{PROGRAM} list"), _list, rest)
        case ["plan", *rest] if "--measure" in rest:
            from tf_largebatch.planning import measure_command

            measure_command.main(_find_family, rest)
        case ["plan", flag, *rest] if flag.startswith("--") and flag != "--help":
            from tf_largebatch.planning import command as planning

            planning.main(_find_family, load_recipes, [flag, *rest])
        case ["plan", *rest]:
            run_command(_plan_parser(), lambda arguments: _plan(arguments, rest[1:]), rest[:1])
        case ["launch", *rest]:
            from tf_largebatch.training.workers.launch import command as launch

            launch.main(rest)
        case ["prepare", *rest]:
            from tf_largebatch.data.prepare import __main__ as prepare

            prepare.main(rest)
        case ["diagnose", *rest]:
            from tf_largebatch.diagnostics import command as diagnose

            diagnose.main(rest)
        case ["compare", *rest]:
            from tf_largebatch.review import compare

            compare.main(rest)
        case ["study", *rest]:
            from tf_largebatch.studies import command as study

            study.main(load_studies, rest)
        case ["cite", *rest]:
            run_command(_cite_parser(), _cite, rest)
        case ["job", *rest]:
            from tf_largebatch.planning import job

            job.main(_find_family, rest)
        case rest:
            run_command(_parser(), _show, rest)


def _parser() -> Parser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    parser = _list_parser(PROGRAM)
    parser.usage = "%(prog)s COMMAND [arguments]     (%(prog)s COMMAND --help: of a command)"
    parser.description = "\n".join(["commands:", *lines, NEXT])
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser


def _show(arguments: argparse.Namespace) -> None:
    name = arguments.command
    if arguments.json:
        _list(arguments)
    elif name is None:
        _parser().print_help()
    elif name in recipe_modules():
        run = f"python -m tf_largebatch.recipes.{name}"
        raise InputError(f"{name} is a recipe. Run it with {run}")
    else:
        choose(name, COMMANDS, "COMMAND")


def _list_parser(program: str) -> Parser:
    parser = Parser(prog=program, description=f"Prints {COMMANDS['list']}.")
    parser.add_argument("--json", action="store_true", help="for machines: one record a recipe")
    return parser


def _list(arguments: argparse.Namespace) -> None:
    from tf_largebatch.review import recipe_list

    recipes = [(recipe, find_recipe(recipe.name).MINIATURE) for recipe in load_recipes()]
    if arguments.json:
        print(json.dumps([recipe_list.describe(*recipe) for recipe in recipes], indent=1))
    else:
        known = f"\nwithout a recipe, as too little of them can be read:\n{recipe_list.others()}"
        print(recipe_list.table(recipes), known, NEXT, RUNGS, sep="\n")


def _plan_parser() -> Parser:
    parser = Parser(
        prog=f"{PROGRAM} plan",
        usage="%(prog)s NAME [--row ROW] [--replicas N] [--micro-batch N] [--set FIELD=VALUE]",
        description=f"Prints {COMMANDS['plan']}. Takes the options of the recipe's own command, "
        "which python -m tf_largebatch.recipes.NAME --help shows. With a flag in the place of NAME "
        "it forecasts memory, hours and cost on a machine: plan --devices K --device NAME "
        "(--recipe NAME | --batch B) ..., see plan --sweep --help. plan --measure times a network "
        "on this machine, see plan --measure --help.",
    )
    parser.add_argument("name", metavar="NAME", help="of the recipe, as `list` shows it")
    return parser


def _plan(arguments: argparse.Namespace, rest: list[str]) -> None:
    module = find_recipe(arguments.name)
    from tf_largebatch.training.command import main as run

    rows = getattr(module, "ROWS", None)
    run(module.RECIPE, module.MINIATURE, [*rest, "--plan"], rows=rows)


def _cite_parser() -> Parser:
    parser = Parser(
        prog=f"{PROGRAM} cite",
        description=f"Prints {COMMANDS['cite']}: those that it reproduces, then those of its "
        "optimizer and of numbers that are taken where the first do not say.",
    )
    parser.add_argument("name", metavar="NAME", help="of the recipe, as `list` shows it")
    return parser


def _cite(arguments: argparse.Namespace) -> None:
    recipe, rows = _find_family(arguments.name)
    from tf_largebatch.records import papers

    print(papers.bibliography(rows.values() or [recipe]))


def _find_family(name: str) -> tuple[Recipe, dict[str, Recipe]]:
    """What `job` and `cite` ask for: the recipe that runs without `--row`, and all rows by name."""
    module = find_recipe(name)
    return module.RECIPE, getattr(module, "ROWS", {})


if __name__ == "__main__":
    main()
