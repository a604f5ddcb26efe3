"""K-FAC against its float64 statement over 20 updates, exact Fisher matrices, and invariances."""

import contextlib

import keras
import kfac_oracle
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from optimizer_replay import RateTable

from tf_largebatch import KFAC, BatchPlan, DistributedFit, MomentumSGD
from tf_largebatch.optimizers import kronecker
from tf_largebatch.optimizers.kfac import FisherBlock
from tf_largebatch.training.layer_statistics import LayerStatistics
from tf_largebatch.training.step import TrainingStep

UPDATES, EXAMPLES = 20, 12
RATES = tuple(float(r) for r in np.float32([0.05 * (1 - t / 40) for t in range(UPDATES)]))
TOLERANCE = 2e-4  # float32 rounding times the condition of the factors, through 20 updates
RULE = {
    "momentum": 0.8,
    "damping": 0.05,
    "statistics_decay": 0.7,
    "stability": 2.0,
}


@keras.saving.register_keras_serializable("tests")
class Net(DistributedFit, keras.Model):
    """A user's own model."""


def make_model(padding, kind=Net):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((kfac_oracle.SIDE, kfac_oracle.SIDE, 2))
    x = layers.Conv2D(3, kfac_oracle.KERNEL, strides=2, padding=padding, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm", epsilon=kfac_oracle.EPSILON)(x)
    x = layers.Flatten()(layers.ReLU()(x))
    return kind(inputs, layers.Dense(4, name="head")(x))


def make_batches(count=UPDATES, examples=EXAMPLES):
    rng = np.random.default_rng(5)
    shape = (count, examples, kfac_oracle.SIDE, kfac_oracle.SIDE, 2)
    images = np.float32(rng.standard_normal(shape))
    return list(zip(images, rng.integers(0, 4, (count, examples)), strict=True))


def make_step(model, optimizer, *, strategy=None, micro_batch=None, **options):
    strategy = strategy or tf.distribute.get_strategy()
    plan = BatchPlan(
        global_batch=EXAMPLES,
        train_examples=UPDATES * EXAMPLES,
        replicas=strategy.num_replicas_in_sync,
        micro_batch=micro_batch,
    )

    def loss(labels, logits):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    return TrainingStep(model, optimizer, loss=loss, plan=plan, strategy=strategy, **options)


def by_engine(model, optimizer, batches, **options):
    """(losses, weights) of the training step of recipes."""
    step = make_step(model, optimizer, **options)
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    data = tf.data.Dataset.from_tensor_slices((images, np.int32(labels)))
    data = data.batch(step.plan.replica_batch, drop_remainder=True)
    iterator = iter(step.strategy.distribute_datasets_from_function(lambda context: data))
    rows, _ = step.run_timed(iterator, tf.constant(len(batches)))
    return rows.numpy()[:, 0], [np.array(w) for w in model.get_weights()]


def by_fit(model, optimizer, batches, **options):
    """(losses, weights) of `compile` and `fit`."""
    model.compile(
        optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    losses = []

    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"] * (batch + 1) - sum(losses))

    model.fit(
        images,
        labels,
        batch_size=EXAMPLES,
        shuffle=False,
        verbose=0,
        callbacks=[Losses()],
        **options,
    )
    return losses, model.get_weights()


def trainable(weights):
    return [weights[i] for i in (0, 1, 2, 3, 6, 7)]  # without the moving statistics


@pytest.mark.parametrize("run", [by_engine, by_fit])
@pytest.mark.parametrize(
    ("padding", "every", "limit", "corrected"),
    [
        ("same", 3, True, True),
        ("valid", 1, False, True),
        pytest.param("same", 4, False, False, marks=pytest.mark.slow),
    ],
)
def test_twenty_updates_are_the_equations(run, padding, every, limit, corrected):
    model, batches = make_model(padding), make_batches()
    start = trainable(model.get_weights())
    optimizer = KFAC(
        RateTable(RATES),
        weight_decay=0.01,
        refresh_updates=every,
        limit_norm=limit,
        momentum_correction=corrected,
        **RULE,
    )
    losses, weights = run(model, optimizer, batches)
    expected, expected_weights = kfac_oracle.train(
        start,
        batches,
        RATES,
        padding=padding,
        every=every,
        limit=limit,
        decay=0.01,
        corrected=corrected,
        **RULE,
    )
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE)
    for got, want in zip(trainable(weights), expected_weights, strict=True):
        np.testing.assert_allclose(got, want, atol=TOLERANCE * np.abs(want).max())


def make_plain(kind=Net):
    """Without batch norm, whose statistics depend on the micro-batch."""
    keras.utils.set_random_seed(4)
    side = kfac_oracle.SIDE
    stack = [
        keras.Input((side, side, 2)),
        layers.Conv2D(3, 3, padding="same", activation="tanh", name="conv"),
        layers.Conv2D(4, 3, name="second", use_bias=False),
        layers.Flatten(),
        layers.Dense(4, name="head"),
    ]
    plain = keras.Sequential(stack)
    return kind(plain.inputs, plain.outputs)


class OwnCollectives(tf.distribute.MirroredStrategy):
    """Strategies of one process number their collectives alike, and mix where shapes differ."""

    _collective_key_base = 2000


@pytest.mark.parametrize("options", [{"micro_batch": 3}, {"replicas": 2}])
def test_the_split_of_the_batch_does_not_change_the_weights(options):
    rule = {"refresh_updates": 3, **RULE}
    batches = make_batches(8)
    losses, whole = by_engine(make_plain(), KFAC(RateTable(RATES), **rule), batches)
    strategy = None
    if options.pop("replicas", 1) == 2:
        strategy = OwnCollectives(["CPU:0", "CPU:1"])
    with (strategy or tf.distribute.get_strategy()).scope():
        model, optimizer = make_plain(), KFAC(RateTable(RATES), **rule)
    same, parts = by_engine(model, optimizer, batches, strategy=strategy, **options)
    np.testing.assert_allclose(same, losses, rtol=2e-5)
    for got, want in zip(parts, whole, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)  # float32 sums in another order


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"micro_batch": 3}, {"replicas": 2}])
def test_the_split_under_fit_does_not_change_the_weights(options):
    rule, batches = {"refresh_updates": 3, **RULE}, make_batches(8)
    _, whole = by_fit(make_plain(), KFAC(RateTable(RATES), **rule), batches)
    scope = contextlib.nullcontext()
    if options.pop("replicas", 1) == 2:
        scope = OwnCollectives(["CPU:0", "CPU:1"]).scope()
    with scope:
        _, parts = by_fit(make_plain(), KFAC(RateTable(RATES), **rule), batches, **options)
    for got, want in zip(parts, whole, strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.slow
def test_a_loss_scale_changes_nothing():
    batches, rule = make_batches(4), {"refresh_updates": 2, **RULE}
    _, plain = by_engine(make_plain(), KFAC(0.05, **rule), batches)
    _, scaled = by_engine(make_plain(), KFAC(0.05, **rule), batches, scale_loss=True)
    for got, want in zip(scaled, plain, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("strides", "dilation"), [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((1, 1), (2, 1))]
)
def test_patches_times_a_kernel_is_the_convolution(padding, strides, dilation):
    rng = np.random.default_rng(0)
    x = np.float32(rng.standard_normal((2, 7, 8, 3)))
    kernel = np.float32(rng.standard_normal((3, 2, 3, 4)))
    seen = kronecker.patches(x, (3, 2), strides, padding, dilation)
    want = ops.conv(x, kernel, strides, padding, dilation_rate=dilation)
    np.testing.assert_allclose(ops.matmul(seen, kernel.reshape(-1, 4)), want, atol=1e-5)


def dense_optimizer(inputs, outputs, **options):
    """An optimizer on one kernel of zeros, which knows it as a dense layer."""
    kernel = keras.Variable(np.zeros((inputs, outputs), "float32"), name="kernel")
    optimizer = KFAC(1.0, momentum=0.0, **options)
    sizes = ((inputs, inputs), (outputs, outputs))
    optimizer.offer([FisherBlock("dense", (0,), sizes)])
    optimizer.build([kernel])
    return kernel, optimizer


def test_one_step_with_exact_factors_solves_least_squares():
    # Gaussian loss |y - xW|^2 / 2: the Fisher matrix is E[x x^T] times I, and the natural gradient
    # from anywhere at rate 1 ends at the minimum, (X^T X)^-1 X^T Y.
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((40, 6)), rng.standard_normal((40, 3))
    kernel, optimizer = dense_optimizer(6, 3, damping=0.0)
    optimizer.refresh([np.float32(x.T @ x / 40), np.eye(3, dtype="float32")])
    optimizer.apply([ops.convert_to_tensor(np.float32(-x.T @ y / 40))], [kernel])
    np.testing.assert_allclose(kernel.numpy(), np.linalg.lstsq(x, y)[0], atol=1e-5)


def test_one_damped_step_by_hand():
    # A = diag(4, 1), G = 1, damping 0.01: pi^2 = 2.5; A gets 0.1581, G 0.06325.
    # d = (1 / 4.1581, 1 / 1.1581) / 1.06325 = (0.22619, 0.81212).
    kernel, optimizer = dense_optimizer(2, 1, damping=0.01)
    optimizer.refresh([np.diag([4.0, 1.0]).astype("float32"), np.ones((1, 1), "float32")])
    optimizer.apply([ops.ones((2, 1))], [kernel])
    np.testing.assert_allclose(kernel.numpy(), [[-0.22619], [-0.81212]], rtol=1e-4)


def statistics_of(model, x, y):
    """What the engine gets of the mean of |y - model(x)|^2 / 2."""
    found = LayerStatistics(model, KFAC(1.0))
    with found.watched() as seen, tf.GradientTape() as tape:
        loss = 0.5 * tf.reduce_sum(tf.square(y - model(x, training=True))) / len(x)
    outputs = [call.outputs for call in seen]
    return [f.numpy() for f in found.of(seen, tape.gradient(loss, outputs), len(x))]


def test_the_product_of_the_factors_is_the_exact_fisher_of_a_dense_layer():
    # Inputs and targets crossed, weights of zero: output gradients do not depend on the inputs.
    rng = np.random.default_rng(2)
    inputs, targets = rng.standard_normal((5, 4)), rng.standard_normal((6, 3))
    x = np.float32(np.repeat(inputs, 6, axis=0))
    y = np.float32(np.tile(targets, (5, 1)))
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_initializer="zeros")])
    a, g = statistics_of(model, x, y)
    fisher = np.zeros((15, 15))
    for one, target in zip(x.astype("float64"), y.astype("float64"), strict=True):
        gradient = np.outer(np.append(one, 1.0), -target).ravel()
        fisher += np.outer(gradient, gradient) / len(x)
    np.testing.assert_allclose(np.kron(a, g), fisher, atol=1e-5)


