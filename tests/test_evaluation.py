import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.training.evaluation import EvaluationStep, pad_to_multiple
from tf_largebatch.training.workers.strategy import make_strategy


def make_model(strategy):
    """Logits are the input itself, so that a test decides them."""
    with strategy.scope():
        return keras.Sequential([keras.Input((8,)), keras.layers.Identity()])


def batches_of(logits, labels, size):
    """Padded batches of weight 1 and 0."""
    rows = len(logits)
    total = -(-rows // size) * size
    pad = [(0, total - rows), (0, 0)]
    parts = (
        np.pad(logits, pad).astype("float32"),
        np.pad(labels, pad[0]).astype("int32"),
        np.pad(np.ones(rows), pad[0]).astype("float32"),
    )
    return tf.data.Dataset.from_tensor_slices(parts).batch(size, drop_remainder=True)


def score(logits, labels, *, size, replicas=1, examples=None):
    strategy = make_strategy(replicas)
    step = EvaluationStep(make_model(strategy), strategy)
    batches = -(-len(logits) // size)
    dataset = pad_to_multiple(batches_of(logits, labels, size), batches, replicas)
    iterator = iter(strategy.distribute_datasets_from_function(lambda context: dataset))
    count = len(logits) if examples is None else examples
    return step(iterator, batches=-(-batches // replicas), examples=count)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("size", [7, 64, 449])
def test_scores_are_the_means_over_every_example_once(size, replicas):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(449, 8))  # 449 is prime: no batch divides it
    labels = rng.integers(0, 8, 449)
    scores = score(logits, labels, size=size, replicas=replicas)

    order = np.argsort(-logits, axis=1)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert scores.examples == 449
    assert scores.loss == pytest.approx(-log_softmax[np.arange(449), labels].mean(), rel=1e-6)
    wrong1 = (order[:, 0] != labels).sum()
    wrong5 = (order[:, :5] != labels[:, None]).all(axis=1).sum()
    assert scores.top1_error_pct == pytest.approx(100 * wrong1 / 449, rel=1e-12)
    assert scores.top5_error_pct == pytest.approx(100 * wrong5 / 449, rel=1e-12)


def test_logits_that_are_not_numbers_count_as_wrong():
    scores = score(np.full((4, 8), np.nan), np.zeros(4, int), size=3)
    assert (scores.top1_error_pct, scores.top5_error_pct) == (100.0, 100.0)


def test_a_network_without_an_opinion_is_not_right():
    # Equal logits: a tie must not count as a hit for every class.
    scores = score(np.zeros((4, 8)), np.arange(4), size=4)
    assert scores.top1_error_pct == 100.0


def test_a_lost_example_is_an_error_and_not_a_better_score():
    with pytest.raises(RuntimeError, match="counted 10 examples where the set has 11"):
        score(np.zeros((10, 8)), np.zeros(10, int), size=4, examples=11)
