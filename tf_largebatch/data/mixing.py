"""MixUp and CutMix of a batch in which neighbours are partners, and the soft labels they need.

MixUp (Zhang et al. 2017, arXiv:1710.09412, Eq. 1), with `t` the labels as distributions:

    x_a' = lambda * x_a + (1 - lambda) * x_b        t_a' = lambda * t_a + (1 - lambda) * t_b

CutMix (Yun et al. 2019, arXiv:1905.04899, Eq. 1 and 2): `x_a'` is `x_a` with a rectangle of `x_b`,

    height, width = floor(sqrt(1 - lambda) * (H, W))     centre uniform over the picture's pixels

cut off at the border, and the labels are mixed by the share of pixels that is really pasted. In
both lambda is Beta(alpha, alpha).

Partners are examples 2i and 2i + 1 of the batch, so of the stream; both take the same lambda and
rectangle, each with the other as `b`. Everything drawn is a function of the pair's two keys, so
replicas, workers and restarts change nothing as long as a replica batch is even. The papers pair a
batch with a permutation of itself and draw one lambda a batch.

The arithmetic is ours: the layers of keras-cv 0.9.0 draw from TensorFlow's global generator, whose
numbers depend on what was drawn before. The tests hold it against theirs. Theirs differ in CutMix:
they mix labels by the rectangle before it is cut off at the border.
"""

import math

import tensorflow as tf

from tf_largebatch.data.keyed_random import fold, integers, uniforms
from tf_largebatch.records.errors import InputError

# One number per kind of draw, unlike those of the other modules that draw from the same keys.
_SWITCH, _MIXUP, _CUTMIX, _CENTRE = 32, 33, 34, 35
# As many numbers as a vector instruction takes, or a multiple: see `keyed_random`.
_SIMD = 16


