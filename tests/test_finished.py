"""Which result of a run is believed, and which is set aside."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from test_run_folder import record

from tf_largebatch.records.result import SeedResult
from tf_largebatch.training.session import Session

IDENTITY = {"recipe": "ab", "seed": "3", "data": "cd"}
DONE = SeedResult(seed=3, folder=".", epochs=(record(1), record(2)), wall_seconds=1.5)


def session(chief=True):
    fields = {field.name: None for field in dataclasses.fields(Session)}
    team = SimpleNamespace(chief=chief, agree=lambda values: None)
    return Session(**fields | {"team": team, "results": []})


def a_run(folder, identity=IDENTITY):
    plan = SimpleNamespace(to_json=dict, phases=[SimpleNamespace(global_batch=8)])
    return SimpleNamespace(folder=folder, identity=identity, seed=3, plan=plan, stop_epoch=None)


@pytest.fixture
def kept(tmp_path):
    """The folder of a run that ended."""
    (tmp_path / "model.keras").write_text("model")
    session().keep(None, a_run(tmp_path), DONE)
    return tmp_path


def test_a_result_comes_back_with_the_table_of_its_epochs(kept):
    assert session().finished(a_run(kept)) == DONE
    assert len((kept / "metrics.csv").read_text().splitlines()) == 3


def test_a_result_of_before_there_were_seals_is_believed(kept):
    (kept / "seed.json").write_text(json.dumps(dataclasses.asdict(DONE)))
    assert session().finished(a_run(kept)) == DONE


def changed(text):
    return text.replace('"validation_error_pct": 12.5', '"validation_error_pct": 11.5', 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "\0" * len(text),
        lambda text: "[]",
        lambda text: "{}",
        lambda text: '{"seed": 3, "folder": ".", "epochs": [{}], "wall_seconds": 1}',
        lambda text: '{"seed": 4, "folder": ".", "epochs": [], "wall_seconds": 1}',
        lambda text: "[" * 100_000,
        changed,
    ],
    ids="empty cut zeroed list bare form seed deep digit".split(),
)
def test_a_damaged_result_is_named_and_set_aside(kept, capsys, damage):
    text = (kept / "seed.json").read_text()
    assert damage(text) != text
    (kept / "seed.json").write_text(damage(text))
    assert session().finished(a_run(kept)) is None
    line = capsys.readouterr().err
    assert f"{kept / 'seed.json'} is no result of this run" in line and line.count("\n") == 1
    assert "the run goes on from its last checkpoint" in line
    assert (kept / "seed.json.damaged").read_text() == damage(text)
    assert not (kept / "seed.json").exists()


def test_the_result_of_another_run_is_set_aside(kept, capsys):
    other = a_run(kept, IDENTITY | {"data": "other"})
    assert session().finished(other) is None
    assert "it is another run's" in capsys.readouterr().err


def test_a_run_without_its_model_is_not_finished_unless_it_diverged(kept):
    (kept / "model.keras").unlink()
    assert session().finished(a_run(kept)) is None
    diverged = dataclasses.replace(DONE, diverged_at=7)
    session().keep(None, a_run(kept), diverged)
    assert session().finished(a_run(kept)) == diverged


@pytest.mark.parametrize("text", ["", "mod", "\0" * 5, "other"])
def test_a_model_that_was_not_exported_by_this_run_is_made_again(kept, capsys, text):
    (kept / "model.keras").write_text(text)
    assert session().finished(a_run(kept)) is None
    line = f"{kept / 'model.keras'} is not what this run exported: made again"
    assert line in capsys.readouterr().err


def test_a_worker_that_is_not_the_chief_writes_nothing(kept, tmp_path):
    (kept / "seed.json").write_text("")
    before = {p.name: p.read_bytes() for p in kept.iterdir()}
    assert session(chief=False).finished(a_run(kept)) is None
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == before
