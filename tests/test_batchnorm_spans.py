"""Whose examples share batch statistics: one replica's, those of a group of replicas, of all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import make as make_network

from tf_largebatch.models import ghost_batchnorm
from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
from tf_largebatch.models.replica_sum import GROUP_KEYS_FROM, sum_over_replicas
from tf_largebatch.optimizers import MomentumSGD
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.training.step import TrainingStep
from tf_largebatch.training.workers.strategy import make_strategy

CLASSES, BATCH, UPDATES = 5, 24, 5


def make_data():
    rng = np.random.default_rng(0)
    images = rng.normal(1.0, 2.0, size=(UPDATES * BATCH, 6, 6, 2)).astype("float32")
    return images, rng.integers(0, CLASSES, len(images)).astype("int32")


def losses(labels, logits):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def make_step(replicas, micro_batch, *, strategy=None, momentum=0.9, **span):
    """A network of two batch norms with `span`, or with Keras's own if that is empty."""
    strategy = strategy or make_strategy(replicas)
    plan = BatchPlan(
        global_batch=BATCH, train_examples=BATCH, replicas=replicas, micro_batch=micro_batch
    )
    make_norm = GhostBatchNormalization if span else keras.layers.BatchNormalization
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                keras.layers.Conv2D(4, 3),
                make_norm(momentum=momentum, epsilon=1e-5, **span),
                keras.layers.ReLU(),
                keras.layers.Conv2D(3, 3),
                make_norm(momentum=momentum, epsilon=1e-5, **span),
                keras.layers.Flatten(),
                keras.layers.Dense(CLASSES),
            ]
        )
        optimizer = MomentumSGD(0.1, momentum=0.9, weight_decay=1e-3)
        return TrainingStep(model, optimizer, loss=losses, plan=plan, strategy=strategy)


def make_batches(step, data):
    """Batches for each replica; micro-step `k` of all replicas together is part `k` of a batch.

    So the union over replicas of what is normalised at one time is the same examples however many
    replicas there are.
    """
    replicas, steps = step.plan.replicas, step.plan.accumulation

    def arrange(values):
        parts = values.reshape(UPDATES, steps, replicas, -1, *values.shape[1:])
        return parts.swapaxes(1, 2).reshape(values.shape)

    parts = tf.data.Dataset.from_tensor_slices(tuple(map(arrange, data)))
    parts = parts.batch(step.plan.replica_batch)

    def make(context):
        local = replicas // context.num_input_pipelines
        numbered = parts.enumerate().filter(
            lambda i, _: i % replicas // local == context.input_pipeline_id
        )
        return numbered.map(lambda _, part: part)

    return iter(step.strategy.distribute_datasets_from_function(make))


def train(step, data, updates=UPDATES):
    step.run(make_batches(step, data), tf.constant(updates))
    return [np.array(w) for w in step.model.get_weights()]


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)  # float32 sums in another order, 5 updates


