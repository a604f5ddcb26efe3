"""The gradient noise scale on problems whose noise scale is known in closed form."""

import numpy as np
import pytest

from tf_largebatch.review.noise_scale import (
    NoiseEstimate,
    NoiseScale,
    advise,
    from_two_batches,
)

D, SIGMA = 10, 2.0
DELTA = np.full(D, 0.5)
# Linear model y = x.w* + SIGMA e, x ~ N(0, 1) in D dimensions, loss (x.w - y)^2 / 2 at w* + DELTA:
# g = x (x.DELTA - SIGMA e), E g = DELTA, E|g|^2 = (D + 2)|DELTA|^2 + SIGMA^2 D, so with
# |DELTA|^2 = 2.5:  tr S = 11 x 2.5 + 40 = 67.5,  B_simple = 67.5 / 2.5 = 27.
TRACE, GRAD_SQ, B_SIMPLE = 67.5, 2.5, 27.0


def draw_gradients(random, batches, batch):
    """Mean gradients of the linear model, one batch a row."""
    x = random.standard_normal((batches, batch, D))
    error = x @ DELTA - SIGMA * random.standard_normal((batches, batch))
    return np.mean(x * error[..., None], axis=1)


def from_gradients(gradients, batch=1):
    """The estimate from the mean gradients of equal batches, one a row, and from their mean."""
    small, big = np.mean(np.sum(gradients**2, axis=1)), np.sum(gradients.mean(axis=0) ** 2)
    return from_two_batches(small, big, small_batch=batch, big_batch=batch * len(gradients))


def test_two_batch_sizes_give_back_what_made_them():
    # |G|^2 = 3, tr S = 40: sizes 8 and 32 expect 3 + 40/8 = 8 and 3 + 40/32 = 4.25.
    # (32 x 4.25 - 8 x 8) / 24 = 72 / 24 = 3;  (8 - 4.25) / (1/8 - 1/32) = 3.75 / 0.09375 = 40.
    estimate = from_two_batches(8.0, 4.25, small_batch=8, big_batch=32)
    assert estimate.grad_sq == pytest.approx(3.0)
    assert estimate.trace == pytest.approx(40.0)
    assert estimate.b_simple == pytest.approx(40 / 3)


def test_the_noise_scale_of_a_linear_model_is_found_within_5_percent():
    random = np.random.default_rng(0)
    scale = NoiseScale(1 - 1e-12)  # all alike
    for _ in range(2_000):
        scale.add(from_gradients(draw_gradients(random, 4, 16), batch=16))
    assert scale.average.trace == pytest.approx(TRACE, rel=0.05)
    assert scale.average.grad_sq == pytest.approx(GRAD_SQ, rel=0.05)
    assert scale.b_simple == pytest.approx(B_SIMPLE, rel=0.05)


def test_single_examples_give_it_within_5_percent():
    gradients = draw_gradients(np.random.default_rng(1), 100_000, 1)
    assert from_gradients(gradients).b_simple == pytest.approx(B_SIMPLE, rel=0.05)


def test_single_examples_give_the_sample_covariance():
    gradients = draw_gradients(np.random.default_rng(2), 50, 1)
    estimate = from_gradients(gradients)
    trace = np.trace(np.cov(gradients.T))  # divides by n - 1
    assert estimate.trace == pytest.approx(trace, rel=1e-12)
    mean_sq = np.sum(gradients.mean(axis=0) ** 2)
    assert estimate.grad_sq == pytest.approx(mean_sq - trace / 50, rel=1e-12)


def test_both_estimates_are_unbiased_for_a_short_average():
    # 4000 updates on their own: their mean is the truth, though one |G|^2 in many is negative.
    random = np.random.default_rng(3)
    each = [from_gradients(draw_gradients(random, 2, 2), batch=2) for _ in range(4_000)]
    assert min(e.grad_sq for e in each) < 0
    assert np.mean([e.grad_sq for e in each]) == pytest.approx(GRAD_SQ, rel=0.15)
    assert np.mean([e.trace for e in each]) == pytest.approx(TRACE, rel=0.05)


def test_the_running_value_is_the_ratio_of_averages():
    # Decay 0.5: averages (0.5 x 1 + 3) / 1.5 = 7/3 and (0.5 x 10 + 2) / 1.5 = 14/3, ratio 2. The
    # ratios' own average would be (0.5 x 10 + 2/3) / 1.5 = 3.78.
    scale = NoiseScale(0.5)
    scale.add(NoiseEstimate(1.0, 10.0))
    scale.add(NoiseEstimate(3.0, 2.0))
    assert scale.average.grad_sq == pytest.approx(7 / 3)
    assert scale.b_simple == pytest.approx(2.0)


def test_an_update_that_is_not_finite_does_not_enter_the_average():
    scale = NoiseScale(0.5)
    scale.add(NoiseEstimate(1.0, 10.0))
    scale.add(NoiseEstimate(float("nan"), 1.0))
    assert (scale.count, scale.b_simple) == (1, pytest.approx(10.0))


