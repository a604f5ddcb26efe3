"""Keras's fit on several replicas and workers gives what it gives on one device."""

import functools
import pickle
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import make_once
from workers import run_workers

from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD
from tf_largebatch.training.keras_fit import DistributedFit
from tf_largebatch.training.workers.strategy import make_strategy

BATCH, STEPS, EPOCHS, CLASSES, FEATURES = 16, 10, 2, 5, 6  # 20 updates
EVALUATED, EVALUATION_BATCH = 449, 64  # 7 batches, and one example that is one worker's alone

OPTIMIZERS = {
    "lars": lambda: LARS(0.3, momentum=0.9, weight_decay=1e-3, trust_coefficient=0.02),
    "lamb": lambda: LAMB(0.02, weight_decay=1e-2),
    "sgd": lambda: MomentumSGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "clipped": lambda: MomentumSGD(0.1, momentum=0.9, global_clipnorm=0.1),
}


class Net(DistributedFit, keras.Model):
    """Functional models."""


class Stack(DistributedFit, keras.Sequential):
    pass


class Subclassed(DistributedFit, keras.Model):
    """Makes its variables in the first call, and logs what Keras does not know."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="tanh")
        self.head = keras.layers.Dense(CLASSES)

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def train_step(self, data):
        logs = super().train_step(data)
        largest = tf.reduce_max(tf.math.bincount(data[1], minlength=CLASSES))
        return {**logs, "largest_class": largest, "two": tf.constant([1.0, 2.0])}


def layers(norm=None):
    # The first normalisation sees the data only, so that its statistics can be worked out.
    first, middle = ([norm(momentum=0.8)], [norm(momentum=0.8)]) if norm else ([], [])
    hidden = keras.layers.Dense(8, kernel_regularizer=keras.regularizers.L2(1e-3))
    head = keras.layers.Dense(CLASSES)
    return [*first, hidden, *middle, keras.layers.Activation("tanh"), head]


def make_model(kind):
    if kind == "subclassed":
        return Subclassed()
    if kind in ("stack", "own step"):
        return (Stack if kind == "stack" else OwnStep)([keras.Input((FEATURES,)), *layers()])
    norms = {
        "norm": keras.layers.BatchNormalization,
        "joined norm": functools.partial(GhostBatchNormalization, replica_group=None),
        "joined by keras": functools.partial(keras.layers.BatchNormalization, synchronized=True),
        "ghost norm": functools.partial(GhostBatchNormalization, BATCH // 2, epsilon=1e-3),
    }
    inputs = outputs = keras.Input((FEATURES,))
    for layer in layers(norms.get(kind)):
        outputs = layer(outputs)
    return Net(inputs, outputs)


def compiled(strategy, optimizer="sgd", kind="functional", **options):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = make_model(kind)
        arguments = {
            "optimizer": OPTIMIZERS[optimizer]() if isinstance(optimizer, str) else optimizer(),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["accuracy"],
        }
        model.compile(**{**arguments, **options})
    return model


def examples(number, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(number, FEATURES)).astype("float32")
    return x, rng.integers(0, CLASSES, number).astype("int32")


def batches(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH, drop_remainder=True)


class Seen(keras.callbacks.Callback):
    """Records what callbacks see, and the moving statistics when they see it."""

    def __init__(self):
        super().__init__()
        self.batches, self.logs, self.statistics = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)
        self.logs.append({k: np.asarray(v) for k, v in logs.items()})

    def on_epoch_end(self, epoch, logs=None):
        self.statistics.append([np.array(v) for v in self.model.non_trainable_variables])


def train(strategy, steps_per_execution=1, scored=False, **case):
    model = compiled(strategy, steps_per_execution=steps_per_execution, **case)
    seen = Seen()
    x, y = examples(EVALUATED, seed=1)
    history = model.fit(
        batches(*examples(BATCH * STEPS)),
        epochs=EPOCHS,
        shuffle=False,
        validation_data=(x, y),
        validation_batch_size=EVALUATION_BATCH,
        callbacks=[seen],
        verbose=0,
    )
    results = {
        "updates": int(model.optimizer.iterations.numpy()),
        "weights": [np.array(v) for v in model.trainable_variables],
        "statistics": [np.array(v) for v in model.non_trainable_variables],
        "history": history.history,
        "batches": seen.batches,
        "logs": seen.logs,
        "seen_statistics": seen.statistics,
    }
    if scored:
        weights = np.random.default_rng(2).uniform(0.0, 2.0, EVALUATED).astype("float32")
        results["evaluated"] = model.evaluate(x, y, EVALUATION_BATCH, 0, sample_weight=weights)
        results["predicted"] = model.predict(x, EVALUATION_BATCH, 0)
    return results


CASES = {
    "lars": {"optimizer": "lars", "scored": True},
    "lars, 4 a call": {"optimizer": "lars", "steps_per_execution": 4, "scored": True},
    "lamb, stack": {"optimizer": "lamb", "kind": "stack"},
    "clipped, subclassed": {"optimizer": "clipped", "kind": "subclassed", "steps_per_execution": 4},
}
NORM = {"kind": "norm"}


def shuffled(strategy, seed):
    """What the mean of the labels over one epoch of shuffled arrays was, or the refusal."""
    keras.utils.set_random_seed(seed)
    x, y = examples(BATCH * STEPS)
    with strategy.scope():
        model = Stack([keras.Input((FEATURES,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=[keras.metrics.MeanMetricWrapper(label, "label")])
    try:
        return model.fit(x, np.arange(len(y), dtype="float32"), BATCH, verbose=0).history["label"]
    except ValueError as error:
        return str(error)


def label(truth, prediction):
    return truth


def work(cases):
    """In each worker: what every case gives, by name."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    rank = strategy.cluster_resolver.task_id
    results = {name: train(strategy, **case) for name, case in cases.items()}
    return {
        **results,
        "other seed": shuffled(strategy, seed=rank),
        "shuffled": shuffled(strategy, seed=3),
    }


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    def make(folder):
        done = run_workers(work, cases={**CASES, "norm": NORM}, timeout_seconds=600)
        (folder / "results").write_bytes(pickle.dumps(done))

    return pickle.loads((make_once(tmp_path_factory, "fit", make) / "results").read_bytes())


