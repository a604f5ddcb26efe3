"""The two crops: against their definitions in float64 and against Pillow."""

import io
import math

import numpy as np
import pytest
import tensorflow as tf

from tf_largebatch.data.crops import (
    ATTEMPTS,
    DRAWS,
    crop_box,
    crop_numbers,
    describe_crops,
    evaluation_image,
    training_image,
)
from tf_largebatch.records.data_spec import ImageNetSpec

CROPS = ImageNetSpec(image_size=48, eval_short_side=56)
NO_FLIP = np.float32(0.75)


def box_by_hand(height, width, draws, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)):
    """torchvision's RandomResizedCrop, in Python floats, from the same numbers."""
    for k in range(ATTEMPTS):
        size = height * width * (area[0] + (area[1] - area[0]) * float(draws[k]))
        low, high = math.log(aspect[0]), math.log(aspect[1])
        ratio = math.exp(low + (high - low) * float(draws[ATTEMPTS + k]))
        h, w = round(math.sqrt(size / ratio)), round(math.sqrt(size * ratio))
        if 0 < h <= height and 0 < w <= width:
            top, left = (
                math.floor(float(draws[2 * ATTEMPTS + n]) * (full - part + 1))
                for n, full, part in ((0, height, h), (1, width, w))
            )
            return top, left, h, w
    h, w = min(height, round(width / aspect[0])), min(width, round(height * aspect[1]))
    return (height - h + 1) // 2, (width - w + 1) // 2, h, w


def boxes(height, width, draws, crops):
    @tf.function
    def many(draws):
        return tf.map_fn(
            lambda d: crop_box(tf.constant([height, width, 3]), d, crops),
            draws,
            fn_output_signature=tf.int32,
        )

    return many(crop_numbers(tf.constant(draws), crops)).numpy()


def uniform_draws(count, *, seed):
    return np.random.default_rng(seed).random((count, DRAWS), dtype=np.float32)


def train(encoded, draws, crops=CROPS, **how):
    """The training picture of one row of uniform numbers."""
    return training_image(encoded, crop_numbers(tf.constant(draws[None]), crops)[0], crops, **how)


