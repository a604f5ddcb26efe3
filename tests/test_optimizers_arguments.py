"""Wrong arguments are errors at construction that name the argument and the value."""

import math

import keras
import pytest

from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD, Muon, RMSpropSGD


def rmsprop(rate=0.1, **options):
    return RMSpropSGD(rate, **{"center_updates": 10, "period_updates": 5, **options})


EVERY = (MomentumSGD, LARS, LAMB, Muon, rmsprop)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize(
    "argument, value",
    [
        ("weight_decay", -1e-4),
        ("weight_decay", math.nan),
        ("weight_decay", math.inf),
        ("weight_decay", "1e-4"),
        ("weight_decay", True),
        ("no_decay", "bias"),
        ("no_decay", ("(",)),
        ("no_decay", ("",)),
        ("no_decay", (3,)),
        ("no_decay", 3),
        ("exclude_rank_below", -1),
        ("exclude_rank_below", 1.5),
        ("exclude_rank_below", True),
        ("clipnorm", 0.0),
        ("clipvalue", -1.0),
        ("global_clipnorm", 0),
        ("loss_scale_factor", 0.0),
        ("decay", 0.1),
        ("exclude_from_weight_decay", ("bias",)),
        ("gradient_accumulation_steps", 1),
        ("ema_momentum", 2.0),
    ],
)
def test_a_wrong_shared_argument_is_named_with_its_value(make, argument, value):
    options = {"use_ema": True} if argument.startswith("ema") else {}
    with pytest.raises(ValueError, match=argument) as error:
        make(0.1, **{argument: value}, **options)
    assert str(value) in str(error.value) or repr(value) in str(error.value)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("rate", [-1.0, math.nan, "fast", None, True])
def test_a_wrong_rate_is_named_with_its_value(make, rate):
    with pytest.raises(ValueError, match=f"learning_rate={rate!r}"):
        make(rate)


@pytest.mark.parametrize("make", EVERY)
def test_an_integer_rate_is_the_rate_it_says(make):
    assert float(make(1).learning_rate.numpy()) == 1.0


@pytest.mark.parametrize(
    "make, argument, value",
    [
        (MomentumSGD, "momentum", 1.0),
        (MomentumSGD, "momentum", -0.1),
        (MomentumSGD, "nesterov", 1),
        (MomentumSGD, "no_adaptation", ("bias",)),
        (LARS, "momentum", 1.0),
        (LARS, "nesterov", None),
        (LARS, "trust_coefficient", 0.0),
        (LARS, "epsilon", -1e-9),
        (LARS, "epsilon", None),
        (LARS, "momentum_placement", "before"),
        (LARS, "decay_in_norm", "both"),
        (LARS, "zero_rule", "none"),
        (LARS, "clip_trust_ratio", 1.0),
        (LARS, "no_adaptation", "bias"),
        (LAMB, "beta_1", 1.0),
        (LAMB, "beta_2", -0.1),
        (LAMB, "epsilon", 0.0),
        (LAMB, "decoupled_weight_decay", "yes"),
        (LAMB, "bias_correction", 0),
        (LAMB, "min_weight_norm", -1.0),
        (LAMB, "max_weight_norm", 0.0),
        (rmsprop, "center_updates", -1),
        (rmsprop, "period_updates", 0),
        (rmsprop, "rho", 1.0),
        (rmsprop, "momentum", 1.5),
        (rmsprop, "epsilon", 0.0),
        (rmsprop, "rmsprop_learning_rate", -3e-4),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(make, argument, value):
    with pytest.raises(ValueError, match=argument) as error:
        make(0.1, **{argument: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"momentum_placement": "update"}, "decay_in_norm='sum'"),
        ({"momentum_placement": "whole", "decay_in_norm": "combined"}, "'combined', 'one'"),
        ({"momentum_placement": "whole", "zero_rule": "skip"}, "'sum', 'skip'"),
        ({"decay_in_norm": "combined", "zero_rule": "skip"}, "zero_rule='skip'"),
        ({"momentum_correction": True, "momentum_placement": "outside"}, "momentum_correction"),
    ],
)
def test_lars_options_that_contradict_each_other_are_errors(options, words):
    with pytest.raises(ValueError, match=words):
        LARS(0.1, **options)


def test_lamb_bounds_out_of_order_are_an_error():
    with pytest.raises(ValueError, match="max_weight_norm=2.0. Received: min_weight_norm=3.0"):
        LAMB(0.1, min_weight_norm=3, max_weight_norm=2)


@pytest.mark.parametrize("make", EVERY)
def test_no_weight_decay_is_none_or_zero(make):
    assert make(0.1, weight_decay=None).weight_decay == 0.0


def test_a_config_of_another_version_names_what_it_does_not_know():
    config = {**LARS(0.1).get_config(), "eeta": 0.001}
    with pytest.raises(ValueError, match=r"eeta=0\.001.*another version"):
        LARS.from_config(config)


@pytest.mark.parametrize(
    "make, written, meant",
    [
        (LARS, "eeta", "trust_coefficient"),
        (LARS, "trust_coef", "trust_coefficient"),
        (LARS, "lr", "learning_rate"),
        (LAMB, "weight_decay_rate", "weight_decay"),
        (LAMB, "beta1", "beta_1"),
        (MomentumSGD, "use_nesterov", "nesterov"),
        (rmsprop, "exclude_from_weight_decay", "no_decay"),
    ],
)
def test_a_name_of_another_library_is_asked_back(make, written, meant):
    with pytest.raises(ValueError, match=f"Did you mean `{meant}`"):
        make(0.1, **{written: 0.1})


@pytest.mark.parametrize("option", [{"no_adaptation": ("a",)}, {"record_trust_ratio": True}])
def test_options_of_a_trust_ratio_need_one(option):
    with pytest.raises(ValueError, match="Use LARS or LAMB"):
        MomentumSGD(0.1, **option)


def test_two_clipping_limits_are_an_error():
    with pytest.raises(ValueError, match="clipnorm"):
        LARS(0.1, clipnorm=1.0, global_clipnorm=1.0)


@pytest.mark.parametrize("make", EVERY)
def test_a_callable_and_a_schedule_are_rates(make):
    assert make(lambda: 0.25).learning_rate == 0.25
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5)
    assert float(make(schedule).learning_rate) == 0.5
