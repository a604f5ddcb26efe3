"""RandAugment: every operation against Pillow's, the draws, and the same bits however split."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

from tf_largebatch.data.randaugment import (
    FILL,
    OPERATIONS,
    apply_operation,
    draw_operations,
    randaugment,
)
from tf_largebatch.records.errors import InputError

pytest.importorskip("keras_cv", reason="keras-cv is not installed")

NAMES = list(OPERATIONS)
STRENGTHS = [(0.7, 1.0), (0.33, -1.0), (0.95, -1.0), (0.0, 1.0)]


def make_picture(height=40, width=56, seed=0):
    """A smooth picture, so that a place off by a pixel is off by some grey levels."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype("float32")
    picture = tf.image.resize(coarse, (height, width), method="bicubic")
    return tf.cast(tf.round(tf.clip_by_value(picture, 0, 255)), tf.uint8).numpy()


def make_batch(count=24, seed=0):
    images = np.stack([make_picture(seed=seed + i) for i in range(count)])
    keys = np.random.default_rng(seed).integers(0, 2**63, count, dtype=np.uint64)
    return tf.constant(images), tf.constant(keys)


def run(name, picture, level=0.0, sign=1.0):
    number = tf.constant(NAMES.index(name))
    done = apply_operation(
        tf.constant(picture), number, tf.constant(level, tf.float32), tf.constant(sign, tf.float32)
    )
    return done.numpy().astype(np.int32)


def array(picture):
    return np.asarray(picture).astype(np.int32)


# Each operation as timm calls Pillow


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Invert"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_operations_without_strength_equal_pillow(name, seed):
    picture = make_picture(seed=seed)
    picture[..., 1] = picture[..., 1] // 4 + 60  # a channel of low contrast
    want = {
        "AutoContrast": ImageOps.autocontrast,
        "Equalize": ImageOps.equalize,
        "Invert": ImageOps.invert,
    }[name](Image.fromarray(picture))
    # Pillow cuts off what is rounded here.
    np.testing.assert_allclose(run(name, picture), array(want), atol=name == "AutoContrast")


def test_equalizing_leaves_out_the_brightest_value_however_common_it_is():
    picture = make_picture()
    picture[10:] = 255  # three quarters of it
    want = array(ImageOps.equalize(Image.fromarray(picture)))
    np.testing.assert_array_equal(run("Equalize", picture), want)


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_a_picture_of_one_colour_stays(name):
    picture = np.full((8, 8, 3), 77, "uint8")
    np.testing.assert_array_equal(run(name, picture), picture)


@pytest.mark.parametrize(("level", "sign"), STRENGTHS)
def test_operations_on_single_values_equal_pillow(level, sign):
    picture = make_picture()
    pillow = Image.fromarray(picture)
    add = int(110 * level)
    want = {
        "Posterize": ImageOps.posterize(pillow, 4 - int(4 * level)),
        "Solarize": ImageOps.solarize(pillow, 256 - int(256 * level)),
        "SolarizeAdd": pillow.point([min(255, i + add) if i < 128 else i for i in range(256)] * 3),
    }
    for name, expected in want.items():
        np.testing.assert_array_equal(run(name, picture, level, sign), array(expected), name)


def test_the_greatest_magnitude_posterizes_to_black_and_solarizes_everything():
    picture = make_picture()
    assert not np.any(run("Posterize", picture, 1.0))
    np.testing.assert_array_equal(run("Solarize", picture, 1.0), 255 - picture.astype(np.int32))


@pytest.mark.parametrize("name", ["Color", "Contrast", "Brightness", "Sharpness"])
@pytest.mark.parametrize(("level", "sign"), STRENGTHS)
def test_enhancements_equal_pillow_to_one_grey_level(name, level, sign):
    picture = make_picture()
    enhance = getattr(ImageEnhance, name)(Image.fromarray(picture))
    want = enhance.enhance(max(0.1, 1 + sign * 0.9 * level))
    # Pillow cuts off after the blending, and rounds the grey and the smoothed picture before it.
    np.testing.assert_allclose(run(name, picture, level, sign), array(want), atol=2)
    assert np.mean(np.abs(run(name, picture, level, sign) - array(want)) <= 1) > 0.99


