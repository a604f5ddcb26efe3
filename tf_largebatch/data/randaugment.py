"""RandAugment: a few operations on each picture, drawn from a list, all of one strength.

Cubuk et al. 2019, arXiv:1909.13719. Wightman et al. 2021, "ResNet strikes back", arXiv:2110.00476,
train ResNet-50 with LAMB under the variant of timm 0.4.12 (`timm/data/auto_augment.py`) that its
configuration strings call `rand-m7-mstd0.5-inc1`; that list is the one here. An operation takes
place with probability 1/2, at magnitude `m = clip(normal(magnitude, magnitude_std), 0, 10)`; `+-`
is a sign of probability 1/2, and H, W the sides of the picture.

    AutoContrast, Equalize, Invert                       without a strength
    Rotate         +-30 m/10 degrees about the centre
    Posterize      4 - floor(4 m/10) bits kept
    Solarize       values v >= 256 - floor(256 m/10) to 255 - v
    SolarizeAdd    values v < 128 to min(255, v + floor(110 m/10))
    Color, Contrast, Brightness, Sharpness
                   away from (or towards) grey, the mean grey, black, a smoothed picture,
                   by a factor max(0.1, 1 +- 0.9 m/10)
    ShearX, ShearY           +-0.3 m/10
    TranslateX, TranslateY   +-0.45 m/10 of W, H

Draws are a function of the picture's key alone. Arithmetic is that of keras-cv 0.9.0 where its
layers have a part that draws nothing: AutoContrast, Invert, Solarize, Posterize, Color, Sharpness,
the blending and the projective transform. Its `RandAugment` layer itself is not used: it draws from
TensorFlow's global generator, and has other strengths (translation by up to the whole picture,
contrast and brightness uniform), no rotation, posterising or sharpness.

What differs from timm: values are rounded to the nearest where Pillow cuts off, so they may be one
grey level away; the geometric operations are bilinear, where timm takes bilinear or bicubic at
random; beyond the border is the mean colour of ImageNet, as in timm, blended in over one pixel.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import tensorflow as tf

from tf_largebatch.data.keyed_random import fold, integers, normals, uniforms
from tf_largebatch.records.errors import InputError

# One number per kind of draw, unlike those of the other modules that draw from the same keys.
_OPERATION, _APPLY, _MAGNITUDE, _SIGN = 48, 49, 50, 51
# timm's `img_mean` of ImageNet: round(255 * (0.485, 0.456, 0.406)).
FILL = (124.0, 116.0, 104.0)
# What the methods of keras-cv's layers read of their layer. A layer itself would start TensorFlow's
# global generator, within whatever strategy is in scope.
_LAYER = SimpleNamespace(value_range=(0, 255), compute_dtype="float32")


def randaugment(
    images: tf.Tensor,
    keys: tf.Tensor,
    *,
    magnitude: float,
    layers: int = 2,
    magnitude_std: float = 0.5,
    probability: float = 0.5,
) -> tf.Tensor:
    """Returns each picture after `layers` operations drawn for it.

    Args:
        images: uint8 [n, height, width, 3].
        keys: uint64 [n], one per (seed, epoch, example).
        magnitude: 0 to 10.
        layers: >= 1, operations drawn, with replacement.
        magnitude_std: >= 0.
        probability: in [0, 1], that a drawn operation takes place; 1/2 is timm's.

    Returns:
        uint8 [n, height, width, 3].

    Raises:
        InputError: an argument outside its range, images of another type or without three
            channels, or no keras-cv.
    """
    _check(images, magnitude, layers, magnitude_std, probability)
    operations = draw_operations(
        keys,
        layers,
        magnitude=magnitude,
        magnitude_std=magnitude_std,
        probability=probability,
    )

    def one(drawn):
        image, numbers, strengths, ways = drawn
        for layer in range(layers):
            image = apply_operation(image, numbers[layer], strengths[layer], ways[layer])
        return image

    return tf.map_fn(one, (images, *operations), fn_output_signature=images.dtype)


def draw_operations(
    keys: tf.Tensor, layers: int, *, magnitude: float, magnitude_std: float, probability: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns numbers, levels and signs for `apply_operation`, all [n, layers].

    Args:
        keys: uint64 [n].
        layers: >= 1.
        magnitude: 0 to 10.
        magnitude_std: >= 0.
        probability: in [0, 1]; the other numbers are beyond the last operation.
    """
    numbers = integers(fold(keys, _OPERATION), layers, 0, len(OPERATIONS) - 1)
    applied = uniforms(fold(keys, _APPLY), layers) < probability
    noise = magnitude_std * normals(fold(keys, _MAGNITUDE), layers)
    levels = tf.clip_by_value(magnitude + noise, 0.0, 10.0) / 10.0
    signs = tf.where(uniforms(fold(keys, _SIGN), layers) < 0.5, -1.0, 1.0)
    return tf.where(applied, numbers, len(OPERATIONS)), levels, signs


