"""Which tensors are exempt from decay and from adaptation, and that the choice survives."""

import keras
import numpy as np
import pytest
from optimizer_replay import make_problem, make_variables

from tf_largebatch.optimizers import LAMB, LARS, Exemption, MomentumSGD, RMSpropSGD

PATHS = ("conv/kernel", "conv/bias", "conv_bn/gamma", "head/kernel", "head/scale")
SHAPES = ((3, 3, 2, 4), (4,), (4,), (4, 5), ())


def make(optimizer, *, build=True):
    variables = make_variables([np.ones(s, np.float32) for s in SHAPES], PATHS)
    if build:
        optimizer.build(variables)
    return variables


def table(optimizer):
    return {row.path: (row.decay, row.adapted) for row in optimizer.exemptions()}


def test_rank_zero_and_one_are_exempt_from_both_by_default():
    optimizer = LARS(1.0)
    make(optimizer)
    assert optimizer.exemptions()[0] == Exemption("conv/kernel", (3, 3, 2, 4), True, True)
    assert table(optimizer) == {
        "conv/kernel": (True, True),
        "conv/bias": (False, False),
        "conv_bn/gamma": (False, False),
        "head/kernel": (True, True),
        "head/scale": (False, False),
    }


def test_the_rank_rule_can_be_switched_off():
    optimizer = LAMB(1.0, exclude_rank_below=0)
    make(optimizer)
    assert set(table(optimizer).values()) == {(True, True)}


def test_decay_and_adaptation_are_separate_choices():
    optimizer = LARS(
        1.0, exclude_rank_below=0, no_decay=("_bn/", "scale$"), no_adaptation=("^head/",)
    )
    make(optimizer)
    assert table(optimizer) == {
        "conv/kernel": (True, True),
        "conv/bias": (True, True),
        "conv_bn/gamma": (False, True),
        "head/kernel": (True, False),
        "head/scale": (False, False),
    }


def test_exempt_tensors_really_take_no_decay_and_no_ratio():
    # g = 0: a decayed tensor shrinks, an exempt one stays. g = 1: r = trust |w| / |g| or 1.
    optimizer = LARS(
        1.0,
        weight_decay=0.1,
        exclude_rank_below=0,
        no_decay=("head/kernel",),
        no_adaptation=("conv/bias",),
    )
    variables = make(optimizer)
    optimizer.apply([keras.ops.zeros(s) for s in SHAPES], variables)
    moved = {v.path: float(1.0 - np.max(v.numpy())) for v in variables}
    np.testing.assert_allclose(moved["conv/kernel"], 0.1, rtol=1e-5)
    assert moved["head/kernel"] == 0.0

    optimizer = LARS(1.0, momentum=0.0, exclude_rank_below=0, no_adaptation=("conv/bias",))
    variables = make(optimizer)
    optimizer.apply([keras.ops.ones(s) for s in SHAPES], variables)
    moved = {v.path: float(1.0 - np.max(v.numpy())) for v in variables}
    np.testing.assert_allclose(moved["conv/kernel"], 0.001, rtol=1e-4)  # r = 0.001 |w| / |g|
    assert moved["conv/bias"] == 1.0


def test_the_keras_method_takes_variables_and_names():
    optimizer = LARS(1.0, exclude_rank_below=0)
    variables = make(optimizer, build=False)
    optimizer.exclude_from_weight_decay(var_list=[variables[3]])
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.exclude_from_layer_adaptation(var_list=variables[:1], var_names=["gamma"])
    optimizer.build(variables)
    assert table(optimizer) == {
        "conv/kernel": (True, False),
        "conv/bias": (False, True),
        "conv_bn/gamma": (True, False),
        "head/kernel": (False, True),
        "head/scale": (True, True),
    }


def test_variables_given_by_the_method_are_kept_in_the_config():
    optimizer = LARS(1.0, exclude_rank_below=0)
    variables = make(optimizer, build=False)
    optimizer.exclude_from_weight_decay(var_list=[variables[3]])
    optimizer.exclude_from_layer_adaptation(var_names=["gamma"])
    optimizer.build(variables)
    again = LARS.from_config(optimizer.get_config())
    make(again)
    assert again.exemptions() == optimizer.exemptions()


def test_a_listed_path_matches_no_longer_path():
    optimizer = LARS(1.0, exclude_rank_below=0)
    names = ("a/kernel", "a/kernel2", "b/kernel")
    variables = make_variables([np.ones((2, 2), np.float32)] * 3, names)
    optimizer.exclude_from_weight_decay(var_list=[variables[0]])
    optimizer.build(variables)
    assert [row.decay for row in optimizer.exemptions()] == [False, True, True]


@pytest.mark.parametrize("argument", ["no_decay", "no_adaptation"])
def test_a_pattern_that_matches_nothing_is_an_error_that_lists_the_paths(argument):
    optimizer = LARS(1.0, **{argument: ("bias", "batch_normalization")})
    with pytest.raises(ValueError, match=f"{argument}='batch_normalization'") as error:
        make(optimizer)
    assert all(path in str(error.value) for path in PATHS)


def test_exempting_after_build_is_an_error():
    optimizer = LARS(1.0)
    make(optimizer)
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude_from_layer_adaptation(var_names=["bias"])


