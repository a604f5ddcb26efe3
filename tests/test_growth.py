"""A batch that grows during training: Smith et al. 2017 and Mikami et al. 2018."""

from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_loop import StopAt

from tf_largebatch.data.arrays import ArrayData
from tf_largebatch.optimizers import MomentumSGD
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.records.recipe import DigitsSpec, ModelSpec, Recipe, SGDSpec, StepsSpec
from tf_largebatch.schedules import Steps, trace
from tf_largebatch.training.checkpoint import Checkpoints, Progress
from tf_largebatch.training.evaluation import Scores
from tf_largebatch.training.step import TrainingStep
from tf_largebatch.training.train import fit
from tf_largebatch.training.workers.strategy import make_strategy

EXAMPLES, EPOCHS = 100, 5.0
FIRST = BatchPlan(global_batch=8, train_examples=EXAMPLES)
# Epoch 2 is position 200 = update 25; epoch 3 is position 300 = update 25 + ceil(100 / 12) = 34,
# which starts at position 200 + 9 * 12 = 308.
SECOND = FIRST.followed_by(2, 12, 6)
THIRD = SECOND.followed_by(3, 16, 16)


def test_phases_start_where_the_one_before_them_ends():
    assert (SECOND.start_update, SECOND.start_position, SECOND.start_epoch) == (25, 200, 2)
    assert (THIRD.start_update, THIRD.start_position) == (34, 308)
    assert THIRD.start_epoch == Fraction(308, 100)
    # Epoch 5 is position 500 = 308 + 12 * 16.
    assert THIRD.updates_at(5) == 34 + 12
    assert THIRD.position_at(46) == 500
    assert THIRD.epoch_at(46) == 5.0
    assert SECOND.micro_batch == 6 and SECOND.accumulation == 2


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(EXAMPLES + 4, 2, 2, 1)).astype("float32")
    images[:, 0, 0, 0] = np.arange(EXAMPLES + 4)  # the pixel that tells which one it is
    labels = rng.integers(0, 3, EXAMPLES + 4)
    return ArrayData(
        "noise",
        classes=3,
        train=(images[:EXAMPLES], labels[:EXAMPLES]),
        evaluation=(images[EXAMPLES:], labels[EXAMPLES:]),
        pixel_mean=(0.0,),
        pixel_std=(1.0,),
    )


def test_every_example_is_used_once_an_epoch_whatever_the_batch(source):
    seen = []
    for plan, end in ((FIRST, 25), (SECOND, 34), (THIRD, THIRD.updates_at(5))):
        batches = iter(source.train_batches(plan, seed=3, first_update=plan.start_update))
        for _ in range(end - plan.start_update):
            seen += next(batches)[0][:, 0, 0, 0].numpy().astype(int).tolist()
    assert len(seen) == 5 * EXAMPLES
    for epoch in range(5):
        part = seen[epoch * EXAMPLES : (epoch + 1) * EXAMPLES]
        assert sorted(part) == list(range(EXAMPLES))


class Log(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.rows = []

    def on_train_batch_end(self, batch, logs=None):
        self.rows.append((batch, logs["global_batch"], logs["images_seen"]))


def make_step():
    strategy = make_strategy(1)
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    return TrainingStep(
        model,
        MomentumSGD(Steps(0.001, (30,), factor=0.5), momentum=0.9),
        loss=lambda y, z: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z),
        plan=FIRST,
        strategy=strategy,
    )


SCORES = Scores(loss=1.0, top1_error_pct=50.0, top5_error_pct=10.0, examples=4)


def train(source, step, progress, **options):
    made = []

    def batches(plan, update):
        made.append((plan.global_batch, update))
        return iter(source.train_batches(plan, seed=3, first_update=update))

    fit(
        step,
        batches=batches,
        later=(SECOND, THIRD),
        evaluate=lambda: SCORES,
        epochs=EPOCHS,
        progress=progress,
        **options,
    )
    return made


def test_a_run_goes_through_its_phases_with_one_step_and_one_pipeline_each(source):
    log, progress, step = Log(), Progress(), make_step()
    made = train(source, step, progress, callbacks=[log])
    assert made == [(8, 0), (12, 25), (16, 34)]
    assert progress.update == 46
    assert [row[1] for row in log.rows] == [8] * 25 + [12] * 9 + [16] * 12
    assert log.rows[24][2] == 200 and log.rows[33][2] == 308 and log.rows[45][2] == 500
    # Epoch 3 ends with update 34, epoch 4 with the first update at or after position 400.
    assert [r.update for r in progress.records] == [13, 25, 34, 40, 46]
    assert progress.records[-1].images_seen == 500


