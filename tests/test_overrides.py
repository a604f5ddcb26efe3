import math
import subprocess
import sys

import pytest
from commands import ROOT

from tf_largebatch.__main__ import recipe_modules
from tf_largebatch.recipes.goyal_8k import MINIATURE, RECIPE
from tf_largebatch.records import overrides
from tf_largebatch.records.errors import InputError
from tf_largebatch.training.options import Options
from tf_largebatch.training.rows import check_different, describe_plan, resolve, stretch


def test_a_setting_changes_one_number_and_is_a_departure():
    changed, departures = overrides.apply(RECIPE, ["optimizer.momentum=0.95"])
    assert changed.optimizer.momentum == 0.95
    assert RECIPE.optimizer.momentum == 0.9
    assert departures == ("optimizer.momentum 0.9 -> 0.95",)


def test_a_setting_that_repeats_the_recipe_is_no_departure():
    changed, departures = overrides.apply(RECIPE, ["epochs=90", "optimizer.nesterov=true"])
    assert changed == RECIPE
    assert departures == ()


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("global_batch=4096", "global_batch", 4096),
        ("scaling=sqrt", "scaling", "sqrt"),
        ("model.bn_batch=none", "model.bn_batch", None),
        ("model.bn_batch=64", "model.bn_batch", 64),
        ("schedule.drop_epochs=40,70,85", "schedule.drop_epochs", (40.0, 70.0, 85.0)),
        ("whole_epochs=true", "whole_epochs", True),
        ("reference_rate=5e-2", "reference_rate", 0.05),
        ("growth=30:16384,60:32768", "growth", ((30.0, 16384), (60.0, 32768))),
    ],
)
def test_values_are_read_as_the_declared_type(setting, field, value):
    changed, departures = overrides.apply(RECIPE, [setting])
    found = overrides.fields(changed)[field]
    assert found == value
    assert type(found) is type(value)
    assert len(departures) == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("momentum", "must be field=value. Received: 'momentum'"),
        ("lr=0.1", "no field 'lr'. Nearest: reference_rate"),
        ("batch_size=64", "no field 'batch_size'. Nearest: global_batch"),
        ("momentum=0.8", "no field 'momentum'. Nearest: optimizer.momentum"),
        ("xyzzy=1", "no field 'xyzzy'. --set help shows all"),
        ("growth=2", "--set growth=2: must be of the form N:N,N:N and so on. Received: '2'"),
        ("optimizer.momentun=0.9", "no field 'optimizer.momentun'. Nearest: optimizer.momentum"),
        ("name=mine", "no field 'name'"),
        ("expected.top1_error_pct=1", "no field 'expected.top1_error_pct'"),
        ("global_batch=8k", "must be a whole number. Received: '8k'"),
        ("epochs=nan", "must be finite"),
        ("optimizer.momentum=1.5", r"must be in \[0, 1\). Received: optimizer.momentum=1.5"),
        ("scaling=cubic", "must be one of linear, sqrt, none. Received: 'cubic'"),
        ("optimizer.nesterov=yes", "must be true or false. Received: 'yes'"),
        ("schedule.drop_epochs=60,30", "must be rising"),
        ("epochs=50", r"last change \(80\). Received: epochs=50.0. Set schedule.drop_epochs too"),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_value_and_the_nearest_name(setting, message):
    with pytest.raises(InputError, match=message) as caught:
        overrides.apply(RECIPE, [setting])
    assert "\n" not in str(caught.value)


def test_settings_are_checked_together_and_not_one_after_another():
    # Each alone would be refused: drops past the end, an end before the drops.
    for settings in (
        ["epochs=10", "schedule.drop_epochs=6,8"],
        ["schedule.drop_epochs=100", "epochs=200"],
    ):
        for order in (settings, settings[::-1]):
            changed, departures = overrides.apply(RECIPE, order)
            assert len(departures) == 2
            assert changed.schedule.drop_epochs[-1] <= changed.epochs


def test_a_departure_of_a_growing_batch_is_shown_as_it_is_given():
    _, departures = overrides.apply(RECIPE, ["growth=30:16384,60:32768"])
    assert departures == ("growth  -> 30:16384,60:32768",)


