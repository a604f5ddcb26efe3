"""Pictures of any size to squares of one size: the training crop and the evaluation crop.

Training crop, the scale and aspect-ratio augmentation of fb.resnet.torch that Goyal et al. (2017,
arXiv:1706.02677, section 5.1) use, in torchvision's form:

    area   = U(area range) * H * W
    aspect = exp(U(log of the aspect range))                            width / height
    width, height = round(sqrt(area * aspect)), round(sqrt(area / aspect))

up to ten tries until the crop fits, at a uniform place; else the largest centred crop whose aspect
is in the range. The square is then mirrored with probability 1/2. fb.resnet.torch draws the root of
the aspect uniformly (3/4 to 4/3, so 9/16 to 16/9) and swaps the sides half of the time; log-uniform
is symmetric by itself.

Evaluation crop, one of two:

    short_side   the shorter side to 256 (the longer in proportion, rounded down), the centre 224;
                 of a picture more than 16 times as long as broad, the centre alone is resized
    square       the central square of 224/256 of the shorter side (rounded down), resized to 224:
                 the MLPerf references' (crop padding 32; rows and columns from (rest + 1) // 2)

Pictures stay uint8, rounded to the nearest. Without antialiasing, both interpolations sample at
half-pixel centres, as OpenCV does and unlike Pillow, whose filters widen when they shrink. EXIF
orientation is ignored, as the published results do.
"""

import functools
import math

import tensorflow as tf

from tf_largebatch.data.color import change_colors
from tf_largebatch.records.data_spec import ImageNetSpec

ATTEMPTS = 10
# Per example: an area and an aspect for each attempt, the place (y, x), the mirror.
DRAWS = 2 * ATTEMPTS + 3
# TensorFlow's default, written down: within a few grey levels of the exact transform.
_TRAIN_DCT = "INTEGER_FAST"
_EVAL_DCT = "INTEGER_ACCURATE"
# The scales at which the decoder can leave out frequencies.
_RATIOS = (1, 2, 4, 8)
# Source pixels for each delivered one up to which the cast to float32 pays (measured: about 7).
_CAST_AT_MOST = 4
# Times the breadth that counts of a picture's length in evaluation.
_LONGEST = 16


def describe_crops(spec: ImageNetSpec, *, antialias: bool, scaled_decoding: bool) -> str:
    """Returns what happens to a picture in training and in evaluation, in one line."""
    evaluation = {
        "short_side": f"short side {spec.eval_short_side}, centre {spec.eval_side}",
        "square": f"central square of {spec.eval_side}/{spec.eval_short_side} of the short "
        f"side to {spec.eval_side}",
    }[spec.eval_crop]
    scaled = ", large crops decoded at 1/2 to 1/8" * scaled_decoding
    return (
        f"training crop area {spec.min_area:g} to {spec.max_area:g}, aspect {spec.min_aspect:.3g} "
        f"to {spec.max_aspect:.3g}, {spec.image_size} px, mirrored 1/2; evaluation "
        f"{evaluation}; {spec.interpolation}, {'' if antialias else 'no '}antialiasing, "
        f"JPEG {_TRAIN_DCT}, evaluation {_EVAL_DCT}{scaled}"
    )


def crop_numbers(draws: tf.Tensor, spec: ImageNetSpec) -> tf.Tensor:
    """Returns what `crop_box` and `training_image` need of many pictures' draws, at once.

    Whatever does not depend on the picture's size is computed here, for all pictures together: per
    picture, an operation costs as much as a row of pixels. Draws are float32 [n, DRAWS], uniform on
    [0, 1); the numbers are heights and widths of the attempts in units of sqrt(H * W), the place,
    the mirror.
    """
    least, most = spec.min_area, spec.max_area
    areas = least + (most - least) * draws[:, :ATTEMPTS]
    low, high = math.log(spec.min_aspect), math.log(spec.max_aspect)
    aspects = tf.exp(low + (high - low) * draws[:, ATTEMPTS : 2 * ATTEMPTS])
    sides = [tf.sqrt(areas / aspects), tf.sqrt(areas * aspects)]
    return tf.concat([*sides, draws[:, 2 * ATTEMPTS :]], axis=1)


def crop_box(shape: tf.Tensor, numbers: tf.Tensor, spec: ImageNetSpec) -> tf.Tensor:
    """Returns the training crop (top, left, height, width), int32 [4], of a picture of `shape`.

    `numbers` are one row of `crop_numbers`.
    """
    size = tf.cast(shape[:2], tf.float32)
    attempts = tf.reshape(numbers[: 2 * ATTEMPTS], [2, ATTEMPTS])
    sides = tf.round(tf.sqrt(tf.reduce_prod(size)) * attempts)
    fits = tf.reduce_all((sides >= 1) & (sides <= size[:, tf.newaxis]), axis=0)
    first = tf.argmax(fits)
    # tf.gather is one operation, an index that is a tensor four.
    tried = tf.gather(fits, first)
    widest = tf.round(size[::-1] * tf.constant([1 / spec.min_aspect, spec.max_aspect]))
    side = tf.where(tried, tf.gather(sides, first, axis=1), tf.minimum(size, widest))
    place = tf.where(tried, numbers[2 * ATTEMPTS : 2 * ATTEMPTS + 2], 0.5)
    top_left = tf.floor(place * (size - side + 1))
    return tf.cast(tf.concat([top_left, side], axis=0), tf.int32)


