"""The stream of shuffled epochs and the shares of workers."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.data import order
from tf_largebatch.records.batching import BatchPlan

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def fold(key, value):
    return mix(mix((key + GAMMA) & MASK) ^ value)


def example_by_hand(position, seed, count):
    """The Feistel network of the docstring in whole numbers of Python."""
    epoch, place = divmod(position, count)
    key = fold(fold(fold(0, 1), seed), epoch)
    a = math.isqrt(count - 1) + 1
    b = math.ceil(count / a)
    while True:
        left, right = divmod(place, b)
        for r in range(8):
            if r % 2 == 0:
                left = (left + (mix(fold(key, r) ^ right) >> 1) % a) % a
            else:
                right = (right + (mix(fold(key, r) ^ left) >> 1) % b) % b
        place = left * b + right
        if place < count:
            return place


def examples(positions, *, seed, count):
    return order.examples_at(tf.constant(positions, tf.int64), seed=seed, train_examples=count)[
        1
    ].numpy()


def epoch_orders(epochs, *, seed, count):
    return examples(np.arange(epochs * count), seed=seed, count=count).reshape(epochs, count)


def stream(plan, *, updates, first_update=0, worker=0, workers=1, group=1, seed=5):
    """This worker's (epoch, example) pairs, [updates, its share of the global batch, 2]."""
    dataset = order.train_stream(
        plan, seed=seed, first_update=first_update, worker=worker, workers=workers, group=group
    )
    share = plan.global_batch // workers
    elements = -(-updates * share // (plan.replica_batch * group))
    pairs = np.concatenate(
        [np.stack(e, axis=1) for e in dataset.take(elements).as_numpy_iterator()]
    )
    return pairs[: updates * share].reshape(updates, share, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 36, 37, 1280, 1_281_167])
def test_order_is_the_feistel_network_of_the_docstring(count):
    positions = [0, 1, count - 1, count, 2 * count + count // 2, 17 * count + count // 3]
    expected = [example_by_hand(p, 2**32 - 1, count) for p in positions]
    assert examples(positions, seed=2**32 - 1, count=count).tolist() == expected


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000, 1280])
def test_every_epoch_holds_every_example_once(count):
    for epoch in epoch_orders(3, seed=9, count=count):
        assert sorted(epoch) == list(range(count))


def test_no_two_of_400_epochs_and_no_two_seeds_share_their_order():
    orders = epoch_orders(400, seed=7, count=1280)
    assert len({epoch.tobytes() for epoch in orders}) == 400
    other = epoch_orders(1, seed=8, count=1280)[0]
    # Two random orders agree in one place on average (Poisson): more than 8 has a chance of 1e-6.
    assert max((other == epoch).sum() for epoch in orders) <= 8
    assert max((a == b).sum() for a, b in zip(orders, orders[1:], strict=False)) <= 8


def test_an_example_stands_anywhere_in_the_epoch_equally_often():
    orders = epoch_orders(400, seed=7, count=1280)
    places = np.argsort(orders, axis=1) // 80  # 16 parts of the epoch, 25 expected in each
    counts = np.stack([np.bincount(column, minlength=16) for column in places.T])
    chi_square = ((counts - 25) ** 2 / 25).sum(axis=1)
    # Mean over 1,280 examples of a chi-square of 15 degrees: sd sqrt(30 / 1280) = 0.15.
    assert abs(chi_square.mean() - 15) < 4 * 0.15


def test_neighbours_in_the_data_set_are_not_neighbours_in_the_epoch():
    orders = epoch_orders(300, seed=1, count=1280)
    adjacent = (abs(np.diff(orders, axis=1)) == 1).sum(axis=1).mean()
    assert abs(adjacent - 2) < 4 * math.sqrt(2 / 300)  # as in random orders: Poisson of mean 2


def test_small_sets_reach_every_order():
    orders = epoch_orders(2_400, seed=3, count=4)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24 and abs(counts - 100).max() < 5 * 10


@pytest.mark.parametrize("global_batch", [6, 12, 18, 60])
def test_batches_straddle_epochs_and_lose_nothing(global_batch):
    # 14 examples: batches of 18 and 60 hold parts of two and of five epochs.
    plan = BatchPlan(global_batch=global_batch, train_examples=14)
    pairs = stream(plan, updates=14).reshape(-1, 2)  # 14 updates are global_batch whole epochs
    assert [tuple(p) for p in pairs[::14]] == [(e, pairs[14 * e][1]) for e in range(global_batch)]
    assert len({tuple(p) for p in pairs}) == 14 * global_batch


@pytest.mark.parametrize("workers, replicas, group", [(1, 6, 4), (2, 2, 1), (3, 6, 2)])
def test_workers_and_replicas_share_the_same_global_batches(workers, replicas, group):
    plan = BatchPlan(global_batch=12, train_examples=50, replicas=replicas)
    whole = stream(BatchPlan(global_batch=12, train_examples=50), updates=9)
    shares = [
        stream(plan, updates=9, worker=w, workers=workers, group=group) for w in range(workers)
    ]
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), whole)


@pytest.mark.parametrize("first_update", [1, 4, 9])
def test_restarted_stream_continues_where_the_other_stood(first_update):
    plan = BatchPlan(global_batch=12, train_examples=50, replicas=4)
    whole = stream(plan, updates=12, worker=1, workers=2)
    rest = stream(plan, updates=12 - first_update, first_update=first_update, worker=1, workers=2)
    np.testing.assert_array_equal(rest, whole[first_update:])


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count, batch", [(10, 4), (12, 4), (1, 8), (517, 100)])
def test_evaluation_counts_every_example_once(count, batch, workers):
    batches = [
        list(order.eval_stream(count, batch, worker=w, workers=workers).as_numpy_iterator())
        for w in range(workers)
    ]
    assert len({len(b) for b in batches}) == 1
    rows = [np.concatenate(part) for part in zip(*sum(batches, []), strict=True)]
    counted = rows[0][rows[1] == 1.0]
    assert sorted(counted) == list(range(count)) and rows[1].sum() == count
    assert set(rows[1]) <= {0.0, 1.0} and rows[0].max() < count


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"seed": -1}, "`seed` must be a whole number from 0 to 4294967295. Received: seed=-1"),
        ({"seed": 2**32}, "`seed` must be"),
        ({"first_update": -1}, "`first_update` must be"),
        ({"first_update": 1.0}, "`first_update` must be"),
        ({"worker": 2, "workers": 2}, "`worker` must be a whole number from 0 to 1"),
        ({"workers": 0}, "`workers` must be"),
        ({"workers": 3}, "`workers` must divide the 4 replicas"),
    ],
)
def test_wrong_argument_is_named_with_its_value(changed, words):
    plan = BatchPlan(global_batch=12, train_examples=50, replicas=4)
    arguments = {"seed": 0, "first_update": 0, "worker": 0, "workers": 1, "group": 1}
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        order.train_stream(plan, **{**arguments, **changed})


@pytest.mark.parametrize("batch", [0, -1, 2.0])
def test_wrong_evaluation_batch_is_named(batch):
    with pytest.raises(ValueError, match="`batch` must be"):
        order.eval_stream(10, batch, worker=0, workers=1)