def pillow_affine(picture, numbers):
    numbers = [float(x) for x in numbers]
    return picture.transform(
        picture.size, Image.AFFINE, numbers, resample=Image.BILINEAR, fillcolor=(124, 116, 104)
    )


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
@pytest.mark.parametrize(("level", "sign"), STRENGTHS)
def test_geometric_operations_equal_pillow_away_from_the_border(name, level, sign):
    picture = make_picture()
    height, width, _ = picture.shape
    shear, shift = 0.3 * level * sign, 0.45 * level * sign

    def transform(pillow):
        if name == "Rotate":
            return pillow.rotate(
                30 * level * sign, resample=Image.BILINEAR, fillcolor=(124, 116, 104)
            )
        numbers = {
            "ShearX": (1, shear, 0, 0, 1, 0),
            "ShearY": (1, 0, 0, shear, 1, 0),
            "TranslateX": (1, 0, shift * width, 0, 1, 0),
            "TranslateY": (1, 0, 0, 0, 1, shift * height),
        }[name]
        return pillow_affine(pillow, numbers)

    got, want = run(name, picture, level, sign), array(transform(Image.fromarray(picture)))
    # Inside: at least two pixels from the border of the moved picture.
    framed = np.zeros_like(picture)
    framed[2:-2, 2:-2] = 255
    moved = array(transform(Image.fromarray(framed)))[..., 0]
    inside = moved == 255
    assert inside.mean() > 0.4
    np.testing.assert_allclose(got[inside], want[inside], atol=1)
    # Outside, two pixels from the picture: the fill, in both.
    outside = np.all(want == FILL, axis=-1) & (moved == FILL[0])
    outside = ndimage.binary_erosion(outside, iterations=2, border_value=1)
    assert level == 0.0 or outside.sum() > 10
    np.testing.assert_array_equal(got[outside], np.broadcast_to(FILL, got.shape)[outside])


def test_a_number_beyond_the_last_does_nothing():
    picture = make_picture()
    done = apply_operation(
        tf.constant(picture), tf.constant(len(NAMES)), tf.constant(1.0), tf.constant(1.0)
    )
    np.testing.assert_array_equal(done, picture)


# Draws


def draw(count=20_000, layers=1, **kwargs):
    keys = tf.cast(tf.range(count, dtype=tf.int64), tf.uint64)
    settings = {"magnitude": 7.0, "magnitude_std": 0.5, "probability": 0.5, **kwargs}
    return [x.numpy() for x in draw_operations(keys, layers, **settings)]


def test_operations_are_drawn_evenly_and_take_place_half_of_the_time():
    numbers, _, signs = draw()
    counts = np.bincount(numbers[:, 0], minlength=16)
    # 20,000 draws: 10,000 do nothing, 667 of each operation, with deviations of 71 and 25.
    assert abs(counts[15] - 10_000) < 300
    assert np.all(np.abs(counts[:15] - 10_000 / 15) < 110)
    assert set(signs[:, 0]) == {-1.0, 1.0} and abs(np.mean(signs)) < 0.03


def test_layers_are_drawn_independently():
    numbers, levels, signs = draw(layers=2, probability=1.0)
    # 1/15 of the pairs repeat an operation: deviation 0.0018. Correlations: deviation 0.007.
    assert np.mean(numbers[:, 0] == numbers[:, 1]) == pytest.approx(1 / 15, abs=0.008)
    for values in (levels, signs):
        assert abs(np.corrcoef(values.T)[0, 1]) < 0.03
    for values in (levels[:, 0], np.abs(levels[:, 0] - 0.7)):
        assert abs(np.corrcoef(values, signs[:, 0])[0, 1]) < 0.03
        assert abs(np.corrcoef(values, numbers[:, 0])[0, 1]) < 0.03