def test_every_field_is_described_as_it_would_be_set():
    lines = overrides.describe(RECIPE).splitlines()
    assert "optimizer.momentum=0.9" in lines
    (rounded,) = overrides.apply(RECIPE, [x for x in lines if not x.endswith("=")])[1]
    assert rounded == "data.max_aspect 1.77778 -> 1.77778"  # 16 / 9


def test_a_network_of_large_pictures_is_refused_on_the_digits():
    from tf_largebatch.recipes.goyal_256 import MINIATURE

    with pytest.raises(InputError, match="for pictures of 8 x 8.*Use digits_resnet"):
        overrides.apply(MINIATURE.rows[0].recipe, ["model.architecture=resnet50"])


def test_a_tenth_of_the_epochs_is_a_tenth_of_everything_and_a_departure():
    plan = resolve(RECIPE, Options(scale_epochs=0.1))
    assert set(plan.departures) == {
        "epochs 90 -> 9",
        "schedule.warmup_epochs 5 -> 0.5",
        "schedule.drop_epochs 30,60,80 -> 3,6,8",
    }
    # 1,281,167 x 3 / 8,192 = 469.2: the first update at or after it
    assert plan.updates_at(3) == 470 and plan.recipe.peak_rate == RECIPE.peak_rate


@pytest.mark.parametrize("name", recipe_modules())
def test_every_recipe_can_be_shortened_and_has_rows_that_differ(name):
    module = recipe_modules()[name]
    rows = [(row.label, row.recipe) for row in module.MINIATURE.rows]
    check_different(rows)
    for recipe in [*getattr(module, "ROWS", {"": module.RECIPE}).values(), *dict(rows).values()]:
        short = stretch(recipe, 0.25)
        course = recipe.schedule.milestones(recipe.peak_rate, recipe.epochs)
        scaled = short.schedule.milestones(short.peak_rate, short.epochs)
        for (epoch, rate, _), (soon, same, _) in zip(course, scaled, strict=True):
            assert math.isclose(soon, epoch / 4, abs_tol=1e-8)
            assert math.isclose(same, rate, rel_tol=1e-6)
        again = stretch(short, 4)
        assert math.isclose(again.epochs, recipe.epochs, abs_tol=1e-8)
        growth = [(round(epoch, 6), batch) for epoch, batch in again.growth]
        assert growth == [(round(epoch, 6), batch) for epoch, batch in recipe.growth]


def test_a_change_of_epochs_alone_names_the_way_to_change_the_course():
    with pytest.raises(InputError, match="--scale-epochs 0.0222 shortens all of it"):
        overrides.apply(RECIPE, ["epochs=2"])
    with pytest.raises(InputError, match="no field 'global'") as error:
        overrides.apply(RECIPE, ["global=2"])
    assert "scale-epochs" not in str(error.value)


def test_a_change_that_makes_two_rows_the_same_is_refused():
    settings = ["global_batch=128", "schedule.warmup_epochs=1"]
    with pytest.raises(InputError, match="makes 'small batch' and 'linear, no warmup' the same"):
        describe_plan(RECIPE, MINIATURE, Options(set=settings))


def test_a_plan_shows_the_rows_as_they_would_run():
    text = describe_plan(RECIPE, MINIATURE, Options(set=["reference_rate=0.1"]))
    assert "small batch        batch 8, 4,800 updates, rate 0.1 = 0.1 x 8 / 8 (linear)" in text


def test_where_there_are_no_locks_everything_loads_and_nobody_is_kept_out(tmp_path):
    """As on Windows, which has no fcntl."""
    code = f"""
import sys
sys.modules["fcntl"] = None
import tf_largebatch.studies.runner, tf_largebatch.training.command
import tf_largebatch.data.prepare.preparation
from pathlib import Path
from tf_largebatch.records.run_folder import locked
with locked(Path({str(tmp_path)!r})), locked(Path({str(tmp_path)!r})):
    print("both")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "both\n", done.stderr