@pytest.fixture(scope="module")
def alone():
    return functools.cache(lambda name: train(tf.distribute.get_strategy(), **CASES[name]))


def assert_equal_runs(got, expected):
    assert got["updates"] == expected["updates"] == STEPS * EPOCHS
    for a, b in zip(got["weights"], expected["weights"], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # float32 sums in another order, 20 updates
    known = [name for name in expected["history"] if name not in ("largest_class", "two")]
    assert got["history"].keys() == expected["history"].keys() and len(known) == 4
    for name in known:
        np.testing.assert_allclose(got["history"][name], expected["history"][name], rtol=2e-6)
    assert got["batches"] == expected["batches"]
    for a, b in zip(got["logs"], expected["logs"], strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=2e-6)
        np.testing.assert_allclose(a["accuracy"], b["accuracy"], rtol=2e-6)
    for name in ("evaluated", "predicted"):
        if name in expected:
            np.testing.assert_allclose(got[name], expected[name], rtol=2e-6, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_workers_give_what_one_process_gives(workers, alone, name):
    for rank in (0, 1):
        assert_equal_runs(workers[rank][name], alone(name))


@pytest.mark.parametrize(
    "name", [pytest.param("lars, 4 a call", marks=pytest.mark.slow), "clipped, subclassed"]
)
def test_two_replicas_of_one_process_give_what_one_gives(alone, name):
    assert_equal_runs(train(make_strategy(2), **CASES[name]), alone(name))


@pytest.mark.slow
def test_the_cases_train(alone):
    # Equal runs would mean nothing if the weights stood still.
    for name in CASES:
        losses = alone(name)["history"]["loss"]
        assert losses[1] < losses[0] - 0.01


@pytest.mark.slow
def test_workers_see_the_same_logs_also_those_that_a_train_step_adds(workers):
    name = "clipped, subclassed"
    for mine, other in zip(workers[0][name]["logs"], workers[1][name]["logs"], strict=True):
        assert mine.keys() == other.keys() == {"loss", "accuracy", "largest_class", "two"}
        for key in mine:
            np.testing.assert_array_equal(mine[key], other[key])
    # Calls end at updates 4, 8 and 10: the log is the mean of what the replicas count there.
    _, y = examples(BATCH * STEPS)
    halves = [y[k * BATCH :][:BATCH].reshape(2, -1) for k in (3, 7, 9)] * EPOCHS
    counts = [np.mean([np.bincount(half).max() for half in both]) for both in halves]
    np.testing.assert_allclose([log["largest_class"] for log in workers[0][name]["logs"]], counts)
    np.testing.assert_array_equal(workers[0][name]["logs"][0]["two"], [1.0, 2.0])


def statistics_by_hand(epochs):
    """Moving mean and variance of the data after the epochs, over half batches and averaged."""
    x, _ = examples(BATCH * STEPS)
    halves = x.astype(np.float64).reshape(STEPS, 2, BATCH // 2, FEATURES)
    mean, variance = np.zeros((2, FEATURES)), np.ones((2, FEATURES))
    for half in np.concatenate([halves] * epochs):
        mean = 0.8 * mean + 0.2 * half.mean(axis=1)
        variance = 0.8 * variance + 0.2 * half.var(axis=1)
    return mean.mean(axis=0), variance.mean(axis=0)


@pytest.mark.slow
def test_callbacks_see_moving_statistics_averaged_over_workers(workers):
    for rank in (0, 1):
        for epoch, seen in enumerate(workers[rank]["norm"]["seen_statistics"], start=1):
            for got, expected in zip(seen[:2], statistics_by_hand(epoch), strict=True):
                np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.slow
def test_batch_norm_on_two_workers_is_ghost_batch_norm_of_half_batches(workers):
    ghost = train(tf.distribute.get_strategy(), kind="ghost norm")
    for rank in (0, 1):
        got = workers[rank]["norm"]
        assert_equal_runs(got, ghost)
        for a, b in zip(got["statistics"], ghost["statistics"], strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


@pytest.mark.slow
def test_shuffled_arrays_need_one_seed_and_then_give_each_example_once(workers):
    for rank in (0, 1):
        assert "seeds [0, 1]" in workers[rank]["other seed"]
        # The labels are 0 to 159.
        np.testing.assert_allclose(workers[rank]["shuffled"], [79.5], rtol=1e-6)


def test_without_validation_the_statistics_agree_before_callbacks_run():
    strategy, seen = make_strategy(2), []
    with strategy.scope():
        norm = keras.layers.BatchNormalization(momentum=0.5)
        model = Stack([keras.Input((1,)), norm, keras.layers.Dense(1)])
        model.compile("sgd", "mse")

    def record(epoch, logs):
        local = strategy.experimental_local_results
        seen.append([[float(v[0]) for v in local(m.value)] for m in norm.non_trainable_variables])

    watcher = keras.callbacks.LambdaCallback(on_epoch_end=record)
    x = np.array([[1.0], [3.0], [10.0], [18.0]], "float32")
    model.fit(x, x, batch_size=4, shuffle=False, verbose=0, callbacks=[watcher])
    # Replica means 2 and 14, variances 1 and 16: 0.5 * 0 + 0.5 * 8 and 0.5 * 1 + 0.5 * 8.5
    np.testing.assert_allclose(seen, [[[4.0, 4.0], [4.75, 4.75]]], rtol=1e-6)


def spread(model, strategy):
    """Gives replica r the moving means r and variances 1 + 4 r, as if it had seen other data."""

    def assign():
        r = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_mean.assign(r * tf.ones(layer.moving_mean.shape))
                layer.moving_variance.assign((1 + 4 * r) * tf.ones(layer.moving_mean.shape))

    tf.function(lambda: strategy.run(assign))()


@pytest.mark.parametrize("method", ["predict", "evaluate"])
def test_prediction_and_evaluation_use_the_mean_of_the_statistics(method):
    strategy = make_strategy(2)
    with strategy.scope():
        norm = keras.layers.BatchNormalization(epsilon=1.0)
        frozen = keras.layers.BatchNormalization()
        frozen.trainable = False
        model = Stack([keras.Input((1,)), norm, frozen])
        model.compile("sgd", "mae")
    spread(model, strategy)
    x = np.full((4, 1), 4.5, "float32")
    # mean (0 + 1) / 2, variance (1 + 5) / 2: (4.5 - 0.5) / sqrt(3 + 1) = 2
    model.predict(x, verbose=0) if method == "predict" else model.evaluate(x, x, verbose=0)
    for value in strategy.experimental_local_results(norm.moving_variance.value):
        np.testing.assert_array_equal(value, [3.0])
    np.testing.assert_allclose(norm(x), np.full((4, 1), 2.0), rtol=1e-6)
    kept = strategy.experimental_local_results(frozen.moving_mean.value)
    np.testing.assert_array_equal([float(v[0]) for v in kept], [0.0, 1.0])


SGD = keras.optimizers.SGD
UNWEIGHTED = keras.losses.SparseCategoricalCrossentropy(reduction="sum")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"run_eagerly": True}, "`run_eagerly` must be False"),
        (
            {"optimizer": lambda: SGD(0.1, gradient_accumulation_steps=2)},
            "`gradient_accumulation_steps` must be None .* Received: .*=2. Call fit with `micro_b",
        ),
        (
            {"optimizer": lambda: SGD(0.1, use_ema=True, ema_overwrite_frequency=3)},
            "`ema_overwrite_frequency` must be None .* Received: .*=3",
        ),
        ({"loss": UNWEIGHTED}, "reduction='sum'"),
        ({"loss": [UNWEIGHTED]}, "reduction='sum'"),
        ({"kind": "joined norm", "jit_compile": True}, "`jit_compile` must be False where batch"),
        ({"kind": "joined by keras", "jit_compile": True}, "`jit_compile` must be False where bat"),
    ],
)
def test_what_several_replicas_cannot_do_is_refused_before_training(options, words):
    model = compiled(make_strategy(2), **options)
    with pytest.raises(ValueError, match=words) as error:
        model.fit(*examples(BATCH), BATCH, verbose=0)
    assert "\n" not in str(error.value)
    assert model.optimizer.iterations.numpy() == 0


