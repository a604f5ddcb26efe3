"""What the records of a recipe become: losses, courses of the rate, mixed images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.data import digits
from tf_largebatch.data.mixed import MixedData
from tf_largebatch.optimizers import KFAC, LAMB, RMSpropSGD
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.recipe import (
    CosineSpec,
    DigitsSpec,
    KFACSpec,
    LAMBSpec,
    LossSpec,
    ModelSpec,
    PolynomialSpec,
    Recipe,
    RMSpropSGDSpec,
    SGDSpec,
    StepsSpec,
)
from tf_largebatch.schedules import trace
from tf_largebatch.training.build import (
    make_loss,
    make_model,
    make_optimizer,
    make_schedule,
    open_dataset,
)


def expected_loss(targets, logits, kind):
    """Cross-entropy or summed binary cross-entropy in float64."""
    logits = logits.astype("float64")
    if kind == "softmax":
        log_sum = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        return (targets * (log_sum[:, None] - logits)).sum(1)
    return (targets * np.log1p(np.exp(-logits)) + (1 - targets) * np.log1p(np.exp(logits))).sum(1)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("hard", [True, False])
def test_losses_are_their_definitions(kind, smoothing, hard):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 5)).astype("float32") * 3
    labels = np.array([0, 4, 2, 1, -1, 3], "int32")
    targets = np.where(labels[:, None] >= 0, np.eye(5)[np.maximum(labels, 0)], 0.0)
    if not hard:
        targets[:3] = 0.7 * targets[:3] + 0.3 * targets[[3, 5, 0]]
    given = tf.constant(labels) if hard else tf.constant(targets, tf.float32)
    loss = make_loss(LossSpec(kind=kind, label_smoothing=smoothing))(given, tf.constant(logits))
    smoothed = (1 - smoothing) * targets + smoothing / 5
    expected = expected_loss(smoothed, logits, kind)
    expected[4] = 0.0  # an image that could not be read
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)


def recipe(**changes):
    common = {
        "name": "r",
        "title": "-",
        "paper": "-",
        "data": DigitsSpec(),
        "model": ModelSpec(architecture="digits_resnet", bn_batch=8),
        "global_batch": 64,
        "epochs": 10,
        "reference_rate": 0.4,
        "reference_batch": 64,
        "optimizer": SGDSpec(momentum=0.9),
        "schedule": StepsSpec(drop_epochs=(5, 8)),
    }
    return Recipe(**(common | changes))


WARM = {"warmup_epochs": 2, "warmup_start_rate": 0.1}
COURSES = {
    "steps": StepsSpec(drop_epochs=(5, 8), drop_factor=0.2, **WARM),
    "steps, shares": StepsSpec(drop_epochs=(5, 8), drop_shares=(0.5, 0.3)),
    "polynomial": PolynomialSpec(power=2, end_rate=0.01, **WARM),
    "polynomial to an epoch": PolynomialSpec(power=2.2, end_rate=0.01, end_epoch=9, **WARM),
    "polynomial over the whole run": PolynomialSpec(power=2, whole_run=True, **WARM),
    "cosine": CosineSpec(end_rate=0.02, **WARM),
}


@pytest.mark.parametrize("name", COURSES)
def test_the_plan_shows_the_rates_that_the_schedule_has(name):
    made = recipe(schedule=COURSES[name])
    (plan,) = made.phases()
    points = made.schedule.milestones(made.peak_rate, made.epochs)
    assert len(points) >= 3
    updates = [plan.updates_at(epoch) for epoch, _, _ in points]
    rates = trace(make_schedule(made, (plan,)), range(201))
    np.testing.assert_allclose(rates[updates], [rate for _, rate, _ in points], rtol=1e-5)


def test_courses_by_hand():
    # 20 updates an epoch, 200 in all; the peak is 0.4.
    plan = recipe().phases()
    polynomial = recipe(schedule=PolynomialSpec(power=2, end_rate=0.0, warmup_epochs=2))
    rates = trace(make_schedule(polynomial, plan), range(200))
    np.testing.assert_allclose(rates[[0, 20, 40, 120, 199]], [0, 0.2, 0.4, 0.1, 0.4 / 160**2])
    whole = recipe(schedule=PolynomialSpec(power=2, warmup_epochs=2, whole_run=True))
    # Rises to 0.4, then falls to 0.4 * (1 - 40 / 200) ** 2 = 0.256 at once.
    rates = trace(make_schedule(whole, plan), range(200))
    np.testing.assert_allclose(rates[[39, 40, 100]], [0.39, 0.256, 0.1], rtol=1e-5)


def test_lamb_and_rmsprop_get_their_numbers():
    plan = recipe().phases()
    spec = LAMBSpec(beta_2=0.98, weight_decay=0.02, global_clipnorm=1.0)
    lamb = make_optimizer(recipe(optimizer=spec), plan)
    assert isinstance(lamb, LAMB)
    assert (lamb.beta_2, lamb.weight_decay, lamb.global_clipnorm) == (0.98, 0.02, 1.0)
    spec = RMSpropSGDSpec(center_epochs=3, period_epochs=1.5, rmsprop_learning_rate=3e-4)
    warm = make_optimizer(recipe(optimizer=spec), plan)
    assert isinstance(warm, RMSpropSGD)
    config = warm.get_config()
    assert (config["center_updates"], config["period_updates"]) == (60.0, 30.0)
    assert config["rmsprop_learning_rate"] == 3e-4


def test_kfac_gets_its_numbers():
    spec = KFACSpec(momentum=0.8, damping=0.02, refresh_updates=5, stability=4.0, limit_norm=True)
    kfac = make_optimizer(recipe(optimizer=spec), recipe().phases())
    assert isinstance(kfac, KFAC) and kfac.momentum_correction
    assert (kfac.damping, kfac.refresh_updates, kfac.stability) == (0.02, 5, 4.0)
    assert (kfac.momentum, kfac.limit_norm, kfac.record_trust_ratio) == (0.8, True, True)


def updates_of(source, plan, *, workers=1):
    """Images and labels of five updates in the order of the stream."""
    shares = []
    for worker in range(workers):
        batches = iter(source.train_batches(plan, seed=5, worker=worker, workers=workers))
        local = plan.replicas // workers
        shares.append([[next(batches) for _ in range(local)] for _ in range(5)])
    parts = [part for update in zip(*shares, strict=True) for share in update for part in share]
    return [np.concatenate([np.asarray(p[i]) for p in parts]) for i in range(2)]


def test_mixed_images_do_not_depend_on_workers_and_replicas():
    source = MixedData(digits.load(), mixup_alpha=0.4)
    whole = updates_of(source, BatchPlan(global_batch=64, train_examples=1280))
    split = BatchPlan(global_batch=64, train_examples=1280, replicas=4)
    for a, b in zip(whole, updates_of(source, split, workers=2), strict=True):
        np.testing.assert_array_equal(a, b)
    labels = whole[1]
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)
    # Neighbours are partners: both have the same two classes.
    # (One of them rounds away where lambda is nearly 1.)
    assert ((labels[0::2] > 0) == (labels[1::2] > 0)).all(axis=1).mean() > 0.98
    assert ((labels > 0).sum(axis=1) == 2).mean() > 0.7


def test_an_odd_replica_batch_cannot_be_mixed():
    source = MixedData(digits.load(), mixup_alpha=0.4)
    with pytest.raises(InputError, match="must be even where neighbours are mixed. Received: 5"):
        source.train_batches(BatchPlan(global_batch=5, train_examples=1280), seed=0)


def test_the_last_epochs_can_be_without_augmentation():
    spec = DigitsSpec(shift=2, noise=0.5, plain_last_epochs=1)
    plan = BatchPlan(global_batch=64, train_examples=1280)
    source = open_dataset(spec, None, epochs=3)
    plain = open_dataset(DigitsSpec(shift=0, noise=0.0), None, epochs=3)
    for update, same in ((39, False), (40, True)):  # 20 an epoch
        a, b = (
            next(iter(s.train_batches(plan, seed=1, first_update=update))) for s in (source, plain)
        )
        assert np.array_equal(a[0], b[0]) == same
        np.testing.assert_array_equal(a[1], b[1])
    assert "none from epoch 2 on" in source.describe()


@pytest.mark.parametrize("eval_side", [8, 12])
def test_a_network_takes_both_sizes_where_evaluation_has_its_own(eval_side):
    source = digits.load()
    source.classes, source.eval_image_shape = 3, (eval_side, eval_side, 1)
    model = make_model(recipe(model=ModelSpec(architecture="digits_resnet")), source, seed=0)
    assert model.input_shape == ((None, 8, 8, 1) if eval_side == 8 else (None, None, None, 1))
    assert model(tf.zeros([2, eval_side, eval_side, 1])).shape == (2, 3)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("precision", "policy"), [("bfloat16", "mixed_bfloat16"), ("float16", "mixed_float16")]
)
def test_a_network_of_one_precision_leaves_keras_policy_as_it_was(precision, policy, fails):
    before = keras.config.dtype_policy()
    spec = recipe(model=ModelSpec(architecture="digits_resnet"))
    source = digits.load()
    if fails:
        source.classes = 1
        with pytest.raises(ValueError, match="`classes` must be at least 2"):
            make_model(spec, source, seed=0, precision=precision)
    else:
        model = make_model(spec, source, seed=0, precision=precision)
        assert model.get_layer("stem_conv").dtype_policy.name == policy
        assert {w.dtype for w in model.trainable_weights} == {"float32"}
    assert keras.config.dtype_policy() == before
