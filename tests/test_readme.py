"""What README and the pages promise is so: commands, examples, links, and README's numbers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tf_largebatch.__main__ import COMMANDS
from tf_largebatch.review.verdict import VERDICTS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# What docs/conf.py makes from files elsewhere.
MADE = {"changelog.md", "contributing.md", "security.md"}


def python(*arguments, timeout=300):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=timeout,
    )


def test_the_tables_come_from_the_recipes_and_the_committed_records():
    done = python("tools/render_readme.py", "--check")
    assert done.returncode == 0, done.stderr


# Batch, updates and top-1 of the survey tables, copied by hand.
SYSTEMS = {
    "He et al. 2016": ("256", "450,411", "75.30"),
    "Goyal et al. 2017": ("8,192", "14,076", "76.26 ± 0.09"),
    "You et al. 2017, 90 epochs": ("32,768", "3,519", "75.40"),
    "You et al. 2017, 64 epochs": ("32,768", "2,503", "74.90"),
    "Akiba et al. 2017": ("32,768", "3,519", "74.9"),
    "Smith et al. 2017": ("8,192 → 16,384", "", "76.10"),
    "Jia et al. 2018": ("65,536", "", "75.80"),
    "Ying et al. 2018, 32k": ("32,768", "3,519", "76.30"),
    "Ying et al. 2018, 64k": ("65,536", "", "75.20"),
    "Mikami et al. 2018": ("55,296", "2,086", "75.29"),
    "Yamazaki et al. 2019": ("81,920", "1,440", "75.08"),
    "You et al. 2019, LAMB": ("32,768", "3,519", "76.42"),
}


@pytest.mark.parametrize("who", SYSTEMS)
def test_the_table_of_systems_has_the_published_numbers(who):
    (line,) = [x for x in TEXT.splitlines() if x.startswith(f"| {who} |")]
    batch, updates, top1 = SYSTEMS[who]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[1] == batch
    assert cells[2].startswith(updates)
    assert cells[3].startswith(top1)
    assert cells[5] in ("plan", *VERDICTS)  # nobody has run them on ImageNet


@pytest.fixture(scope="module")
def pages():
    """The text of README and of every page by its path."""
    return {p: p.read_text(encoding="utf-8") for p in PAGES if p.name not in MADE}


def test_every_module_that_a_command_names_exists(pages):
    modules = set(re.findall(r"python -m (tf_largebatch[\w.]*)", " ".join(pages.values())))
    assert "tf_largebatch.recipes.goyal_8k" in modules
    for module in modules - {"tf_largebatch.recipes.NAME"}:
        base = ROOT.joinpath(*module.rstrip(".").split("."))
        old = ROOT / "tf_largebatch" / "old_names" / f"{base.name}.py"
        assert base.with_suffix(".py").exists() or (base / "__main__.py").exists() or old.exists()


def test_every_command_of_the_front_door_exists(pages):
    commands = set(re.findall(r"python -m tf_largebatch (\w+)", " ".join(pages.values())))
    assert len(commands) > 5 and commands <= set(COMMANDS)


def test_every_file_that_is_linked_exists(pages):
    for page, text in pages.items():
        for link in re.findall(r"\]\(([^)#\s]+)\)", text):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_readme_is_one_screen_and_a_half():
    tables = [line for line in TEXT.splitlines() if line.startswith("|")]
    text = [line for line in TEXT.splitlines() if not line.startswith("|")]
    assert len(text) <= 90
    assert max(map(len, text)) <= 180  # the commands, which are pasted
    assert max(map(len, tables)) <= 300  # its sentences wrap inside their cells


@pytest.mark.slow
def test_the_example_trains_a_users_own_model_with_lars():
    code = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0]
    assert len(code.strip().splitlines()) <= 15
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    accuracy = float(re.findall(r"val_accuracy: ([0-9.]+)", done.stdout)[-1])
    assert accuracy > 0.85  # chance is 0.1
    assert "decay=False, adapted=False" in done.stdout


def test_the_tree_is_what_is_on_disk():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"## Where things are\n\n```\n(.*?)```", text, re.DOTALL)[1]
    shown = [line.split()[0] for line in tree.splitlines() if line.startswith("  ")]
    on_disk = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "tf_largebatch").iterdir()
        if path.name != "__pycache__"
    ]
    assert sorted(shown) == sorted(on_disk)
    folders = [line.split()[0] for line in tree.splitlines() if not line.startswith(" ")]
    assert all(name.endswith("/") and (ROOT / name).is_dir() for name in folders)
    for line in tree.splitlines():
        room, _, text = line.strip().partition(" ")
        for name in re.findall(r"\w+\.py\b", text):
            assert (ROOT / "tf_largebatch" / room / name).exists(), name
        for name in re.findall(r"\w+/", text):
            assert (ROOT / "tf_largebatch" / room / name).is_dir(), name


def test_the_changelog_says_where_modules_have_moved_to():
    table = re.search(r"\| was in .*?(?=\n- )", (ROOT / "CHANGELOG.md").read_text(), re.DOTALL)[0]
    targets = [re.findall(r"`([\w.]+)`", line.split("|")[2]) for line in table.splitlines()[2:]]
    assert len(targets) > 5
    for name in {name for names in targets for name in names} - {"report_ready", "tf_largebatch"}:
        place = ROOT.joinpath("tf_largebatch", *name.split("."))
        assert place.is_dir() or place.with_suffix(".py").exists(), name