def test_what_micro_batches_cannot_do_is_refused_before_training():
    with pytest.raises(ValueError, match="`synchronized` .* Use GhostBatchNormalization"):
        joined = compiled(make_strategy(2), kind="joined by keras")
        joined.fit(*examples(BATCH), BATCH, micro_batch=4, verbose=0)
    model = compiled(tf.distribute.get_strategy())
    with pytest.raises(ValueError, match="`micro_batch` must be a whole number of at least 1"):
        model.fit(*examples(BATCH), BATCH, micro_batch=0)
    with pytest.raises(ValueError, match="batch=16, replicas x micro_batch=5. Give 20"):
        model.fit(*examples(BATCH), BATCH, micro_batch=5)
    with pytest.raises(ValueError, match="`batch_size` must divide the training examples .*=19"):
        model.fit(*examples(BATCH + 3), BATCH, micro_batch=4)
    model.compile("sgd", UNWEIGHTED)
    with pytest.raises(ValueError, match="reduction='sum'"):
        model.fit(*examples(BATCH), BATCH, micro_batch=4)


def test_tensors_of_unknown_rank_are_refused():
    data = batches(*examples(BATCH))
    blurred = data.map(lambda x, y: (x, tf.numpy_function(lambda v: v, [y], tf.int32)))
    with pytest.raises(ValueError, match="unknown rank, int32. Call `tensor.set_shape`"):
        compiled(tf.distribute.get_strategy()).fit(blurred, shuffle=False, verbose=0)