def apply_operation(
    image: tf.Tensor, number: tf.Tensor, level: tf.Tensor, sign: tf.Tensor
) -> tf.Tensor:
    """Returns the picture after operation `number` of `OPERATIONS`; unchanged beyond the last.

    Args:
        image: uint8 [height, width, 3].
        number: scalar int32, >= 0.
        level: scalar float32, 0 to 1: magnitude / 10.
        sign: scalar float32, -1 or 1.
    """

    def make_branch(operation):
        def branch():
            result = operation(tf.cast(image, tf.float32), level, sign)
            return tf.cast(tf.round(tf.clip_by_value(result, 0.0, 255.0)), tf.uint8)

        return branch

    branches = [make_branch(operation) for operation in OPERATIONS.values()] + [lambda: image]
    return tf.ensure_shape(tf.switch_case(number, branches), image.shape)


# Each takes float32 [height, width, 3] of whole numbers 0 to 255, a level 0 to 1 and a sign, and
# returns values that are clipped and rounded afterwards.


def _auto_contrast(image, level, sign):
    return _keras_cv().AutoContrast.augment_images(_LAYER, image[tf.newaxis])[0]


def _equalize(image, level, sign):
    """As Pillow does it. keras-cv's puts Python's `and` between tensors, which needs AutoGraph.

    It also takes the rarest value's count off the total, where Pillow takes the brightest value's.
    """
    values = tf.cast(image, tf.int32)

    def one(channel):
        counts = tf.math.bincount(tf.reshape(channel, [-1]), minlength=256, maxlength=256)
        # Of all pixels but those of the brightest value that occurs.
        last = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0))
        step = (tf.reduce_sum(counts) - counts[last]) // 255
        table = (step // 2 + tf.cumsum(counts, exclusive=True)) // tf.maximum(step, 1)
        return tf.where(step > 0, tf.gather(tf.minimum(table, 255), channel), channel)

    channels = [one(channel) for channel in tf.unstack(values, axis=-1)]
    return tf.cast(tf.stack(channels, axis=-1), tf.float32)


def _invert(image, level, sign):
    return _solarize_from(image, 0.0)


def _rotate(image, level, sign):
    shape = tf.cast(tf.shape(image), tf.float32)
    angle = (sign * level * math.radians(30.0))[tf.newaxis]
    matrix = _preprocessing().get_rotation_matrix(angle, shape[0], shape[1])
    return _transform(image, matrix)


def _posterize(image, level, sign):
    # 32 bits, because a shift of 8-bit numbers by 8 is not defined.
    dropped = SimpleNamespace(_shift=4 + tf.cast(4.0 * level, tf.int32))
    kept = _keras_cv().Posterization._posterize(dropped, tf.cast(image, tf.int32))
    return tf.cast(kept, tf.float32)


def _solarize(image, level, sign):
    return _solarize_from(image, 256.0 - tf.floor(256.0 * level))


def _solarize_add(image, level, sign):
    return tf.where(image < 128.0, image + tf.floor(110.0 * level), image)


def _color(image, level, sign):
    # keras-cv blends towards the degenerate picture, Pillow away from it.
    towards = 1.0 - _factor(level, sign)
    return _keras_cv().RandomColorDegeneration.augment_images(_LAYER, image, towards)


def _contrast(image, level, sign):
    mean = tf.round(tf.reduce_mean(tf.round(tf.image.rgb_to_grayscale(image))))
    return _preprocessing().blend(mean * tf.ones_like(image), image, _factor(level, sign))


def _brightness(image, level, sign):
    return _preprocessing().blend(tf.zeros_like(image), image, _factor(level, sign))


def _sharpness(image, level, sign):
    towards = 1.0 - _factor(level, sign)
    return _keras_cv().RandomSharpness.augment_images(_LAYER, image[tf.newaxis], towards)[0]


def _shear_x(image, level, sign):
    shear = sign * 0.3 * level
    # Half a shear: the rows' centres are at half pixels.
    return _transform(image, _affine([1.0, shear, shear / 2.0, 0.0, 1.0, 0.0]))


def _shear_y(image, level, sign):
    shear = sign * 0.3 * level
    return _transform(image, _affine([1.0, 0.0, 0.0, shear, 1.0, shear / 2.0]))


def _translate_x(image, level, sign):
    width = tf.cast(tf.shape(image)[1], tf.float32)
    return _transform(image, _affine([1.0, 0.0, sign * 0.45 * level * width, 0.0, 1.0, 0.0]))


def _translate_y(image, level, sign):
    height = tf.cast(tf.shape(image)[0], tf.float32)
    return _transform(image, _affine([1.0, 0.0, 0.0, 0.0, 1.0, sign * 0.45 * level * height]))


def _solarize_from(image, threshold):
    changes = {"additions": 0.0, "thresholds": threshold}
    return _keras_cv().Solarization.augment_images(_LAYER, image, changes)


def _factor(level, sign):
    return tf.maximum(0.1, 1.0 + sign * 0.9 * level)


def _affine(numbers):
    """Two rows of three numbers: from an output pixel to the place it is taken from."""
    return tf.stack([*numbers, 0.0, 0.0])[tf.newaxis]


def _transform(image, matrix):
    # The op fills with one number for all channels: fill with 0 what has the colour taken off.
    moved = _preprocessing().transform(
        (image - FILL)[tf.newaxis], matrix, fill_mode="constant", fill_value=0.0
    )
    return moved[0] + FILL


OPERATIONS = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": _color,
    "Contrast": _contrast,
    "Brightness": _brightness,
    "Sharpness": _sharpness,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
}


