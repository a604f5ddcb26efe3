"""Schedules against float64 NumPy statements of their equations and against published values."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.schedules import (
    BatchPhases,
    Constant,
    Cosine,
    Exponential,
    Polynomial,
    Scaled,
    Steps,
    Warmup,
    trace,
)

IMAGENET = 1_281_167
# Two or three float32 roundings: each is at most 6e-8 of the value.
ULPS = 3e-7


def plan(global_batch, **kwargs):
    return BatchPlan(global_batch=global_batch, train_examples=IMAGENET, **kwargs)


def polynomial64(u, rate, end, power, begin, length):
    t = np.clip(np.asarray(u, np.float64) - begin, 0, length)
    return end + (rate - end) * (1 - t / length) ** power


def cosine64(u, rate, end, begin, length):
    t = np.clip(np.asarray(u, np.float64) - begin, 0, length)
    return end + (rate - end) * (1 + np.cos(np.pi * t / length)) / 2


def warmup64(u, length, start, peak, shape, after):
    x = np.asarray(u, np.float64) / length
    s = {
        "linear": x,
        "quadratic": x**2,
        "power": x**2.497,
        "cosine": (1 - np.cos(np.pi * x)) / 2,
        "constant": 0 * x,
    }[shape]
    return np.where(x < 1, start + (peak - start) * s, after)


def goyal_8k():
    steps = Steps.from_epochs(3.2, (30, 60, 80), factor=0.1, plan=plan(8192))
    return Warmup.from_epochs(steps, 5, 0.1, plan=plan(8192))


def every_class():
    """One schedule of each class, with every argument away from its default."""
    images = Polynomial(1.0, 0.1, 2.0, 50, decay_updates=950)
    return {
        "constant": Constant(0.3),
        "steps by factor": Steps(1.0, (3, 7), factor=0.5),
        "steps by rates": Steps(1.0, (3, 7), rates=(0.2, 0.7)),
        "polynomial": Polynomial(2.0, 0.5, 1.5, 4, decay_updates=9),
        "cosine": Cosine(2.0, 0.5, 4, decay_updates=9),
        "exponential": Exponential(2.0, 0.5, every_updates=3, begin=2),
        "warmup": Warmup(Constant(2.0), 5, 0.5, "power", power=2.497, peak=3.0),
        "scaled": Scaled(Steps(1.0, (3,), factor=0.1), "sqrt", global_batch=64, reference_batch=16),
        "phases": BatchPhases((10, 20), (4, 6), (1.0, 0.5), over_images=images),
        "warmup over scaled phases": Warmup(
            Scaled(
                BatchPhases((10, 20), (4, 6), (1.0, 0.5)),
                "linear",
                global_batch=64,
                reference_batch=16,
            ),
            3,
            0.1,
            "cosine",
        ),
    }


CLASSES = every_class()


# Published values


def test_goyal_8k_has_the_published_rate_at_every_change():
    schedule = goyal_8k()
    # 5 x 1281167 / 8192 = 781.96; 30, 60, 80 epochs: 4691.8, 9383.5, 12511.4; 90: 14075.3
    assert schedule.updates == 782
    assert schedule.after.boundaries == (4692, 9384, 12512)
    assert plan(8192).updates_at(90) == 14_076
    published = {0: 0.1, 782: 3.2, 4691: 3.2, 4692: 0.32, 9383: 0.32, 9384: 0.032}
    published |= {12_511: 0.032, 12_512: 0.0032, 14_075: 0.0032}
    got = trace(schedule, np.array(list(published)))
    np.testing.assert_array_equal(got, np.float32(list(published.values())))


def test_goyal_8k_rises_by_the_same_amount_every_update():
    # 0.1 + 3.1 u / 782
    expected = 0.1 + 3.1 * np.arange(783) / 782
    np.testing.assert_allclose(trace(goyal_8k(), 783), expected, rtol=ULPS)


@pytest.mark.parametrize("extra", [0, 1])
def test_mlperf_65536_follows_linear_warmup_and_power_two(extra):
    # training_results v0.7, Google, 65,536: rate 24.699, warmup 31 of 88 epochs, end 1e-4;
    # 31 x 19.5490 = 606.02, 88 x 19.5490 = 1720.31
    warm, total = 607, 1721
    decay = Polynomial.from_epochs(
        24.699, 1e-4, 2.0, 31, end_epoch=88, plan=plan(65_536), extra_updates=extra
    )
    schedule = Warmup.from_epochs(decay, 31, 0.0, plan=plan(65_536))
    assert (schedule.updates, decay.begin, decay.decay_updates) == (607, 607, total - warm + extra)
    u = np.arange(total + 3)
    after = polynomial64(u, 24.699, 1e-4, 2.0, warm, total - warm + extra)
    expected = warmup64(u, warm, 0.0, 24.699, "linear", after)
    got = trace(schedule, u)
    np.testing.assert_allclose(got, expected, rtol=ULPS)
    assert got[0] == 0.0
    assert got[warm] == np.float32(24.699)
    assert got[total + extra] == np.float32(1e-4)
    assert got[total + extra - 1] > np.float32(1e-4)


def test_fujitsu_86016_ends_its_decay_thirty_updates_before_the_end():
    # 15 updates an epoch, 90 epochs, warmup 36; ratio (1 - r)(1 - t / 780) ** 2.2 + r, r = 0.0025
    run = plan(86_016, whole_epochs=True)
    assert run.updates_at(90) == 1_350
    decay = Polynomial.from_epochs(13.0, 0.0325, 2.2, 36, end_epoch=88, plan=run)
    schedule = Warmup.from_epochs(decay, 36, 0.0, plan=run)
    assert (schedule.updates, decay.decay_updates) == (540, 780)
    t = np.clip(np.arange(1_350) - 540.0, 0, 780)
    ratio = (1 - 0.0025) * (1 - t / 780) ** 2.2 + 0.0025
    expected = np.where(np.arange(1_350) < 540, 13.0 * np.arange(1_350) / 540, 13.0 * ratio)
    got = trace(schedule, 1_350)
    np.testing.assert_allclose(got, expected, rtol=ULPS)
    assert set(got[1_320:]) == {np.float32(0.0325)}
    assert got[1_319] > np.float32(0.0325)


@pytest.mark.parametrize(
    "batch, rate",
    [
        (512, 0.0050),
        (1_024, 0.00707),
        (2_048, 0.0100),
        (4_096, 0.01414),
        (8_192, 0.0200),
        (16_384, 0.0283),
        (32_768, 0.0400),
    ],
)
def test_untuned_lamb_has_the_published_peak_after_the_same_updates_at_every_batch(batch, rate):
    # 20 B / 32768 epochs of 1281167 / B updates are 781.96 updates whatever B is.
    run = plan(batch)
    decay = Polynomial.from_epochs(0.04, end_epoch=90, plan=run)
    scaled = Scaled(decay, "sqrt", global_batch=batch, reference_batch=32_768)
    schedule = Warmup.from_epochs(
        scaled, 20 * batch / 32_768, 0.0, plan=run, peak=0.04 * (batch / 32_768) ** 0.5
    )
    assert schedule.updates == 782
    total = run.updates_at(90)
    peak = 4 / (2 ** (np.log2(32_768 / batch) / 2) * 100)
    assert round(peak, 5 if rate < 0.02 else 4) == rate
    got = trace(schedule, total + 1)
    after = peak * (1 - np.arange(total + 1.0) / total)
    expected = np.where(np.arange(total + 1) < 782, peak * np.arange(total + 1.0) / 782, after)
    np.testing.assert_allclose(got, expected, rtol=ULPS)


def test_nvcaffe_polynomial_runs_under_the_warmup_and_the_rate_jumps_down():
    # AlexNet 8K: base 10, quadratic from 1.0 over 600 of 15,600.
    # u = 300: 1 + 9 x 0.25 = 3.25.  u = 600: 10 x (15000 / 15600) ** 2 = 9.2455621
    decay = Polynomial(10.0, power=2.0, decay_updates=15_600)
    schedule = Warmup(decay, 600, 1.0, "quadratic", peak=10.0)
    got = trace(schedule, np.array([0, 300, 599, 600, 15_600]))
    last_of_ramp = 1 + 9 * (599 / 600) ** 2
    np.testing.assert_allclose(got, [1.0, 3.25, last_of_ramp, 9.24556213, 0.0], rtol=ULPS)


def test_nado_nesterov_warmup_has_a_free_power():
    # arXiv:2102.06356: 7.05 after 638 updates of power 2.497, then power 1.955 of 2,512 in all
    decay = Polynomial(7.05, 4.5e-6, 1.955, 638, decay_updates=2_512 - 638)
    schedule = Warmup(decay, 638, 0.0, "power", power=2.497)
    u = np.arange(2_513)
    after = polynomial64(u, 7.05, 4.5e-6, 1.955, 638, 1_874)
    expected = warmup64(u, 638, 0.0, 7.05, "power", after)
    # The power of a fraction near 0 multiplies the fraction's own rounding by the exponent.
    np.testing.assert_allclose(trace(schedule, u), expected, rtol=3 * ULPS)


def test_smith_growing_batch_changes_at_the_images_of_each_epoch():
    # 30 x 1281167 / 8192 = 4691.75 -> 4,692 updates, 38,436,864 images.
    # To 60 epochs: (76,870,020 - 38,436,864) / 16384 = 2345.8 -> 2,346 (sum 7,038).
    # To 80: (102,493,360 - 76,873,728) / 16384 = 1563.7 -> 1,564. To 90: 781.7 -> 782.
    small, large = plan(8192), plan(16_384)
    phases = BatchPhases.from_epochs(
        (small, large, large, large), (0, 30, 60, 80), (3.2, 0.64, 0.064, 0.0064), total_epochs=90
    )
    assert phases.updates == (4_692, 2_346, 1_564, 782)
    assert phases.first_updates == (0, 4_692, 7_038, 8_602)
    assert phases.total_updates == 9_384
    published = {4691: 3.2, 4692: 0.64, 7037: 0.64, 7038: 0.064, 8602: 0.0064, 9383: 0.0064}
    schedule = Warmup.from_epochs(phases, 5, 0.1, plan=small)
    got = trace(schedule, np.array([0, 782, *published]))
    np.testing.assert_array_equal(got, np.float32([0.1, 3.2, *published.values()]))


# Boundaries


def test_a_drop_happens_at_the_stated_update_and_in_keras_one_later():
    ours = trace(Steps(1.0, (5,), factor=0.1), 8)
    np.testing.assert_array_equal(ours, np.float32([1] * 5 + [0.1] * 3))
    theirs = keras.optimizers.schedules.PiecewiseConstantDecay([5], [1.0, 0.1])
    assert [float(theirs(u)) for u in (5, 6)] == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize("shape", ["linear", "quadratic", "power", "cosine"])
def test_a_ramp_starts_at_its_start_and_has_its_peak_exactly_at_its_last_update(shape):
    power = 2.497 if shape == "power" else None
    for updates in (1, 3, 782, 2**20 + 1):
        schedule = Warmup(Constant(3.2), updates, 0.1, shape, power=power)
        got = trace(schedule, np.array([0, updates - 1, updates, updates + 1]))
        assert got[0] == np.float32(0.1)
        assert got[2] == got[3] == np.float32(3.2)
        # A cosine is flat at its end: a millionth of a turn before it, float32 sees the peak.
        assert got[1] < got[2] or (shape == "cosine" and updates > 2**20)


def test_a_constant_warmup_stays_at_its_start_and_jumps():
    got = trace(Warmup(Constant(3.2), 3, 0.1, "constant"), 5)
    np.testing.assert_array_equal(got, np.float32([0.1, 0.1, 0.1, 3.2, 3.2]))


@pytest.mark.parametrize("shape", ["linear", "quadratic", "power", "cosine", "constant"])
def test_ramps_equal_their_equations(shape):
    power = 2.497 if shape == "power" else None
    u = np.arange(60)
    expected = warmup64(u, 50, 0.8, 29.0, shape, 29.0)
    got = trace(Warmup(Constant(29.0), 50, 0.8, shape, power=power), u)
    np.testing.assert_allclose(got, expected, rtol=ULPS)


def test_no_warmup_leaves_the_schedule_as_it_is():
    steps = Steps(1.0, (1, 2), factor=0.1)
    np.testing.assert_array_equal(trace(Warmup(steps, 0, 0.5), 4), trace(steps, 4))


def test_the_schedule_after_a_warmup_sees_the_update_of_the_whole_run():
    # Counted from the end of the warmup, the drop at 5 would come at 8.
    got = trace(Warmup(Steps(1.0, (5,), factor=0.1), 3, 0.0), np.array([4, 5]))
    np.testing.assert_array_equal(got, np.float32([1.0, 0.1]))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.floats(1e-3, 40),
    st.floats(0, 1),
    st.floats(0.3, 11),
    st.integers(0, 10_000),
    st.integers(1, 100_000),
)
def test_polynomial_and_cosine_equal_their_equations(rate, share, power, begin, length):
    end = share * rate
    u = begin + np.unique(np.append(np.linspace(-2, length + 2, 97).astype(np.int64), 0))
    u = u[u >= 0]
    poly = trace(Polynomial(rate, end, power, begin, decay_updates=length), u)
    # float32 x ** p is exp(p ln x): its error grows with p and with |p ln x|, which is below
    # p ln(length). For power 2 the published schedules above are held to ULPS.
    tolerance = 1.2e-7 * (2 + power * (1 + np.log(length)))
    np.testing.assert_allclose(
        poly, polynomial64(u, rate, end, power, begin, length), rtol=tolerance, atol=1e-37
    )
    cosine = trace(Cosine(rate, end, begin, decay_updates=length), u)
    # the reference itself cancels near its end, to 1e-16 of the rate
    np.testing.assert_allclose(
        cosine, cosine64(u, rate, end, begin, length), rtol=2 * ULPS, atol=1e-15 * rate
    )
    for got in (poly, cosine):
        at_begin, at_end = u <= begin, u >= begin + length
        assert set(got[at_begin]) == {np.float32(rate)}
        assert set(got[at_end]) == {np.float32(end)}


def test_exponential_equals_its_equation():
    u = np.arange(0, 3_000)
    schedule = Exponential(0.256, 0.97, every_updates=24, begin=50)
    expected = 0.256 * 0.97 ** (np.maximum(u - 50.0, 0) / 24)
    # |ln(rate / rate_0)| = 3.7 times 1e-7
    np.testing.assert_allclose(trace(schedule, u), expected, rtol=7e-7)
    by_epochs = Exponential.from_epochs(1.0, 0.5, every_epochs=2.4, begin_epoch=5, plan=plan(8192))
    # 2.4 x 156.39 = 375.3, 5 x 156.39 = 781.96
    assert (by_epochs.every_updates, by_epochs.begin) == (376, 782)


def test_cosine_from_epochs_spans_the_updates_after_the_warmup():
    cosine = Cosine.from_epochs(4.8, 0.0, 10, end_epoch=100, plan=plan(4096))
    # 10 x 312.78 = 3127.8, 100 x 312.78 = 31278.5
    assert (cosine.begin, cosine.decay_updates, cosine.last_update) == (3_128, 28_151, 31_279)


def test_rates_stay_exact_where_float32_can_no_longer_count_updates():
    base = 2**24
    # As float32, base + 1 is base.
    np.testing.assert_array_equal(
        trace(Steps(1.0, (base + 1,), factor=0.5), np.array([base, base + 1])), [1.0, 0.5]
    )
    linear = Polynomial(4.0, 0.0, 1.0, base, decay_updates=4)
    np.testing.assert_array_equal(trace(linear, base + np.arange(6)), [4, 3, 2, 1, 0, 0])
    cosine = trace(Cosine(1.0, 0.0, base, decay_updates=4), base + np.arange(5))
    np.testing.assert_allclose(cosine, cosine64(np.arange(5), 1, 0, 0, 4), rtol=ULPS, atol=1e-15)
    halving = trace(Exponential(1.0, 0.5, every_updates=2, begin=base), base + np.array([1, 2, 3]))
    np.testing.assert_allclose(halving, [0.5**0.5, 0.5, 0.5**1.5], rtol=ULPS)
    long = Warmup(Steps(8.0, (2**31 + 3,), factor=0.5), 2**31 + 1, 0.0)
    got = trace(long, np.array([2**30, 2**31, 2**31 + 1, 2**31 + 2, 2**31 + 3]))
    np.testing.assert_allclose(got, [4, 8, 8, 8, 4], rtol=ULPS)
    phases = BatchPhases((1, 1), (base + 1, 5), (1.0, 0.25))
    np.testing.assert_array_equal(trace(phases, np.array([base, base + 1])), [1.0, 0.25])


def test_the_end_of_a_long_decay_keeps_its_relative_accuracy():
    # One update before the end of 2**26: 1 / 2**26 of the rate. 1 - t / D in float32 gives 0.
    length = 2**26
    got = trace(Polynomial(1.0, decay_updates=length), np.array([length - 1]))
    np.testing.assert_array_equal(got, [2.0**-26])


# Batch


@pytest.mark.parametrize(
    "rule, factor", [("linear", 32.0), ("sqrt", 5.656854249492381), ("none", 1.0)]
)
def test_scaled_multiplies_every_rate_by_the_factor_of_its_rule(rule, factor):
    steps = Steps(0.1, (2, 4), factor=0.1)
    scaled = Scaled(steps, rule, global_batch=8192, reference_batch=256)
    np.testing.assert_allclose(
        trace(scaled, 6), factor * np.array([0.1, 0.1, 0.01, 0.01, 0.001, 0.001]), rtol=ULPS
    )


def test_phases_count_images_across_a_change_of_batch():
    # 3 updates of 10, then 2 of 40, then 1 of 5 and on.
    phases = BatchPhases((10, 40, 5), (3, 2, 1), (1.0, 1.0, 1.0))
    images = np.asarray(phases.images_before(np.arange(8)))
    np.testing.assert_array_equal(images, [0, 10, 20, 30, 70, 110, 115, 120])


def test_a_decay_in_images_does_not_change_with_the_batch():
    # 115,305,030 images of 90 epochs are past 2**24; the fraction is what float32 must hold.
    images = 90 * IMAGENET
    decay = Polynomial(29.0, 1e-4, 2.0, decay_updates=images)
    mikami = BatchPhases.from_epochs(
        [plan(batch) for batch in (34_816, 69_632, 87_040, 121_856)],
        (0, 30, 45, 75),
        (1.0,) * 4,
        total_epochs=90,
        over_images=decay,
    )
    batch = np.repeat([34_816, 69_632, 87_040, 121_856], mikami.updates)
    seen = np.concatenate([[0], np.cumsum(batch)[:-1]])
    expected = 1e-4 + (29.0 - 1e-4) * (1 - seen / images) ** 2
    np.testing.assert_allclose(trace(mikami, mikami.total_updates), expected, rtol=2 * ULPS)
    assert 0 <= seen[-1] + batch[-1] - images < 121_856


def test_phases_that_round_each_epoch_up_start_at_whole_epochs():
    # ceil(1281167 / 81920) = 16, ceil(1281167 / 40960) = 32
    plans = [plan(batch, whole_epochs=True) for batch in (40_960, 81_920)]
    phases = BatchPhases.from_epochs(plans, (0, 30), (1.0, 1.0), total_epochs=90)
    assert phases.updates == (960, 960)


# Ways to call


@pytest.mark.parametrize("name", CLASSES)
def test_one_vectorised_call_equals_one_call_per_update(name):
    schedule = CLASSES[name]
    one_by_one = [float(schedule(u)) for u in range(16)]
    whole = trace(schedule, 16)
    assert whole.dtype == np.float32 and whole.shape == (16,)
    np.testing.assert_allclose(whole, one_by_one, rtol=ULPS)
    np.testing.assert_array_equal(trace(schedule, np.arange(16).reshape(4, 4)), whole.reshape(4, 4))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", CLASSES)
def test_graph_and_xla_give_the_eager_rates(name, jit):
    schedule = CLASSES[name]
    compiled = tf.function(schedule.__call__, jit_compile=jit)
    got = compiled(tf.range(16, dtype=tf.int64))
    # XLA's power and exponential differ from Eigen's in the last places
    np.testing.assert_allclose(got, trace(schedule, 16), rtol=2 * ULPS)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64"])
def test_every_integer_type_and_variables_are_update_numbers(dtype):
    schedule = Warmup(Steps(1.0, (7,), factor=0.1), 4, 0.2)
    expected = trace(schedule, 10)
    np.testing.assert_array_equal(
        schedule(tf.range(10, dtype="int64").numpy().astype(dtype)), expected
    )
    variable = keras.Variable(7, dtype=dtype)
    assert float(schedule(variable)) == expected[7]
    assert float(schedule(tf.constant(7, dtype))) == expected[7]
    assert float(schedule(np.dtype(dtype).type(7))) == expected[7]


def test_rates_are_float32_under_another_default_type():
    keras.config.set_floatx("float16")
    try:
        for schedule in CLASSES.values():
            assert trace(schedule, 3).dtype == np.float32
    finally:
        keras.config.set_floatx("float32")


def test_an_optimizer_moves_by_the_rate_of_each_update():
    # Plain SGD on gradient 1 moves by the rate: 0.1, 0.2, 0.3, 0.4, then 0.04.
    schedule = Warmup(Steps(0.4, (4,), factor=0.1), 3, 0.1)
    weight = keras.Variable([0.0])
    optimizer = keras.optimizers.SGD(schedule)
    positions = []
    for _ in range(5):
        optimizer.apply([np.ones(1, "float32")], [weight])
        positions.append(float(weight.numpy()[0]))
    np.testing.assert_allclose(np.diff([0, *positions]), [-0.1, -0.2, -0.3, -0.4, -0.04], rtol=1e-6)


def test_a_keras_schedule_can_follow_a_warmup():
    cosine = keras.optimizers.schedules.CosineDecay(1.0, 10)
    got = trace(Warmup(cosine, 2, 0.0, peak=1.0), 11)
    np.testing.assert_allclose(got[2:], cosine64(np.arange(2, 11), 1, 0, 0, 10), atol=1e-6)
    np.testing.assert_allclose(got[:2], [0, 0.5])


@pytest.mark.slow
def test_the_jax_backend_gives_the_same_rates():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    script = """
import json, sys, warnings
import keras, jax, numpy as np
warnings.simplefilter("error")
from tf_largebatch.schedules import trace
import tf_largebatch.schedules
out = {}
for name, config in json.load(sys.stdin).items():
    schedule = keras.saving.deserialize_keras_object(config)
    eager = trace(schedule, 16)
    jitted = np.asarray(jax.jit(schedule.__call__)(np.arange(16)))
    np.testing.assert_allclose(jitted, eager, rtol=6e-7)
    np.testing.assert_allclose(float(schedule(keras.Variable(7, dtype="int"))), eager[7], rtol=6e-7)
    out[name] = eager.tolist()