class OwnStep(Stack):
    """Replaces the update, as Keras's guides show it."""

    def train_step(self, data):
        return keras.Model.train_step(self, data)


@pytest.mark.parametrize(
    ("options", "arguments", "words"),
    [
        ({"optimizer": lambda: SGD(0.1, global_clipnorm=1.0)}, {}, "`global_clipnorm` is set"),
        ({"optimizer": lambda: SGD(0.1, clipvalue=1.0)}, {}, "Received: clipvalue=1.0"),
        ({"optimizer": lambda: keras.optimizers.LossScaleOptimizer(SGD(0.1))}, {}, "`optimizer` i"),
        ({"jit_compile": True}, {}, "`jit_compile` is set"),
        ({}, {"micro_batch": 4}, "Received: micro_batch=4"),
    ],
)
def test_a_train_step_that_replaces_ours_is_refused_what_it_would_do_wrong(
    options, arguments, words
):
    model = compiled(make_strategy(2), kind="own step", **options)
    with pytest.raises(ValueError, match=f"OwnStep must call super.*{words}"):
        model.fit(*examples(BATCH), BATCH, verbose=0, **arguments)
    assert model.optimizer.iterations.numpy() == 0


def test_an_overflow_on_the_last_replica_skips_that_update_everywhere():
    x, y = examples(3 * BATCH)
    bad = x.copy()
    bad[2 * BATCH - 1] = np.inf  # the last example of the second update: on the last replica
    runs = []
    for data in ((bad, y), tuple(np.delete(t, np.s_[BATCH : 2 * BATCH], axis=0) for t in (x, y))):
        keras.config.set_dtype_policy("mixed_float16")
        model = compiled(make_strategy(2), "lars")
        model.fit(*data, BATCH, shuffle=False, verbose=0, micro_batch=4)
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        runs.append((model.get_weights(), float(model.optimizer.dynamic_scale.numpy())))
        assert int(model.optimizer.iterations.numpy()) == 2
    (got, lowered), (expected, scale) = runs
    assert (lowered, scale) == (2.0**14, 2.0**15)
    for a, b in zip(got, expected, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=1e-5)  # the scale differs by then: float16 rounding


