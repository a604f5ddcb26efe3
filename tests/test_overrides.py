import pytest

from tf_largebatch.recipes.goyal_8k import RECIPE
from tf_largebatch.records import overrides
from tf_largebatch.records.errors import InputError


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
