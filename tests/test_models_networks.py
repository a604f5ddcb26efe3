"""The residual networks against a NumPy float64 restatement, and against the published settings."""

import keras
import numpy as np
import pytest
from networks import make

from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
from tf_largebatch.records import architectures

PIXELS = {"pixel_mean": (123.7, 116.3, 103.5), "pixel_std": (58.4, 57.1, 57.4)}
BYTES = {"pixel_mean": (120.0, 130.0), "pixel_std": (60.0, 70.0)}
DIGIT_PIXELS = {"pixel_mean": 4.9, "pixel_std": 6.0}

# NumPy float64, reading weights by path


def convolve(x, kernel, stride):
    """Padding (side - 1) / 2 on every side, as Torch's `padding` argument gives it."""
    side = kernel.shape[0]
    x = np.pad(x, ((0, 0), *[((side - 1) // 2,) * 2] * 2, (0, 0)))
    height, width = ((s - side) // stride + 1 for s in x.shape[1:3])
    y = np.zeros((len(x), height, width, kernel.shape[-1]))
    for i in range(side):
        for j in range(side):
            rows = slice(i, i + stride * (height - 1) + 1, stride)
            columns = slice(j, j + stride * (width - 1) + 1, stride)
            y += x[:, rows, columns] @ kernel[i, j]
    return y


def max_pool(x):
    """3x3, stride 2, one line of minus infinity on every side."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    height, width = ((s - 3) // 2 + 1 for s in x.shape[1:3])
    windows = [
        x[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
        for i in range(3)
        for j in range(3)
    ]
    return np.max(windows, axis=0)


def mean_of_squares(x):
    """2x2, stride 2; a last line of an odd side is by itself."""
    odd = [(0, side % 2) for side in x.shape[1:3]]
    x = np.pad(x, ((0, 0), *odd, (0, 0)), constant_values=np.nan)
    return np.nanmean([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)


class Oracle:
    """The inference of a residual network in float64."""

    def __init__(self, model):
        self.w = {v.path: v.numpy().astype(np.float64) for v in model.variables}
        self.name = model.name

    def conv_norm(self, x, name, stride=1):
        y = convolve(x, self.w[f"{name}_conv/kernel"], stride)
        gamma, beta, mean, variance = (
            self.w[f"{name}_bn/{part}"]
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (y - mean) / np.sqrt(variance + 1e-5) + beta

    def block(self, x, name, strides):
        """Convolutions `a`, `b`, ... with these strides; a projection where the shape changes."""
        y = x
        for letter, stride in zip("abc", strides, strict=False):
            y = self.conv_norm(y if letter == "a" else np.maximum(y, 0), f"{name}_{letter}", stride)
        stride = max(strides)
        if stride > 1 or x.shape[-1] != y.shape[-1]:
            if self.name == "resnet50_d" and stride > 1:
                x, stride = mean_of_squares(x), 1
            x = self.conv_norm(x, f"{name}_shortcut", stride)
        return np.maximum(x + y, 0)

    def head(self, x):
        return x.mean((1, 2)) @ self.w["head/kernel"] + self.w["head/bias"]

    def digits(self, pixels):
        x = (pixels - DIGIT_PIXELS["pixel_mean"]) / DIGIT_PIXELS["pixel_std"]
        x = np.maximum(self.conv_norm(x, "stem"), 0)
        for stage, stride in ((1, 1), (2, 2), (3, 2)):
            x = self.block(x, f"stage{stage}_block1", (stride, 1))
        return self.head(x)

    def resnet50(self, pixels):
        x = (pixels - PIXELS["pixel_mean"]) / PIXELS["pixel_std"]
        deep = self.name == "resnet50_d"
        if deep:
            x = np.maximum(self.conv_norm(x, "stem_a", 2), 0)
            x = np.maximum(self.conv_norm(x, "stem_b"), 0)
        x = max_pool(np.maximum(self.conv_norm(x, "stem", 1 if deep else 2), 0))
        for stage, blocks in enumerate((3, 4, 6, 3), start=1):
            for block in range(1, blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                strides = (stride, 1, 1) if self.name == "resnet50_v1" else (1, stride, 1)
                x = self.block(x, f"stage{stage}_block{block}", strides)
        return self.head(x)


def scramble(model, seed=0):
    """Replaces the zeros and ones of a new network, behind which a mistake could hide."""
    rng = np.random.default_rng(seed)
    for v in model.variables:
        part = v.path.split("/")[-1]
        if part in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif part in ("beta", "moving_mean", "bias") or v.path == "head/kernel":
            v.assign(0.1 * rng.standard_normal(v.shape))


def test_the_digits_network_equals_the_float64_oracle():
    model = make("digits_resnet", seed=1, **DIGIT_PIXELS)
    scramble(model)
    pixels = np.random.default_rng(2).integers(0, 17, (4, 8, 8, 1)).astype("uint8")
    want = Oracle(model).digits(pixels.astype(np.float64))
    np.testing.assert_allclose(model(pixels, training=False), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet50", 64),
        ("resnet50", 61),
        ("resnet50_v1", 61),
        ("resnet50_d", 64),
        ("resnet50_d", 50),
    ],
)
def test_resnet50_equals_the_float64_oracle_on_even_and_odd_sides(name, side):
    model = make(name, image_shape=(side, side, 3), classes=7, seed=1, **PIXELS)
    scramble(model)
    pixels = np.random.default_rng(2).integers(0, 256, (1, side, side, 3)).astype("uint8")
    want = Oracle(model).resnet50(pixels.astype(np.float64))
    # Activations grow over 16 blocks: the tolerance is relative to the largest logit.
    np.testing.assert_allclose(model(pixels, training=False), want, atol=1e-4 * np.abs(want).max())


# Settings


@pytest.fixture(scope="module")
def resnet50():
    return make("resnet50", seed=0, **PIXELS)


@pytest.fixture(scope="module")
def digits():
    return make("digits_resnet", seed=0, **DIGIT_PIXELS)


@pytest.fixture(params=["resnet50", "digits"])
def model(request):
    return request.getfixturevalue(request.param)


def last_norms(model):
    """Names of the batch norms that end a residual branch."""
    letter = "c" if model.name.startswith("resnet") else "b"
    return {x.name for x in model.layers if x.name.endswith(f"_{letter}_bn")}


def test_stages_of_resnet50_have_the_published_shapes(resnet50):
    # arXiv:1512.03385 Table 1.
    ends = ("stem_pool", "stage1_block3", "stage2_block4", "stage3_block6", "stage4_block3")
    names = [ends[0], *(f"{end}_relu" for end in ends[1:])]
    assert [resnet50.get_layer(name).output.shape[1:] for name in names] == [
        (56, 56, 64),
        (56, 56, 256),
        (28, 28, 512),
        (14, 14, 1024),
        (7, 7, 2048),
    ]
    assert resnet50.get_layer("stem_conv").output.shape[1:] == (112, 112, 64)


def test_stages_of_the_digits_network_halve_the_side_and_double_the_width():
    model = make("digits_resnet", image_shape=(28, 28, 1), width=8, classes=3, **DIGIT_PIXELS)
    shapes = [model.get_layer(f"stage{i}_block1_relu").output.shape[1:] for i in (1, 2, 3)]
    assert shapes == [(28, 28, 8), (14, 14, 16), (7, 7, 32)]
    assert model.output_shape == (None, 3)


def test_strides_of_resnet50_are_on_the_3x3_convolutions(resnet50):
    strided = {
        (x.name, x.kernel_size[0])
        for x in resnet50.layers
        if isinstance(x, keras.layers.Conv2D) and x.strides != (1, 1)
    }
    assert strided == {("stem_conv", 7)} | {
        (f"stage{stage}_block1_{conv}_conv", side)
        for stage in (2, 3, 4)
        for conv, side in (("b", 3), ("shortcut", 1))
    }


def test_convolutions_have_no_bias(model):
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert convolutions and not any(x.use_bias for x in convolutions)


def test_only_the_last_gamma_of_each_block_starts_at_zero(model):
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    zero = {x.name for x in norms if not np.any(x.gamma)}
    one = {x.name for x in norms if np.all(x.gamma.numpy() == 1.0)}
    assert zero == last_norms(model)
    assert len(zero) == (16 if model.name == "resnet50" else 3)
    assert one == {x.name for x in norms} - zero
    assert not any(np.any(x.beta) for x in norms)


def test_batch_norms_have_the_published_decay_and_epsilon(model):
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {(x.momentum, x.epsilon) for x in norms} == {(0.9, 1e-5)}
    assert not any(isinstance(x, GhostBatchNormalization) for x in norms)


def test_the_batch_norm_switches_reach_every_layer():
    model = make(
        "digits_resnet", bn_decay=0.8, bn_epsilon=1e-3, bn_batch=4, last_gamma=0.5, **DIGIT_PIXELS
    )
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {(type(x), x.momentum, x.epsilon, x.group) for x in norms} == {
        (GhostBatchNormalization, 0.8, 1e-3, 4)
    }
    half = {x.name for x in norms if np.all(x.gamma.numpy() == 0.5)}
    assert half == last_norms(model)


def test_kernels_start_from_the_whole_he_normal_distribution(model):
    for x in model.layers:
        if not isinstance(x, keras.layers.Conv2D):
            continue
        w = x.kernel.numpy().astype(np.float64).ravel()
        sd = np.sqrt(2.0 / np.prod(x.kernel.shape[:3]))
        # The sd of n normal values is known to 1 / sqrt(2 n) of itself, the mean to sd / sqrt(n).
        assert abs(w.std() / sd - 1.0) < 5.0 / np.sqrt(2.0 * w.size), x.name
        assert abs(w.mean()) < 5.0 * sd / np.sqrt(w.size), x.name
        if w.size > 1000:
            # Keras' `he_normal` ends at 2 / 0.8796 = 2.27 sd; a whole normal has 1.2 % beyond 2.5.
            assert np.mean(np.abs(w) > 2.5 * sd) > 0.004, x.name


def test_the_head_starts_at_sd_one_hundredth_and_zero_bias(resnet50):
    kernel, bias = (w.numpy() for w in resnet50.get_layer("head").weights)
    # 2,048,000 values: sd known to 0.05 %.
    assert abs(kernel.std() / 0.01 - 1.0) < 0.0025
    assert np.abs(kernel).max() > 0.04
    assert not bias.any()


def test_with_zero_gammas_every_block_is_its_shortcut(digits):
    outputs = ["stem_relu", *(f"stage{i}_block1_relu" for i in (1, 2, 3))]
    shortcuts = [f"stage{i}_block1_shortcut_bn" for i in (2, 3)]
    probe = keras.Model(digits.input, [digits.get_layer(n).output for n in outputs + shortcuts])
    pixels = np.random.default_rng(3).uniform(0, 16, (6, 8, 8, 1)).astype("float32")
    stem, one, two, three, shortcut_two, shortcut_three = map(np.asarray, probe(pixels))
    np.testing.assert_array_equal(one, stem)
    np.testing.assert_array_equal(two, np.maximum(shortcut_two, 0))
    np.testing.assert_array_equal(three, np.maximum(shortcut_three, 0))


def test_with_gammas_of_one_a_block_is_not_its_shortcut():
    plain = make("digits_resnet", seed=0, last_gamma=1.0, **DIGIT_PIXELS)
    names = ("stem_relu", "stage1_block1_relu")
    probe = keras.Model(plain.input, [plain.get_layer(n).output for n in names])
    pixels = np.random.default_rng(3).uniform(0, 16, (6, 8, 8, 1)).astype("float32")
    stem, one = map(np.asarray, probe(pixels))
    assert np.abs(one - stem).max() > 0.1


# Pixels, precision, seeds, files


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_pixels_are_normalized_in_float32_under_every_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = make("resnet50", image_shape=(8, 8, 3), classes=2, **PIXELS)
    finally:
        keras.config.set_dtype_policy(before)
    probe = keras.Model(model.input, model.get_layer("normalize").output)
    pixels = np.random.default_rng(4).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    want = (pixels.astype(np.float64) - PIXELS["pixel_mean"]) / PIXELS["pixel_std"]
    np.testing.assert_allclose(probe(pixels), want, atol=1e-6)


def test_bytes_and_floats_of_the_same_pixels_give_the_same_logits(digits):
    pixels = np.random.default_rng(5).integers(0, 17, (3, 8, 8, 1))
    np.testing.assert_array_equal(digits(pixels.astype("uint8")), digits(pixels.astype("float32")))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_logits_and_weights_are_float32_under_a_16_bit_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = make("digits_resnet", seed=0, bn_batch=2, **DIGIT_PIXELS)
    finally:
        keras.config.set_dtype_policy(before)
    logits = model(np.full((2, 8, 8, 1), 3, "uint8"), training=True)
    assert logits.dtype == "float32"
    assert model.get_layer("stem_conv").output.dtype == policy.removeprefix("mixed_")
    assert {v.dtype for v in model.variables} == {"float32"}


def test_the_seed_decides_the_weights_and_no_two_kernels_are_alike():
    one, same, other = (make("digits_resnet", seed=s, **DIGIT_PIXELS) for s in (7, 7, 8))
    for a, b in zip(one.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    kernels = [v.numpy().ravel() for m in (one, other) for v in m.variables if "kernel" in v.path]
    assert len({tuple(k[:144] / k.std()) for k in kernels}) == len(kernels) == 20


def test_without_a_seed_two_networks_differ():
    one, other = (make("digits_resnet", **DIGIT_PIXELS).get_layer("head").kernel for _ in range(2))
    assert np.abs(one.numpy() - other.numpy()).max() > 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' writer
@pytest.mark.parametrize("bn_batch", [None, 2])
def test_a_saved_network_loads_and_gives_the_same_logits(tmp_path, bn_batch):
    model = make("digits_resnet", seed=0, bn_batch=bn_batch, **DIGIT_PIXELS)
    scramble(model)
    pixels = np.random.default_rng(6).integers(0, 17, (2, 8, 8, 1)).astype("uint8")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(pixels), model(pixels))
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]


# Wrong input


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"classes": 1}, "`classes` must be at least 2. Received: classes=1"),
        ({"image_shape": (8, 8)}, r"`shape` must be .* Received: shape=\(8, 8\)"),
        ({"image_shape": (8, 0, 1)}, "`shape` must be .*each at least 1"),
        ({"last_gamma": float("nan")}, "`model.last_gamma` must be finite"),
        ({"bn_decay": 1.0}, r"`model.bn_decay` must be in \[0, 1\)"),
        ({"bn_epsilon": 0.0}, "`model.bn_epsilon` must be above 0"),
        ({"bn_batch": 0}, "`model.bn_batch` must be at least 2 or none"),
        ({"head_std": -0.1}, "`model.head_std` must be at least 0"),
        ({"pixel_std": 0.0}, "`pixel_std` must be above 0"),
        ({"pixel_mean": (1.0, 2.0)}, "`pixel_mean` must be one finite number for each of 1"),
        ({"pixel_std": float("nan")}, "`pixel_std` must be one finite number"),
    ],
)
def test_arguments_outside_their_range_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make("digits_resnet", **{**DIGIT_PIXELS, **kwargs})


@pytest.mark.parametrize(
    ("architecture", "shape", "classes"),
    [
        ("digits_resnet", (28, 28, 1), 10),
        ("digits_resnet", (32, 32, 3), 10),
        ("resnet20", (28, 28, 1), 7),
        ("resnet50", (32, 32, 3), 10),
        ("fully_connected", (32, 32, 3), 5),
        ("fully_connected_256", (32, 32, 3), 5),
    ],
)
def test_networks_for_small_images_have_the_size_that_a_plan_says(architecture, shape, classes):
    model = make(architecture, image_shape=shape, classes=classes)
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert trained == architectures.get(architecture).parameters_on(shape, classes)
    assert model(np.zeros((2, *shape), "uint8")).shape == (2, classes)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_fully_connected_network_equals_numpy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = make("fully_connected", image_shape=(3, 4, 2), classes=5, seed=0, **BYTES)
    finally:
        keras.config.set_dtype_policy(before)
    assert [w.shape for w in model.get_weights()][::2] == [
        (24, 1024),
        *[(1024, 1024)] * 2,
        (1024, 5),
    ]
    pixels = np.random.default_rng(1).integers(0, 256, (6, 3, 4, 2)).astype("uint8")
    x = ((pixels - np.array(BYTES["pixel_mean"])) / BYTES["pixel_std"]).reshape(6, 24)
    weights = [w.astype(np.float64) for w in model.get_weights()]
    for kernel, bias in zip(weights[0:6:2], weights[1:6:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0)
    got = model(pixels)
    assert got.dtype == "float32"
    close = 1e-5 if policy == "float32" else 0.03
    np.testing.assert_allclose(got, x @ weights[6] + weights[7], atol=close)


def test_the_fully_connected_network_needs_images_of_one_size():
    with pytest.raises(ValueError, match="fully_connected needs images of one size"):
        make("fully_connected", image_shape=(None, None, 1))
