"""The page on optimizers: its code runs and its options exist."""

import re
from pathlib import Path

import numpy as np
import pytest

from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD
from tf_largebatch.schedules import trace

PAGE = (Path(__file__).parent.parent / "docs" / "optimizers.md").read_text(encoding="utf-8")
OPTIMIZERS = {"LAMB": LAMB, "LARS": LARS, "MomentumSGD": MomentumSGD}


def lars_options():
    """The options named in the last column of the table of implementations, by implementation."""
    table = PAGE.split("| implementation |")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {row[0]: re.findall(r"`([a-z_]+=[^`]*)`", row[2]) for row in rows}


def test_every_block_of_code_runs_and_gives_the_rates_that_the_text_names():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, names)
    np.testing.assert_array_equal(trace(names["goyal"], np.array([0, 782])), np.float32([0.1, 3.2]))
    # 599 / 600 of the ramp to 10, then 10 x (1 - 600 / 15600) ** 2
    got = trace(names["solver"], np.array([599, 600]))
    np.testing.assert_allclose(got, [1 + 9 * (599 / 600) ** 2, 9.24556213], rtol=3e-7)
    assert isinstance(names["optimizer"], LARS)


@pytest.mark.parametrize("implementation", lars_options())
def test_the_options_that_reproduce_an_implementation_exist(implementation):
    for options in lars_options()[implementation]:
        LARS(1.0, **eval(f"dict({options})"))


def test_every_implementation_that_has_options_names_them():
    without = [name for name, options in lars_options().items() if not options]
    assert len(lars_options()) == 15
    assert [name.strip("*` ").split("`")[0].strip() for name in without] == [
        "tf.contrib.opt.LARSOptimizer",
        "Fujitsu, MXNet, batch 86,016",
    ]


def test_the_conversions_name_arguments_that_exist():
    sections = PAGE.split("## Hyperparameters from elsewhere")[1].split("## Schedules")[0]
    ours = [row.split(" | ")[1] for row in sections.splitlines() if row.startswith("| ")]
    calls = re.findall(r"`(LAMB|LARS|MomentumSGD)\((.*?)\)`", "\n".join(ours))
    assert len(calls) >= 7
    for name, arguments in calls:
        known = OPTIMIZERS[name](1.0).get_config()
        assert set(re.findall(r"(\w+)=", arguments)) <= set(known), (name, arguments)
