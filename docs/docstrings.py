"""This package's docstrings as reStructuredText: plain text, with code and tables indented."""

import re
from collections.abc import Iterator

SECTIONS = {"Args:", "Attributes:", "Raises:", "Returns:", "Yields:", "Example:", "Examples:"}
CODE = re.compile(r"``.*?``|`[^`]+`", re.DOTALL)
# What reStructuredText would take for markup: emphasis, substitutions, references.
MARKUP = re.compile(r"([*|\\]|(?<=\w)_(?=\W|$))")


def as_restructured_text(lines: list[str]) -> list[str]:
    r"""Returns the lines with indented blocks as literal ones and code marked as code.

    >>> as_restructured_text(["Of `w`, with |w|:", "    r = |w| / 2", "and so on."])
    ['Of ``w``, with \\|w\\|:', '', '::', '', '    r = |w| / 2', '', 'and so on.']
    >>> as_restructured_text(["Args:", "    rate: of `w`, |g| > 0."])
    ['Args:', '    rate: of ``w``, \\|g\\| > 0.']
    """
    result: list[str] = []
    for kind, block in _blocks(lines):
        if kind == "literal":
            result += ["", "::", "", *block, ""]
        elif kind == "example":
            result += block
        else:
            result += _marked("\n".join(block)).split("\n")
    squeezed = [
        a for a, b in zip(result, [*result[1:], "x"], strict=True) if a.strip() or b.strip()
    ]
    while squeezed and not squeezed[-1].strip():
        squeezed.pop()
    return squeezed


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Runs of lines of one kind: "text" (sections too), "literal" or "example"."""
    kind, block, section = "text", [], False
    for line in lines:
        indented, blank = line.startswith("  "), not line.strip()
        section = section and (indented or blank) or line.strip() in SECTIONS
        if line.lstrip().startswith(">>>"):
            new = "example"
        elif kind == "example" and not blank:
            new = "example"  # what it prints
        elif blank and kind != "example":
            new = kind
        elif indented and not section:
            new = "literal"
        else:
            new = "text"
        if new != kind:
            yield kind, block
            kind, block = new, []
        block.append(line)
    yield kind, block


def _marked(text: str) -> str:
    """Text with `code` doubled and everything else plain."""
    result, end = "", 0
    for found in CODE.finditer(text):
        result += MARKUP.sub(r"\\\1", text[end : found.start()])
        result += f"``{' '.join(found[0].strip('`').split())}``"
        end = found.end()
    return result + MARKUP.sub(r"\\\1", text[end:])
