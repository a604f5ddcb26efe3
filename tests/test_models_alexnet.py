"""AlexNet and Inception-ResNet-v2: a NumPy float64 restatement, dropout, published settings."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import make

from tf_largebatch.models.alexnet import LocalResponseNormalization
from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
from tf_largebatch.models.stream_dropout import StreamDropout

PIXELS = {"pixel_mean": (123.7, 116.3, 103.5), "pixel_std": 1.0}
SMALL = {"image_shape": (67, 67, 3), "classes": 5, "seed": 1, **PIXELS}

# NumPy float64


def normalize_locally(a, size=5, k=2.0, alpha=1e-4, beta=0.75):
    """Krizhevsky et al. 2012, §3.3, one map after the other."""
    b, maps = np.empty_like(a), a.shape[-1]
    for i in range(maps):
        near = a[..., max(0, i - size // 2) : min(maps, i + size // 2 + 1)]
        b[..., i] = a[..., i] / (k + alpha * np.sum(near**2, axis=-1)) ** beta
    return b


def convolve(x, kernel, stride, pad, groups):
    """The maps of each group of filters from the same share of the input's maps."""
    side = kernel.shape[0]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = (x.shape[1] - side) // stride + 1
    parts = []
    for part, weights in zip(
        np.split(x, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True
    ):
        y = np.zeros((len(x), out, out, weights.shape[-1]))
        for i in range(side):
            for j in range(side):
                rows = slice(i, i + stride * (out - 1) + 1, stride)
                columns = slice(j, j + stride * (out - 1) + 1, stride)
                y += part[:, rows, columns] @ weights[i, j]
        parts.append(y)
    return np.concatenate(parts, axis=-1)


def pool(x):
    out = (x.shape[1] - 3) // 2 + 1
    windows = [
        x[:, i : i + 2 * out - 1 : 2, j : j + 2 * out - 1 : 2] for i in range(3) for j in range(3)
    ]
    return np.max(windows, axis=0)


# What follows the convolutions: the paper of 2012; NVCaffe train_val2.prototxt; arXiv:1807.11205;
# eladhoffer/bigBatch models/alexnet.py.
AFTER = {
    "alexnet": ["relu lrn pool", "relu lrn pool", "relu", "relu", "relu pool"],
    "alexnet_bn": ["relu pool bn", "relu pool bn", "relu bn", "relu bn", "relu pool"],
    "alexnet_bn_pool5": ["bn relu pool"] * 2 + ["bn relu"] * 2 + ["bn relu pool pool5"],
    "alexnet_owt_bn": ["pool bn relu", "pool relu bn", "relu bn", "relu bn", "pool relu bn"],
}
AFTER["alexnet_owt"] = AFTER["alexnet"]


def predict(model, pixels, epsilon=1e-4):
    """Inference of one of the networks in float64."""
    w = {v.path: np.float64(v.numpy()) for v in model.variables}

    def norm(x, name):
        gamma, beta = w.get(f"{name}/gamma", 1.0), w.get(f"{name}/beta", 0.0)
        mean, variance = w[f"{name}/moving_mean"], w[f"{name}/moving_variance"]
        return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta

    one_column = "owt" in model.name
    x = pixels - np.array(PIXELS["pixel_mean"])
    x /= {"alexnet_bn": 256.0, "alexnet_owt_bn": 58.0}.get(model.name, 1.0)
    for number in range(1, 6):
        name = f"conv{number}"
        stride, pad = (4, 2 * one_column) if number == 1 else (1, 2 if number == 2 else 1)
        groups = 1 if one_column or number in (1, 3) else 2
        x = convolve(x, w[f"{name}/kernel"], stride, pad, groups) + w.get(f"{name}/bias", 0.0)
        for what in AFTER[model.name][number - 1].split():
            match what:
                case "relu":
                    x = np.maximum(x, 0)
                case "lrn":
                    x = normalize_locally(x)
                case "pool":
                    x = pool(x)
                case _:
                    x = norm(x, "pool5_bn" if what == "pool5" else f"{name}_bn")
    x = x.reshape(len(x), -1)
    for name in ("fc6", "fc7"):
        x = x @ w[f"{name}/kernel"] + w.get(f"{name}/bias", 0.0)
        x = np.maximum(norm(x, f"{name}_bn") if one_column and "bn" in model.name else x, 0)
    return x @ w["head/kernel"] + w["head/bias"]


def scramble(model, seed=0):
    """Replaces constants of a new network, behind which a mistake could hide."""
    rng = np.random.default_rng(seed)
    for v in model.variables:
        part = v.path.split("/")[-1]
        if part in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif part in ("beta", "moving_mean", "bias"):
            v.assign(0.1 * rng.standard_normal(v.shape))
        elif part == "kernel":
            # Of one scale from layer to layer, so that each of them matters to the logits.
            v.assign(rng.standard_normal(v.shape) * np.sqrt(2 / np.prod(v.shape[:-1])))


def random_pixels(examples, side, seed=2):
    return np.random.default_rng(seed).integers(0, 256, (examples, side, side, 3)).astype("uint8")


def test_local_response_normalization_by_hand():
    # Maps 3, 4 and size 3, k = 1, alpha = 1, beta = 1/2: both sums are 9 + 16, so divide by
    # sqrt(26); with maps 3, 0, 4 the ends see one neighbour: 3 / sqrt(10), 0, 4 / sqrt(17).
    layer = LocalResponseNormalization(3, k=1.0, alpha=1.0, beta=0.5)
    np.testing.assert_allclose(
        layer(np.array([3.0, 4.0], "float32").reshape(1, 1, 1, 2))[0, 0, 0],
        np.array([3.0, 4.0]) / np.sqrt(26.0),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        layer(np.array([3.0, 0.0, 4.0], "float32").reshape(1, 1, 1, 3))[0, 0, 0],
        [3.0 / np.sqrt(10.0), 0.0, 4.0 / np.sqrt(17.0)],
        rtol=1e-6,
    )


@pytest.mark.parametrize("maps", [1, 4, 96])
def test_local_response_normalization_equals_the_float64_oracle(maps):
    a = np.random.default_rng(3).normal(0, 200, (2, 3, 3, maps))
    got = LocalResponseNormalization()(a.astype("float32"))
    np.testing.assert_allclose(got, normalize_locally(a), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", AFTER)
def test_the_network_equals_the_float64_oracle(name):
    model = make(name, bn_epsilon=1e-4, **SMALL | {"pixel_std": 58.0})
    scramble(model)
    pixels = random_pixels(2, 67)
    want = predict(model, pixels.astype(np.float64))
    got = model(pixels, training=False)
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
    assert got.dtype == tf.float32


def test_positions_of_alexnet_are_the_published_ones():
    # 2012 paper, §3.5: 55x55, 27x27, 13x13 three times, and 6 * 6 * 256 into the dense layers.
    model = make("alexnet", **PIXELS)
    shapes = [model.get_layer(f"conv{i}").output.shape[1:] for i in range(1, 6)]
    assert shapes == [(55, 55, 96), (27, 27, 256), (13, 13, 384), (13, 13, 384), (13, 13, 256)]
    assert model.get_layer("flatten").output.shape == (None, 9216)


def test_alexnet_of_one_column_has_the_same_positions():
    model = make("alexnet_owt", **PIXELS)
    shapes = [model.get_layer(f"conv{i}").output.shape[1:] for i in range(1, 6)]
    assert shapes == [(55, 55, 64), (27, 27, 192), (13, 13, 384), (13, 13, 256), (13, 13, 256)]


def test_first_weights_have_the_published_deviations_and_biases():
    model = make("alexnet", **SMALL)
    for layer in (model.get_layer(f"conv{i}") for i in range(1, 6)):
        # 34,848 weights or more: the deviation of a sample is off by 1 / sqrt(2 n) = 0.4 %.
        assert np.std(layer.kernel) == pytest.approx(0.01, rel=0.02)
    assert np.std(model.get_layer("fc7").kernel) == pytest.approx(0.005, rel=0.01)
    assert np.std(model.get_layer("head").kernel) == pytest.approx(0.01, rel=0.02)
    biases = {x.name: set(np.unique(x.bias)) for x in model.layers if hasattr(x, "bias")}
    tenth = set(np.float32([0.1]))
    assert biases == {
        "conv1": {0.0},
        "conv2": tenth,
        "conv3": {0.0},
        "conv4": tenth,
        "conv5": tenth,
        "fc6": tenth,
        "fc7": tenth,
        "head": {0.0},
    }


def test_a_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (
        make("alexnet", **{**SMALL, "seed": seed}).get_layer("fc7").kernel.numpy()
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


CONV_NORMS = [f"conv{i}_bn" for i in range(1, 6)]


@pytest.mark.parametrize(
    ("name", "names", "scaled"),
    [
        ("alexnet_bn", CONV_NORMS[:4], False),
        ("alexnet_bn_pool5", [*CONV_NORMS, "pool5_bn"], True),
        ("alexnet_owt_bn", [*CONV_NORMS, "fc6_bn", "fc7_bn"], True),
    ],
)
def test_batch_norms_are_where_the_authors_have_them_and_take_the_settings(name, names, scaled):
    model = make(name, bn_decay=0.8, bn_epsilon=1e-3, bn_batch=2, **SMALL)
    norms = [x for x in model.layers if isinstance(x, GhostBatchNormalization)]
    assert [x.name for x in norms] == names
    assert {(x.momentum, x.epsilon, x.group) for x in norms} == {(0.8, 1e-3, 2)}
    assert {(x.scale, x.center) for x in norms} == {(scaled, scaled)}


def test_first_weights_of_the_networks_with_batch_norm_are_the_authors():
    you = make("alexnet_bn", **SMALL)  # bias_filler of all convolutions and the head: 0.01
    biases = {name: set(np.unique(you.get_layer(name).bias)) for name in ("conv1", "conv4", "head")}
    assert biases == dict.fromkeys(biases, set(np.float32([0.01])))
    hoffer = make("alexnet_owt_bn", **SMALL)
    for name in ("conv2", "fc6", "fc7"):  # PyTorch: U(-1, 1) / sqrt(fan_in)
        kernel = hoffer.get_layer(name).kernel.numpy()
        limit = np.prod(kernel.shape[:-1]) ** -0.5
        assert 0.99 * limit < np.abs(kernel).max() <= limit
        assert np.std(kernel) == pytest.approx(limit / 3**0.5, rel=0.02)
        assert not hoffer.get_layer(name).use_bias


# Dropout


@pytest.fixture(scope="module")
def alexnet():
    return make("alexnet", **SMALL)


def values(variables):
    return [tf.identity(v.value) for v in variables]


def test_dropout_drops_its_share_in_training_and_nothing_in_inference(alexnet):
    drop = alexnet.get_layer("fc6_drop")
    ones = np.ones((64, 4096), "float32")
    np.testing.assert_array_equal(drop(ones, training=False), ones)
    dropped = np.asarray(drop(ones, training=True))
    assert set(np.unique(dropped)) == {0.0, 2.0}
    # 262,144 coins: one standard deviation is 0.001.
    assert np.mean(dropped == 0) == pytest.approx(0.5, abs=0.005)


def test_the_two_dropouts_follow_the_stream_with_seeds_of_their_own(alexnet):
    drops = [alexnet.get_layer(f"fc{i}_drop") for i in (6, 7)]
    assert all(isinstance(x, StreamDropout) and x.rate == 0.5 for x in drops)
    assert drops[0].seed != drops[1].seed
    again = make("alexnet", **SMALL)
    assert [again.get_layer(x.name).seed for x in drops] == [x.seed for x in drops]


def test_the_dropped_units_are_a_function_of_the_seed_state(alexnet):
    pixels = random_pixels(2, 67)
    trainable, fixed = values(alexnet.trainable_variables), values(alexnet.non_trainable_variables)

    def call(state):
        return alexnet.stateless_call(trainable, state, pixels, training=True)

    first, moved = call(fixed)
    np.testing.assert_array_equal(first, call(fixed)[0])
    assert np.abs(np.asarray(first) - call(moved)[0]).max() > 0
    assert [s.dtype for s in moved] == [f.dtype for f in fixed]
    assert all(np.any(a != b) for a, b in zip(fixed, moved, strict=True))
    # Nothing was written to the network itself.
    np.testing.assert_array_equal(fixed, values(alexnet.non_trainable_variables))


def test_dropout_runs_in_a_loop_on_two_replicas():
    cpus = tf.config.list_logical_devices("CPU")
    assert len(cpus) >= 2
    strategy = tf.distribute.MirroredStrategy([c.name for c in cpus[:2]])
    with strategy.scope():
        model = make("alexnet_bn", **SMALL)
    pixels = tf.constant(random_pixels(4, 67))

    def replica():
        trainable = [tf.convert_to_tensor(v.value) for v in model.trainable_variables]
        state = [tf.convert_to_tensor(v.value) for v in model.non_trainable_variables]

        def step(i, state, sums):
            logits, state = model.stateless_call(trainable, state, pixels, training=True)
            return i + 1, state, sums.write(i, tf.reduce_sum(logits))

        sums = tf.TensorArray(tf.float32, 3)
        _, _, sums = tf.while_loop(lambda i, *_: i < 3, step, (0, state, sums))
        return sums.stack()

    @tf.function(autograph=False)
    def run():
        return strategy.run(replica)

    one, two = (np.asarray(x) for x in strategy.experimental_local_results(run()))
    np.testing.assert_allclose(one, two, rtol=1e-5)  # one state: the caller makes them differ
    assert len(set(one)) == 3  # every turn drops others


def test_gradients_reach_every_tensor(alexnet):
    pixels = random_pixels(4, 67)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(alexnet(pixels, training=True) ** 2)
    gradients = tape.gradient(loss, alexnet.trainable_variables)
    assert all(np.any(g != 0) and np.all(np.isfinite(g)) for g in gradients)


def test_a_saved_network_predicts_the_same(alexnet, tmp_path):
    alexnet.save(tmp_path / "alexnet.keras")
    loaded = keras.saving.load_model(tmp_path / "alexnet.keras")
    pixels = random_pixels(1, 67)
    np.testing.assert_array_equal(loaded(pixels, training=False), alexnet(pixels, training=False))


def test_a_config_keeps_every_argument_of_the_normalization():
    layer = LocalResponseNormalization(3, k=1.0, alpha=2e-5, beta=0.5, name="x")
    again = LocalResponseNormalization.from_config(layer.get_config())
    assert (again.size, again.k, again.alpha, again.beta, again.name) == (3, 1.0, 2e-5, 0.5, "x")


def test_normalization_and_logits_are_float32_under_a_mixed_policy():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = make("alexnet", **SMALL)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.get_layer("conv1_lrn").compute_dtype == "float32"
    assert model.get_layer("conv2").compute_dtype == "bfloat16"
    assert model(random_pixels(1, 67)).dtype == tf.float32


@pytest.mark.parametrize(
    ("maker", "kwargs", "message"),
    [
        ("alexnet", {"image_shape": (66, 67, 3)}, "one size with sides of at least 67. Received"),
        (
            "alexnet_owt",
            {"image_shape": (67, 62, 3)},
            "one size with sides of at least 63. Received",
        ),
        ("alexnet", {"dropout": 1.0}, r"`model.dropout` must be in \[0, 1\)"),
        ("alexnet", {"classes": 1}, "`classes` must be at least 2"),
        ("alexnet_bn", {"bn_decay": 1.0}, "`model.bn_decay` must be in"),
        ("inception_resnet_v2", {"image_shape": (74, 75, 3)}, "sides of at least 75"),
        (
            "inception_resnet_v2",
            {"image_shape": (75, 75, 1), "pixel_mean": (127.5,)},
            "images of 3 channels",
        ),
        ("inception_resnet_v2", {"classes": 1}, "`classes` must be at least 2"),
    ],
)
def test_arguments_outside_their_range_are_refused(maker, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(maker, **{**SMALL, **kwargs})


@pytest.mark.parametrize(
    "kwargs", [{"size": 4}, {"size": -1}, {"k": 0.0}, {"alpha": -1.0}, {"beta": 0.0}]
)
def test_arguments_of_the_normalization_outside_their_range_are_refused(kwargs):
    (name,) = kwargs
    with pytest.raises(ValueError, match=f"`{name}` must be .* Received: {name}="):
        LocalResponseNormalization(**kwargs)


# Inception-ResNet-v2


def make_inception():
    settings = {"classes": 5, "bn_decay": 0.8, "bn_epsilon": 1e-2, "bn_batch": 2, "seed": 1}
    return make(
        "inception_resnet_v2",
        image_shape=(75, 75, 3),
        pixel_mean=127.5,
        pixel_std=127.5,
        **settings,
    )


@pytest.fixture(scope="module")
def inception():
    """The network, which takes seconds to build, and its first weights."""
    model = make_inception()
    return model, [np.array(w) for w in model.get_weights()]  # get_weights may give views


@pytest.mark.slow
def test_inception_resnet_is_the_network_of_keras_with_our_settings(inception):
    ours, _ = inception
    norms = [x for x in ours.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {(x.momentum, x.epsilon, x.scale) for x in norms} == {(0.8, 1e-2, False)}

    theirs = keras.applications.InceptionResNetV2(
        weights=None, input_shape=(75, 75, 3), classes=5, classifier_activation=None
    )
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.epsilon = 1e-2
    scramble(theirs)
    ours.set_weights(theirs.get_weights())
    pixels = random_pixels(2, 75)
    scaled = keras.applications.inception_resnet_v2.preprocess_input(pixels.astype("float32"))
    want = np.asarray(theirs(scaled, training=False))
    got = ours(pixels, training=False)
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.slow
def test_inception_resnet_repeats_its_weights_and_names_and_takes_ghost_batches(inception):
    first, weights = inception
    again = make_inception()
    assert [v.path for v in first.variables] == [v.path for v in again.variables]
    for a, b in zip(weights, again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    norms = [x for x in again.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 204
    assert all(isinstance(x, GhostBatchNormalization) and x.group == 2 for x in norms)
    assert again(random_pixels(4, 75), training=True).shape == (4, 5)
