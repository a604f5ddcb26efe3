"""A batch that grows during `fit`: the engine's phases, and one training for callbacks."""

import doctest

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch import BatchSizeSchedule, DistributedFit, ExactResume, LargeBatch, MomentumSGD
from tf_largebatch.records import batch_schedule
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.training.step import TrainingStep
from tf_largebatch.training.workers.strategy import make_strategy

EXAMPLES, EPOCHS, CLASSES = 64, 5, 3
GROWTH = ((2, 16), (3, 32))  # 8 at first: 16 + 4 + 2 * 2 = 24 updates


class Net(DistributedFit, keras.Model):
    pass


def make_model(made=Net):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation="tanh")(inputs)
    return made(inputs, keras.layers.Dense(CLASSES)(hidden))


def make_plan(model, **changes):
    options = {"global_batch": 8, "train_examples": EXAMPLES, "epochs": EPOCHS}
    options |= {"reference_rate": 0.1, "reference_batch": 8, "warmup_epochs": 1, "decay": ()}
    options |= {"growth": GROWTH, "optimizer_options": {"momentum": 0.9}}
    return LargeBatch(model, **options | changes)


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES, 6)).astype("float32")
    return x, rng.integers(0, CLASSES, EXAMPLES).astype("int32")


class Seen(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.told, self.steps = [], []

    def on_train_begin(self, logs=None):
        self.told.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.told.append(epoch)
        self.steps.append(self.params["steps"])

    def on_train_end(self, logs=None):
        self.told.append("end")


class Norms(keras.callbacks.Callback):
    """The squared norms of every update, by epoch."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append([])

    def on_train_batch_end(self, batch, logs=None):
        norm, micro_norm, *_ = self.model.watched.seen.numpy().astype("float64")
        self.epochs[-1].append((micro_norm**2, norm**2))


def by_fit(replicas, *, as_dataset=False, rate=None, **options):
    seen = Seen()
    with make_strategy(replicas).scope():
        model = make_model()
        plan = make_plan(model, replicas=replicas, micro_batch=4)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = plan.make_optimizer() if rate is None else MomentumSGD(rate)
        model.compile(optimizer, loss)
    x, y = data()
    given = {"x": tf.data.Dataset.from_tensor_slices((x, y))} if as_dataset else {"x": x, "y": y}
    arguments = plan.fit_options | {"shuffle": False, "verbose": 0, "callbacks": [seen]} | options
    history = model.fit(**given, **arguments)
    return model, seen, history


def by_engine(replicas):
    strategy = make_strategy(replicas)
    with strategy.scope():
        model = make_model()
        plan = make_plan(model, replicas=replicas, micro_batch=4)
        step = TrainingStep(
            model,
            plan.make_optimizer(),
            loss=lambda y, z: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z),
            plan=BatchPlan(
                global_batch=8, train_examples=EXAMPLES, replicas=replicas, micro_batch=4
            ),
            strategy=strategy,
        )
    whole = tf.data.Dataset.from_tensor_slices(data())
    phases = [step.plan]
    for epoch, batch in GROWTH:
        phases.append(phases[-1].followed_by(epoch, batch, 4))
    ends = [*(p.start_update for p in phases[1:]), phases[-1].updates_at(EPOCHS)]
    for phase, end in zip(phases, ends, strict=True):
        batches = strategy.experimental_distribute_dataset(whole.batch(phase.global_batch).repeat())
        number = tf.constant(end - phase.start_update)
        step.for_plan(phase).run(iter(batches), number)
    assert ends == [16, 20, 24]
    return model.get_weights()


@pytest.mark.parametrize(
    ("replicas", "as_dataset"), [(1, False), pytest.param(2, True, marks=pytest.mark.slow)]
)
def test_fit_grows_as_the_phases_of_the_engine_do(replicas, as_dataset):
    model, seen, history = by_fit(replicas, as_dataset=as_dataset)
    assert int(model.optimizer.iterations.numpy()) == 24
    for a, b in zip(model.get_weights(), by_engine(replicas), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    # For callbacks it is one training.
    assert seen.told == ["begin", 0, 1, 2, 3, 4, "end"]
    assert seen.steps == [8, 8, 4, 2, 2]
    assert history.epoch == [0, 1, 2, 3, 4] and len(history.history["loss"]) == 5
    assert model.history is history


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_batch_that_follows_the_noise_is_its_phases(replicas):
    ladder = BatchSizeSchedule({0: 8}, noise_ladder=(16, 32))
    model, seen, history = by_fit(replicas, epochs=9, batch_size=ladder, rate=0.5)
    batches = history.history.pop("global_batch")
    assert batches == sorted(batches) and 8 < batches[-1], batches
    assert seen.steps == [EXAMPLES // batch for batch in batches]
    assert seen.told == ["begin", *range(9), "end"]
    assert int(model.optimizer.iterations.numpy()) == sum(seen.steps)
    # The same phases, told beforehand.
    phases = BatchSizeSchedule({e: b for e, b in enumerate(batches) if b not in batches[:e]})
    told, _, expected = by_fit(replicas, epochs=9, batch_size=phases, rate=0.5)
    for a, b in zip(model.get_weights(), told.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert history.history == expected.history


def test_the_batch_grows_where_the_noise_scale_by_hand_is_above_it(capsys):
    norms = Norms()
    ladder = BatchSizeSchedule({0: 8}, noise_ladder=(16, 32))
    options = {"rate": 0.5, "callbacks": [norms], "verbose": 2}
    *_, history = by_fit(1, epochs=9, batch_size=ladder, **options)
    batches, expected, squares = history.history["global_batch"], [8], []
    told = []
    for batch, epoch in zip(batches[:-1], norms.epochs, strict=False):
        squares += epoch
        weights = 0.95 ** np.arange(len(squares))[::-1]
        small, big = weights @ np.array(squares) / weights.sum()  # of 4 examples, and of all
        grad_sq = (batch * big - 4 * small) / (batch - 4)
        scale = (small - big) / (1 / 4 - 1 / batch) / grad_sq
        rungs = [b for b in (8, 16, 32) if b <= scale] if len(squares) >= 20 and grad_sq > 0 else []
        expected.append(max([batch, *rungs]))
        if expected[-1] > batch:
            told.append(f"batch {expected[-1]}, at a noise scale of {scale:.3g}")
            squares = []
    assert batches == expected and len(told) == 2
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in printed if "noise scale" in line] == told


@pytest.mark.slow
def test_the_users_stop_comes_before_growth():
    ladder = BatchSizeSchedule({0: 8}, noise_ladder=(16,))
    *_, whole = by_fit(1, epochs=9, batch_size=ladder, rate=0.5)
    last = whole.history["global_batch"].index(16) - 1  # after it the batch would grow
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, _: setattr(stop.model, "stop_training", epoch == last)
    )
    *_, history = by_fit(1, epochs=9, batch_size=ladder, rate=0.5, callbacks=[stop])
    assert history.history["global_batch"] == [8] * (last + 1)


def test_averages_become_the_weights_at_the_end_only():
    model = make_model()
    optimizer = MomentumSGD(0.1, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    plain = make_model()
    plain.compile(MomentumSGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    seen = []
    schedule = BatchSizeSchedule({0: 32, 1: 64})
    for network in (model, plain):
        look = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda *_, n=network: seen.append(n.get_weights()[0])
        )
        options = {"shuffle": False, "verbose": 0, "callbacks": [look], "epochs": 2}
        network.fit(*data(), batch_size=schedule, **options)
    np.testing.assert_array_equal(seen[:2], seen[2:])  # of the phases' ends, before the average
    assert np.abs(model.get_weights()[0] - plain.get_weights()[0]).max() > 1e-4
    average = optimizer._model_variables_moving_average[0]
    np.testing.assert_array_equal(model.get_weights()[0], average)


def test_a_training_starts_and_stops_in_any_phase():
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, _: setattr(stop.model, "stop_training", epoch == 3)
    )
    seen = Seen()
    model, _, _ = by_fit(1, initial_epoch=2, callbacks=[seen, stop])
    assert int(model.optimizer.iterations.numpy()) == 4 + 2
    assert seen.told == ["begin", 2, 3, "end"]


def test_the_rate_follows_the_images():
    plan = make_plan(make_model(), warmup_epochs=2.5, decay=(4,))
    # 16 updates of 8, 4 of 16, then 32: epoch 2.5 is update 18, epoch 4 update 22.
    rates = {u: float(plan.schedule(u)) for u in (0, 8, 16, 18, 21, 22)}
    assert rates == pytest.approx({0: 0.1, 8: 0.1, 16: 0.1, 18: 0.1, 21: 0.1, 22: 0.01})
    rising = make_plan(make_model(), reference_batch=2, warmup_epochs=2.5)  # 0.1 to 0.4
    # Update 17 has 16 updates of 8 and one of 16 behind it: 144 images of the warmup's 160.
    assert float(rising.schedule(17)) == pytest.approx(0.1 + 0.3 * 144 / 160)
    text = plan.text()
    assert "epoch 3       update 20: batch 32" in text
    assert "24 (8.00, then 4.00, then 2.00 an epoch)" in text
    assert "batch_size=BatchSizeSchedule({0: 8, 2: 16, 3: 32}), epochs=5" in text


def test_the_example_of_the_schedule_runs():
    tried = doctest.testmod(batch_schedule)
    assert tried.failed == 0 < tried.attempted


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ({1: 8}, "told from epoch 0 on. .* Add 0: BATCH"),
        ({0: 0}, "`batches` must be a whole number of at least 1"),
        ({-1: 8}, "`batches` must be a whole number of at least 0"),
        (8, "`batches` must be a dict"),
        (({0: 8, 2: 16}, (32,)), "that of epoch 0 alone with a noise_ladder. .* The ladder names"),
        (({0: 8}, (16, 16)), "`noise_ladder` must be batches that rise from above 8"),
        (({0: 8}, (4,)), "`noise_ladder` must be batches that rise from above 8"),
        (({0: 8}, 16), "`noise_ladder` must be a list or a tuple"),
        (({0: 8}, (16.5,)), "`noise_ladder` must be a whole number"),
    ],
)
def test_batches_that_are_none_are_refused(batches, words):
    batches, ladder = batches if isinstance(batches, tuple) else (batches, ())
    with pytest.raises(ValueError, match=words):
        BatchSizeSchedule(batches, noise_ladder=ladder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "`micro_batch` must be smaller than the first batch of .*=None. Give 4, or the phas"),
        ({"micro_batch": 8}, "micro_batch=8. Give 4, or the phases in `batches`"),
        ({"micro_batch": 4, "ladder": (16, 48)}, "divisors of the 64 training examples"),
    ],
)
def test_a_noise_scale_that_cannot_be_measured_is_refused_before_training(arguments, words):
    model = make_model()
    model.compile("sgd", "sparse_categorical_crossentropy")
    schedule = BatchSizeSchedule({0: 8}, noise_ladder=arguments.pop("ladder", (16,)))
    with pytest.raises(ValueError, match=words) as error:
        model.fit(*data(), batch_size=schedule, **arguments)
    assert "\n" not in str(error.value) and not model.optimizer.iterations.numpy()


class OwnStep(Net):
    def train_step(self, data):
        return keras.Model.train_step(self, data)


def test_a_step_of_ones_own_shows_no_noise():
    model = make_model(OwnStep)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="`train_step` .* must call super"):
        schedule = BatchSizeSchedule({0: 8}, noise_ladder=(16,))
        model.fit(*data(), batch_size=schedule, micro_batch=4, verbose=0)


def resumed():
    resume = ExactResume("never-made")
    return {"x": resume.epochs(lambda _: whole()), "callbacks": [resume]}


def whole():
    return tf.data.Dataset.from_tensor_slices(data())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda: {"x": whole().repeat()}, r"`x.cardinality\(\)` must be of a known .*=-1"),
        (lambda: {"x": whole().filter(lambda *_: True)}, r"cardinality\(\)=-2. Tell it by"),
        (lambda: {"x": iter(())}, "`x` must be arrays or a tf.data.Dataset of single examples"),
        (lambda: {"x": whole().take(40)}, "divisors of the 40 .* Give 32 examples"),
        (resumed, "`callbacks` must be without ExactResume .*Received: .*'ExactResume'.*tf_large"),
        (lambda: {"x": whole(), "steps_per_epoch": 3}, "`steps_per_epoch` must be left out"),
        (lambda: {"x": whole(), "micro_batch": 16}, "batch=8, replicas x micro_batch=16"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_training(arguments, words):
    model = make_model()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=words) as error:
        model.fit(batch_size=BatchSizeSchedule({0: 8, 2: 16}), **arguments())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"growth": ((2, 24),)}, "`growth` must be batches that divide the 64 training examples"),
        ({"growth": ((3, 16), (2, 32))}, "`growth` must be a whole number of at least 4"),
        ({"growth": ((5, 16),)}, "`growth` must be below the 5 epochs"),
        ({"growth": 16}, r"`growth` must be \(epoch, global batch\) pairs"),
        ({"global_batch": 12}, "`global_batch` must be a divisor of the 64 training examples"),
        ({"made": keras.Model}, "`growth` must be left out with a plain Keras model"),
    ],
)
def test_growth_that_cannot_be_is_refused(changes, words):
    model = make_model(changes.pop("made", Net))
    with pytest.raises(ValueError, match=words):
        make_plan(model, **changes)
