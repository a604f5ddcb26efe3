"""Our LAMB against trajectories of tensorflow-addons' LAMB, stored and, where installed, live."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def load_tool():
    path = ROOT / "tools" / "tfa_parity.py"
    spec = importlib.util.spec_from_file_location("tfa_parity", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tfa_parity"] = module
    spec.loader.exec_module(module)
    return module


tool = load_tool()


@pytest.fixture(scope="module")
def golden():
    with np.load(tool.GOLDEN) as arrays:
        return dict(arrays)


def golden_case(golden, label):
    return {name: golden[f"{label}/{name}"] for name in tool.SHAPES}


def lamb(label, **changes):
    """Our LAMB of one case with some arguments changed."""
    optimizer = tool.our_lamb(tool.CASES[label])
    return type(optimizer).from_config({**optimizer.get_config(), **changes})


@pytest.mark.parametrize("label", tool.CASES)
def test_our_lamb_follows_tensorflow_addons_over_twenty_updates(golden, label):
    ours = tool.replay(tool.our_lamb(tool.CASES[label]), golden)
    assert tool.difference(ours, golden_case(golden, label)) <= tool.TOLERANCE


@pytest.mark.parametrize(
    "label, changes",
    [
        ("no exclusions", {"decoupled_weight_decay": True}),
        ("no exclusions", {"bias_correction": False}),
        ("no exclusions", {"epsilon": 1e-7}),
        ("no exclusions", {"weight_decay": 0.02}),
        ("no exclusions", {"exclude_rank_below": 2}),
        ("decay by list, adaptation of all", {"no_decay": []}),
        ("decay by list, adaptation of all", {"no_adaptation": ["^bias$", "^gamma$"]}),
        ("adaptation by list, decay of all", {"no_adaptation": ["^scale$"]}),
        ("adaptation by list, decay of all", {"no_decay": ["^scale$", "^conv$"]}),
    ],
)
def test_another_rule_is_far_outside_the_tolerance(golden, label, changes):
    ours = tool.replay(lamb(label, **changes), golden)
    assert tool.difference(ours, golden_case(golden, label)) > 10 * tool.TOLERANCE


def test_a_rate_that_is_one_update_late_is_far_outside_the_tolerance(golden):
    late = np.append(golden["rate"][:1], golden["rate"][:-1])
    optimizer = lamb("no exclusions", learning_rate=lambda: late[int(optimizer.iterations)])
    replayed = tool.replay(optimizer, golden)
    assert tool.difference(replayed, golden_case(golden, "no exclusions")) > 10 * tool.TOLERANCE


def test_the_replay_has_ranks_0_to_4_and_the_edges_it_claims(golden):
    assert {golden[f"weight/{name}"].ndim for name in tool.SHAPES} == {0, 1, 2, 3, 4}
    assert not golden["weight/head"].any() and not golden["gradient/head"][:2].any()
    assert golden["gradient/head"][2].any() and not golden["gradient/paused"][9:11].any()
    for name in ("kernel", "attention", "conv"):
        w = golden[f"weight/{name}"].ravel().astype("float64")
        g = golden[f"gradient/{name}"][0].ravel().astype("float64")
        # A gradient parallel to its weights would hide mistakes in the ratio.
        assert abs(w @ g) < 0.9 * np.linalg.norm(w) * np.linalg.norm(g)


def test_our_schedule_has_the_rates_that_tensorflow_addons_was_given(golden):
    from tf_largebatch.schedules import trace

    np.testing.assert_allclose(trace(tool.our_schedule(), tool.UPDATES), golden["rate"], rtol=3e-7)


def test_the_golden_arrays_say_where_they_come_from(golden):
    origin = json.loads(str(golden["origin"]))
    assert origin["command"] == tool.COMMAND
    assert (origin["seed"], origin["updates"]) == (tool.SEED, tool.UPDATES)
    assert set(origin) >= {"tensorflow-addons", "tensorflow", "tf-keras", "numpy", "python"}


def test_the_golden_arrays_hold_the_inputs_of_the_tool(golden):
    for key, made in tool.make_inputs().items():
        np.testing.assert_allclose(golden[key], made, rtol=1e-6, err_msg=key)


def test_without_tensorflow_addons_the_tool_ends_with_one_line_and_status_2(monkeypatch, capsys):
    monkeypatch.setattr(tool.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["tfa_parity.py"])
    assert tool.main() == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "tensorflow-addons is not installed" in message and "pip install" in message


def test_the_tool_prints_a_row_for_each_case_and_fails_on_a_difference(golden, monkeypatch, capsys):
    monkeypatch.setattr(tool, "run_reference", lambda inputs: golden)
    monkeypatch.setattr(sys, "argv", ["tfa_parity.py"])
    two = dict(list(tool.CASES.items())[:2])
    monkeypatch.setattr(tool, "CASES", two)
    assert tool.main() == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row[:36].strip() for row in rows] == list(two)
    assert all(row.endswith("yes") for row in rows)
    monkeypatch.setattr(tool, "TOLERANCE", 1e-9)
    assert tool.main() == 1
    assert capsys.readouterr().out.count("NO") == len(two)


@pytest.mark.slow
def test_a_live_tensorflow_addons_repeats_the_golden_arrays(golden):
    if importlib.util.find_spec("tensorflow_addons") is None:
        pytest.skip("tensorflow-addons is not installed: it has no wheel above Python 3.11")
    reference = tool.run_reference(tool.make_inputs())
    assert "TF_USE_LEGACY_KERAS" not in os.environ
    for label in tool.CASES:
        live = golden_case(reference, label)
        assert tool.difference(live, golden_case(golden, label)) <= 1e-6
