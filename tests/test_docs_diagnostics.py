"""The page on the instruments names flags and files that exist."""

import re
from pathlib import Path

from tf_largebatch.review import compare
from tf_largebatch.studies import command

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "diagnostics.md").read_text(encoding="utf-8")


def test_every_flag_and_file_that_the_page_names_exists():
    known = command.make_parser().format_help() + compare.make_parser().format_help()
    commands = re.findall(r"^python -m tf_largebatch (?:compare|study).*$", TEXT, re.MULTILINE)
    flags = {flag for command in commands for flag in re.findall(r"--[a-z-]+", command)}
    assert len(flags) == 1 and all(flag in known for flag in flags)
    for name in re.findall(r"\]\(([\w/.]+)\)", TEXT):
        assert (DOCS / name).exists(), name
    for name in re.findall(r"(tools/\w+\.py)", TEXT):
        assert (DOCS.parent / name).exists(), name
