"""Which example stands where: the stream of shuffled epochs, and each worker's part of it.

The stream is epoch after epoch, each in its own order. Position j of it is example
`permutation(seed, j // N)[j % N]`; update u takes the B positions from `plan.position_at(u)` on,
which is u * B where the batch does not change. Every order is a function of (seed, epoch), computed
for single positions, so that a worker computes its own share only and a restart starts anywhere.

The permutation is a generalised Feistel network with cycle walking (Black & Rogaway, 2002, "Ciphers
with arbitrary finite domains", CT-RSA): with a * b >= N, x = left * b + right,

    left  = (left  + F_r(right)) mod a        r even
    right = (right + F_r(left))  mod b        r odd

for eight rounds with F_r(half) = mix(key_r ^ half) of SplitMix64, repeated where the result is not
below N.
`tf.random.experimental.index_shuffle` is not used: for 1,280 positions it has only 256 different
orders over all seeds (TensorFlow 2.21), and so repeats its epochs.
"""

import math

import tensorflow as tf

from tf_largebatch.data.keyed_random import fold, mix
from tf_largebatch.records.batching import BatchPlan

SEED_LIMIT = 2**32
_ROUNDS = 8
# Separate the two uses of (seed, epoch), so that order and augmentation are unrelated.
_ORDER, _AUGMENTATION = 1, 2


def train_stream(
    plan: BatchPlan, *, seed: int, first_update: int, worker: int, workers: int, group: int
) -> tf.data.Dataset:
    """Returns (epochs, examples), int64 [group * replica_batch] each: the replicas in turn.

    `group` replica batches are one element, since one of a few examples costs as much to compute as
    one of hundreds. The other arguments are those of `DataSet.train_batches`; ValueError where one
    is outside its range.
    """
    _check_worker(worker, workers)
    _check_whole("seed", seed, 0, SEED_LIMIT)
    _check_whole("first_update", first_update, 0, 2**62)
    if plan.replicas % workers:
        raise ValueError(
            f"`workers` must divide the {plan.replicas} replicas of the plan. Received: "
            f"workers={workers}"
        )
    local_replicas = plan.replicas // workers

    @tf.autograph.experimental.do_not_convert  # which takes a second and finds nothing to do
    def share(first_turn):
        turns = first_turn + tf.range(group, dtype=tf.int64)[:, tf.newaxis]
        replicas = worker * local_replicas + turns % local_replicas
        starts = plan.position_at(turns // local_replicas) + replicas * plan.replica_batch
        positions = tf.reshape(starts + tf.range(plan.replica_batch, dtype=tf.int64), [-1])
        return examples_at(positions, seed=seed, train_examples=plan.train_examples)

    return tf.data.Dataset.counter(start=first_update * local_replicas, step=group).map(
        share, tf.data.AUTOTUNE
    )


def examples_at(
    positions: tf.Tensor, *, seed: int, train_examples: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the epochs and the examples at stream `positions`, all int64 [n]."""
    epochs, places = positions // train_examples, positions % train_examples
    keys = fold(fold(fold(0, _ORDER), seed), epochs)
    return epochs, permuted(places, keys, train_examples)


def augmentation_keys(seed: int, epochs: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
    """Returns uint64 keys, one per (seed, epoch, example)."""
    return fold(fold(fold(fold(0, _AUGMENTATION), seed), epochs), examples)


def permuted(places: tf.Tensor, keys: tf.Tensor, count: int) -> tf.Tensor:
    """Returns where each key's permutation of 0, ..., count - 1 sends each place, int64 [n].

    Places are int64 [n], keys uint64 [n]; equal keys mean the same permutation.
    """
    rows = math.isqrt(count - 1) + 1
    columns = -(-count // rows)
    round_keys = tf.unstack(fold(keys, tf.range(_ROUNDS, dtype=tf.int64)[:, tf.newaxis]))

    def scramble(values):
        halves, sizes = [values // columns, values % columns], (rows, columns)
        for r, round_key in enumerate(round_keys):
            moved = r % 2
            hashed = mix(tf.bitwise.bitwise_xor(round_key, tf.cast(halves[1 - moved], tf.uint64)))
            # Half of it, so that it fits int64.
            offset = tf.cast(tf.bitwise.right_shift(hashed, tf.ones([], tf.uint64)), tf.int64)
            halves[moved] = (halves[moved] + offset % sizes[moved]) % sizes[moved]
        return halves[0] * columns + halves[1]

    def walk(values, outside):
        values = tf.where(outside, scramble(values), values)
        return values, values >= count

    result, _ = tf.while_loop(
        lambda _, outside: tf.reduce_any(outside), walk, (places, tf.ones_like(places, tf.bool))
    )
    return result


def eval_stream(eval_examples: int, batch: int, *, worker: int, workers: int) -> tf.data.Dataset:
    """Returns the rows of one worker, batch by batch: (examples int64, weights float32) [batch].

    Global batch t of the evaluation goes to worker t mod workers. Past the end the example is the
    last one, with weight 0. ValueError where an argument is outside its range.
    """
    _check_worker(worker, workers)
    _check_whole("batch", batch, 1, 2**31)
    batches = -(-eval_examples // (batch * workers))

    @tf.autograph.experimental.do_not_convert
    def rows(turn):
        places = (turn * workers + worker) * batch + tf.range(batch, dtype=tf.int64)
        weights = tf.cast(places < eval_examples, tf.float32)
        return tf.minimum(places, eval_examples - 1), weights

    return tf.data.Dataset.range(batches).map(rows)


def ordered(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns `dataset` with deterministic order and TensorFlow's own sharding switched off."""
    options = tf.data.Options()
    options.deterministic = True
    # The share is already this worker's; sharding it again would drop examples.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


def _check_worker(worker: int, workers: int) -> None:
    _check_whole("workers", workers, 1, 2**31)
    _check_whole("worker", worker, 0, workers)


def _check_whole(name: str, value: int, low: int, limit: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < limit:
        raise ValueError(
            f"`{name}` must be a whole number from {low} to {limit - 1}. Received: {name}={value!r}"
        )