def in_process(code, **environment):
    """Starts Python on `code` with this module as `spans`."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + code
    code = code.replace("SPANS", Path(__file__).stem)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"} | environment,
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait(*processes):
    """Output of each; none is left behind."""
    try:
        outputs = [p.communicate(timeout=240)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output


def save_weights(path, replicas, micro_batch, strategy=None, **span):
    weights = train(make_step(replicas, micro_batch, strategy=strategy, **span), make_data())
    np.savez(path, *weights)


def load_weights(path):
    with np.load(path) as file:
        return [file[name] for name in file.files]


@pytest.mark.parametrize(
    ("micro_batch", "replica_group"), [pytest.param(12, None, marks=pytest.mark.slow), (3, 2)]
)
def test_two_replicas_that_share_statistics_equal_one_device_with_their_union(
    micro_batch, replica_group
):
    one = train(make_step(1, 2 * micro_batch), make_data())
    two = train(make_step(2, micro_batch, replica_group=replica_group), make_data())
    assert_same(two, one)


def test_a_group_of_one_replica_is_keras_batch_norm_on_that_replica_to_the_last_bit():
    alone, one = (train(make_step(2, 12, **s), make_data()) for s in ({}, {"replica_group": 1}))
    for a, b in zip(one, alone, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("micro_batch", "replica_group", "ghost"), [(6, 2, 12), (6, None, 24), (3, 2, 6)]
)
def test_groups_among_four_replicas_equal_ghost_batches_of_one_device(
    tmp_path, micro_batch, replica_group, ghost
):
    path = tmp_path / "four.npz"
    wait(
        in_process(
            f"import SPANS; SPANS.save_weights({str(path)!r}, 4, {micro_batch}, "
            f"replica_group={replica_group})"
        )
    )
    one = train(make_step(1, 4 * micro_batch, group=ghost), make_data())
    assert_same(load_weights(path), one)


@pytest.mark.slow
def test_two_workers_that_share_statistics_equal_one_device_with_their_union(tmp_path):
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{probe.getsockname()[1]}" for probe in (first, second)]
    paths = [tmp_path / f"worker{i}.npz" for i in range(2)]
    processes = []
    for i, path in enumerate(paths):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
        code = (
            "import tensorflow as tf; strategy = tf.distribute.MultiWorkerMirroredStrategy()\n"
            f"import SPANS; SPANS.save_weights({str(path)!r}, 2, 6, strategy, replica_group=2)"
        )
        processes.append(in_process(code, TF_CONFIG=json.dumps(task)))
    wait(*processes)
    one = train(make_step(1, 12), make_data())
    for path in paths:
        assert_same(load_weights(path), one)


def test_moving_statistics_are_the_averages_over_micro_steps_of_the_moments_of_the_union():
    step = make_step(2, 6, replica_group=2)
    kernel, bias = (w.astype("float64") for w in step.model.get_weights()[:2])
    train(step, make_data(), updates=1)
    features = convolve(make_data()[0][:BATCH], kernel, bias)
    groups = features.reshape(2, 12, *features.shape[1:])  # two micro-steps of 2 x 6 examples
    mean, variance = groups.mean(axis=(1, 2, 3)), groups.var(axis=(1, 2, 3))
    norm = step.model.layers[1]
    np.testing.assert_allclose(norm.moving_mean.numpy(), 0.1 * mean.mean(axis=0), atol=1e-6)
    want = 0.9 + 0.1 * variance.mean(axis=0)
    np.testing.assert_allclose(norm.moving_variance.numpy(), want, rtol=1e-6)


@pytest.mark.parametrize(
    ("replicas", "micro_batch", "span", "group"),
    [(1, None, {}, 24), (1, 6, {}, 6), (2, 6, {}, 6), (2, 12, {"group": 4}, 4)],
)
def test_without_a_moving_average_the_statistics_are_those_of_the_last_update_alone(
    replicas, micro_batch, span, group
):
    data = make_data()
    step = make_step(replicas, micro_batch, momentum=0.0, **span)
    batches = make_batches(step, data)
    step.run(batches, tf.constant(UPDATES - 1))
    kernel, bias = (w.astype("float64") for w in step.model.get_weights()[:2])
    step.run(batches, tf.constant(1))
    features = convolve(data[0][-BATCH:], kernel, bias)
    groups = features.reshape(-1, group, *features.shape[1:])
    mean, variance = groups.mean(axis=(1, 2, 3)), groups.var(axis=(1, 2, 3))
    norm = step.model.layers[1]
    np.testing.assert_allclose(norm.moving_mean.numpy(), mean.mean(axis=0), atol=2e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variance.mean(axis=0), rtol=2e-6)


def convolve(images, kernel, bias):
    """Valid 3x3 convolution in float64."""
    patches = np.lib.stride_tricks.sliding_window_view(images.astype("float64"), (3, 3), (1, 2))
    return np.einsum("nhwcij,ijco->nhwo", patches, kernel) + bias


@pytest.mark.parametrize(("span", "sums"), [({"replica_group": 2}, 8), ({"replica_group": 1}, 0)])
def test_a_layer_costs_one_all_reduce_a_pass_and_none_where_replicas_share_nothing(span, sums):
    # Two layers, two passes, two replicas; the micro-steps are a loop, whose body is there once.
    step = make_step(2, 6, **span)
    graph = step.run.get_concrete_function(make_batches(step, make_data()), tf.constant(1)).graph
    graph = graph.as_graph_def()
    ours = {f.signature.name for f in graph.library.function if sums_of_ours(f.node_def)}
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    calls = [n for body in bodies for n in body if n.attr["f"].func.name in ours]
    assert len(calls) == sums


def sums_of_ours(nodes):
    keys = {n.name: n.attr["value"].tensor.int_val[:1] for n in nodes if n.op == "Const"}
    collectives = [n for n in nodes if n.op == "CollectiveReduceV2"]
    found = [keys.get(n.input[2].split(":")[0]) for n in collectives]
    return any(key and key[0] >= GROUP_KEYS_FROM for key in found)


def make_layer(**kwargs):
    layer = GhostBatchNormalization(**kwargs)
    layer.build((None, 3))
    return layer


def test_outside_of_replicas_the_batch_at_hand_is_the_group():
    x = np.random.default_rng(2).normal(size=(8, 3)).astype("float32")
    want = keras.layers.BatchNormalization(epsilon=1e-5)(x, training=True)
    np.testing.assert_array_equal(make_layer(replica_group=2)(x, training=True), want)
    strategy = make_strategy(2)
    with strategy.scope():
        layer = make_layer(replica_group=2)
        np.testing.assert_array_equal(layer(x, training=True), want)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_sum_over_replicas_has_its_own_sum_as_gradient(compiled):
    # Replica r holds x = r + 1: the sum is 3. With losses 10^r * sum, each x has gradient 1 + 10.
    strategy = make_strategy(2)

    def step():
        r = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
        x = tf.reshape(r + 1.0, [1])
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = sum_over_replicas(x)
            loss = 10.0**r * tf.reduce_sum(total)
        return total, tape.gradient(loss, x)

    run = tf.function(lambda: strategy.run(step)) if compiled else lambda: strategy.run(step)
    with strategy.scope():  # where a variable would be mirrored
        results = run()
    totals, gradients = (strategy.experimental_local_results(r) for r in results)
    np.testing.assert_array_equal(totals, [[3.0], [3.0]])
    np.testing.assert_array_equal(gradients, [[11.0], [11.0]])


def test_a_fast_replica_never_mixes_the_sums_of_two_turns_of_a_loop():
    # One sum a turn follows itself; then sums of two shapes take turns. After k turns each adds 3k.
    strategy = make_strategy(2)

    def step(widths):
        r = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)

        def body(turn, total):
            for width in widths:
                total += sum_over_replicas(tf.fill([width], r + 1.0))[-1]
            return turn + 1, total

        loop = (tf.constant(0), tf.constant(0.0))
        return tf.while_loop(lambda turn, _: turn < 300, body, loop)[1]

    for widths in ([2], [2, 3, 3]):
        run = tf.function(lambda widths=widths: strategy.run(step, args=(widths,)), autograph=False)
        totals = [float(t) for t in strategy.experimental_local_results(run())]
        assert totals == [900.0 * len(widths)] * 2


def run_on_two(layer, parts):
    """Output of each replica, each on its own part."""
    strategy = make_strategy(2)

    @tf.function
    def run(values):
        return strategy.run(lambda x: layer(x, training=True), args=(values,))

    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )
    return [y.numpy() for y in strategy.experimental_local_results(run(values))]


def test_a_mean_far_above_the_deviation_costs_no_digits_once_the_moving_mean_is_there():
    # In float32 the squares of 1000 are known to 0.06 only: half the variance of 0.1 here.
    rng = np.random.default_rng(3)
    parts = (1000.0 + 0.3 * rng.normal(size=(2, 40, 3))).astype("float32")
    with make_strategy(2).scope():
        layer = make_layer(replica_group=2)
        layer.moving_mean.assign([1000.1, 999.9, 1000.0])
    union = parts.reshape(80, 3).astype("float64")
    want = (union - union.mean(axis=0)) / np.sqrt(union.var(axis=0) + 1e-5)
    got = np.concatenate(run_on_two(layer, parts))
    # The values themselves are rounded to 6e-5, and `offset` to as much: 2e-4 of a deviation each.
    np.testing.assert_allclose(got, want, atol=6e-4)


def test_channels_constant_but_for_the_last_bit_stay_finite():
    # avg(mean^2) - avg(mean)^2 of two neighbours near 1000 rounds to as little as -0.06.
    low = np.random.default_rng(5).uniform(1000.0, 2000.0, 64).astype("float32")
    high = np.nextafter(low, np.float32(np.inf))
    square = ((low * low + high * high) / 2) - ((low + high) / 2) ** 2
    assert square.min() < -1e-2
    with make_strategy(2).scope():
        layer = GhostBatchNormalization(replica_group=2)
        layer.build((None, 64))
    outputs = run_on_two(layer, [np.tile(low, (4, 1)), np.tile(high, (4, 1))])
    assert np.isfinite(outputs).all()


def test_statistics_over_replicas_are_float32_under_a_16_bit_policy(monkeypatch):
    sent = []

    def record(x):
        sent.append(x.dtype)
        return sum_over_replicas(x)

    monkeypatch.setattr("tf_largebatch.models.replica_sum.sum_over_replicas", record)
    with make_strategy(2).scope():
        layer = make_layer(replica_group=2, dtype="mixed_bfloat16")
    outputs = run_on_two(layer, np.random.default_rng(4).normal(size=(2, 4, 3)))
    assert sent == [tf.float32, tf.float32]
    assert outputs[0].dtype == tf.bfloat16.as_numpy_dtype


def test_replicas_that_the_group_does_not_divide_are_refused():
    with make_strategy(2).scope():
        layer = make_layer(replica_group=3)
    with pytest.raises(ValueError, match="`replica_group` must divide .*=3, replicas=2"):
        run_on_two(layer, np.zeros((2, 4, 3), "float32"))


def test_ghost_batches_and_groups_of_replicas_exclude_each_other():
    for groups in ({"group": 4, "replica_group": 2}, {"group": 4, "replica_group": None}):
        with pytest.raises(ValueError, match="`group` must be None when replicas share"):
            GhostBatchNormalization(**groups)


@pytest.mark.parametrize(
    ("value", "message"), [(0, "at least 1 or None"), (1.5, "an integer or None")]
)
def test_a_group_of_replicas_that_is_no_count_is_refused(value, message):
    with pytest.raises(ValueError, match=f"`replica_group` must be {message}"):
        GhostBatchNormalization(replica_group=value)


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(ghost_batchnorm.keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="`replica_group` must be 1 on Keras's jax backend"):
        GhostBatchNormalization(replica_group=2)
    assert GhostBatchNormalization(4).replica_group == 1


def test_every_batch_norm_of_a_network_has_the_span_asked_for():
    model = make_network("digits_resnet", width=2, bn_batch=4, bn_replicas=2)
    norms = [v for v in model.layers if isinstance(v, keras.layers.BatchNormalization)]
    assert len(norms) == 9
    assert {(v.group, v.replica_group) for v in norms} == {(None, 2)}
    copy = GhostBatchNormalization.from_config(norms[0].get_config())
    assert copy.replica_group == 2
