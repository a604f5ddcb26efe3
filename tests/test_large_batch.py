"""The plan of a user's own model: its arithmetic by hand, and `fit` beside it."""

import keras
import numpy as np
import pytest

from tf_largebatch import (
    LAMB,
    LARS,
    DistributedFit,
    GhostBatchNormalization,
    LargeBatch,
    MomentumSGD,
)

FASHION = {"train_examples": 50_000, "epochs": 30, "reference_rate": 0.1}


def make_model(*norms):
    layers = [keras.Input((8,)), keras.layers.Dense(4, name="hidden"), *norms]
    return keras.Sequential([*layers, keras.layers.Dense(3, name="head")], name="net")


def make_plan(**changes):
    model = changes.pop("model", None) or make_model()
    return LargeBatch(model, **(FASHION | {"global_batch": 4096} | changes))


def test_rate_and_boundaries_by_hand():
    plan = make_plan(decay=(15, 25))
    assert plan.peak_rate == 0.1 * 4096 / 256 == 1.6
    assert plan.updates == 30 * 13  # ceil(50,000 / 4,096): the last batch of an epoch is smaller
    rates = {u: float(plan.schedule(u)) for u in (0, 13, 65, 194, 195, 324, 325)}
    expected = {0: 0.1, 13: 0.4, 65: 1.6, 194: 1.6, 195: 0.16, 324: 0.16, 325: 0.016}
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "peak"),
    [({"scaling": "sqrt"}, 0.4), ({"scaling": "none"}, 0.1), ({"reference_batch": 1024}, 0.4)],
)
def test_peak_rate_of_each_rule(changes, peak):
    assert make_plan(**changes).peak_rate == pytest.approx(peak)


@pytest.mark.parametrize("decay", ["cosine", "polynomial"])
def test_rate_ends_at_zero_with_the_last_update(decay):
    plan = make_plan(decay=decay)
    assert float(plan.schedule(plan.updates)) == 0.0 < float(plan.schedule(plan.updates - 1))


def test_a_smaller_batch_starts_at_its_own_lower_rate():
    plan = make_plan(global_batch=64)
    assert float(plan.schedule(0)) == pytest.approx(0.025) == plan.peak_rate


@pytest.mark.parametrize(
    ("changes", "updates"),
    [
        ({}, 3 * 7),  # 50 examples in batches of 8: 7, the last one of 2
        ({"drop_remainder": True}, 3 * 6),
        ({"micro_batch": 4}, 3 * 13 // 2),  # 13 micro-batches an epoch, two an update
    ],
)
def test_fit_makes_the_updates_of_the_plan(changes, updates):
    x, y = np.ones((50, 8), "float32"), np.zeros(50, "int32")
    model = make_model()
    small = {"global_batch": 8, "train_examples": 50, "epochs": 3, "warmup_epochs": 1}
    plan = make_plan(model=model, **small, **changes)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=plan.make_optimizer(), loss=loss)
    if plan.batch.train_examples < 50:
        x, y = (part[: plan.batch.train_examples] for part in (x, y))
    model.fit(x, y, batch_size=plan.fit_batch, epochs=plan.epochs, verbose=0)
    assert int(model.optimizer.iterations) == updates
    assert abs(plan.updates - updates) <= 1  # half an update is left over with micro-batches


def test_exempt_tensors_are_those_of_the_optimizer():
    model = make_model(keras.layers.BatchNormalization(momentum=0.9))
    plan = make_plan(model=model, optimizer=LARS, optimizer_options={"weight_decay": 1e-4})
    optimizer = plan.make_optimizer()
    optimizer.build(model.trainable_variables)
    assert plan.exemptions() == optimizer.exemptions()
    assert "no decay and ratio on 4 of 6: beta, bias, gamma" in plan.text()
    assert "LARS, weight_decay 0.0001" in plan.text()
    assert make_plan(optimizer_options={"exclude_rank_below": 0}).exemptions()[0].decay


class Net(DistributedFit, keras.Model):
    pass


