"""Where numbers come from, read from the text of the recipe modules."""

import ast
import dataclasses
import json
import re
import textwrap
from pathlib import Path

import pytest

from tf_largebatch.__main__ import load_recipes
from tf_largebatch.recipes import goyal_8k, goyal_256, lamb_ladder
from tf_largebatch.records import sources
from tf_largebatch.records.data_spec import SmallImagesSpec

GOLDEN = Path(__file__).parent / "golden"
BASE = """
    from tf_largebatch.records.recipe import Recipe, SGDSpec

    RECIPE = Recipe(
        name="base",
        global_batch=256,  # [paper: text] §5.1
        epochs=90,  # [recall] as usual
        optimizer=SGDSpec(
            momentum=0.9,  # [paper: digest] Table 2
            weight_decay=1e-4,  # [derived] half of it
        ),
        scaling="linear",
        expected=Expected(24.5, std=0.1, source="Table 3"),
    )
"""
CHILD = """
    import dataclasses

    from tf_largebatch.recipes import {base}

    RECIPE = dataclasses.replace(
        {base}.RECIPE,
        global_batch=512,  # [code: some file]
        expected=Expected(24.7, source="slides"),  # [seed] slides 002: 75.3 %
        optimizer=dataclasses.replace(
            {base}.RECIPE.optimizer,
            momentum=0.95,  # ours
        ),
    )

    def _row(batch):
        return dataclasses.replace(
            RECIPE,
            global_batch=batch,  # [seed] slides 3
            epochs=80,  # [unknown] the paper does not say
        )

    ROWS = {{name: _row(batch) for name, batch in ((1, 2),)}}
    OTHERS = {{"a": RECIPE, "b": {base}.RECIPE}}
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Two recipe modules of this test's own."""
    for name, text in (("test_base", BASE), ("test_child", CHILD.format(base="test_base"))):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    return "test_base", "test_child"


def kinds(found):
    return {name: source.kind for name, source in found.items()}


def test_a_module_states_its_own_numbers(modules):
    assert kinds(sources.read(modules[0])) == {
        "global_batch": "read",
        "epochs": "quoted from memory",
        "optimizer.momentum": "read",
        "optimizer.weight_decay": "derived",
        "expected.top1_error_pct": "quoted from memory",
        "expected.std": "quoted from memory",
    }


def test_a_published_result_has_the_comment_of_its_line_or_its_own_source(modules):
    assert sources.read(modules[0])["expected.std"].text == "Table 3"
    child = sources.read(modules[1])
    assert child["expected.top1_error_pct"].text == "[seed] slides 002: 75.3 %"
    assert "expected.std" not in child and "expected.source" not in child


def test_what_is_replaced_has_the_new_source_and_the_rest_the_old(modules):
    found = sources.read(modules[1])
    assert kinds(found) == {
        "global_batch": "read",
        "epochs": "quoted from memory",
        "optimizer.momentum": "ours",
        "optimizer.weight_decay": "derived",
        "expected.top1_error_pct": "read",
    }
    assert found["epochs"].module == modules[0]
    assert sources.count(found) == (
        "2 read (code or log 1, slides 1), 1 quoted from memory, 1 derived, 1 ours"
    )


def test_rows_of_a_family_are_read_through_the_function_that_makes_them(modules):
    row = kinds(sources.read(modules[1], "ROWS", "2"))
    assert row["global_batch"] == "read"
    assert row["epochs"] == "ours"
    assert row["optimizer.momentum"] == "ours"
    assert kinds(sources.read(modules[1], "OTHERS", "b")) == kinds(sources.read(modules[0]))


def test_what_another_paper_publishes_is_not_this_papers():
    found = sources.read_recipe(lamb_ladder.RECIPE)
    assert found["data.image_size"].text == "taken from arXiv:1706.02677: [paper: text] §5.1"
    assert found["data.image_size"].kind == "ours"
    same = sources.read_recipe(goyal_256.RECIPE)["data.image_size"]  # stated in goyal_8k
    assert (same.text, same.kind) == ("[paper: text] §5.1", "read")


def test_the_numbers_of_a_recipe_are_counted_by_kind():
    count = sources.count(sources.read_recipe(goyal_8k.RECIPE))
    assert count == "27 read (paper 22, code or log 5), 2 quoted from memory, 1 ours"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[paper: text] Table 1", "read"),
        ("[code: NVCaffe solver.prototxt]", "read"),
        ("[seed] slides 002: 3,519 updates", "read"),
        ("[paper: text] 5,004.6; [derived] times 90", "derived"),
        ("[derived] 638 updates; [recall] those", "quoted from memory"),
        ("[paper: text] not on batch norm; ours: nor on biases", "ours"),
        ("[unknown] as usual", "ours"),
        # What names nothing that was read is not read.
        ("Table 1", "quoted from memory"),
        ("the paper", "quoted from memory"),
        ("[paper] Table 1", "quoted from memory"),
        ("[paper: memory] Table 1", "quoted from memory"),
        ("[code] its default", "quoted from memory"),
        ("[seed]", "quoted from memory"),
    ],
)
def test_a_number_is_read_only_where_its_line_names_what_was_read(text, kind):
    assert sources.Source(text, "goyal_8k", ast.Constant(1)).kind == kind


def read_numbers():
    """The lines of every module that count as read: module -> where -> names on the line."""
    found = {}
    for path in sorted(sources.FOLDER.glob("*.py")):
        for line in path.read_text(encoding="utf-8").splitlines():
            code, _, comment = line.partition("  # ")
            source = sources.Source(comment, path.stem, ast.Constant(1))
            if source.kind == "read":
                place = (sources.PLACES["paper"].search(comment) or [source.places[0]])[0]
                name = re.split("[=:,]", code)[0].strip()
                found.setdefault(path.stem, {}).setdefault(place, []).append(name)
    return {m: {p: " ".join(names) for p, names in where.items()} for m, where in found.items()}


def test_what_counts_as_read_is_what_the_reference_says_was_read():
    """A number is raised from memory to read by a reader: the list changes with the reference.

    After a change that the reference has, write `read_numbers()` to the file.
    """
    wanted = json.loads((GOLDEN / "read_numbers.json").read_text(encoding="utf-8"))
    assert read_numbers() == wanted


def test_a_recipe_that_no_module_states_has_no_citations():
    assert sources.read_recipe(dataclasses.replace(goyal_8k.RECIPE, name="my_own")) == {}


@pytest.mark.parametrize("recipe", load_recipes(), ids=lambda r: r.label)
def test_every_recipe_says_where_its_main_numbers_come_from(recipe):
    found = sources.read_recipe(recipe)
    needed = {"global_batch", "epochs", "reference_rate", "reference_batch", "data.image_size"}
    needed |= {"model.architecture", "optimizer.weight_decay", "expected.top1_error_pct"}
    if recipe.expected is None:
        needed.remove("expected.top1_error_pct")
    if isinstance(recipe.data, SmallImagesSpec):
        needed.remove("data.image_size")  # theirs is one size
    assert needed <= set(found), needed - set(found)
