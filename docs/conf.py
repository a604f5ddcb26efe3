"""The site: `sphinx-build -W docs docs/_build`.

Its pages are docs/*.md, and files that the repository keeps elsewhere (`PAGES`).
"""

import re
import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

from tf_largebatch.records.quiet import import_tensorflow  # noqa: E402

import_tensorflow()  # before autodoc does, which would show its notes

from docstrings import as_restructured_text  # noqa: E402
from sphinx.util import logging  # noqa: E402

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_HOME = _PROJECT["urls"]["Homepage"]

project = "tf_largebatch"
author = _PROJECT["authors"][0]["name"]
copyright = f"2026, {author}"
release = version = _PROJECT["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "claims/*/trials", "claims/*/quick", "**.ipynb_checkpoints"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tests/test_notebooks.py executes them; the site shows what is committed

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # types of arguments stand in the docstrings, with ranges
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"
smartquotes = False  # option="value" is code, wherever it stands

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"tf_largebatch {version}"
html_theme_options = {
    "source_repository": f"{_HOME}/",
    "source_branch": "main",
    "source_directory": "docs/",
}

# File of the repository -> page of the site. The cards of the recipes are added below.
PAGES = {
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
}
PAGES |= {
    f"recipes/{p.parent.name}/card.md": f"recipes/{p.parent.name}"
    for p in ROOT.glob("recipes/*/card.md")
}
_LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?(?=\))")


def lead(text: str, origin: Path, docname: str) -> str:
    """Returns a page's text; its relative links lead to pages of the site, or to the repository.

    Args:
        text: Markdown, or a notebook's JSON.
        origin: file that it is read from; its links are relative to it.
        docname: page that it becomes.
    """

    def target(found: re.Match) -> str:
        path, anchor = found[1], found[2] or ""
        place = (origin.parent / path).resolve()
        name = place.relative_to(ROOT).as_posix() if place.is_relative_to(ROOT) else ""
        if name in PAGES:
            return f"/{PAGES[name]}.md{anchor}"
        if place.is_relative_to(DOCS) and place.suffix in (".md", ".ipynb"):
            return f"/{place.relative_to(DOCS).as_posix()}{anchor}"  # which Sphinx looks for itself
        if place.suffix == ".png" and place.exists():
            return (
                path
                if origin.parent == DOCS or origin.is_relative_to(DOCS)
                else f"{'../' * (docname.count('/') + 1)}{name}"
            )
        if not name or not place.exists():
            logging.getLogger(__name__).warning("%s: no file %s", docname, path, type="link")
        return f"{_HOME}/blob/main/{name}{anchor}"

    return _LINK.sub(target, text)


def make_pages(app) -> None:
    """Writes the pages whose text stands outside docs/; git ignores them."""
    for name, docname in PAGES.items():
        path = DOCS / f"{docname}.md"
        path.parent.mkdir(exist_ok=True)
        text = lead((ROOT / name).read_text(encoding="utf-8"), ROOT / name, docname)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# Pages below a page, which GitHub would show as code.
BELOW = {"claims": "claims/*/README", "recipes": "recipes/*", "notebooks/index": "*"}


def lead_links(app, docname: str, source: list[str]) -> None:
    """Leads the links of a page of docs/."""
    path = Path(app.env.doc2path(docname))
    if docname not in PAGES.values():
        source[0] = lead(source[0], path, docname)
    if docname in BELOW:
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{BELOW[docname]}\n```\n"


def rewrite_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Turns a docstring of this package into reStructuredText, before napoleon reads it."""
    lines[:] = as_restructured_text(lines)


def setup(app) -> None:
    """Connects the above."""
    app.connect("builder-inited", make_pages)
    app.connect("source-read", lead_links)
    app.connect("autodoc-process-docstring", rewrite_docstring, priority=100)
