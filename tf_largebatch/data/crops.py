"""Pictures of any size to squares of one size: the training crop and the evaluation crop.

Training crop, the scale and aspect-ratio augmentation of fb.resnet.torch that Goyal et al. (2017,
arXiv:1706.02677, section 5.1) use, in torchvision's form:

    area   = U(area range) * H * W
    aspect = exp(U(log of the aspect range))                            width / height
    width, height = round(sqrt(area * aspect)), round(sqrt(area / aspect))

up to ten tries until the crop fits, at a uniform place; else the largest centred crop whose aspect
is in the range. The square is then mirrored with probability 1/2. fb.resnet.torch draws the aspect
uniformly and swaps the sides half of the time; log-uniform is symmetric by itself.

Evaluation crop: the shorter side to 256 (the longer in proportion, rounded down), the centre 224.

Both resize bilinearly without antialiasing, half-pixel centres, as OpenCV does and unlike Pillow,
whose filters widen when they shrink. Images stay uint8, rounded to the nearest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorflow as tf

from tf_largebatch.errors import InputError

ATTEMPTS = 10
# Per example: an area and an aspect for each attempt, the place (y, x), the mirror.
DRAWS = 2 * ATTEMPTS + 3
# TensorFlow's default, written down: faster, within a few grey levels of the exact transform.
_TRAIN_DCT = "INTEGER_FAST"
_EVAL_DCT = "INTEGER_ACCURATE"


@dataclass(frozen=True, kw_only=True)
class Crops:
    """The sizes and ranges of both crops.

    Attributes:
        image_size: side of the delivered square, pixels, > 0.
        area: (least, most) share of the picture's area, within 0 to 1, least above 0.
        aspect: (least, most) width / height of the crop, above 0.
        eval_short_side: pixels, >= image_size.

    Raises:
        InputError: a value outside its range.
    """

    image_size: int = 224
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    eval_short_side: int = 256

    def __post_init__(self):
        if not self.image_size >= 1:
            raise InputError(
                f"`image_size` must be at least 1. Received: image_size={self.image_size}"
            )
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise InputError(f"`area` must be 0 < least <= most <= 1. Received: area={self.area}")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise InputError(f"`aspect` must be 0 < least <= most. Received: aspect={self.aspect}")
        if not self.eval_short_side >= self.image_size:
            raise InputError(
                f"`eval_short_side` must be at least image_size ({self.image_size}). Received: "
                f"eval_short_side={self.eval_short_side}"
            )

    def __str__(self) -> str:
        return (
            f"training crop area {self.area[0]:g} to {self.area[1]:g}, aspect {self.aspect[0]:.3g} "
            f"to {self.aspect[1]:.3g}, {self.image_size} px, mirrored 1/2; evaluation short side "
            f"{self.eval_short_side}, centre {self.image_size}; bilinear, no antialiasing, JPEG "
            f"{_TRAIN_DCT}, evaluation {_EVAL_DCT}"
        )


def training_image(encoded: tf.Tensor, draws: tf.Tensor, crops: Crops) -> tf.Tensor:
    """Returns uint8 [image_size, image_size, 3] of one encoded picture.

    Args:
        encoded: scalar string, a JPEG in any colour space, or a PNG, GIF or BMP.
        draws: float32 [DRAWS], uniform on [0, 1).
        crops: ranges and size.
    """

    def from_jpeg():
        box = crop_box(tf.io.extract_jpeg_shape(encoded), draws, crops)
        return tf.io.decode_and_crop_jpeg(encoded, box, channels=3, dct_method=_TRAIN_DCT)

    def from_other():
        picture = _decode_other(encoded)
        top, left, height, width = tf.unstack(crop_box(tf.shape(picture), draws, crops))
        return picture[top : top + height, left : left + width]

    # By the bytes, not by a name: one ImageNet picture named .JPEG is a PNG.
    cropped = tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_other)
    square = _resize(cropped, [crops.image_size, crops.image_size])
    return tf.where(draws[-1] < 0.5, tf.reverse(square, axis=[1]), square)


def crop_box(shape: tf.Tensor, draws: tf.Tensor, crops: Crops) -> tf.Tensor:
    """Returns the training crop (top, left, height, width), int32 [4], of a picture.

    Args:
        shape: integers [height, width, ...] of the picture.
        draws: float32 [DRAWS], uniform on [0, 1).
        crops: ranges.
    """
    height, width = tf.cast(shape[0], tf.float32), tf.cast(shape[1], tf.float32)
    least, most = crops.area
    areas = height * width * (least + (most - least) * draws[:ATTEMPTS])
    low, high = (math.log(a) for a in crops.aspect)
    aspects = tf.exp(low + (high - low) * draws[ATTEMPTS : 2 * ATTEMPTS])
    heights, widths = tf.round(tf.sqrt(areas / aspects)), tf.round(tf.sqrt(areas * aspects))
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = tf.argmax(tf.cast(fits, tf.int32))
    tried = fits[first]
    crop_height = tf.where(tried, heights[first], tf.minimum(height, width / crops.aspect[0]))
    crop_width = tf.where(tried, widths[first], tf.minimum(width, height * crops.aspect[1]))
    crop_height, crop_width = tf.round(crop_height), tf.round(crop_width)
    centre = tf.constant([0.5, 0.5])
    place = tf.where(tried, draws[2 * ATTEMPTS : 2 * ATTEMPTS + 2], centre)
    top_left = tf.floor(place * tf.stack([height - crop_height + 1, width - crop_width + 1]))
    return tf.cast(tf.concat([top_left, [crop_height, crop_width]], axis=0), tf.int32)


def evaluation_image(encoded: tf.Tensor, crops: Crops) -> tf.Tensor:
    """Returns uint8 [image_size, image_size, 3]: short side resized, centre cropped."""
    picture = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=_EVAL_DCT),
        lambda: _decode_other(encoded),
    )
    shape = tf.shape(picture)[:2]
    resized_shape = shape * crops.eval_short_side // tf.reduce_min(shape)
    size = crops.image_size
    top, left = tf.unstack((resized_shape - size) // 2)
    return _resize(picture, resized_shape, window=(top, left, size))


def _decode_other(encoded):
    picture = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(picture, [None, None, 3])


def _resize(picture, shape, window=None):
    """Resizes to `shape`, takes the square window (top, left, size), rounds to uint8."""
    resized = tf.image.resize(picture, shape, method="bilinear", antialias=False)
    if window is not None:
        top, left, size = window
        resized = resized[top : top + size, left : left + size]
        resized = tf.ensure_shape(resized, [size, size, 3])
    return tf.cast(tf.round(resized), tf.uint8)