def test_the_weights_are_those_of_three_trainings_after_each_other_by_hand(source):
    step = make_step()
    train(source, step, Progress())
    weights = np.concatenate([w.ravel() for w in step.model.get_weights()]).astype("float64")

    # float64, momentum SGD with the rate outside the velocity; the rate halves at update 30.
    other = make_step()
    kernel, bias = (w.astype("float64") for w in other.model.get_weights())
    velocity = [np.zeros_like(kernel), np.zeros_like(bias)]
    for plan, end in ((FIRST, 25), (SECOND, 34), (THIRD, 46)):
        batches = iter(source.train_batches(plan, seed=3, first_update=plan.start_update))
        for update in range(plan.start_update, end):
            parts = [next(batches) for _ in range(1)]
            images = np.concatenate([p[0].numpy().reshape(len(p[0]), -1) for p in parts])
            labels = np.concatenate([p[1].numpy() for p in parts])
            logits = images.astype("float64") @ kernel + bias
            exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
            error = exponent / exponent.sum(axis=1, keepdims=True) - np.eye(3)[labels]
            rate = 0.001 if update < 30 else 0.0005
            for i, gradient in enumerate(
                (images.T @ error / plan.global_batch, error.sum(axis=0) / plan.global_batch)
            ):
                velocity[i] = 0.9 * velocity[i] + gradient
            kernel, bias = kernel - rate * velocity[0], bias - rate * velocity[1]
    expected = np.concatenate([kernel.ravel(), bias.ravel()])
    np.testing.assert_allclose(weights, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("stop", [10, 25, 30, 34, 40])
def test_a_run_that_was_stopped_in_any_phase_goes_on_bit_for_bit(source, tmp_path, stop):
    step = make_step()
    train(source, step, Progress())
    whole = step.model.get_weights()

    step, progress = make_step(), Progress()
    saved = Checkpoints(tmp_path, step.model, step.optimizer)

    train(
        source,
        step,
        progress,
        keepers=[StopAt(stop, saved.save)],
        pause_every=5 if stop != 34 else 17,
    )
    assert progress.update == stop

    step = make_step()
    restored = Checkpoints(tmp_path, step.model, step.optimizer).restore()
    assert restored.update == stop
    train(source, step, restored)
    for a, b in zip(whole, step.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


RECIPE = Recipe(
    name="growing",
    title="-",
    paper="-",
    data=DigitsSpec(),
    model=ModelSpec(architecture="digits_resnet", bn_batch=8),
    global_batch=64,
    growth=((2, 128), (3, 256)),
    epochs=4,
    reference_rate=0.1,
    reference_batch=64,
    optimizer=SGDSpec(momentum=0.9),
    schedule=StepsSpec(drop_epochs=(3.5,), drop_factor=0.1, warmup_epochs=1),
)


def test_the_rate_follows_the_images_and_not_the_updates():
    from tf_largebatch.training.build import make_schedule

    # 1280 images: 20 updates an epoch to epoch 2, then 10, then 5.
    phases = RECIPE.phases()
    assert [p.start_update for p in phases] == [0, 40, 50]
    assert phases[-1].updates_at(4) == 55
    rates = trace(make_schedule(RECIPE, phases), range(55))
    np.testing.assert_allclose(rates[:20], 0.1 * np.arange(20) / 20, rtol=1e-6)
    np.testing.assert_allclose(rates[20:53], 0.1, rtol=1e-6)
    # Epoch 3.5 is 640 images into epoch 3: update 50 + 2.5, so from update 53 on.
    np.testing.assert_allclose(rates[53:], 0.01, rtol=1e-6)


def test_a_growing_recipe_says_so_in_its_plan():
    from tf_largebatch.records.plan import Plan

    plan = Plan(recipe=RECIPE, phases=RECIPE.phases(), scale="miniature", data="-")
    lines = plan.lines()
    assert ("updates", "55 (20.00, then 10.00, then 5.00 an epoch)") in lines
    texts = [f"{label.strip()}: {text}" for label, text in lines]
    grown = [text for text in texts if "global batch 256 =" in text]
    assert grown == [
        "epoch 3: update 50: global batch 256 = 1 replicas x 256 micro-batch x 1 accumulation"
    ]


@pytest.mark.parametrize(
    ("growth", "message"),
    [
        (((2, 128), (2, 256)), "at rising epochs"),
        (((5, 128),), "at rising epochs within 0 to 4"),
        (((1, 0),), "of batches >= 1"),
    ],
)
def test_growth_out_of_order_is_refused(growth, message):
    import dataclasses

    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE, growth=growth)
