"""Augmentation of a whole batch, each example by its own key.

Each function takes images [n, height, width, channels] and keys uint64 [n] and returns images of
the same shape and type.
"""

from collections.abc import Callable

import tensorflow as tf

from tf_largebatch.data.keyed_random import fold, integers, normals, uniforms

# One number per kind, so that the kinds draw independently from one key.
_SHIFT, _FLIP, _NOISE = 1, 2, 3


def random_shift(images: tf.Tensor, keys: tf.Tensor, pixels: int) -> tf.Tensor:
    """Shifts each image by -pixels, ..., pixels along both axes, uniform, with zeros moving in.

    The same as padding by `pixels` and cropping the original size at random.
    """
    height, width = images.shape[1], images.shape[2]
    padded = tf.pad(images, [[0, 0], [pixels, pixels], [pixels, pixels], [0, 0]])
    top_left = integers(fold(keys, _SHIFT), 2, 0, 2 * pixels)
    rows = top_left[:, :1] + tf.range(height)
    columns = top_left[:, 1:] + tf.range(width)
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def random_flip(images: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Mirrors each image left to right with probability 1/2."""
    mirrored = uniforms(fold(keys, _FLIP), 1)[:, :, tf.newaxis, tf.newaxis] < 0.5
    return tf.where(mirrored, tf.reverse(images, axis=[2]), images)


def add_noise(images: tf.Tensor, keys: tf.Tensor, sd: float) -> tf.Tensor:
    """Adds normal noise of deviation `sd` to every value of float32 images, not clipped."""
    shape = images.shape[1:]
    noise = normals(fold(keys, _NOISE), shape.num_elements())
    return images + sd * tf.reshape(noise, [-1, *shape])


def shift_and_flip(pixels: int, *, flip: bool) -> Callable | None:
    """Returns the two as one function of images and keys; None where neither is asked for."""
    if not pixels and not flip:
        return None

    def change(images, keys):
        moved = random_shift(images, keys, pixels) if pixels else images
        return random_flip(moved, keys) if flip else moved

    return change


def describe_shift_and_flip(pixels: int, *, flip: bool) -> str:
    """Returns what `shift_and_flip` does, in words."""
    parts = [f"shift up to {pixels} pixels"] * bool(pixels) + ["mirrored 1/2"] * flip
    return ", ".join(parts) or "no augmentation"
