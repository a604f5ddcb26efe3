"""Every recipe can be cited: its papers are known, and their BibTeX parses."""

import re

import pytest
from commands import call

from tf_largebatch.__main__ import load_recipes, main, recipe_modules
from tf_largebatch.records import papers, published

ENTRY = re.compile(r"@(misc|inproceedings)\{([\w-]+),\n((?:  \w+ = \{.*\},\n)+)\}")


def test_every_recipe_names_papers_that_are_known():
    recipes = load_recipes()
    assert {recipe.paper for recipe in recipes} <= set(papers.PAPERS)
    for name in recipe_modules():
        rows = [recipe for recipe in recipes if recipe.name == name]
        found = papers.cited(rows)
        assert found[rows[0].paper] == "reproduced"
        assert set(found) <= set(papers.PAPERS)


def test_no_paper_stands_there_for_nothing():
    used = set()
    for name in recipe_modules():
        used |= set(papers.cited([recipe for recipe in load_recipes() if recipe.name == name]))
    assert used == set(papers.PAPERS)


@pytest.mark.parametrize("name", papers.PAPERS)
def test_an_entry_is_bibtex(name):
    paper = papers.PAPERS[name]
    kind, key, fields = ENTRY.fullmatch(paper.bibtex()).groups()
    assert key == paper.key and fields.count("{") == fields.count("}")
    assert (kind == "inproceedings") == bool(paper.venue) == ("booktitle" in fields)
    assert name in (f"arXiv:{paper.arxiv}", "MLPerf Training", "poster")
    assert all(part.strip() for part in paper.authors.split(" and "))


def test_keys_are_unique():
    keys = [paper.key for paper in papers.PAPERS.values()]
    assert len(keys) == len(set(keys))


def test_titles_begin_as_the_result_tables_have_them():
    """Held against data that was typed by others; theirs are short, and some leave words out."""
    shorter = {row.arxiv: row.title for row in published.load().values()}
    for paper in papers.PAPERS.values():
        if paper.arxiv and paper.arxiv in shorter:
            words = re.findall(r"\w+", shorter[paper.arxiv].lower())
            there = set(re.findall(r"\w+", paper.title.lower()))
            assert sum(word in there for word in words) >= len(words) / 2, paper.title


def test_cite_prints_the_paper_then_what_else_the_recipe_rests_on():
    text = call(main, ["cite", "you_minutes_32k"]).stdout
    assert re.findall(r"^% (.*)\n@\w+\{(.*),", text, re.M) == [
        ("reproduced", "you2018minutes"),
        ("optimizer LARS", "you2017lars"),
        ("numbers that the paper does not say", "goyal2017hour"),
    ]


def test_cite_takes_all_rows_of_a_family():
    assert "you2020lamb" in call(main, ["cite", "lamb_ladder"]).stdout
    assert "anil2020shampoo" in call(main, ["cite", "anil_shampoo"]).stdout


def test_an_unknown_recipe_is_one_line():
    done = call(main, ["cite", "goyal_9k"])
    assert done.returncode == 2 and "Nearest: goyal_8k" in done.stderr
    assert done.stderr.count("\n") == 1
