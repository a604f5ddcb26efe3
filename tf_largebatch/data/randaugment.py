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

import math
from functools import partial
from types import SimpleNamespace

import tensorflow as tf

from tf_largebatch.data.keyed_random import fold, integers, normals, uniforms
from tf_largebatch.records.errors import InputError

# One number per kind of draw, unlike those of the other modules that draw from the same keys.
_OPERATION, _APPLY, _MAGNITUDE, _SIGN = 48, 49, 50, 51
_LAYERS = 2
# timm's `img_mean` of ImageNet: round(255 * (0.485, 0.456, 0.406)).
FILL = (124.0, 116.0, 104.0)
# What the methods of keras-cv's layers read of their layer. A layer itself would start TensorFlow's
# global generator, within whatever strategy is in scope.
_LAYER = SimpleNamespace(value_range=(0, 255), compute_dtype="float32")


def randaugment(images: tf.Tensor, keys: tf.Tensor, *, magnitude: float) -> tf.Tensor:
    """Returns each picture after two operations drawn for it.

    Args:
        images: uint8 [n, height, width, 3].
        keys: uint64 [n], one per (seed, epoch, example).
        magnitude: 0 to 10.
    """
    if images.dtype != tf.uint8 or images.shape.rank != 4 or images.shape[-1] != 3:
        raise InputError(
            "`images` must be uint8 [n, height, width, 3]. Received: "
            f"{images.dtype.name} {images.shape}"
        )
    if not 0.0 <= magnitude <= 10.0:
        raise InputError(f"`magnitude` must be in [0, 10]. Received: magnitude={magnitude}")
    _keras_cv()

    def one(drawn):
        image, numbers, levels, signs = drawn
        for layer in range(_LAYERS):
            image = apply_operation(image, numbers[layer], levels[layer], signs[layer])
        return image

    drawn = (images, *draw_operations(keys, magnitude=magnitude))
    return tf.map_fn(one, drawn, fn_output_signature=images.dtype)


def draw_operations(
    keys: tf.Tensor,
    layers: int = _LAYERS,
    *,
    magnitude: float,
    magnitude_std: float = 0.5,
    probability: float = 0.5,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns numbers, levels and signs for `apply_operation`, all [n, layers].

    Operations are drawn with replacement. One that does not take place has a number beyond the last
    operation's.
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

    `image` is uint8 [height, width, 3], `level` 0 to 1: magnitude / 10, `sign` -1 or 1.
    """

    def apply(operation):
        result = operation(tf.cast(image, tf.float32), level, sign)
        return tf.cast(tf.round(tf.clip_by_value(result, 0.0, 255.0)), tf.uint8)

    branches = [partial(apply, operation) for operation in OPERATIONS.values()] + [lambda: image]
    return tf.ensure_shape(tf.switch_case(number, branches), image.shape)


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


def _posterize(image, level, sign):
    # 32 bits, because a shift of 8-bit numbers by 8 is not defined.
    dropped = SimpleNamespace(_shift=4 + tf.cast(4.0 * level, tf.int32))
    kept = _keras_cv().layers.Posterization._posterize(dropped, tf.cast(image, tf.int32))
    return tf.cast(kept, tf.float32)


def _solarize(image, threshold):
    changes = {"additions": 0.0, "thresholds": threshold}
    return _keras_cv().layers.Solarization.augment_images(_LAYER, image, changes)


def _factor(level, sign):
    return tf.maximum(0.1, 1.0 + sign * 0.9 * level)


def _blend(grey, image, level, sign):
    return _keras_cv().src.utils.preprocessing.blend(
        grey * tf.ones_like(image), image, _factor(level, sign)
    )


def _rotate(image, level, sign):
    sides = _sides(image)
    angle = (sign * level * math.radians(30.0))[tf.newaxis]
    return _transform(
        image, _keras_cv().src.utils.preprocessing.get_rotation_matrix(angle, sides[0], sides[1])
    )


# Half a shear: the rows' centres are at half pixels.


def _shear_x(image, level, sign):
    shear = sign * 0.3 * level
    return _move(image, xy=shear, x=shear / 2.0)


def _shear_y(image, level, sign):
    shear = sign * 0.3 * level
    return _move(image, yx=shear, y=shear / 2.0)


def _sides(image):
    return tf.cast(tf.shape(image), tf.float32)


def _move(image, *, xy=0.0, x=0.0, yx=0.0, y=0.0):
    """Takes each pixel (x0, y0) from (x0 + xy y0 + x, yx x0 + y0 + y)."""
    return _transform(image, tf.stack([1.0, xy, x, yx, 1.0, y, 0.0, 0.0])[tf.newaxis])


def _transform(image, matrix):
    # The op fills with one number for all channels: fill with 0 what has the colour taken off.
    moved = _keras_cv().src.utils.preprocessing.transform(
        (image - FILL)[tf.newaxis], matrix, fill_mode="constant", fill_value=0.0
    )
    return moved[0] + FILL


# Each takes float32 [height, width, 3] of whole numbers 0 to 255, a level 0 to 1 and a sign, and
# returns values that are clipped and rounded afterwards.
OPERATIONS = {
    "AutoContrast": lambda image, level, sign: _keras_cv().layers.AutoContrast.augment_images(
        _LAYER, image[tf.newaxis]
    )[0],
    "Equalize": _equalize,
    "Invert": lambda image, level, sign: _solarize(image, 0.0),
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": lambda image, level, sign: _solarize(image, 256.0 - tf.floor(256.0 * level)),
    "SolarizeAdd": lambda image, level, sign: tf.where(
        image < 128.0, image + tf.floor(110.0 * level), image
    ),
    # keras-cv blends towards the degenerate picture, Pillow away from it.
    "Color": lambda image, level, sign: _keras_cv().layers.RandomColorDegeneration.augment_images(
        _LAYER, image, 1.0 - _factor(level, sign)
    ),
    "Contrast": lambda image, level, sign: _blend(
        tf.round(tf.reduce_mean(tf.round(tf.image.rgb_to_grayscale(image)))), image, level, sign
    ),
    "Brightness": lambda image, level, sign: _blend(0.0, image, level, sign),
    "Sharpness": lambda image, level, sign: _keras_cv().layers.RandomSharpness.augment_images(
        _LAYER, image[tf.newaxis], 1.0 - _factor(level, sign)
    )[0],
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": lambda image, level, sign: _move(image, x=sign * 0.45 * level * _sides(image)[1]),
    "TranslateY": lambda image, level, sign: _move(image, y=sign * 0.45 * level * _sides(image)[0]),
}


def _keras_cv():
    try:
        import keras_cv
        import keras_cv.src.utils.preprocessing  # no public name leads to it
    except ImportError as error:
        raise InputError(
            f"RandAugment needs keras-cv, which cannot be imported ({error}). Run "
            'pip install "tf-largebatch[augment]"'
        ) from None
    return keras_cv