def _keras_cv():
    return _import_keras_cv()[0]


def _preprocessing():
    return _import_keras_cv()[1]


def _import_keras_cv():
    try:
        from keras_cv import layers
        from keras_cv.src.utils import preprocessing  # no public name leads to it
    except ImportError as error:
        raise InputError(
            f"RandAugment needs keras-cv, which cannot be imported ({error}). Run "
            "`pip install keras-cv==0.9.0`."
        ) from None
    return layers, preprocessing


def _check(images, magnitude, layers, magnitude_std, probability):
    if images.dtype != tf.uint8 or images.shape.rank != 4 or images.shape[-1] != 3:
        raise InputError(
            "`images` must be uint8 [n, height, width, 3]. Received: "
            f"{images.dtype.name} {images.shape}"
        )
    if not 0.0 <= magnitude <= 10.0:
        raise InputError(f"`magnitude` must be in [0, 10]. Received: magnitude={magnitude}")
    if layers < 1:
        raise InputError(f"`layers` must be at least 1. Received: layers={layers}")
    if not 0.0 <= magnitude_std < math.inf:
        raise InputError(f"`magnitude_std` must be 0 or more. Received: {magnitude_std=}")
    if not 0.0 <= probability <= 1.0:
        raise InputError(f"`probability` must be in [0, 1]. Received: probability={probability}")
    _import_keras_cv()
