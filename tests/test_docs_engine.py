"""The page on the engine says what the records and the flags say."""

import re
import subprocess
import sys
from pathlib import Path

from tf_largebatch.recipes.goyal_8k import RECIPE
from tf_largebatch.training import command as cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")


def test_the_measured_numbers_come_from_the_records():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "render_engine_page.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_flag_that_the_page_names_exists():
    own = cli.make_parser(RECIPE).format_help()
    from tf_largebatch.training.workers.launch.command import make_parser

    launcher = make_parser().format_help()
    flags = set(re.findall(r"`(--[a-z-]+)", TEXT)) | set(re.findall(r"launch (--[a-z-]+)", TEXT))
    assert len(flags) > 8
    assert {flag for flag in flags if flag not in own and flag not in launcher} == set()


def test_every_file_that_the_page_names_exists():
    for name in re.findall(r"`((?:tests|tools)/[\w/.]+)`", TEXT):
        assert (ROOT / name).exists(), name