def test_noise_without_a_gradient_has_no_noise_scale():
    assert NoiseEstimate(-0.1, 5.0).b_simple is None
    assert NoiseEstimate(0.0, 5.0).b_simple is None
    assert "could not be told" in advise(NoiseEstimate(-0.1, 5.0))
    assert "not measured" in advise(None)


def test_the_advice_says_whether_a_larger_batch_still_pays():
    # (1 + 900 / 8192) / (1 + 900 / 4096) = 0.910 of the updates, twice the images of each: 1.820.
    text = advise(NoiseEstimate(1.0, 900.0), global_batch=4_096, updates=2_000)
    assert text == (
        "measured B_simple 900 after 2,000 updates: batches above about 900 buy little; doubling "
        "the batch of 4,096 saves 9 % of the updates and costs 82 % more images"
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"small_batch": 32, "big_batch": 32}, "Use two or more replicas or micro-batches"),
        ({"small_batch": 0, "big_batch": 32}, "`small_batch` must be at least 1"),
    ],
)
def test_sizes_that_give_no_second_equation_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        from_two_batches(1.0, 1.0, **sizes)


def test_the_callback_writes_what_the_updates_measured(tmp_path):
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from tf_largebatch.review.tensorboard.noise import NoiseScaleScalars

    callback = NoiseScaleScalars(tmp_path, every=100, decay=0.999)
    callback.on_train_begin()
    random = np.random.default_rng(4)
    for update in range(1_500):
        parts = draw_gradients(random, 8, 16)
        logs = {
            "grad_norm": np.linalg.norm(parts.mean(axis=0)),
            "micro_grad_norm": np.sqrt(np.mean(np.sum(parts**2, axis=1))),
            "micro_batch": 16,
            "global_batch": 128,
        }
        callback.on_train_batch_end(update, logs)
    callback.on_train_end()
    assert callback.scale.b_simple == pytest.approx(B_SIMPLE, rel=0.05)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    points = events.Tensors("noise/b_simple")
    assert [p.step for p in points] == list(range(100, 1_501, 100))
    written = float(tf.make_ndarray(points[-1].tensor_proto))
    assert written == pytest.approx(callback.scale.b_simple, rel=1e-6)


def test_the_callback_starts_anew_where_the_batch_changes(tmp_path):
    from tf_largebatch.review.tensorboard.noise import NoiseScaleScalars

    callback = NoiseScaleScalars(tmp_path, every=100)
    logs = {"grad_norm": 1.0, "micro_grad_norm": 2.0, "micro_batch": 8, "global_batch": 64}
    callback.on_train_begin()
    for update in range(3):
        callback.on_train_batch_end(update, logs)
    callback.on_train_batch_end(3, logs | {"global_batch": 128})
    callback.on_train_end()
    assert callback.scale.count == 1


def test_the_callback_goes_on_from_its_last_point(tmp_path):
    from tf_largebatch.review.tensorboard.noise import NoiseScaleScalars

    def train(folder, first, end, **change):
        callback = NoiseScaleScalars(folder, every=10)
        callback.on_train_begin()
        for update in range(first, end):
            logs = {"grad_norm": 1.0, "micro_grad_norm": 2.0 + update / 10, "micro_batch": 8}
            callback.on_train_batch_end(update, logs | {"global_batch": 64} | change)
        callback.on_train_end()
        return callback.scale

    whole = train(tmp_path / "whole", 0, 47)
    train(tmp_path / "killed", 0, 36)  # its last checkpoint was of update 30
    resumed = train(tmp_path / "killed", 30, 47)
    assert resumed.count == whole.count == 47
    assert resumed.average.trace == pytest.approx(whole.average.trace, rel=1e-6)
    assert resumed.average.grad_sq == pytest.approx(whole.average.grad_sq, rel=1e-6)
    # With another batch, or with no point that early, it begins anew.
    assert train(tmp_path / "killed", 30, 47, global_batch=128).count == 17
    assert train(tmp_path / "killed", 5, 47).count == 42


@pytest.mark.parametrize(
    ("change", "message"),
    [({"micro_batch": 64}, "Use two or more"), ({"grad_norm": None}, "no grad_norm")],
)
def test_the_callback_refuses_updates_that_cannot_be_measured(tmp_path, change, message):
    from tf_largebatch.review.tensorboard.noise import NoiseScaleScalars

    logs = {"grad_norm": 1.0, "micro_grad_norm": 2.0, "micro_batch": 8, "global_batch": 64}
    logs = {k: v for k, v in (logs | change).items() if v is not None}
    callback = NoiseScaleScalars(tmp_path, every=1)
    callback.on_train_begin()
    with pytest.raises(ValueError, match=message):
        callback.on_train_batch_end(0, logs)
    callback.on_train_end()
