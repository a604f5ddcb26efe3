"""The page on the house draws the house that stands, and names files that are there."""

import re
from pathlib import Path

from test_layers import FLOORS

from tf_largebatch.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_drawing_has_the_floors_of_the_rule():
    drawing = re.search(r"```\n(.*?)```", TEXT, re.DOTALL)[1]
    # Words stand three spaces or more before the explanation of their line.
    floors = [set(re.split(r" {3,}", line.strip())) for line in drawing.splitlines()]
    rooms = set().union(*FLOORS)
    drawn = [{word for words in floor for word in words.split()} & rooms for floor in floors]
    assert drawn == [set(floor) for floor in reversed(FLOORS)]


def test_the_table_has_every_room_and_nothing_else():
    rooms = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert len(rooms) == len(set(rooms))
    assert set(rooms) == set().union(*FLOORS)


def test_a_room_may_import_what_the_rule_lets_it():
    rows = re.findall(r"^\| `(\w+)` \| .*? \| ([^|]*) \| [^|]* \|$", TEXT, re.MULTILINE)
    may = dict(rows)
    assert may["records"] == "–"
    assert {may[room] for room in FLOORS[1]} == {"`records`"}
    assert all(may[room] == "everything" for room in FLOORS[-1])


def test_every_file_and_command_that_the_page_names_exists():
    for name in set(re.findall(r"`((?:\w+/)+\w+\.py)`", TEXT)):
        if "NAME" in name:
            continue
        assert any((base / name).exists() for base in (ROOT, ROOT / "tf_largebatch")), name
    for name in re.findall(r"python (tools/\w+\.py)", TEXT):
        assert (ROOT / name).exists(), name
    (doors,) = re.findall(r"the front door: (.*?) \|", TEXT)
    assert re.findall(r"`(\w+)`", doors) == list(COMMANDS)


def test_the_way_of_a_run_names_what_is_in_those_files():
    steps = re.findall(r"^\d\. `([\w/]+\.py)`(?:, `(\w+)`)?", TEXT, re.MULTILINE)
    assert [file for file, _ in steps] == [
        "recipes/goyal_8k.py",
        "training/command.py",
        "training/train.py",
        "training/step.py",
    ]
    for file, name in steps:
        code = (ROOT / "tf_largebatch" / file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^(?:def|class) {name}\b", code, re.MULTILINE), name
