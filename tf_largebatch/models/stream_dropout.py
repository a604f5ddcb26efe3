"""Dropout whose mask is a function of (seed, example, epoch), not of how the batch is split."""

import keras
import tensorflow as tf

from tf_largebatch.records import stream_position
from tf_largebatch.records.checks import check, check_count, check_number

_PHILOX = 1  # tf.random.Algorithm.PHILOX
_WORDS = 4  # 32-bit numbers that Philox makes of one counter


@keras.saving.register_keras_serializable("tf_largebatch")
class StreamDropout(keras.layers.Dropout):
    """`keras.layers.Dropout` with one mask per position of the stream of examples.

    Philox makes its numbers from a key and a counter (Salmon et al. 2011, "Parallel random numbers:
    as easy as 1, 2, 3", SC11). The key is (run's seed, this layer's seed) and example j starts at
    counter j * ceil(n / 4) with its n values, so any part of a batch draws its own rows of the one
    mask (another one under XLA, whose Philox orders its numbers differently). In a model trained by
    Keras's own `fit`, without `TrainingStep` or `DistributedFit`, it is `keras.layers.Dropout`.

    Args:
        rate: share of the values set to 0, in [0, 1).
        seed: tells the layers of one model apart, 0 <= seed < 2**32.
    """

    def __init__(self, rate: float, seed: int, **kwargs):
        check_number("rate", rate, high=1.0)
        seed = check_count("seed", seed, 0)
        check(seed < 2**32, "seed", "below 2**32", seed)
        super().__init__(rate, seed=seed, **kwargs)

    def call(self, inputs, training=False):
        """Returns `inputs` [n, ...] with values dropped and the rest scaled by 1 / (1 - rate)."""
        position = stream_position.current()
        if not training or not self.rate or position is None:
            return super().call(inputs, training=training)
        features = inputs.shape[1:].num_elements()
        groups = -(-features // _WORDS)
        first = tf.cast(position.first, tf.uint64) * tf.constant(groups, tf.uint64)
        draws = tf.raw_ops.StatelessRandomUniformV2(
            shape=[tf.shape(inputs)[0], groups * _WORDS],
            key=tf.constant([(position.seed << 32) + self.seed], tf.uint64),
            counter=tf.stack([first, tf.constant(0, tf.uint64)]),
            alg=_PHILOX,
            dtype=tf.float32,
        )
        kept = tf.reshape(draws[:, :features] >= self.rate, tf.shape(inputs))
        return tf.where(kept, inputs / tf.cast(1.0 - self.rate, inputs.dtype), 0.0)