def training_image(
    encoded: tf.Tensor,
    numbers: tf.Tensor,
    spec: ImageNetSpec,
    changes: tf.Tensor | None = None,
    *,
    antialias: bool = False,
    scaled_decoding: bool = False,
) -> tf.Tensor:
    """Returns uint8 [image_size, image_size, 3] of one encoded picture.

    Args:
        encoded: scalar string, a JPEG in any colour space, or a PNG, GIF or BMP.
        numbers: one row of `crop_numbers`.
        spec: gives ranges, size and interpolation.
        changes: one row of `color.draw_changes`; None for none.
        antialias: widen the filter where a picture shrinks, as Pillow does.
        scaled_decoding: decode a crop whose sides are both at least 2, 4 or 8 times `image_size`
            at 1/2, 1/4 or 1/8: faster, not the same pixels, and the crop's edges move by up to half
            a reduced pixel.
    """

    def from_jpeg():
        box = crop_box(tf.io.extract_jpeg_shape(encoded), numbers, spec)
        return _decode_jpeg(encoded, box, spec.image_size if scaled_decoding else None)

    def from_other():
        picture = _decode_other(encoded)
        top, left, height, width = tf.unstack(crop_box(tf.shape(picture), numbers, spec))
        return picture[top : top + height, left : left + width]

    # By the bytes, not by a name: one ImageNet picture named .JPEG is a PNG.
    cropped = tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_other)
    size = spec.image_size
    resized = _resize(cropped, [size, size], spec.interpolation, antialias)
    square = tf.ensure_shape(resized, [size, size, 3])
    if changes is not None:
        square = change_colors(square, changes)
    square = _to_uint8(square, clip=changes is not None or spec.interpolation != "bilinear")
    # tf.where would compute both and choose pixel by pixel, at a third of the time of decoding.
    return tf.cond(numbers[-1] < 0.5, lambda: tf.reverse(square, axis=[1]), lambda: square)


def evaluation_image(
    encoded: tf.Tensor, spec: ImageNetSpec, *, antialias: bool = False
) -> tf.Tensor:
    """Returns uint8 [eval_side, eval_side, 3], the centre: see `ImageNetSpec.eval_crop`."""
    size = spec.eval_side
    if spec.eval_crop == "square":
        square = _decode_central_square(encoded, spec)
        resized = _resize(square, [size, size], spec.interpolation, antialias)
        resized = tf.ensure_shape(resized, [size, size, 3])
    else:
        picture = tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method=_EVAL_DCT),
            lambda: _decode_other(encoded),
        )
        picture = _without_far_ends(picture)
        shape = tf.shape(picture)[:2]
        resized_shape = shape * spec.eval_short_side // tf.reduce_min(shape)
        top, left = tf.unstack((resized_shape - size) // 2)
        resized = _resize(picture, resized_shape, spec.interpolation, antialias)
        resized = tf.slice(resized, [top, left, 0], [size, size, 3])
    return _to_uint8(resized, clip=spec.interpolation != "bilinear")


def _decode_central_square(encoded, spec):
    def square(shape):
        side = tf.maximum(tf.reduce_min(shape) * spec.eval_side // spec.eval_short_side, 1)
        return (shape - side + 1) // 2, side

    def from_jpeg():
        start, side = square(tf.io.extract_jpeg_shape(encoded)[:2])
        box = tf.concat([start, [side, side]], axis=0)
        return tf.io.decode_and_crop_jpeg(encoded, box, channels=3, dct_method=_EVAL_DCT)

    def from_other():
        picture = _decode_other(encoded)
        start, side = square(tf.shape(picture)[:2])
        return tf.slice(picture, [*tf.unstack(start), 0], [side, side, 3])

    return tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_other)


def _without_far_ends(picture):
    """Cuts a picture longer than 16 times its breadth to that, around its centre.

    Resized whole, a picture of 1 x 65,000 would take 50 GB. No picture of ImageNet is so long.
    """
    shape = tf.shape(picture)
    kept = tf.minimum(shape, tf.maximum(_LONGEST * tf.reduce_min(shape[:2]), 3))
    return tf.slice(picture, (shape - kept) // 2, kept)


def _decode_jpeg(encoded, box, scaled_to):
    """Decodes the training crop, at a reduced scale where it is large enough for `scaled_to`."""

    def at(ratio):
        # The window is in pixels of the reduced picture: edges to the nearest.
        start = (box[:2] + ratio // 2) // ratio
        size = (box[:2] + box[2:] + ratio // 2) // ratio - start
        return lambda: tf.io.decode_and_crop_jpeg(
            encoded, tf.concat([start, size], 0), channels=3, ratio=ratio, dct_method=_TRAIN_DCT
        )

    if scaled_to is None:
        return tf.io.decode_and_crop_jpeg(encoded, box, channels=3, dct_method=_TRAIN_DCT)
    least = tf.reduce_min(box[2:])
    steps = [tf.cast(least >= ratio * scaled_to, tf.int32) for ratio in _RATIOS[1:]]
    return tf.switch_case(tf.add_n(steps), [at(ratio) for ratio in _RATIOS])


def _decode_other(encoded):
    picture = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(picture, [None, None, 3])


def _resize(picture, shape, interpolation, antialias):
    resized = functools.partial(
        tf.image.resize, size=shape, method=interpolation, antialias=antialias
    )
    if antialias:
        return resized(picture)
    # TensorFlow has vector loads for float32 pixels alone, and interpolates them in half the time
    # of uint8 ones, to the same bits. Of a large picture the cast takes longer than that saves.
    small = tf.size(picture) <= 3 * _CAST_AT_MOST * tf.reduce_prod(shape)
    return tf.cond(small, lambda: resized(tf.cast(picture, tf.float32)), lambda: resized(picture))


def _to_uint8(picture, *, clip):
    """Rounds to the nearest; a cubic overshoots, and other colours leave the range."""
    rounded = tf.round(picture)
    return tf.cast(tf.clip_by_value(rounded, 0.0, 255.0) if clip else rounded, tf.uint8)