assert keras.backend.backend() == "jax"
print(json.dumps(out))
"""
    configs = {n: keras.saving.serialize_keras_object(s) for n, s in CLASSES.items()}
    run = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(configs),
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for name, rates in json.loads(run.stdout.splitlines()[-1]).items():
        np.testing.assert_allclose(rates, trace(CLASSES[name], 16), rtol=2 * ULPS)


# Saving


@pytest.mark.parametrize("name", CLASSES)
def test_a_schedule_survives_json_with_every_argument(name):
    schedule = CLASSES[name]
    text = json.dumps(keras.saving.serialize_keras_object(schedule))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    np.testing.assert_array_equal(trace(again, 20), trace(schedule, 20))


# Keras reads TensorFlow variables in a way that NumPy 2 warns about.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_schedule_survives_saving_in_a_compiled_model(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    schedule = CLASSES["warmup over scaled phases"]
    model.compile(optimizer=keras.optimizers.SGD(schedule, momentum=0.9), loss="mse")
    model.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=2, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert int(again.iterations) == 4
    assert float(again.learning_rate) == float(schedule(4))
    np.testing.assert_array_equal(trace(again._learning_rate, 20), trace(schedule, 20))


@pytest.mark.parametrize("name", CLASSES)
def test_a_config_of_another_version_is_refused_by_the_name_of_its_key(name):
    config = CLASSES[name].get_config()
    with pytest.raises(ValueError, match=r"unknown keys \['hold_updates'\].*another version"):
        type(CLASSES[name]).from_config({**config, "hold_updates": 3})
    first = next(iter(config))
    with pytest.raises(ValueError, match=rf"without required keys \['{first}'\]"):
        type(CLASSES[name]).from_config({k: v for k, v in config.items() if k != first})


# Bad input

BAD = {
    "negative rate": (lambda: Constant(-0.1), "`rate`.*rate=-0.1"),
    "rate not a number": (lambda: Constant("0.1"), "`rate`.*rate='0.1'"),
    "rate nan": (lambda: Constant(float("nan")), "`rate`.*rate=nan"),
    "rate infinite": (lambda: Steps(float("inf"), (1,), factor=0.1), "`rate`.*rate=inf"),
    "rate bool": (lambda: Constant(True), "`rate`.*rate=True"),
    "boundaries out of order": (
        lambda: Steps(1.0, (60, 30), factor=0.1),
        r"`boundaries` must be rising.*\(60, 30\).*Sort",
    ),
    "boundary twice": (
        lambda: Steps(1.0, (3, 3), factor=0.1),
        r"`boundaries` must be rising.*\(3, 3\)",
    ),
    "boundary at 0": (lambda: Steps(1.0, (0, 3), factor=0.1), "`boundaries`.*boundaries=0"),
    "boundary a float": (lambda: Steps(1.0, (2.5,), factor=0.1), "`boundaries`.*boundaries=2.5"),
    "boundaries a number": (lambda: Steps(1.0, 3, factor=0.1), "`boundaries`.*list or a tuple"),
    "no factor": (lambda: Steps(1.0, (3,)), "`factor` or `rates`.*factor=0.1"),
    "factor and rates": (lambda: Steps(1.0, (3,), factor=0.1, rates=(1,)), "and not both"),
    "factor 0": (lambda: Steps(1.0, (3,), factor=0), r"`factor`.*\(0, inf\).*factor=0"),
    "rates too few": (lambda: Steps(1.0, (3, 4), rates=(0.1,)), "`rates`.*one rate per boundary"),
    "rates negative": (lambda: Steps(1.0, (3,), rates=(-1.0,)), "`rates`.*rates=-1.0"),
    "end above rate": (lambda: Polynomial(1.0, 2.0, decay_updates=3), "`end_rate`.*Warmup"),
    "power 0": (lambda: Polynomial(1.0, 0.0, 0.0, decay_updates=3), "`power`.*power=0.0"),
    "negative begin": (lambda: Cosine(1.0, begin=-1, decay_updates=3), "`begin`.*begin=-1"),
    "empty decay": (lambda: Cosine(1.0, decay_updates=0), "`decay_updates`.*decay_updates=0"),
    "warmup as long as the training": (
        lambda: Polynomial.from_epochs(1.0, 0.0, 2.0, 90, end_epoch=90, plan=plan(8192)),
        "`end_epoch`.*end_epoch=90.*begin_epoch=90.*train longer",
    ),
    "cosine backwards": (
        lambda: Cosine.from_epochs(1.0, 0.0, 5, end_epoch=4, plan=plan(8192)),
        "`end_epoch`.*end_epoch=4",
    ),
    "warmup longer than the decay": (
        lambda: Warmup(Polynomial(1.0, decay_updates=10), 11, 0.0, peak=1.0),
        "`updates`.*at update 10.*updates=11.*train longer",
    ),
    "warmup longer than a scaled decay": (
        lambda: Warmup(
            Scaled(Cosine(1.0, decay_updates=10), "sqrt", global_batch=4, reference_batch=1),
            10,
            0.0,
        ),
        "`updates`.*at update 10.*updates=10",
    ),
    "warmup into a drop": (
        lambda: Warmup(Steps(1.0, (5, 9), factor=0.1), 5, 0.0),
        "`updates`.*first drop.*at update 5.*updates=5.*Shorten",
    ),
    "warmup over a drop": (
        lambda: Warmup(Steps(1.0, (5, 9), factor=0.1), 6, 0.0, peak=1.0),
        "`updates`.*first drop.*at update 5.*updates=6",
    ),
    "unknown shape": (lambda: Warmup(Constant(1.0), 5, 0.0, "sine"), "`shape`.*linear.*'sine'"),
    "shape without power": (lambda: Warmup(Constant(1.0), 5, 0.0, "power"), "`power`.*power=None"),
    "power without shape": (lambda: Warmup(Constant(1.0), 5, 0.0, power=2.0), "`power`.*'linear'"),
    "warmup negative": (lambda: Warmup(Constant(1.0), -1, 0.0), "`updates`.*updates=-1"),
    "warmup that falls": (
        lambda: Warmup(Constant(0.1), 5, 10.0, peak=0.1),
        "`start_rate`.*at most peak=0.1.*start_rate=10.0.*rises",
    ),
    "warmup from before the start": (
        lambda: Warmup.from_epochs(Constant(0.1), -5, 0.0, plan=plan(8192)),
        "`epochs`.*epochs=-5.*from 0",
    ),
    "drops before the start": (
        lambda: Steps.from_epochs(1.0, (-5, 30), factor=0.1, plan=plan(8192)),
        "`epochs`.*epochs=-5",
    ),
    "decay from before the start": (
        lambda: Polynomial.from_epochs(1.0, begin_epoch=-5, end_epoch=90, plan=plan(8192)),
        "`begin_epoch`.*begin_epoch=-5",
    ),
    "start negative": (lambda: Warmup(Constant(1.0), 5, -1.0), "`start_rate`.*start_rate=-1.0"),
    "after a float": (lambda: Warmup(1.0, 5, 0.0), r"`after`.*after=1.0.*Constant\(rate\)"),
    "unknown rule": (
        lambda: Scaled(Constant(1.0), "cubic", global_batch=4, reference_batch=2),
        "`rule`.*'cubic'",
    ),
    "batch 0": (
        lambda: Scaled(Constant(1.0), "sqrt", global_batch=0, reference_batch=2),
        "`global_batch`.*global_batch=0",
    ),
    "phases of different length": (
        lambda: BatchPhases((1, 2), (3,), (1.0, 1.0)),
        "one value per phase",
    ),
    "no phases": (lambda: BatchPhases((), (), ()), "one value per phase"),
    "phases out of order": (
        lambda: BatchPhases.from_epochs((plan(8), plan(16)), (0, 90), (1.0, 1.0), total_epochs=90),
        r"`starts`.*starts=\(0, 90\)",
    ),
    "phases not from 0": (
        lambda: BatchPhases.from_epochs((plan(8),), (1,), (1.0,), total_epochs=9),
        r"`starts`.*starts=\(1,\)",
    ),
    "float update": (lambda: Constant(1.0)(tf.constant(3.0)), "`update`.*float32.*iterations"),
    "traced float": (lambda: trace(Constant(1.0), np.array([0.5])), "`update`.*float64"),
    "traced number": (lambda: trace(0.1, 5), "`schedule`.*schedule=0.1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_its_name_value_and_remedy(name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make()