def test_a_model_whose_fit_accumulates_leaves_the_optimizer_alone():
    plain = make_model()
    model = Net(plain.inputs, plain.outputs)
    plan = make_plan(model=model, replicas=2, micro_batch=512)
    assert plan.fit_options == {"batch_size": 4096, "epochs": 30, "micro_batch": 512}
    assert plan.make_optimizer().gradient_accumulation_steps is None
    assert "batch_size=4096, epochs=30, micro_batch=512" in plan.text()
    # The same epochs as without micro-batches: `fit` counts updates.
    assert plan.updates == make_plan(model=model).updates == 30 * 13
    with_plain = make_plan(micro_batch=512)
    assert with_plain.fit_options == {"batch_size": 512, "epochs": 30}
    assert with_plain.make_optimizer().gradient_accumulation_steps == 8


def test_text_says_the_arithmetic():
    text = str(make_plan(replicas=4))
    assert "4096 = 4 replicas x 1024 micro-batch x 1 accumulation" in text
    assert "1.6 = 0.1 x 4096 / 256 (linear)" in text
    assert "epoch 5       update 65: rate 1.6" in text
    assert "batch_size=4096, epochs=30" in text
    assert "warning" not in text


def test_warnings():
    assert "passes over the training set" in make_plan(global_batch=100_000).warnings()[0]
    [told] = make_plan(noise_scale=900.0).warnings()
    assert "measured B_simple 900" in told and "the batch of 4,096" in told
    assert make_plan(noise_scale=9000.0).warnings() == []
    [told] = make_plan(global_batch=16_384).warnings()
    assert "stretched over a factor of 64" in told
    assert make_plan(global_batch=16_384, optimizer=LAMB).warnings() == []


def test_batch_norm_that_remembers_its_start_is_told():
    slow = make_model(keras.layers.BatchNormalization(name="bn"))
    [told] = make_plan(model=slow, epochs=10).warnings()  # 130 updates at 0.99: exp(-1.3) = 27 %
    assert "batch normalisation bn with momentum 0.99 keeps 27 %" in told
    assert "Make it with momentum 0.97" in told  # 130 x 0.03 = 3.9 time constants
    quick = make_model(keras.layers.BatchNormalization(momentum=0.97))
    assert make_plan(model=quick, epochs=10).warnings() == []
    ghost = make_model(GhostBatchNormalization(32, momentum=0.99, name="ghost"))
    assert "batch normalisation ghost" in make_plan(model=ghost, epochs=10).warnings()[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": keras.Sequential()}, "`model` must be a built Keras model"),
        ({"optimizer": "lars"}, "`optimizer` must be an optimizer class of tf_largebatch"),
        ({"optimizer": keras.optimizers.SGD}, "`optimizer` must be an optimizer class of tf_larg"),
        ({"replicas": 3}, "`global_batch` must be a multiple of the replicas"),
        ({"micro_batch": 1000}, "`micro_batch` must divide the replica batch"),
        ({"replicas": 2, "micro_batch": 1024}, "several replicas. .*=1024. Make the model of a cl"),
        ({"train_examples": -2}, "`train_examples` must be a whole .*=-2. Count the examples"),
        ({"reference_rate": 0.0}, "`reference_rate` must be a number in"),
        ({"scaling": "log"}, "`scaling` must be one of 'linear'"),
        ({"decay": "linear"}, "`decay` must be cosine, polynomial, or the epochs"),
        ({"decay": (3,)}, "must end before the first drop"),
        ({"warmup_epochs": 30}, "epoch"),
        ({"noise_scale": -1.0}, "`noise_scale` must be a number in"),
        ({"optimizer_options": {"lr": 1}}, "lr"),
        ({"optimizer_options": {"learning_rate": 1}}, "`optimizer_options` must be without the r"),
        ({"global_batch": 60_000, "drop_remainder": True}, "`train_examples` must be at least"),
    ],
)
def test_bad_input_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make_plan(**changes)
    assert "\n" not in str(error.value)


def test_model_is_left_alone():
    model = make_model()
    before = [v.numpy().copy() for v in model.variables]
    make_plan(model=model).text()
    assert getattr(model, "optimizer", None) is None
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_default_optimizer_is_momentum_sgd():
    assert type(make_plan().make_optimizer()) is MomentumSGD