def step_of_mapped(optimizer, mapping):
    """Outputs before and after one update; inputs times `mapping`, the kernel times its inverse."""
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((50, 4)), np.float32(rng.standard_normal((50, 3)))
    hidden = layers.Dense(5, activation="tanh", name="hidden")
    model = keras.Sequential([keras.Input((4,)), hidden, layers.Dense(3, name="head")])
    values = [0.5 * rng.standard_normal(v.shape) for v in model.trainable_variables]
    model.set_weights([np.linalg.solve(mapping, values[0]), *values[1:]])
    x = np.float32(x @ mapping)
    before = model(x).numpy()
    natural = isinstance(optimizer, KFAC)
    found = LayerStatistics(model, optimizer) if natural else None
    with contextlib.ExitStack() as stack:
        seen = stack.enter_context(found.watched()) if natural else []
        tape = stack.enter_context(tf.GradientTape())
        loss = 0.5 * tf.reduce_sum(tf.square(y - model(x))) / len(x)
    wanted = [*(v.value for v in model.trainable_variables), *(call.outputs for call in seen)]
    gradients = tape.gradient(loss, wanted)
    if natural:
        optimizer.refresh(found.of(seen, gradients[4:], len(x)))
    optimizer.apply(gradients[:4], model.trainable_variables)
    return before, model(x).numpy()


