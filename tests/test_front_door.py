"""The front door: every command answers at once, names what it does not know, and ends quietly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tf_largebatch.__main__ import COMMANDS, main, recipe_modules, study_modules
from tf_largebatch.recipes.goyal_8k import RECIPE

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tf_largebatch"
FRAMEWORKS = {"tensorflow", "keras", "numpy", "matplotlib", "rich", "jinja2", "sklearn", "scipy"}


def ended(*argv):
    with pytest.raises(SystemExit) as end:
        main(argv)
    return end.value.code


@pytest.mark.parametrize(
    ("called", "program"),
    [("/usr/bin/tf-largebatch", "tf-largebatch"), ("x/__main__.py", "python -m tf_largebatch")],
)
def test_usage_and_errors_name_the_program_as_it_was_called(called, program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [called])
    assert ended("compare") == 2
    assert capsys.readouterr().err.startswith(f"{program} compare: ")
    assert ended("launch", "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: {program} launch --workers N")


def runnable(folder):
    """The modules of a folder that are commands, by their own last lines."""
    return {p.stem for p in folder.glob("*.py") if 'if __name__ == "__main__"' in p.read_text()}


def test_the_list_of_recipes_is_the_folder():
    assert set(recipe_modules()) == runnable(PACKAGE / "recipes")
    assert set(recipe_modules()) == {p.stem for p in (PACKAGE / "recipes").glob("[!_]*.py")}


def test_the_list_of_studies_is_the_folder():
    stated = {p.stem for p in (PACKAGE / "studies").glob("*.py") if "\nSTUDY = " in p.read_text()}
    assert set(study_modules()) == stated


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_loads_no_framework(command):
    code = (
        "import sys; from tf_largebatch.__main__ import main\n"
        f"try: main({[command, '--help'] if command else ['--help']!r})\n"
        f"finally: print('loaded', sorted(set(sys.modules) & {FRAMEWORKS!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert f"python -m tf_largebatch{f' {command}' if command else ''}" in done.stdout
    assert done.stdout.endswith("loaded []\n")


def test_without_a_command_it_shows_all_of_them_and_how_to_go_on(capsys):
    assert ended() == 0
    out = capsys.readouterr().out
    assert all(f"  {name}  " in out for name in COMMANDS)
    assert "python -m tf_largebatch.recipes.NAME" in out


def test_the_old_flag_lists_the_recipes_for_machines(capsys):
    assert ended("--json") == 0
    old = capsys.readouterr().out
    assert ended("list", "--json") == 0
    assert capsys.readouterr().out == old
    assert "goyal_8k" in {row["name"] for row in json.loads(old)}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["lunch"], "Received: lunch. Nearest: launch"),
        (["xyz"], "There are: list, plan, launch, prepare, diagnose, compare, study, cite, job"),
        (["goyal_8k"], "Run it with python -m tf_largebatch.recipes.goyal_8k"),
        (["plan", "goyal_9k"], "Received: goyal_9k. Nearest: goyal_8k"),
        (["study", "critical"], "Received: critical. Nearest: critical_batch"),
        (["plan"], "the following arguments are required: NAME"),
        (["list", "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_what_it_does_not_know_is_one_line_with_the_nearest(argv, says, capsys):
    assert ended(*argv) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_plan_is_the_recipes_own(capsys):
    assert ended("plan", "goyal_8k", "--set", "optimizer.momentum=0.95") == 0
    out = capsys.readouterr().out
    assert f"recipe          goyal_8k ({RECIPE.paper}), full" in out
    assert "modified        optimizer.momentum 0.9 -> 0.95" in out


def test_plan_takes_a_row(capsys):
    assert ended("plan", "goyal_sweep", "--row", "8k") == 0
    assert "global batch    8192 = " in capsys.readouterr().out


def test_studies_are_listed_with_their_claims_and_no_framework(capsys):
    assert ended("study") == 0
    text = capsys.readouterr().out
    for name, module in study_modules().items():
        assert f"\n{name} " in f"\n{text}"
        assert all(f"{claim.id} " in text for claim in module.STUDY.claims)
    code = (
        "import sys; from tf_largebatch.__main__ import main\n"
        "try: main(['study'])\n"
        f"finally: print('loaded', sorted(set(sys.modules) & {FRAMEWORKS!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("loaded []\n")


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("launch", "launch"),
        ("diagnose", "diagnose"),
        ("compare", "compare"),
        ("prepare", "data.prepare"),
    ],
)
def test_the_old_names_are_the_same_commands(new, old):
    def text(*arguments):
        command = [sys.executable, "-m", *arguments, "--help"]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout

    assert text("tf_largebatch", *new.split()) == text(f"tf_largebatch.{old}")


@pytest.mark.parametrize("arguments", ["list", "plan goyal_8k", "job goyal_8k --on slurm"])
def test_a_reader_that_stops_early_ends_it_quietly(arguments):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "tf_largebatch", *arguments.split()]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_help_of_plan_names_the_help_of_the_forecast(capsys):
    assert ended("plan", "--help") == 0
    assert "plan --sweep --help" in " ".join(capsys.readouterr().out.split())
    assert ended("plan", "--sweep", "--help") == 0
    assert "--critical-batch N" in capsys.readouterr().out
