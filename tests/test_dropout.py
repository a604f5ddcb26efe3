"""Random layers: which numbers they draw on which replica, micro-step and example."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.models.stream_dropout import StreamDropout
from tf_largebatch.optimizers import MomentumSGD
from tf_largebatch.records import stream_position
from tf_largebatch.records.batching import BatchPlan
from tf_largebatch.training.step import TrainingStep
from tf_largebatch.training.workers.strategy import make_strategy

FEATURES = 50


def masks(first, count, *, seed=0, layer=1, features=FEATURES, rate=0.4, xla=False):
    """Which values of examples first, ..., first + count - 1 are kept."""
    layer = StreamDropout(rate, seed=layer)

    @tf.function(jit_compile=xla)
    def drop():
        with stream_position.standing_at(stream_position.Position(seed, first)):
            return layer(tf.ones([count, features]), training=True)

    out = drop()
    values = np.unique(out.numpy())
    np.testing.assert_allclose(values, [0, 1 / (1 - rate)], rtol=1e-6)
    return out.numpy() > 0


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("features", [1, 4, 50])
def test_a_part_of_a_batch_draws_its_own_rows_of_the_whole_mask(features, xla):
    # One feature draws 0 or 1 at rate 0.4: 64 rows hold both.
    whole = masks(1000, 64, features=features, xla=xla)
    parts = [masks(1000 + start, 16, features=features, xla=xla) for start in range(0, 64, 16)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_examples_seeds_and_layers_have_their_own_masks():
    mask = masks(0, 8)
    assert len({row.tobytes() for row in masks(0, 200)}) == 200
    for other in (masks(8, 8), masks(0, 8, seed=1), masks(0, 8, layer=2)):
        assert 0.3 < (mask == other).mean() < 0.75  # independent: 0.4^2 + 0.6^2 = 0.52


def test_the_share_of_dropped_values_is_the_rate():
    # 2000 x 50 draws: deviation sqrt(0.24 / 1e5) = 0.0015.
    assert masks(0, 2000).mean() == pytest.approx(0.6, abs=0.006)


def test_nothing_is_dropped_at_inference_and_without_a_step_it_is_keras_dropout():
    layer = StreamDropout(0.4, seed=1)
    ones = tf.ones([8, FEATURES])
    np.testing.assert_array_equal(layer(ones, training=False), ones)
    first, second = (layer(ones, training=True).numpy() for _ in range(2))
    assert (first != second).any()  # Keras's generator moves on


def test_it_survives_saving():
    layer = StreamDropout.from_config(StreamDropout(0.25, seed=9, name="d").get_config())
    assert (layer.rate, layer.seed, layer.name) == (0.25, 9, "d")


class KeptSum(keras.layers.Layer):
    """Puts the input's sum into the gradient of its weight: shows what dropout let through."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), initializer="zeros")

    def call(self, x):
        return x * self.w


def kept_by_position(dropout, *, replicas, micro_batch, updates=2):
    """The gradient of each feature with inputs of one: how many of its examples were kept."""
    strategy = make_strategy(replicas)
    plan = BatchPlan(global_batch=16, train_examples=16, replicas=replicas, micro_batch=micro_batch)
    with strategy.scope():
        model = keras.Sequential([keras.Input((FEATURES,)), dropout(), KeptSum()])
        step = TrainingStep(
            model,
            MomentumSGD(1.0, momentum=0.0),
            loss=lambda labels, logits: tf.reduce_sum(logits, axis=1),
            plan=plan,
            strategy=strategy,
            seed=4,
        )
    data = (np.ones((16, FEATURES), "float32"), np.zeros(16, "int32"))

    def batches(context):
        data_set = tf.data.Dataset.from_tensor_slices(data).repeat()
        return data_set.batch(plan.replica_batch, drop_remainder=True)

    iterator = iter(strategy.distribute_datasets_from_function(batches))
    kept, before = [], np.zeros(FEATURES)
    for _ in range(updates):
        step.run(iterator, tf.constant(1))
        weights = model.get_weights()[0]
        kept.append(np.round((before - weights) * 16 * 0.5).astype(int))  # 1 / (1 - 0.5) each
        before = weights
    return kept


@pytest.mark.parametrize(("replicas", "micro_batch"), [(1, 8), (1, 1), (2, None), (2, 2)])
def test_stream_dropout_does_not_depend_on_the_split(replicas, micro_batch):
    def dropout():
        return StreamDropout(0.5, seed=1)

    whole = kept_by_position(dropout, replicas=1, micro_batch=None)
    split = kept_by_position(dropout, replicas=replicas, micro_batch=micro_batch)
    np.testing.assert_array_equal(whole, split)
    assert (whole[0] != whole[1]).any()  # other examples of the stream, other masks


@pytest.mark.parametrize(("replicas", "micro_batch"), [(1, 1), (2, 8), (2, 4)])
def test_keras_dropout_differs_between_replicas_and_micro_steps(replicas, micro_batch):
    # With the same mask of m rows in each of 16 / m pieces, every count would be a multiple
    # of 16 / m.
    kept = kept_by_position(
        lambda: keras.layers.Dropout(0.5, seed=1), replicas=replicas, micro_batch=micro_batch
    )
    for counts in kept:
        assert (counts % (16 // micro_batch)).any()
    assert (kept[0] != kept[1]).any()
