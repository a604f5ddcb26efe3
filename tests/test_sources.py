"""Where numbers come from, read from the text of the recipe modules."""

import dataclasses
import textwrap

import pytest

from tf_largebatch.__main__ import load_recipes
from tf_largebatch.recipes import goyal_8k, goyal_256, lamb_ladder
from tf_largebatch.records import sources

BASE = """
    from tf_largebatch.records.recipe import Recipe, SGDSpec

    RECIPE = Recipe(
        name="base",
        global_batch=256,  # §5.1
        epochs=90,  # [recall] as usual
        optimizer=SGDSpec(
            momentum=0.9,  # Table 2
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
        expected=Expected(24.7, source="slides"),  # [seed] 75.3 %
        optimizer=dataclasses.replace(
            {base}.RECIPE.optimizer,
            momentum=0.95,  # ours
        ),
    )

    def _row(batch):
        return dataclasses.replace(
            RECIPE,
            global_batch=batch,  # [seed] slide 3
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
        "global_batch": "published",
        "epochs": "recalled",
        "optimizer.momentum": "published",
        "optimizer.weight_decay": "derived",
        "expected.top1_error_pct": "published",
        "expected.std": "published",
    }


def test_a_published_result_has_the_comment_of_its_line_or_its_own_source(modules):
    assert sources.read(modules[0])["expected.std"].text == "Table 3"
    child = sources.read(modules[1])
    assert child["expected.top1_error_pct"].text == "[seed] 75.3 %"
    assert "expected.std" not in child and "expected.source" not in child


def test_what_is_replaced_has_the_new_source_and_the_rest_the_old(modules):
    found = sources.read(modules[1])
    assert kinds(found) == {
        "global_batch": "read in code",
        "epochs": "recalled",
        "optimizer.momentum": "ours",
        "optimizer.weight_decay": "derived",
        "expected.top1_error_pct": "slides",
    }
    assert found["epochs"].module == modules[0]
    assert sources.count(found) == "1 read in code, 1 slides, 1 derived, 1 recalled, 1 ours"


def test_rows_of_a_family_are_read_through_the_function_that_makes_them(modules):
    row = kinds(sources.read(modules[1], "ROWS", "2"))
    assert row["global_batch"] == "slides"
    assert row["epochs"] == "not published"
    assert row["optimizer.momentum"] == "ours"
    assert kinds(sources.read(modules[1], "OTHERS", "b")) == kinds(sources.read(modules[0]))


def test_what_another_paper_publishes_is_not_this_papers():
    found = sources.read_recipe(lamb_ladder.RECIPE)
    assert found["data.image_size"].text == "taken from arXiv:1706.02677: §5.1"
    assert found["data.image_size"].kind == "another paper's"
    same = sources.read_recipe(goyal_256.RECIPE)["data.image_size"]  # stated in goyal_8k
    assert (same.text, same.kind) == ("§5.1", "published")


def test_the_numbers_of_a_recipe_are_counted_by_kind():
    count = sources.count(sources.read_recipe(goyal_8k.RECIPE))
    assert count == "26 published, 2 recalled, 1 ours"


def test_a_recipe_that_no_module_states_has_no_citations():
    assert sources.read_recipe(dataclasses.replace(goyal_8k.RECIPE, name="my_own")) == {}


@pytest.mark.parametrize("recipe", load_recipes(), ids=lambda r: r.label)
def test_every_recipe_says_where_its_main_numbers_come_from(recipe):
    found = sources.read_recipe(recipe)
    needed = {"global_batch", "epochs", "reference_rate", "reference_batch", "data.image_size"}
    needed |= {"model.architecture", "optimizer.weight_decay", "expected.top1_error_pct"}
    if recipe.expected is None:
        needed.remove("expected.top1_error_pct")
    assert needed <= set(found), needed - set(found)