def sliced(number):
    return tf.data.Dataset.from_tensor_slices(examples(number))


def generate():
    yield examples(BATCH)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            lambda: (*examples(BATCH * 2 + 3), BATCH),
            "`batch_size` must divide .* examples=35. Give 32",
        ),
        (lambda: examples(BATCH), "`batch_size` must be given"),
        (
            lambda: (*examples(15), 15),
            "multiple of the number of replicas times .* batch=15, replicas x micro_batch=2",
        ),
        (lambda: (sliced(BATCH).batch(8),), "full batches"),
        (lambda: (sliced(BATCH).batch(1, drop_remainder=True),), "multiple of .* batch=1"),
        (lambda: (generate(),), "`x` must be arrays or a tf.data.Dataset .* x of generator"),
    ],
)
def test_batches_that_do_not_split_equally_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        compiled(make_strategy(2)).fit(*arguments(), verbose=0)


def test_the_validation_split_is_not_counted_as_training_data():
    # 40 examples, of which 8 validate: 32 are two batches of 16; 40 would not be.
    options = {"batch_size": BATCH, "validation_split": 0.2, "shuffle": False, "verbose": 0}
    history = compiled(make_strategy(2)).fit(*examples(40), **options)
    assert "val_loss" in history.history
    with pytest.raises(ValueError, match="examples=36"):
        compiled(make_strategy(2)).fit(*examples(40), **{**options, "validation_split": 0.1})


@pytest.mark.parametrize("replicas", [1, 2])
def test_steps_beyond_those_asked_for_are_refused(replicas):
    model = compiled(make_strategy(replicas), steps_per_execution=3)
    data = batches(*examples(BATCH)).repeat()
    words = "must be a multiple of `steps_per_execution`, or Keras runs 9 steps"
    with pytest.raises(ValueError, match=f"`steps_per_epoch` {words}"):
        model.fit(data, steps_per_epoch=8)
    with pytest.raises(ValueError, match=f"`validation_steps` {words}"):
        model.fit(data, steps_per_epoch=9, validation_data=data, validation_steps=8)
    with pytest.raises(ValueError, match=f"`steps` {words}"):
        model.evaluate(data, steps=8)
    with pytest.raises(ValueError, match=f"`steps` {words}"):
        model.predict(data, steps=8)


