"""The engine: one update is the same however the batch is split."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.optimizers import MomentumSGD
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.training.step import COLUMNS, NOT_INLINED, TrainingStep
from tf_largebatch.training.workers.strategy import make_strategy

EXAMPLES, CLASSES, BATCH = 96, 5, 24


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(EXAMPLES, 6, 6, 2)).astype("float32")
    return images, rng.integers(0, CLASSES, EXAMPLES).astype("int32")


def losses(labels, logits):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def make_step(replicas=1, micro_batch=None, *, norm=False, optimizer=None, **options):
    strategy = make_strategy(replicas)
    plan = BatchPlan(
        global_batch=BATCH, train_examples=EXAMPLES, replicas=replicas, micro_batch=micro_batch
    )
    keras.utils.set_random_seed(1)
    with strategy.scope():
        middle = [keras.layers.BatchNormalization(momentum=0.9)] if norm else []
        model = keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                keras.layers.Conv2D(4, 3),
                *middle,
                keras.layers.ReLU(),
                keras.layers.Flatten(),
                keras.layers.Dense(CLASSES),
            ]
        )
        make = optimizer or (lambda: MomentumSGD(0.1, momentum=0.9, weight_decay=1e-3))
        step = TrainingStep(model, make(), loss=losses, plan=plan, strategy=strategy, **options)
    return step


def train(step, data, updates):
    batches = tf.data.Dataset.from_tensor_slices(data).repeat()
    batches = batches.batch(step.plan.replica_batch, drop_remainder=True)
    iterator = iter(step.strategy.distribute_datasets_from_function(lambda context: batches))
    rows = step.run(iterator, tf.constant(updates)).numpy()
    return rows, [np.array(w) for w in step.model.get_weights()]


def column(rows, name):
    return rows[:, COLUMNS.index(name)]


@pytest.mark.parametrize(("replicas", "micro_batch"), [(1, 6), (1, 1), (2, None), (2, 3)])
def test_the_split_of_the_batch_does_not_change_the_weights(data, replicas, micro_batch):
    whole_rows, whole = train(make_step(), data, 20)
    rows, weights = train(make_step(replicas, micro_batch), data, 20)
    for a, b in zip(whole, weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # float32 sums in another order, 20 updates
    own = [COLUMNS.index("micro_grad_norm")]  # of the micro-batches, so it does depend on them
    np.testing.assert_allclose(
        np.delete(whole_rows, own, axis=1), np.delete(rows, own, axis=1), rtol=1e-5
    )


def test_micro_batches_of_large_tensors_train_on():
    # 256 MB or so at the peak: there TensorFlow sums batch-norm state in temporary variables.
    units, batch = 400_000, 32
    plan = BatchPlan(global_batch=batch, train_examples=4 * batch, micro_batch=16)
    strategy = make_strategy(1)
    with strategy.scope():
        hidden = [keras.layers.Dense(units), keras.layers.BatchNormalization(momentum=0.9)]
        model = keras.Sequential([keras.Input((2,)), *hidden, keras.layers.Dense(CLASSES)])
        step = TrainingStep(model, MomentumSGD(1e-6), loss=losses, plan=plan, strategy=strategy)
    rows = (np.ones((batch, 2), "float32"), np.zeros(batch, "int32"))
    for call in range(2):
        train(step, rows, 2)
        assert int(step.optimizer.iterations.numpy()) == 2 * (call + 1)


def test_a_micro_step_runs_on_the_device_of_its_replica():
    # Inside a function that is not inlined TensorFlow forgets the device around it; where its call
    # stands decides. A resource knows where it was made.
    @tf.function
    def devices():
        def replica():
            handle = functools.partial(tf.raw_ops.VarHandleOp, dtype=tf.float32, shape=[])
            made = tf.function(lambda: handle(shared_name="made"), **NOT_INLINED)
            start = tf.constant(0), handle(shared_name="start")
            return tf.while_loop(lambda i, _: i < 2, lambda i, _: (i + 1, made()), start)[1]

        return strategy.run(replica)

    strategy = make_strategy(2)
    results = [str(r) for r in strategy.experimental_local_results(devices())]
    assert ["CPU:0" in r for r in results] == [True, False]
    assert ["CPU:1" in r for r in results] == [False, True]


def test_clipping_acts_on_the_gradient_of_the_global_batch(data):
    # Each replica's own gradient is larger than their mean: clipping before the sum shows.
    def clipped():
        return keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.05)

    _, whole = train(make_step(optimizer=clipped), data, 10)
    _, weights = train(make_step(2, optimizer=clipped), data, 10)
    for a, b in zip(whole, weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_first_update_is_the_one_worked_out_by_hand(data):
    # One linear layer without bias, plain SGD: W' = W - rate * x^T (softmax(x W) - onehot) / B.
    images = data[0][:BATCH].reshape(BATCH, -1).astype("float64")
    labels = data[1][:BATCH]
    strategy = make_strategy(1)
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES, use_bias=False),
        ]
    )
    before = model.get_weights()[0].astype("float64")
    plan = BatchPlan(global_batch=BATCH, train_examples=EXAMPLES, micro_batch=8)
    step = TrainingStep(
        model, MomentumSGD(0.5, momentum=0.0), loss=losses, plan=plan, strategy=strategy
    )
    rows, (after,) = train(step, data, 1)

    logits = images @ before
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = exponent / exponent.sum(axis=1, keepdims=True)
    gradient = images.T @ (softmax - np.eye(CLASSES)[labels]) / BATCH
    np.testing.assert_allclose(after, before - 0.5 * gradient, atol=1e-6)
    loss = -np.log(softmax[np.arange(BATCH), labels]).mean()
    accuracy = (logits.argmax(axis=1) == labels).mean()
    parts = [
        images[i : i + 8].T @ (softmax - np.eye(CLASSES)[labels])[i : i + 8] / 8
        for i in range(0, BATCH, 8)
    ]
    micro = np.sqrt(np.mean([np.sum(part**2) for part in parts]))
    expected = [loss, accuracy, 0.5, np.linalg.norm(gradient), 1, -1, 0, micro]
    np.testing.assert_allclose(rows[0], expected, rtol=1e-5)


@pytest.mark.parametrize(("replicas", "micro_batch"), [(1, None), (1, 6), (2, 6)])
def test_running_statistics_move_once_per_update_by_the_mean_of_the_micro_batches(
    data, replicas, micro_batch
):
    step = make_step(replicas, micro_batch, norm=True)
    kernel, bias = (v.numpy().astype("float64") for v in step.model.layers[0].trainable_variables)
    train(step, data, 1)
    # Valid 3x3 convolution in float64, then moments per micro-batch.
    images = data[0][:BATCH].astype("float64")
    patches = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    features = np.einsum("nhwcij,ijco->nhwo", patches, kernel) + bias
    groups = features.reshape(-1, step.plan.micro_batch, *features.shape[1:])
    mean = groups.mean(axis=(1, 2, 3)).mean(axis=0)
    variance = groups.var(axis=(1, 2, 3)).mean(axis=0)
    norm = step.model.layers[1]
    np.testing.assert_allclose(norm.moving_mean.numpy(), 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), 0.9 + 0.1 * variance, rtol=1e-5)


def test_micro_batches_and_replicas_of_one_size_agree_with_batch_norm(data):
    _, micro = train(make_step(1, 12, norm=True), data, 20)
    _, mirrored = train(make_step(2, None, norm=True), data, 20)
    for a, b in zip(micro, mirrored, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_an_update_counts_once_whatever_the_accumulation(data):
    step = make_step(1, 6)
    train(step, data, 7)
    assert int(step.optimizer.iterations.numpy()) == 7


def test_another_number_of_updates_does_not_retrace(data):
    step = make_step()
    batches = tf.data.Dataset.from_tensor_slices(data).repeat().batch(BATCH)
    iterator = iter(step.strategy.distribute_datasets_from_function(lambda context: batches))
    for updates in (3, 1, 5):
        assert step.run(iterator, tf.constant(updates)).shape == (updates, len(COLUMNS))
    assert step.run.experimental_get_tracing_count() == 1


def test_a_gradient_that_is_not_finite_is_named(data):
    images = data[0].copy()
    images[BATCH] = np.inf  # the first example of the second update
    rows, _ = train(make_step(2, 6), (images, data[1]), 2)
    assert column(rows, "first_bad_tensor")[0] == -1
    assert column(rows, "first_bad_tensor")[1] == 0


def test_weight_norm_is_that_of_all_trainable_weights_together(data):
    step = make_step(norm=True)
    flat = np.concatenate([v.numpy().ravel() for v in step.model.trainable_variables])
    assert float(step.weight_norm()) == pytest.approx(np.linalg.norm(flat), rel=1e-6)


def half():
    keras.config.set_dtype_policy("mixed_float16")


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_overflow_on_the_last_replica_skips_that_update_everywhere(data, replicas):
    images = data[0].copy()
    images[2 * BATCH - 1] = np.inf  # the last example of the second update: on the last replica
    half()
    step = make_step(replicas, scale_loss=True)
    rows, weights = train(step, (images, data[1]), 3)
    assert all(np.isfinite(w).all() for w in weights)
    assert int(step.optimizer.iterations.numpy()) == 2
    np.testing.assert_array_equal(column(rows, "loss_scale"), [2.0**15, 2.0**15, 2.0**14])
    assert (column(rows, "first_bad_tensor") == -1).all()

    # The weights are those of a run that never saw the second batch.
    keep = np.r_[0:BATCH, 2 * BATCH : EXAMPLES]
    half()
    _, without = train(make_step(replicas, scale_loss=True), (data[0][keep], data[1][keep]), 2)
    for a, b in zip(weights, without, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # the scale differs by then: float16 rounding


def test_the_loss_scale_leaves_the_update_alone(data):
    _, plain = train(make_step(), data, 10)
    _, scaled = train(make_step(scale_loss=True), data, 10)
    for a, b in zip(plain, scaled, strict=True):
        np.testing.assert_array_equal(a, b)  # a power of two, in float32: exact


def test_gradients_that_stay_infinite_at_the_least_scale_are_an_error(data):
    step = make_step(scale_loss=True)
    step._scale.assign(1.0)
    rows, _ = train(step, (np.full_like(data[0], np.inf), data[1]), 1)
    assert column(rows, "first_bad_tensor")[0] == 0


@pytest.mark.parametrize(("wire", "tolerance"), [("bfloat16", 2e-2), ("float16", 2e-3)])
def test_the_wire_dtype_rounds_the_gradients_and_nothing_else(data, wire, tolerance):
    _, exact = train(make_step(2), data, 5)
    step = make_step(2, wire_dtype=wire)
    _, rounded = train(step, data, 5)
    assert step.model.trainable_variables[0].dtype == "float32"
    moved = False
    for a, b in zip(exact, rounded, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(a).max())
        moved |= bool((a != b).any())
    assert moved


@pytest.mark.parametrize("scale_loss", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_step_leaves_nothing_on_the_optimizer_and_fit_after_it_keeps_replicas_equal(
    data, scale_loss
):
    # Keras's own `fit` sums gradients over replicas with a method that the step must not replace.
    step = make_step(2, scale_loss=scale_loss)
    train(step, data, 2)
    assert "_all_reduce_sum_gradients" not in vars(step.optimizer)

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with step.strategy.scope():
        step.model.compile(step.optimizer, loss, auto_scale_loss=False)
    step.model.fit(*data, batch_size=BATCH, epochs=4, verbose=0)
    for variable in step.model.trainable_variables:
        one, other = step.strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_step_that_fails_while_it_is_traced_leaves_nothing_either(data):
    class Failing(MomentumSGD):
        def apply(self, *arguments):
            raise RuntimeError("no update")

    step = make_step(optimizer=lambda: Failing(0.1))
    with pytest.raises(RuntimeError, match="no update"):
        train(step, data, 1)
    assert "_all_reduce_sum_gradients" not in vars(step.optimizer)
