import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
from commands import ROOT

from tf_largebatch.recipes.goyal_8k import RECIPE
from tf_largebatch.records import run_folder
from tf_largebatch.records.curve import EpochRecord
from tf_largebatch.records.errors import InputError

IDENTITY = {"recipe": "goyal_8k", "seeds": [0, 1], "epochs": (30.0, 60.0)}


def claim(folder, identity):
    with run_folder.locked(folder):
        return run_folder.claim(folder, identity)


def record(epoch, error=12.5):
    return EpochRecord(
        epoch=epoch,
        update=5 * epoch,
        images_seen=1280 * epoch,
        learning_rate=0.1 + 0.2,
        train_loss=1 / 3,
        train_error_pct=20.0,
        validation_loss=0.5,
        validation_error_pct=error,
        validation_top5_error_pct=1.25,
        seconds=0.75,
    )


def test_a_new_folder_is_claimed_and_then_recognised(tmp_path):
    folder = tmp_path / "a" / "b"
    assert claim(folder, IDENTITY) is False
    assert claim(folder, IDENTITY) is True
    assert [p.name for p in folder.iterdir()] == ["run.json"]


def test_the_folder_of_another_recipe_is_refused_by_name(tmp_path):
    claim(tmp_path / "run", IDENTITY)
    with pytest.raises(InputError, match='belongs to another run .recipe: "goyal_8k" there,'):
        claim(tmp_path / "run", {**IDENTITY, "recipe": "goyal_256"})


def identity_of(recipe):
    return {"recipe": recipe.name, "recipes": [dataclasses.asdict(recipe)]}


def old_form(recipe):
    """As before `Expected` had a `std`, and with other words around the same numbers."""
    plain = json.loads(json.dumps(identity_of(recipe)))
    (old,) = plain["recipes"]
    old["expected"] = {"top1_error_pct": 23.74, "std_pct": 0.09, "runs": 5, "source": "Table 1"}
    return plain | {"recipes": [old | {"title": "another", "notes": ["another"]}]}


def test_a_run_of_before_is_continued_whatever_it_said_beside_its_numbers(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(old_form(RECIPE)))
    assert claim(tmp_path, identity_of(RECIPE)) is True
    other = dataclasses.replace(RECIPE, reference_rate=0.2)
    words = r"belongs to another run \(recipes.0.reference_rate: 0.1 there, 0.2 here\)"
    with pytest.raises(InputError, match=words):
        claim(tmp_path, identity_of(other))


def test_the_folder_of_a_changed_run_names_the_flags_of_both(tmp_path):
    claim(tmp_path, {**IDENTITY, "settings": ["epochs 30 -> 4", "optimizer.momentum 0.9 -> 0.8"]})
    words = r"\(--set epochs=4 --set optimizer.momentum=0.8 there, none here\)"
    with pytest.raises(InputError, match=words):
        claim(tmp_path, {**IDENTITY, "settings": []})


def test_what_no_flag_changed_is_told_as_it_is(tmp_path):
    own = ["network resnet50 -> mine", "training images 1,281,167 -> 400", "epochs 30 -> 4"]
    claim(tmp_path, {**IDENTITY, "settings": own})
    words = (
        r"\(network resnet50 -> mine training images 1,281,167 -> 400 --set epochs=4 there, none"
    )
    with pytest.raises(InputError, match=words):
        claim(tmp_path, {**IDENTITY, "settings": []})


def test_a_mark_that_is_no_record_is_named(tmp_path):
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(InputError, match="run.json is damaged"):
        claim(tmp_path, identity_of(RECIPE))


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds thesis.tex"):
        claim(tmp_path, IDENTITY)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_or_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="must be a folder that can be written to"):
        claim(tmp_path / "file", IDENTITY)
    with pytest.raises(InputError, match="must be a folder that can be written to"):
        claim(tmp_path / "file" / "below", IDENTITY)


def test_a_claimed_folder_is_given_up_only_while_it_is_empty(tmp_path):
    claim(tmp_path / "empty", IDENTITY)
    run_folder.release(tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    claim(tmp_path / "used", IDENTITY)
    (tmp_path / "used" / "metrics.csv").write_text("epoch")
    run_folder.release(tmp_path / "used")
    assert (tmp_path / "used" / "run.json").exists()


def test_a_damaged_mark_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"recipe": "go')
    with pytest.raises(InputError, match="run.json is damaged"):
        claim(tmp_path, IDENTITY)


HOLD = """
import pathlib, sys, time
from tf_largebatch.records import run_folder
with run_folder.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_in_which_another_command_is_at_work_is_refused_with_its_name(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout.readline() == "held\n"
        at_work = f"another command is at work .process {process.pid} on"
        try:
            with pytest.raises(InputError, match=at_work):
                claim(tmp_path / "run", IDENTITY)
        finally:
            process.kill()
    # What it left is a file, and no lock.
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["run.lock"]
    assert claim(tmp_path / "run", IDENTITY) is False


def test_what_a_killed_start_leaves_does_not_stop_the_next(tmp_path):
    for name in ("run.lock", "run.json.part"):
        (tmp_path / name).write_text("{")
    assert claim(tmp_path, IDENTITY) is False
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_lock_is_not_taken_through_a_link(tmp_path):
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="must be a folder that can be written to"):
        claim(tmp_path / "run", IDENTITY)
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_a_folder_that_is_gone_hides_no_message(tmp_path):
    run_folder.release(tmp_path / "absent")
    with run_folder.locked(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")


def test_metrics_come_back_exactly(tmp_path):
    records = [record(1), record(2, error=100 / 7), record(3, error=float("inf"))]
    run_folder.write_metrics(tmp_path / "metrics.csv", records)
    assert run_folder.read_metrics(tmp_path / "metrics.csv") == records
    assert run_folder.read_metrics(tmp_path / "absent.csv") == []


def test_the_environment_names_versions_and_processor():
    found = run_folder.environment()
    assert found["versions"]["tensorflow"].startswith("2.")
    assert found["versions"]["keras"].startswith("3.")
    assert found["processor"]
    assert found["cores"] >= 1


def test_default_folders_do_not_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run_folder.default_folder("x")
    first.mkdir(parents=True)
    assert run_folder.default_folder("x") != first


def test_an_optimizer_under_the_names_of_before_is_the_same_run(tmp_path):
    now = {"optimizer": {"exclude_rank_below": 2, "global_clipnorm": 1.0, "momentum": 0.9}}
    old = {"optimizer": {"exempt_rank_below": 2, "clip_norm": 1.0, "momentum": 0.9}}
    assert not claim(tmp_path / "run", {"recipes": [old]})
    assert claim(tmp_path / "run", {"recipes": [now]})
    with pytest.raises(InputError, match="another run"):
        other = {"optimizer": {**now["optimizer"], "momentum": 0.8}}
        claim(tmp_path / "run", {"recipes": [other]})
