"""Colour jitter and lighting of fb.resnet.torch, drawn by key and applied as one linear map.

Jitter blends the picture x with three others (fb.resnet.torch, datasets/transforms.lua), each with
its own factor, uniform on 1 - jitter to 1 + jitter:

    brightness   b x
    contrast     c x + (1 - c) mean(grey(x))         one number for the picture
    saturation   s x + (1 - s) grey(x)               grey = 0.299 R + 0.587 G + 0.114 B

There the order is random. Nothing is clipped between them, the weights of grey add up to 1, and so
the three commute: every order gives

    b (c (s x + (1 - s) grey(x)) + (1 - c) mean(grey(x)))

and none has to be drawn. Lighting (Krizhevsky et al. 2012, section 4.1) adds to every pixel
sum_k a_k l_k v_k, with a_k normal of deviation `lighting_std`, l and v the eigenvalues and
eigenvectors of the colours of ImageNet in fb.resnet.torch's digits.

Both work on values of 0 to 255; the result is clipped to that range once, where it is rounded to
uint8 (fb.resnet.torch delivers floating point and does not clip).
"""

import tensorflow as tf

from tf_largebatch.data.keyed_random import fold, normals, uniforms

# Of colours in 0 to 1; the columns of the second are the eigenvectors.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
GREY = (0.299, 0.587, 0.114)
# Brightness, contrast and saturation factors; red, green and blue to add, grey levels.
NUMBERS = 6
# One number per kind, so that the kinds draw independently from one key.
_JITTER, _LIGHTING = 11, 12


def draw_changes(keys: tf.Tensor, *, jitter: float, lighting_std: float) -> tf.Tensor:
    """Returns float32 [n, NUMBERS], what `change_colors` does to each of n pictures.

    `jitter` is 0 to 1; fb.resnet.torch has 0.4, and a `lighting_std` of 0.1.
    """
    factors = 1.0 + jitter * (2.0 * uniforms(fold(keys, _JITTER), 3) - 1.0)
    amounts = lighting_std * normals(fold(keys, _LIGHTING), 3)
    light = tf.linalg.matvec(255.0 * tf.constant(EIGENVECTORS), amounts * EIGENVALUES)
    return tf.concat([factors, light], axis=1)


def change_colors(picture: tf.Tensor, changes: tf.Tensor) -> tf.Tensor:
    """Returns a picture, float32 [height, width, 3] of 0 to 255, with other colours, not clipped.

    The shape must be static; `changes` are one row of `draw_changes`.
    """
    brightness, contrast, saturation = tf.unstack(changes[:3])
    grey = tf.constant(GREY)[:, tf.newaxis]
    matrix = brightness * contrast * (saturation * tf.eye(3) + (1.0 - saturation) * grey)
    mean_grey = tf.tensordot(tf.reduce_mean(picture, axis=[0, 1]), grey[:, 0], 1)
    flat = brightness * (1.0 - contrast) * mean_grey + changes[3:]
    # Several pixels a row: products and sums of rows of three take three times as long.
    height, width, _ = picture.shape
    together = next(n for n in (8, 4, 2, 1) if width % n == 0)
    blocks = tf.eye(together)[:, tf.newaxis, :, tf.newaxis] * matrix[:, tf.newaxis, :]
    rows = tf.reshape(picture, [-1, 3 * together])
    changed = rows @ tf.reshape(blocks, [3 * together, 3 * together])
    changed = tf.reshape(changed, [height, 3 * width]) + tf.tile(flat, [width])
    return tf.reshape(changed, [height, width, 3])