def test_a_listed_variable_is_found_after_the_model_lost_its_name_from_the_paths():
    shape = np.ones((2, 2), np.float32)
    optimizer = LARS(1.0)
    model = make_variables([shape] * 3, ("net/a/kernel", "net/b/kernel", "net/b/c/kernel"))
    optimizer.exclude_from_weight_decay(var_list=model[1:2])
    optimizer.build(model)
    assert [row.decay for row in optimizer.exemptions()] == [True, False, True]
    again = LARS.from_config(optimizer.get_config())
    again.build(make_variables([shape] * 3, ("a/kernel", "b/kernel", "b/c/kernel")))
    assert [row.decay for row in again.exemptions()] == [True, False, True]


def test_a_listed_variable_must_be_one_of_those_trained():
    optimizer = LARS(1.0)
    variables = make(optimizer, build=False)
    optimizer.exclude_from_weight_decay(var_list=[keras.Variable(1.0, name="stranger")])
    with pytest.raises(ValueError, match="stranger.*is not among"):
        optimizer.build(variables)


def test_a_listed_variable_must_not_share_its_path():
    optimizer = LARS(1.0)
    variables = make_variables([np.ones((2, 2), np.float32)] * 2, ("a/kernel", "a/kernel"))
    optimizer.exclude_from_layer_adaptation(var_list=variables[:1])
    with pytest.raises(ValueError, match="matches several"):
        optimizer.build(variables)


def test_optimizers_without_a_ratio_adapt_nothing_and_say_so():
    for optimizer in (MomentumSGD(1.0), RMSpropSGD(1.0, center_updates=1, period_updates=1)):
        with pytest.raises(ValueError, match="needs an optimizer with a trust ratio"):
            optimizer.exclude_from_layer_adaptation(var_names=["bias"])
        make(optimizer)
        assert {row.adapted for row in optimizer.exemptions()} == {False}


def test_the_table_needs_a_built_optimizer():
    with pytest.raises(ValueError, match="built=False"):
        LARS(1.0).exemptions()


def test_plain_tensorflow_variables_are_matched_by_name():
    import tensorflow as tf

    optimizer = LARS(1.0, no_decay=("^kernel$",))
    optimizer.build([tf.Variable(np.ones((2, 2), np.float32), name="kernel")])
    assert optimizer.exemptions() == (Exemption("kernel", (2, 2), False, True),)


def length(x):
    return np.sqrt(np.sum(np.square(x)))


def lars_sum(w, g):
    return 0.001 * length(w) / (length(g) + 0.01 * length(w))


def lars_combined(w, g):
    return 0.001 * length(w) / length(g + 0.01 * w)


def lamb(w, g):
    return length(w) / length(g / (np.abs(g) + 1e-6) + 0.01 * w)


def lamb_decoupled(w, g):
    return min(length(w * (1 - 0.5 * 0.01)), 1.0) / length(g / (np.abs(g) + 1e-6))


@pytest.mark.parametrize(
    "make_one, options, want",
    [
        (LARS, {"nesterov": True}, lars_sum),
        (LARS, {"momentum_placement": "outside", "zero_rule": "skip"}, lars_sum),
        (LARS, {"decay_in_norm": "combined", "momentum_placement": "update"}, lars_combined),
        (
            LARS,
            {"decay_in_norm": "combined", "clip_trust_ratio": True},
            lambda w, g: min(lars_combined(w, g) / 0.5, 1.0),
        ),
        (LAMB, {}, lamb),
        (LAMB, {"decoupled_weight_decay": True, "max_weight_norm": 1.0}, lamb_decoupled),
    ],
)
def test_trust_ratios_are_the_ones_applied_and_of_adapted_tensors_only(make_one, options, want):
    # The first update, at which the velocity is d and both moments are those of g alone.
    weights, gradients = make_problem(updates=3)
    variables = make_variables(weights)
    optimizer = make_one(0.5, weight_decay=0.01, record_trust_ratio=True, **options)
    optimizer.build(variables)
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients[2]], variables)
    adapted = [row.adapted for row in optimizer.exemptions()]
    assert any(adapted) and not all(adapted)
    got, expected = optimizer.trust_ratios(), {}
    for variable, a, w, g in zip(variables, adapted, weights, gradients[2], strict=True):
        if a:
            w, g = w.astype(np.float64), g.astype(np.float64)
            expected[variable.path] = want(w, g) if length(w) else 1.0
    assert list(got) == list(expected)
    np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=1e-5)
    assert len(set(got.values())) == len(got)  # or one tensor's could stand for another's


def test_trust_ratios_that_were_not_recorded_are_an_error():
    optimizer = LARS(1.0)
    make(optimizer)
    with pytest.raises(ValueError, match="record_trust_ratio=True"):
        optimizer.trust_ratios()


@pytest.mark.parametrize("make_one", [LARS, LAMB])
def test_recording_does_not_change_the_weights(make_one):
    weights, gradients = make_problem(updates=3)
    results = []
    for record in (False, True):
        optimizer = make_one(0.1, weight_decay=0.01, record_trust_ratio=record)
        variables = make_variables(weights)
        optimizer.build(variables)
        for grads in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(g) for g in grads], variables)
        results.append([v.numpy() for v in variables])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