def test_magnitudes_are_normal_and_clipped():
    levels = draw()[1].astype(np.float64)
    # 20,000 of them: deviations 0.0035 of the mean, 0.0025 of the deviation.
    assert 10 * np.mean(levels) == pytest.approx(7.0, abs=0.015)
    assert 10 * np.std(levels) == pytest.approx(0.5, abs=0.01)
    assert stats.kstest((10 * levels[:, 0] - 7.0) / 0.5, "norm").pvalue > 1e-3
    levels = draw(magnitude=9.9)[1]
    assert levels.max() == 1.0
    # Above 10 is above a fifth of a deviation: 0.42 of them.
    assert np.mean(levels == 1.0) == pytest.approx(1 - stats.norm.cdf(0.2), abs=0.015)
    assert draw(magnitude=0.1)[1].min() == 0.0
    assert set(draw(magnitude=6.0, magnitude_std=0.0)[1][:, 0]) == {np.float32(0.6)}


def test_probability_one_always_does_something_and_zero_never():
    assert np.all(draw(probability=1.0)[0] < 15)
    assert np.all(draw(probability=0.0)[0] == 15)


def test_each_picture_takes_its_own_operations_in_order():
    images, keys = make_batch(6)
    done = randaugment(images, keys, magnitude=8.0).numpy()
    drawn = draw_operations(keys, 2, magnitude=8.0, magnitude_std=0.5, probability=0.5)
    for i, image in enumerate(images):
        for layer in range(2):
            image = apply_operation(image, *(x[i, layer] for x in drawn))
        np.testing.assert_array_equal(done[i], image)


# Splits


def test_a_split_changes_no_bit():
    images, keys = make_batch(17)
    whole = randaugment(images, keys, magnitude=9.0).numpy()
    second = randaugment(images[5:], keys[5:], magnitude=9.0).numpy()
    first = randaugment(images[:5], keys[:5], magnitude=9.0).numpy()
    np.testing.assert_array_equal(whole, np.concatenate([first, second]))
    assert np.mean(np.any(whole != images.numpy(), axis=(1, 2, 3))) > 0.4


def test_a_pipeline_gives_the_bits_of_a_plain_call_and_keeps_the_shape():
    images, keys = make_batch(16)
    data = tf.data.Dataset.from_tensor_slices((images, keys)).batch(8, drop_remainder=True)
    data = data.map(lambda i, k: randaugment(i, k, magnitude=9.0), tf.data.AUTOTUNE)
    assert data.element_spec.shape == (8, 40, 56, 3) and data.element_spec.dtype == tf.uint8
    want = randaugment(images, keys, magnitude=9.0)
    np.testing.assert_array_equal(np.concatenate(list(data)), want)


def test_no_number_comes_from_the_global_generator(monkeypatch):
    def refuse():
        raise AssertionError("the global generator was asked for")

    monkeypatch.setattr(tf.random, "get_global_generator", refuse)
    images, keys = make_batch(8)
    assert np.any(randaugment(images, keys, magnitude=9.0) != images)


# Refusals


def test_a_magnitude_outside_its_range_is_refused():
    message = r"`magnitude` must be in \[0, 10\]. Received: magnitude=10.5"
    with pytest.raises(InputError, match=message):
        randaugment(*make_batch(2), magnitude=10.5)


@pytest.mark.parametrize("bad", [lambda x: tf.cast(x, tf.float32), lambda x: x[..., :1]])
def test_images_of_another_kind_are_refused(bad):
    images, keys = make_batch(2)
    with pytest.raises(InputError, match="`images` must be uint8 .* Received: "):
        randaugment(bad(images), keys, magnitude=5.0)


def test_without_keras_cv_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(InputError, match=r'pip install "tf-largebatch\[augment\]"') as caught:
        randaugment(*make_batch(2), magnitude=5.0)
    assert "\n" not in str(caught.value)
