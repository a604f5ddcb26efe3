"""Random numbers that depend on a key alone, for a whole batch of keys at once.

`tf.random.stateless_*` takes one seed per call, so a batch of examples would need one call each.
Here every number is the SplitMix64 hash (Steele, Lea & Flood, 2014, "Fast splittable pseudorandom
number generators", OOPSLA) of its example's key and its place in the draw:

    z_i = mix(key + i * 0x9E3779B97F4A7C15)          i = 1, 2, ...

All of it is uint64 arithmetic modulo 2**64, which TensorFlow does on the CPU.
"""

import math

import tensorflow as tf

_GAMMA = 0x9E3779B97F4A7C15
# Numbers per vector instruction, at most. Left-over numbers get another log and cos, an ulp apart,
# so none are left over: the same key gives the same bits in a batch of any size.
_SIMD = 16


def mix(values: tf.Tensor) -> tf.Tensor:
    """Returns the SplitMix64 finaliser of `values`, uint64 of any shape: a bijection."""
    z = values
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, _uint64(shift))) * _uint64(factor)
    return tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, _uint64(31)))


def fold(keys: tf.Tensor | int, values: tf.Tensor | int) -> tf.Tensor:
    """Returns one new key per pair: mix(mix(key + gamma) ^ value).

    For one key, different values, which are >= 0, always give different keys.
    """
    hashed = mix(_uint64(keys) + _uint64(_GAMMA))
    return mix(tf.bitwise.bitwise_xor(hashed, _uint64(values)))


def random_bits(keys: tf.Tensor, count: int) -> tf.Tensor:
    """Returns uint64 [n, count]: of each key [n] the SplitMix64 stream seeded with it."""
    steps = tf.range(1, count + 1, dtype=tf.int64)
    return mix(keys[:, tf.newaxis] + tf.cast(steps, tf.uint64) * _uint64(_GAMMA))


def uniforms(keys: tf.Tensor, count: int) -> tf.Tensor:
    """Returns float32 [n, count], uniform on the multiples of 2**-24 in [0, 1).

    Multiplied by a whole number n < 2**24 in float32 they stay below n: the largest, 1 - 2**-24, is
    more than half a spacing away from n there.
    """
    top = tf.bitwise.right_shift(random_bits(keys, count), _uint64(40))
    return tf.cast(top, tf.float32) * 2.0**-24


def integers(keys: tf.Tensor, count: int, low: int, high: int) -> tf.Tensor:
    """Returns int32 [n, count], uniform on low, ..., high (both included).

    A value's probability is off by less than 2**-24, the spacing of `uniforms`.
    """
    width = high - low + 1
    return low + tf.cast(uniforms(keys, count) * width, tf.int32)


def normals(keys: tf.Tensor, count: int) -> tf.Tensor:
    """Returns float32 [n, count], standard normal by the Box-Muller transform.

    No value is further out than sqrt(48 ln 2) = 5.77, since `uniforms` has 24 bits.
    """
    pairs = _SIMD * -(-count // (2 * _SIMD))
    draws = uniforms(keys, 2 * pairs)
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - draws[:, :pairs]))
    angle = (2.0 * math.pi) * draws[:, pairs:]
    return tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)[:, :count]


def _uint64(value):
    is_tensor = isinstance(value, tf.Tensor)
    return tf.cast(value, tf.uint64) if is_tensor else tf.constant(value, tf.uint64)