def test_what_was_made_outside_the_scope_is_refused():
    strategy, data = make_strategy(2), (*examples(BATCH), BATCH)
    outside = OPTIMIZERS["sgd"]()
    with pytest.raises(ValueError, match="from outside it: optimizer"):
        compiled(strategy, lambda: outside).fit(*data)
    metric = keras.metrics.SparseCategoricalAccuracy()
    with pytest.raises(ValueError, match="from outside it: .*compile_metrics"):
        compiled(strategy, metrics=[metric]).fit(*data)
    for model in (compiled(tf.distribute.get_strategy()), Subclassed()):
        with strategy.scope(), pytest.raises(ValueError, match="from outside it: model"):
            model.compile(OPTIMIZERS["sgd"](), "sparse_categorical_crossentropy")
            model.fit(*data)


def test_single_batches_and_made_up_callback_lists_are_refused():
    model, data = compiled(make_strategy(2)), examples(BATCH)
    for method in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match="must not be used on several replicas"):
            method(*data)
    with pytest.raises(ValueError, match="`callbacks` must be a list"):
        model.fit(*data, BATCH, callbacks=keras.callbacks.CallbackList())


def test_data_of_unknown_length_ends_the_epoch_where_it_ends():
    # 5 batches of which the length is not known, 2 a call: 3 calls an epoch, the last of one.
    data = batches(*examples(BATCH * 5)).filter(lambda x, y: True)
    model = compiled(make_strategy(2), steps_per_execution=2)
    with pytest.warns(UserWarning, match="ran out of data"):
        seen = Seen()
        model.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[seen])
    assert model.optimizer.iterations.numpy() == 10
    assert seen.batches == [1, 3, 5] * 2


def test_one_device_keeps_what_keras_can_do_and_saves_and_loads(tmp_path):
    model = compiled(tf.distribute.get_strategy(), lambda: SGD(0.1, clipnorm=1.0))
    model.fit(*examples(BATCH + 3), BATCH, verbose=0)
    model.train_on_batch(*examples(BATCH))
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path, custom_objects={"Net": Net})
    assert isinstance(loaded, DistributedFit) and loaded.compiled
    for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


PAGE = Path(__file__).parents[1] / "docs" / "multi_worker.md"


def run_page(code):
    names = {}
    exec(code, names)
    return [np.array(w) for w in names["model"].get_weights()], names["history"].history


@pytest.mark.slow
def test_the_example_of_the_page_is_short_and_gives_one_result_on_any_number_of_workers():
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    two = run_workers(run_page, code=code, timeout_seconds=300)
    (one,) = run_workers(run_page, workers=1, code=code, timeout_seconds=300)
    for weights, history in two:
        for a, b in zip(weights, one[0], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)  # 60 updates
        assert history["val_accuracy"][-1] > 0.85


def test_dropout_draws_other_masks_on_every_replica():
    # The output is each example's kept ones (2 each) times the weights, so the gradient of weight j
    # of the mean over 16 examples is -2 * (how often j was kept) / 16. Equal masks of the two
    # replicas would make all counts even.
    strategy, rate = make_strategy(2), 16 / 2
    with strategy.scope():
        model = Stack(
            [
                keras.Input((40,)),
                keras.layers.Dropout(0.5, seed=1),
                keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
            ]
        )
        model.compile(SGD(rate), loss=lambda y, prediction: -prediction[:, 0])
    before, seen = np.zeros(40), []
    for _ in range(2):
        model.fit(np.ones((16, 40), "float32"), np.zeros(16), 16, shuffle=False, verbose=0)
        after = model.get_weights()[0][:, 0]
        seen.append(np.round(after - before).astype(int))
        before = after
    for counts in seen:
        assert (counts % 2).any()
        assert 5 < counts.mean() < 11
    assert (seen[0] != seen[1]).any()  # the generator moves on


def test_another_backend_is_refused_in_a_sentence(monkeypatch):
    model = Stack([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="must be tensorflow for DistributedFit. .*='jax'. Leave"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)))
