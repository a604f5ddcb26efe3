"""Statistics measured anew: averages over training batches with the weights as they are."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.training.statistics import StatisticsStep
from tf_largebatch.training.workers.strategy import make_strategy

BATCH, FEATURES, EPSILON = 24, 5, 1e-5


def make_images(batches, seed=0):
    return np.random.default_rng(seed).normal(1.0, 2.0, (batches * BATCH, FEATURES))


def make_model(replicas=1, *, momentum=0.9, dropout=0.0, **span):
    keras.utils.set_random_seed(1)
    with make_strategy(replicas).scope():
        # A network within the network: its layers are not among the outer one's.
        inner = keras.Sequential(
            [
                keras.Input((FEATURES,)),
                keras.layers.Dense(4),
                GhostBatchNormalization(momentum=momentum, epsilon=EPSILON, **span, name="first"),
                keras.layers.ReLU(),
            ]
        )
        return keras.Sequential(
            [
                inner,
                keras.layers.Dropout(dropout),
                keras.layers.Dense(3),
                GhostBatchNormalization(momentum=momentum, epsilon=EPSILON, **span, name="second"),
            ]
        )


def find_norms(model):
    return model.layers[0].get_layer("first"), model.get_layer("second")


def make_step(model, replicas=1, micro_batch=None):
    plan = BatchPlan(
        global_batch=BATCH, train_examples=BATCH, replicas=replicas, micro_batch=micro_batch
    )
    return StatisticsStep(model, plan=plan, strategy=make_strategy(replicas))


def recompute(step, images, number):
    labels = np.zeros(len(images), "int32")
    batches = tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels))
    batches = batches.batch(step.plan.replica_batch)
    strategy = step.strategy
    step(iter(strategy.distribute_datasets_from_function(lambda _: batches)), number=number)


def oracle(model, images, group):
    """Means and variances of both layers, float64, averaged over consecutive groups."""
    dense_1, dense_2 = model.layers[0].layers[0], model.layers[2]
    moments = []
    for x in images.astype("float32").astype("float64").reshape(-1, group, FEATURES):
        x = x @ dense_1.kernel.numpy().astype("float64") + dense_1.bias.numpy()
        first = x.mean(axis=0), x.var(axis=0)
        x = np.maximum((x - first[0]) / np.sqrt(first[1] + EPSILON), 0.0)
        x = x @ dense_2.kernel.numpy().astype("float64") + dense_2.bias.numpy()
        moments.append([*first, x.mean(axis=0), x.var(axis=0)])
    return [np.mean(values, axis=0) for values in zip(*moments, strict=True)]


@pytest.mark.parametrize(
    ("replicas", "micro_batch", "span", "group"),
    [
        (1, None, {}, 24),
        (1, 6, {}, 6),
        (1, 12, {"group": 4}, 4),
        (2, None, {}, 12),
        (2, 6, {"group": 3}, 3),
        (2, None, {"replica_group": 2}, 24),
    ],
)
def test_statistics_are_the_float64_averages_over_the_groups_of_all_batches(
    replicas, micro_batch, span, group
):
    model = make_model(replicas, momentum=0.99, **span)
    for norm in find_norms(model):  # what was there has no part in it
        norm.moving_mean.assign(np.full(norm.moving_mean.shape, np.nan))
        norm.moving_variance.assign(np.full(norm.moving_variance.shape, 1e6))
    images = make_images(3)
    recompute(make_step(model, replicas, micro_batch), images, 3)
    want = oracle(model, images, group)
    got = [v for norm in find_norms(model) for v in (norm.moving_mean, norm.moving_variance)]
    for a, b in zip(got, want, strict=True):
        # float32: some roundings of 6e-8 in each of two layers.
        np.testing.assert_allclose(a.numpy(), b, rtol=3e-6, atol=2e-6)


def test_one_device_and_two_replicas_measure_the_same():
    images, found = make_images(2), []
    for replicas, micro_batch in ((1, 6), (2, 6)):
        model = make_model(replicas)
        recompute(make_step(model, replicas, micro_batch), images, 2)
        found.append([v.numpy() for v in model.non_trainable_variables])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_nothing_but_the_statistics_changes_and_only_the_batches_asked_for_count():
    model = make_model(dropout=0.5)
    trainable = [v.numpy() for v in model.trainable_variables]
    counts = [v.numpy() for v in model.non_trainable_variables if v.dtype != "float32"]
    assert counts  # the state of the dropout
    images = make_images(4)
    images[2 * BATCH :] = 1e6
    recompute(make_step(model), images, 2)
    for before, variable in zip(trainable, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(before, variable.numpy())
    after = [v.numpy() for v in model.non_trainable_variables if v.dtype != "float32"]
    np.testing.assert_array_equal(counts, after)
    np.testing.assert_allclose(
        find_norms(model)[0].moving_variance.numpy(),
        oracle(model, images[: 2 * BATCH], BATCH)[1],
        rtol=3e-6,
    )


def test_a_layer_that_training_does_not_move_keeps_its_statistics():
    model = make_model()
    frozen, moved = find_norms(model)
    frozen.trainable = False
    frozen.moving_mean.assign(np.full(4, 0.25))
    recompute(make_step(model), make_images(1), 1)
    np.testing.assert_array_equal(frozen.moving_mean.numpy(), np.full(4, 0.25))
    assert np.abs(moved.moving_mean.numpy()).min() > 0.0


def test_another_number_of_batches_does_not_retrace():
    step = make_step(make_model())
    batches = tf.data.Dataset.from_tensor_slices((make_images(3), np.zeros(3 * BATCH)))
    batches = batches.batch(BATCH, drop_remainder=True).repeat()
    iterator = iter(step.strategy.distribute_datasets_from_function(lambda _: batches))
    for number in (1, 3, 2):
        step(iterator, number=number)
    assert step._run.experimental_get_tracing_count() == 1


def test_a_model_without_statistics_is_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)], name="plain")
    with pytest.raises(ValueError, match="`model` must have a batch norm.*model='plain'"):
        make_step(model)


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="`number` must be at least 1. Received: number=0"):
        make_step(make_model())(iter([]), number=0)
