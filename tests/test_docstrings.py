"""Every public name, and every other example in a docstring, runs as it stands there."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import tf_largebatch

PACKAGE = Path(tf_largebatch.__file__).parent
WITH_EXAMPLES = sorted(p for p in PACKAGE.rglob("*.py") if ">>> " in p.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(set(tf_largebatch.__all__) - {"__version__"}))
def test_a_public_name_has_an_example(name):
    assert ">>> " in getattr(tf_largebatch, name).__doc__


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_the_examples_run(path):
    name = re.sub(r"/", ".", path.relative_to(PACKAGE.parent).with_suffix("").as_posix())
    tried = doctest.testmod(importlib.import_module(name))
    assert tried.failed == 0 < tried.attempted