def picture(height, width, *, seed=0):
    """A smooth picture with some noise, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width, :1][:2]
    waves = [np.sin(y / a + x / b) for a, b in rng.uniform(3, 30, (3, 2))]
    noisy = 127 + 90 * np.concatenate(waves, axis=2) + rng.normal(0, 8, (height, width, 3))
    return noisy.clip(0, 255).round().astype(np.uint8)


def png(image):
    return tf.io.encode_png(image)


def distance_of_samples(a, b):
    """The Kolmogorov-Smirnov distance of two samples."""
    both = np.sort(np.concatenate([a, b]))
    return max(
        abs(
            np.searchsorted(np.sort(a), both, side="right") / len(a)
            - np.searchsorted(np.sort(b), both, side="right") / len(b)
        )
    )


@pytest.mark.parametrize(
    "height, width, crops",
    [
        (375, 500, CROPS),
        (500, 333, ImageNetSpec(min_area=0.05, max_area=0.9, min_aspect=2 / 3, max_aspect=3 / 2)),
        (20, 600, CROPS),
        (600, 20, CROPS),
        (1, 1, CROPS),
    ],
)
def test_box_is_torchvisions_for_the_same_numbers(height, width, crops):
    draws = uniform_draws(500, seed=1)
    got = boxes(height, width, draws, crops)
    area, aspect = (crops.min_area, crops.max_area), (crops.min_aspect, crops.max_aspect)
    expected = np.array([box_by_hand(height, width, d, area, aspect) for d in draws])
    # float32 may round a side or a place the other way, by one pixel.
    assert abs(got - expected).max() <= 1
    assert (got == expected).all(axis=1).mean() > 0.99
    assert (got[:, 0] + got[:, 2] <= height).all() and (got[:, 1] + got[:, 3] <= width).all()
    assert got.min() >= 0 and got[:, 2:].min() >= 1


def test_area_and_aspect_follow_their_definition():
    # An independent sample of the definition, in float64, with its own numbers.
    height, width, count = 1500, 2000, 6_000
    got = boxes(height, width, uniform_draws(count, seed=2), CROPS).astype(np.float64)
    rng, wanted = np.random.default_rng(3), []
    while len(wanted) < count:
        area, ratio = rng.uniform(0.08, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        h, w = np.sqrt(area * height * width / ratio), np.sqrt(area * height * width * ratio)
        if h <= height and w <= width:
            wanted.append((area, ratio))
    wanted = np.array(wanted)
    limit = 1.95 * math.sqrt(2 / count)  # 0.1 % point; the numbers are fixed
    area, ratio = got[:, 2] * got[:, 3] / (height * width), got[:, 3] / got[:, 2]
    assert distance_of_samples(area, wanted[:, 0]) < limit
    assert distance_of_samples(ratio, wanted[:, 1]) < limit
    assert area.min() > 0.0795 and abs(np.log(ratio)).max() < math.log(4 / 3) + 0.005


def test_place_of_the_crop_is_uniform():
    got = boxes(1500, 2000, uniform_draws(4_000, seed=4), CROPS).astype(np.float64)
    for start, size, full in ((got[:, 0], got[:, 2], 1500), (got[:, 1], got[:, 3], 2000)):
        free = full - size > 50
        share = np.sort(start[free] / (full - size[free]))
        assert abs(share - np.arange(len(share)) / len(share)).max() < 2.2 / math.sqrt(len(share))


@pytest.mark.parametrize("height, width", [(40, 1000), (1000, 40)])
def test_fallback_is_the_largest_centred_crop_in_the_range(height, width):
    draws = np.full((1, DRAWS), 0.999, np.float32)  # the whole area never fits in this shape
    (top, left, h, w) = boxes(height, width, draws, CROPS)[0]
    assert min(h, w) == 40 and max(h, w) == round(40 * 4 / 3)
    assert abs(2 * top + h - height) <= 1 and abs(2 * left + w - width) <= 1


def test_training_image_is_its_box_resized_and_half_are_mirrored():
    image = picture(90, 120)
    draws = uniform_draws(1, seed=5)[0]
    top, left, h, w = box_by_hand(90, 120, draws)
    # Bilinear at half-pixel centres, in float64.
    y = np.clip((np.arange(48) + 0.5) * h / 48 - 0.5, 0, h - 1)
    x = np.clip((np.arange(48) + 0.5) * w / 48 - 0.5, 0, w - 1)
    part = image[top : top + h, left : left + w].astype(np.float64)
    y0, x0 = np.minimum(y.astype(int), h - 2), np.minimum(x.astype(int), w - 2)
    fy, fx = (y - y0)[:, None, None], (x - x0)[None, :, None]
    rows = part[y0] * (1 - fy) + part[y0 + 1] * fy
    expected = rows[:, x0] * (1 - fx) + rows[:, x0 + 1] * fx
    for mirror in (0.0, 0.4999, 0.5, 0.999):
        draws[-1] = mirror
        got = train(png(image), draws).numpy()
        assert got.dtype == np.uint8 and got.shape == (48, 48, 3)
        got = got[:, ::-1] if mirror < 0.5 else got
        assert abs(got - expected).max() <= 0.51


def test_cropped_decoding_equals_decoding_and_cropping():
    # The decoder starts at a block boundary left of the crop; its pixels must be the same.
    draws = uniform_draws(12, seed=6)
    draws[:, -1] = NO_FLIP
    image = picture(90, 120)
    for quality, subsampled in ((80, False), (95, False), (95, True)):
        jpeg = tf.io.encode_jpeg(image, quality=quality, chroma_downsampling=subsampled)
        decoded = tf.io.decode_jpeg(jpeg, dct_method="INTEGER_FAST")
        for row in draws:
            fused = train(jpeg, row).numpy().astype(int)
            plain = train(png(decoded), row).numpy()
            # Chroma is interpolated across the cut when it is subsampled.
            assert abs(fused - plain).max() <= (40 if subsampled else 0)
            assert abs(fused - plain).mean() <= 0.5


def test_evaluation_decodes_with_the_exact_transform():
    jpeg = tf.io.encode_jpeg(picture(90, 120), quality=80)
    fast, exact = (
        tf.io.decode_jpeg(jpeg, dct_method=method)
        for method in ("INTEGER_FAST", "INTEGER_ACCURATE")
    )
    assert tf.reduce_any(fast != exact)
    got = evaluation_image(jpeg, CROPS)
    np.testing.assert_array_equal(got, evaluation_image(png(exact), CROPS))


@pytest.mark.parametrize("encode", ["jpeg", "png", "grey jpeg", "grey png"])
def test_grey_pictures_and_pngs_become_three_channels(encode):
    image = picture(60, 70)
    if "grey" in encode:
        image = image[..., :1]
    encoded = (tf.io.encode_jpeg if "jpeg" in encode else tf.io.encode_png)(image)
    draws = uniform_draws(1, seed=7)[0]
    for result in (train(encoded, draws), evaluation_image(encoded, CROPS)):
        assert result.shape == (48, 48, 3)
        if "grey" in encode:
            np.testing.assert_array_equal(result[..., 0], result[..., 2])


def test_cmyk_jpeg_becomes_rgb():
    image_module = pytest.importorskip("PIL.Image", reason="needs Pillow to write a CMYK JPEG")
    buffer = io.BytesIO()
    # Adobe's inverted CMYK, as Pillow writes it: no ink is white.
    image_module.new("CMYK", (64, 64), (0, 0, 0, 0)).save(buffer, "JPEG")
    draws = uniform_draws(1, seed=8)[0]
    encoded = tf.constant(buffer.getvalue())
    for result in (train(encoded, draws), evaluation_image(encoded, CROPS)):
        assert result.shape == (48, 48, 3) and result.numpy().min() >= 250


@pytest.mark.parametrize("height, width", [(80, 117), (117, 80), (56, 56), (30, 45), (211, 64)])
def test_evaluation_crop_is_pillows_unfiltered_bilinear(height, width):
    image_module = pytest.importorskip("PIL.Image", reason="the oracle is Pillow")
    image = picture(height, width)
    got = evaluation_image(png(image), CROPS).numpy()
    # Shorter side 56, longer int(56 * long / short), central 48: as one affine map of the source.
    short = min(height, width)
    tall, wide = (56 * side // short for side in (height, width))
    top, left = (tall - 48) // 2, (wide - 48) // 2
    corners = (left / wide, top / tall, (left + 48) / wide, (top + 48) / tall)
    extent = [c * side for c, side in zip(corners, (width, height) * 2, strict=True)]
    wanted = image_module.fromarray(image).transform(
        (48, 48),
        image_module.Transform.EXTENT,
        extent,
        resample=image_module.Resampling.BILINEAR,
    )
    # One grey level: Pillow truncates where we round.
    assert abs(got.astype(int) - np.asarray(wanted)).max() <= 1


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"image_size": 0}, "`data.image_size` must be at least 32"),
        ({"min_area": 0.0}, "`data.min_area` must be"),
        ({"min_area": 0.5, "max_area": 0.4}, "`data.min_area` must be"),
        ({"max_area": 1.1}, "`data.max_area` must be"),
        ({"min_aspect": 0.0}, "`data.min_aspect` must be"),
        ({"min_aspect": 2.0}, "`data.min_aspect` must be"),
        ({"eval_short_side": 223}, "`data.eval_short_side` must be at least .* .224"),
        ({"eval_image_size": 0}, "`data.eval_image_size` must be at least 32"),
        ({"eval_image_size": 257}, "`data.eval_short_side` must be at least .* .257"),
        ({"color_jitter": 1.5}, "`data.color_jitter` must be in 0..1"),
        ({"lighting_std": -0.1}, "`data.lighting_std` must be at least 0"),
        ({"interpolation": "nearest"}, "`data.interpolation` must be one of .*'nearest'"),
        ({"eval_crop": "full"}, "`data.eval_crop` must be one of .*'full'"),
    ],
)
def test_range_that_makes_no_sense_is_named(changed, words):
    with pytest.raises(ValueError, match=words):
        ImageNetSpec(**changed)


def keys_cubic(distance):
    """Keys' cubic with a = -0.5."""
    d = abs(distance)
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def resized_by_hand(image, size, kernel, support):
    """Unfiltered, half-pixel centres, float64; weights outside the picture go to nobody."""
    result = image.astype(np.float64)
    for axis in (0, 1):
        length = image.shape[axis]
        centres = (np.arange(size) + 0.5) * length / size - 0.5
        weights = kernel(centres[:, None] - np.arange(length)[None])
        weights[abs(centres[:, None] - np.arange(length)[None]) >= support] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        result = np.moveaxis(np.tensordot(weights, result, (1, axis)), 0, axis)
    return result


