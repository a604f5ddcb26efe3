"""Where each number of a recipe comes from: the comment on its line, read from the module's text.

A recipe module states every number with its source on the same line, of one of four kinds:

    # [paper: text] §5.1          read, and where: in the paper's text, abstract, or a digest of it;
    # [code: repo file] ...       in a public implementation or result log, of this name;
    # [seed] slides 002: ...      on a slide or poster
    # [recall] Table 2, or bare   quoted from memory: published, but nobody here has read it there
    # [derived] ...               arithmetic from such numbers
    # ours ..., [unknown] ...     ours: a choice, in the latter case since the paper does not say

A number counts as read only where its line names what was read; `[unknown]` and what is taken from
another paper are this project's choice.

The numbers of an `Expected` stand on one line: its comment is theirs, or else its `source`.

What a module takes over from another with `dataclasses.replace` is looked up there; where that
states another paper's recipe, its "§5.1" becomes "taken from arXiv:1706.02677: §5.1".
"""

import ast
import functools
import io
import re
import tokenize
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from tf_largebatch.records.recipe import Recipe

# Read as files, never imported: this room lies below the recipes.
FOLDER = Path(__file__).parents[1] / "recipes"
PACKAGE = "tf_largebatch.recipes"
# Where a number was read -> the tag that names it.
PLACES = {
    "paper": re.compile(r"\[paper: (text|abstract|digest)\]"),
    "code or log": re.compile(r"\[code: \w"),
    "slides": re.compile(r"\[seed\] slides \d"),
}
KINDS = ("read", "quoted from memory", "derived", "ours")


@dataclass(frozen=True)
class Source:
    """The comment behind one number.

    Attributes:
        text: the comment.
        module: of recipes, whose line it is.
        value: the expression that it stands behind.
    """

    text: str
    module: str
    value: ast.expr

    @property
    def places(self) -> list[str]:
        """Where it was read, of `PLACES`; none where the line does not name it."""
        return [place for place, tag in PLACES.items() if tag.search(self.text)]

    @property
    def kind(self) -> str:
        """One of `KINDS`: the weakest that the comment speaks of."""
        if re.search(r"\bours\b|\[unknown\]|^taken from ", self.text):
            return "ours"
        if "[recall]" in self.text or not (self.places or "[derived]" in self.text):
            return "quoted from memory"
        return "derived" if "[derived]" in self.text else "read"


def read(module: str, name: str = "RECIPE", row: str | None = None) -> dict[str, Source]:
    """Returns the source of every field that the recipe of a module states: dotted name -> source.

    Args:
        module: of `tf_largebatch.recipes`, for example "goyal_8k".
        name: of the recipe in it, or of a dictionary of recipes.
        row: key in that dictionary.
    """
    node: ast.expr = ast.Name(name)
    if row is not None:
        node = ast.Subscript(node, ast.Constant(row))
    found = _Module.load(module).fields(node)
    return {field: source for field, source in found.items() if source.text}


def read_recipe(recipe: Recipe) -> dict[str, Source]:
    """The same for a recipe, found by its name and row; empty for one that no module states.

    What another paper publishes is not this one's: such a source says whose it is.
    """
    if not (FOLDER / f"{recipe.name}.py").is_file():
        return {}
    found = read(recipe.name, "RECIPE" if recipe.row is None else "ROWS", recipe.row)
    return {field: _cited(source, recipe) for field, source in found.items()}


def _cited(source: Source, recipe: Recipe) -> Source:
    if source.module == recipe.name or source.text.startswith(("ours", "[unknown")):
        return source
    paper = _text(_Module.load(source.module).fields(ast.Name("RECIPE"))["paper"].value)
    if paper == recipe.paper:
        return source
    return replace(source, text=f"taken from {paper}: {source.text}")


def count(found: dict[str, Source]) -> str:
    """Returns how many numbers are of which kind, in words, and where those of the first were read.

    For example "24 read (paper 19, code or log 5), 2 quoted from memory, 1 ours".
    """
    numbers = Counter(source.kind for source in found.values())
    places = Counter(source.places[0] for source in found.values() if source.kind == "read")
    where = ", ".join(f"{place} {places[place]}" for place in PLACES if places[place])
    read = {"read": f"read ({where})"}
    return ", ".join(f"{numbers[kind]} {read.get(kind, kind)}" for kind in KINDS if numbers[kind])