def test_an_invertible_map_of_the_inputs_changes_the_step_of_sgd_alone():
    mapping = np.random.default_rng(7).standard_normal((4, 4)) + 2 * np.eye(4)
    maps = (np.eye(4), mapping)
    natural = [step_of_mapped(KFAC(0.2, momentum=0.0, damping=0.0), m) for m in maps]
    plain = [step_of_mapped(MomentumSGD(0.2, momentum=0.0), m) for m in maps]
    for (before, _), (same, _) in (natural, plain):
        np.testing.assert_allclose(same, before, atol=1e-5)
    moved = np.abs(natural[0][1] - natural[0][0]).max()
    np.testing.assert_allclose(natural[1][1], natural[0][1], atol=2e-3 * moved)
    moved = np.abs(plain[0][1] - plain[0][0]).max()
    assert np.abs(plain[1][1] - plain[0][1]).max() > 0.1 * moved


def test_a_saved_model_goes_on_as_if_it_had_not_stopped(tmp_path):
    batches, rule = make_batches(6), {"refresh_updates": 4, **RULE}
    _, whole = by_fit(make_model("same"), KFAC(0.05, **rule), batches)
    model = make_model("same")
    by_fit(model, KFAC(0.05, **rule), batches[:3])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    images, labels = (np.concatenate(part) for part in zip(*batches[3:], strict=True))
    again.fit(images, labels, batch_size=EXAMPLES, shuffle=False, verbose=0)
    for got, want in zip(again.get_weights(), whole, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_layer_without_factors_is_named_and_takes_momentum_sgd(capsys):
    def make(kind):
        keras.utils.set_random_seed(9)
        inputs = keras.Input((5, 5, 2))
        x = layers.DepthwiseConv2D(3, name="depthwise")(inputs)
        return kind(inputs, layers.Dense(4, name="head")(layers.Flatten()(x)))

    model = make(Net)
    optimizer = KFAC(0.1, momentum=0.5)
    model.compile(optimizer=optimizer, loss="mse")
    x, y = np.ones((8, 5, 5, 2), "float32"), np.ones((8, 4), "float32")
    model.fit(x, y, verbose=2)
    assert "KFAC has no factors for depthwise (DepthwiseConv2D)" in capsys.readouterr().out
    assert [row.adapted for row in optimizer.exemptions()] == [False, False, True, True]
    plain = make(keras.Model)
    plain.compile(optimizer=MomentumSGD(0.1, momentum=0.5), loss="mse")
    plain.fit(x, y, verbose=0)
    for got, want in zip(model.get_weights()[:2], plain.get_weights()[:2], strict=True):
        np.testing.assert_allclose(got, want, atol=1e-7)


def test_a_model_keeps_nothing_of_having_been_watched():
    model = make_model("same")
    by_fit(model, KFAC(0.05, **RULE), make_batches(2))
    for layer in model.layers:
        assert "call" not in vars(layer)
    assert model.get_layer("norm").scale and model.get_layer("norm").center


@pytest.mark.parametrize("run", [by_engine, by_fit])
def test_a_singular_factor_without_damping_is_one_line_before_any_weight_moves(run):
    model = make_model("same")
    before = model.get_weights()
    with pytest.raises(
        ValueError, match="`damping` must make .*damping=0, with a factor of"
    ) as error:
        run(model, KFAC(0.05, damping=0.0), make_batches(2))
    assert len(str(error.value).splitlines()) == 1
    for old, new in zip(trainable(before), trainable(model.get_weights()), strict=True):
        np.testing.assert_array_equal(old, new)


def fit_once(model, optimizer, **options):
    model.compile(optimizer=optimizer, loss="mse", **options)
    shape = (4, *model.input_shape[1:])
    model.fit(np.ones(shape, "float32"), np.ones((4, 4), "float32"), verbose=0)


def test_wrong_uses_are_one_line_each():
    inputs = keras.Input((5, 5, 4))
    pooled = layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(3, name="depthwise")(inputs))
    cases = [
        (lambda: fit_once(Net(inputs, pooled), KFAC(0.1)), "depthwise .DepthwiseConv2D"),
        (
            lambda: fit_once(make_plain(keras.Model), KFAC(0.1)),
            "class Net.DistributedFit, keras.Model",
        ),
        (
            lambda: fit_once(make_plain(), KFAC(0.1, no_adaptation=[".*"])),
            "`no_adaptation` must be patterns that leave some of conv, second, head",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert len(str(error.value).splitlines()) == 1


def test_a_layer_that_is_called_twice_is_refused_by_name():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    with pytest.raises(ValueError, match="shared called again"):
        fit_once(Net(inputs, shared(shared(inputs))), KFAC(0.1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"damping": -1.0},
        {"refresh_updates": 0},
        {"refresh_updates": 1.5},
        {"statistics_decay": 0.0},
        {"statistics_decay": 1.5},
        {"stability": 0.0},
        {"gradient_accumulation_steps": 2},
    ],
)
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
        KFAC(0.1, **wrong)
