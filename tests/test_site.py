"""The site is built without a warning, has a page for everything, and no link leads nowhere."""

import doctest
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from commands import ROOT

import tf_largebatch
from tf_largebatch.__main__ import recipe_modules, study_modules

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
import docstrings  # noqa: E402


class Links(HTMLParser):
    """The ids of a page, and where its links and pictures lead."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif (name in ("href", "src")) and tag in ("a", "img") and value:
                self.links.add(value)


def broken(site):
    """Returns the links inside the built site that lead to no file, or to no heading."""
    pages = {p: Links(p.read_text(encoding="utf-8")) for p in site.rglob("*.html")}
    found = []
    for page, parsed in pages.items():
        for link in parsed.links:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                found.append(f"{page.relative_to(site)}: {link}")
            elif anchor and target in pages and anchor not in pages[target].ids:
                found.append(f"{page.relative_to(site)}: {link}")
    return found


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_its_links_lead_somewhere(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", tmp_path / "trees"]
    done = subprocess.run(
        [*command, DOCS, tmp_path / "site"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    for name in recipe_modules():
        assert (site / "recipes" / f"{name}.html").exists()
    claims = (site / "claims.html").read_text(encoding="utf-8")
    for name in study_modules():
        if (DOCS / "claims" / name / "README.md").exists():
            assert f'href="claims/{name}/README.html' in claims
    assert broken(site) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="x"></h1><a href="b.html#y"></a><a href="#x"></a>')
    (tmp_path / "b.html").write_text(
        '<a href="a.html#z"></a><img src="c.png"><a href="a.html"></a>'
    )
    assert sorted(broken(tmp_path)) == ["a.html: b.html#y", "b.html: a.html#z", "b.html: c.png"]


def test_docstrings_become_restructured_text():
    tried = doctest.testmod(docstrings)
    assert tried.failed == 0 < tried.attempted


def test_every_public_name_is_in_the_reference_once():
    pages = " ".join(p.read_text(encoding="utf-8") for p in (DOCS / "api").glob("*.md"))
    named = re.findall(r"^\.\. auto\w+:: tf_largebatch\.(\w+)$", pages, re.MULTILINE)
    assert sorted(named) == sorted(set(tf_largebatch.__all__) - {"__version__"})


def test_every_page_is_in_the_table_of_contents():
    contents = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(?:.* <)?([\w/]+)>?$", contents, re.MULTILINE))
    made = {"changelog", "contributing", "security"}
    assert {p.stem for p in DOCS.glob("*.md")} - {"index"} | made <= listed