def _text(node: ast.expr) -> str:
    """A text that is written out; none for one that is made."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


class _Module:
    """One module's text: its comments, its names, and what they are made of."""

    def __init__(self, name: str):
        self.name = name
        text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        self._comments = {
            token.start[0]: token.string.lstrip("# ")
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type == tokenize.COMMENT
        }
        self._values: dict[str, ast.expr] = {}
        self._functions: dict[str, ast.expr] = {}
        self._modules: dict[str, str] = {}
        self._imported: dict[str, tuple[str, str]] = {}
        for statement in ast.parse(text).body:
            self._note(statement)

    @staticmethod
    @functools.cache
    def load(name: str) -> "_Module":
        return _Module(name)

    def _note(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._values[name] = value
            case ast.FunctionDef(name=name, body=[*_, ast.Return(value=ast.expr() as value)]):
                self._functions[name] = value
            case ast.ImportFrom(module=str(module), names=names) if module == PACKAGE:
                self._modules |= {alias.asname or alias.name: alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names) if module.startswith(PACKAGE):
                of = module.removeprefix(PACKAGE + ".")
                self._imported |= {alias.asname or alias.name: (of, alias.name) for alias in names}

    def fields(self, node: ast.expr) -> dict[str, Source]:
        """The fields of the record that an expression makes; none where it makes no record."""
        match node:
            case ast.Name(id=name) if name in self._imported:
                module, original = self._imported[name]
                return _Module.load(module).fields(ast.Name(original))
            case ast.Name(id=name) if name in self._values:
                return self.fields(self._values[name])
            case ast.Attribute(value=ast.Name(id=alias), attr=attr) if alias in self._modules:
                return _Module.load(self._modules[alias]).fields(ast.Name(attr))
            case ast.Attribute(value=value, attr=attr):
                start = attr + "."
                whole = self.fields(value)
                return {k.removeprefix(start): s for k, s in whole.items() if k.startswith(start)}
            case ast.Subscript(value=value, slice=key):
                return self._row(value, key)
            case ast.Call(func=ast.Name(id=name)) if name in self._functions:
                return self.fields(self._functions[name])
            case ast.Call(func=function, args=arguments, keywords=keywords):
                replaces = getattr(function, "attr", getattr(function, "id", "")) == "replace"
                found = dict(self.fields(arguments[0])) if replaces and arguments else {}
                if getattr(function, "id", "") == "Expected":
                    keywords = [ast.keyword("top1_error_pct", arguments[0]), *keywords]
                for keyword in keywords:
                    self._set(found, keyword)
                if source := found.pop("source", None):  # no number: it says where the others are
                    cited = _text(source.value)
                    found = {k: replace(s, text=s.text or cited) for k, s in found.items()}
                return found
        return {}

    def _row(self, value: ast.expr, key: ast.expr) -> dict[str, Source]:
        """The record behind a key of a dictionary, written out or made by a comprehension."""
        match value:
            case ast.Name(id=name) if name in self._values:
                return self._row(self._values[name], key)
            case ast.Attribute(value=ast.Name(id=alias), attr=attr) if alias in self._modules:
                return _Module.load(self._modules[alias])._row(ast.Name(attr), key)
            case ast.Dict(keys=keys, values=values):
                wanted = ast.unparse(key)
                for own, record in zip(keys, values, strict=True):
                    if own is not None and ast.unparse(own) == wanted:
                        return self.fields(record)
            case ast.DictComp(value=record):
                return self.fields(record)
        return {}

    def _set(self, found: dict[str, Source], keyword: ast.keyword) -> None:
        name, value = keyword.arg, keyword.value
        if name is None:
            return
        for old in [k for k in found if k == name or k.startswith(name + ".")]:
            del found[old]
        parts = self.fields(value)
        found |= {f"{name}.{part}": source for part, source in parts.items()}
        if not any(source.text for source in parts.values()):
            comment = self._comments.get(value.end_lineno or 0, "")
            found[name] = Source(comment, self.name, value)