@pytest.mark.parametrize("height, width", [(80, 117), (117, 81), (31, 45)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_square_crop_is_the_central_seven_eighths_resized(height, width, interpolation):
    crops = ImageNetSpec(
        image_size=56, eval_short_side=64, eval_crop="square", interpolation=interpolation
    )
    image = picture(height, width)
    side = min(height, width) * 56 // 64
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    square = image[top : top + side, left : left + side]
    kernels = {"bilinear": (lambda d: np.maximum(0, 1 - abs(d)), 1), "bicubic": (keys_cubic, 2)}
    expected = resized_by_hand(square, 56, *kernels[interpolation]).clip(0, 255)
    got = evaluation_image(png(image), crops).numpy().astype(np.float64)
    # A rounded half; TensorFlow tabulates the cubic in steps of 1/1024.
    assert abs(got - expected).max() <= (0.51 if interpolation == "bilinear" else 1.2)


@pytest.mark.parametrize("eval_crop", ["short_side", "square"])
def test_evaluation_may_have_a_size_of_its_own(eval_crop):
    image = png(picture(90, 120))
    own = ImageNetSpec(image_size=32, eval_image_size=48, eval_short_side=56, eval_crop=eval_crop)
    same = ImageNetSpec(image_size=48, eval_short_side=56, eval_crop=eval_crop)
    np.testing.assert_array_equal(evaluation_image(image, own), evaluation_image(image, same))
    one, other = (
        describe_crops(spec, antialias=False, scaled_decoding=False) for spec in (own, same)
    )
    assert "32 px, mirrored" in one and one.split("; ")[1:] == other.split("; ")[1:]


# Below and above the number of source pixels up to which they are cast before they are resized.
@pytest.mark.parametrize("height, width", [(80, 117), (60, 47), (150, 203), (400, 300)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_both_crops_are_tensorflows_resize_of_uint8_to_the_bit(height, width, interpolation):
    image = np.random.default_rng(11).integers(0, 256, (height, width, 3), np.uint8)
    crops = ImageNetSpec(image_size=48, eval_short_side=56, interpolation=interpolation)

    def resized(part, shape):
        pixels = tf.image.resize(part, shape, method=interpolation).numpy()
        return np.rint(pixels).clip(0, 255).astype(np.uint8)

    whole = resized(image, [56 * side // min(height, width) for side in (height, width)])
    y, x = ((side - 48) // 2 for side in whole.shape[:2])
    got = evaluation_image(png(image), crops)
    np.testing.assert_array_equal(got, whole[y : y + 48, x : x + 48])
    draws = uniform_draws(8, seed=12)
    numbers = crop_numbers(tf.constant(draws), crops)
    for row, mirror in zip(numbers, draws[:, -1] < 0.5, strict=True):
        top, left, h, w = crop_box(tf.constant(image.shape), row, crops).numpy()
        wanted = resized(image[top : top + h, left : left + w], [48, 48])
        got = training_image(png(image), row, crops).numpy()
        np.testing.assert_array_equal(got, wanted[:, ::-1] if mirror else wanted)


def test_square_crop_decodes_the_same_pixels_as_a_whole_decode():
    crops = ImageNetSpec(image_size=48, eval_short_side=56, eval_crop="square")
    for shape in ((90, 120), (133, 77)):
        jpeg = tf.io.encode_jpeg(picture(*shape), quality=90, chroma_downsampling=False)
        decoded = tf.io.decode_jpeg(jpeg, dct_method="INTEGER_ACCURATE")
        np.testing.assert_array_equal(
            evaluation_image(jpeg, crops), evaluation_image(png(decoded), crops)
        )


def test_antialiased_training_crop_is_pillows_resize():
    image_module = pytest.importorskip("PIL.Image", reason="the oracle is Pillow")
    image, draws = picture(90, 120), uniform_draws(1, seed=5)[0]
    draws[-1] = NO_FLIP
    top, left, h, w = box_by_hand(90, 120, draws)
    part = image_module.fromarray(image[top : top + h, left : left + w])
    wanted = np.asarray(part.resize((48, 48), image_module.Resampling.BILINEAR), np.int64)
    # Pillow rounds after each of the two directions.
    assert abs(train(png(image), draws, antialias=True).numpy().astype(int) - wanted).max() <= 1


def test_scaled_decoding_changes_large_crops_only_and_little():
    crops = ImageNetSpec(image_size=48, eval_short_side=56, min_area=0.9)
    draws = uniform_draws(6, seed=9)
    draws[:, -1] = NO_FLIP
    for side, changes in ((80, False), (130, True), (260, True), (520, True)):
        y, x = np.mgrid[:side, :side] * (48 / side)
        smooth = np.stack(
            [127 + 100 * np.sin(y / a + x / b) for a, b in ((12, 15), (14, 19), (16, 16))]
        )
        jpeg = tf.io.encode_jpeg(smooth.transpose(1, 2, 0).round().astype(np.uint8), quality=95)
        for row in draws:
            whole, reduced = (
                train(jpeg, row, crops, scaled_decoding=scaled).numpy().astype(float)
                for scaled in (False, True)
            )
            assert (whole != reduced).any() == changes
            assert 10 * np.log10(255**2 / max(np.mean((whole - reduced) ** 2), 1e-9)) > 30


@pytest.mark.parametrize("eval_crop", ["short_side", "square"])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 3000), (2500, 2), (1, 40), (3, 3)])
def test_tiny_and_endless_pictures_become_squares(height, width, eval_crop):
    crops = ImageNetSpec(image_size=48, eval_short_side=56, eval_crop=eval_crop)
    image = np.full((height, width, 3), 77, np.uint8)
    for encoded in (png(image), tf.io.encode_jpeg(image, quality=100)):
        for got in (
            train(encoded, uniform_draws(1, seed=3)[0], crops),
            evaluation_image(encoded, crops),
        ):
            assert got.shape == (48, 48, 3) and abs(got.numpy().astype(int) - 77).max() <= 1


def test_exif_orientation_is_ignored():
    image_module = pytest.importorskip("PIL.Image", reason="needs Pillow to write EXIF")
    written = []
    for orientation in (None, 6):
        exif, buffer = image_module.Exif(), io.BytesIO()
        if orientation:
            exif[0x0112] = orientation
        image_module.fromarray(picture(60, 90)).save(buffer, "JPEG", quality=95, exif=exif)
        written.append(tf.constant(buffer.getvalue()))
    draws = uniform_draws(1, seed=8)[0]
    np.testing.assert_array_equal(*(train(encoded, draws) for encoded in written))
    np.testing.assert_array_equal(*(evaluation_image(encoded, CROPS) for encoded in written))


def test_colours_change_before_rounding_and_stay_in_range():
    image = np.full((60, 60, 3), 200, np.uint8)
    numbers = crop_numbers(tf.constant(uniform_draws(1, seed=8)), CROPS)[0]
    for factor, level in ((1.4, 255), (0.6, 120)):
        changes = tf.constant([factor, 1.0, 1.0, 0.0, 0.0, 0.0])
        got = training_image(png(image), numbers, CROPS, changes)
        assert (got.numpy() == level).all()