def mix(
    images: tf.Tensor,
    labels: tf.Tensor,
    keys: tf.Tensor,
    *,
    classes: int,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the mixed images, of the type given, and their labels, float32 [n, classes].

    With both alphas above 0 half of the pairs take CutMix, the others MixUp; with both 0 the images
    stay. Mixed uint8 pixels are rounded to the nearest. A picture with label -1 (unreadable) has
    zeros for its label, and is mixed into no other, and none into it.

    Args:
        images: uint8 or float [n, height, width, channels], n even where pairs are mixed.
        labels: int32 [n], -1 to classes - 1.
        keys: uint64 [n], one per (seed, epoch, example).
        classes: number of classes.
        mixup_alpha: >= 0; 0 means no MixUp.
        cutmix_alpha: >= 0; 0 means no CutMix.
    """
    for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if not 0.0 <= alpha < math.inf:
            raise InputError(f"`{name}` must be 0 or more. Received: {name}={alpha}")
    targets = tf.one_hot(labels, classes)
    if not mixup_alpha and not cutmix_alpha:
        return images, targets
    count = images.shape[0]
    height, width = images.shape[1], images.shape[2]
    pair_keys = fold(keys[0::2], keys[1::2])
    readable = (labels[0::2] >= 0) & (labels[1::2] >= 0)
    takes_cut = uniforms(fold(pair_keys, _SWITCH), 1)[:, 0] < 0.5
    if not (mixup_alpha and cutmix_alpha):
        takes_cut = tf.fill([count // 2], bool(cutmix_alpha))
    # An alpha of 0 is of the operation that no pair takes: any other number does.
    shares = symmetric_beta(fold(pair_keys, _MIXUP), mixup_alpha or 1.0)
    boxes, cut_shares = cut_boxes(pair_keys, cutmix_alpha or 1.0, height, width)
    shares = tf.where(readable, tf.where(takes_cut, cut_shares, shares), 1.0)
    boxes = tf.where(readable[:, tf.newaxis], boxes, 0)

    # Pair by pair: each does the work of one operation only, on memory that a core's cache holds.
    def one(drawn):
        pair, cut, box, share = drawn
        return tf.cond(cut, lambda: _paste(pair, box), lambda: _blend(pair, share))

    pairs = tf.reshape(images, [count // 2, 2, *images.shape[1:]])
    mixed = tf.map_fn(one, (pairs, takes_cut, boxes, shares), fn_output_signature=images.dtype)
    own = tf.repeat(shares, 2)[:, tf.newaxis]
    others = tf.gather(targets, [i ^ 1 for i in range(count)])
    return tf.reshape(mixed, images.shape), own * targets + (1.0 - own) * others


def cut_boxes(
    keys: tf.Tensor, alpha: float, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns CutMix rectangles and the share of the picture outside each of them.

    Rectangles are int32 [n, 4], top, left, bottom, right, the last two excluded; shares float32
    [n]. The sides are those of the authors' code: twice the half, rounded down, so that they are
    even before they are cut off at the border.
    """
    ratio = tf.sqrt(1.0 - symmetric_beta(fold(keys, _CUTMIX), alpha))
    half_height = tf.cast(ratio * height, tf.int32) // 2
    half_width = tf.cast(ratio * width, tf.int32) // 2
    row = integers(fold(fold(keys, _CENTRE), 0), 1, 0, height - 1)[:, 0]
    column = integers(fold(fold(keys, _CENTRE), 1), 1, 0, width - 1)[:, 0]
    top, bottom = tf.maximum(row - half_height, 0), tf.minimum(row + half_height, height)
    left, right = tf.maximum(column - half_width, 0), tf.minimum(column + half_width, width)
    pasted = tf.cast((bottom - top) * (right - left), tf.float32)
    return tf.stack([top, left, bottom, right], axis=1), 1.0 - pasted / (height * width)


def symmetric_beta(keys: tf.Tensor, alpha: float) -> tf.Tensor:
    """Returns float32 [n], one Beta(alpha, alpha) number a key.

    With U, V uniform, Student's t of 2 alpha degrees of freedom is (Bailey 1994, "Polar generation
    of random variates with the t-distribution", Math. Comp. 62)

        t = sqrt(2 alpha (U^(-1/alpha) - 1)) cos(2 pi V)

    and 1/2 + t / (2 sqrt(2 alpha + t^2)) is Beta(alpha, alpha). Exact for every alpha, and two
    uniforms always do, where a rejection method needs an unknown number of them.
    """
    count = tf.shape(keys)[0]
    # No lane is left over for the scalar power and cosine: the same key gives the same bits in a
    # batch of any size.
    padded = tf.pad(keys, [[0, -count % _SIMD]])
    draws = tf.cast(uniforms(padded, 2), tf.float64)
    power = (1.0 - draws[:, 0]) ** (1.0 / alpha)
    cosine = tf.cos(2.0 * math.pi * draws[:, 1])
    # t / sqrt(2 alpha + t^2), with the negative power multiplied out: it overflows, this does not.
    along = cosine * tf.sqrt(1.0 - power) / tf.sqrt(power + (1.0 - power) * cosine**2)
    # Rounding may put it beyond 1 by an ulp.
    return tf.cast(0.5 + 0.5 * tf.clip_by_value(along, -1.0, 1.0), tf.float32)[:count]


def _paste(pair, box):
    """Exchanges the rectangle of a pair [2, height, width, channels]."""
    rows, columns = tf.range(pair.shape[1]), tf.range(pair.shape[2])
    in_rows = (rows >= box[0]) & (rows < box[2])
    in_columns = (columns >= box[1]) & (columns < box[3])
    inside = (in_rows[:, tf.newaxis] & in_columns)[..., tf.newaxis]
    return tf.where(inside, tf.reverse(pair, [0]), pair)


def _blend(pair, own):
    values = tf.cast(pair, tf.float32)
    mixed = own * values + (1.0 - own) * tf.reverse(values, [0])
    return tf.cast(mixed if pair.dtype.is_floating else tf.round(mixed), pair.dtype)
