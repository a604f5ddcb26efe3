"""Muon against singular values in float64, the exact polar factor, and what it must not change."""

import keras
import numpy as np
import oracles
import pytest
from keras import ops
from optimizer_replay import RATES, TENSORS, RateTable, make_problem, replay, worst_difference

from tf_largebatch import Muon

DECAY = 0.01
TOLERANCE = 2e-5  # the polynomial makes a rounding of a small singular value up to 3.4 ** 5 larger
SLOW = tuple(rate / 100 for rate in RATES)
EXACT = (1.875, -1.25, 0.375)  # converges to singular values of 1
SCALES = {
    "jordan": lambda rows, columns: np.sqrt(max(1, columns / rows)),
    "spectral": lambda rows, columns: np.sqrt(columns / rows),
    "adam_rms": lambda rows, columns: 0.2 * np.sqrt(max(rows, columns)),
}


def run(optimizer, weights, gradients, **how):
    return replay(optimizer, weights, gradients, **how)


def kernel_oracle(**options):
    def oracle(index, w, gradients, rates):
        high = len(TENSORS[index][1]) >= 2
        on = DECAY if high else 0.0
        return oracles.muon(w, gradients, rates, decay=on, adapted=high, **options)

    return oracle


@pytest.mark.parametrize(
    ("options", "statement"),
    [
        ({}, {}),
        ({"nesterov": False, "momentum": 0.8}, {"nesterov": False, "momentum": 0.8}),
        ({"reshape": "positions"}, {"positions": True}),
        ({"ns_steps": 3}, {"steps": 3}),
        ({"others": "momentum_sgd", "other_rate": 0.5}, {"other": "sgd", "other_rate": 0.5}),
        ({"beta_1": 0.8, "beta_2": 0.95}, {"betas": (0.8, 0.95)}),
        *(({"scale": name}, {"scale": scale}) for name, scale in SCALES.items()),
    ],
    ids=lambda value: "-".join(value) or "default",
)
def test_muon_is_its_equation(options, statement):
    weights, gradients = make_problem()
    path = run(Muon(RateTable(SLOW), weight_decay=DECAY, **options), weights, gradients)
    oracle = kernel_oracle(**statement)
    assert worst_difference(path, oracle, weights, gradients, SLOW) < TOLERANCE


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"graph": True}, id="graph"),
        pytest.param({"xla": True}, id="xla", marks=pytest.mark.slow),
    ],
)
def test_muon_is_its_equation_when_compiled(how):
    weights, gradients = make_problem()
    path = run(Muon(RateTable(SLOW), weight_decay=DECAY), weights, gradients, **how)
    assert worst_difference(path, kernel_oracle(), weights, gradients, SLOW) < TOLERANCE


def step_of(gradient, **options):
    """The step of one update from weights of zero, at rate 1 and without momentum."""
    variable = keras.Variable(np.zeros_like(gradient), name="kernel")
    optimizer = Muon(1.0, momentum=0.0, **options)
    optimizer.build([variable])
    optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
    return -np.asarray(variable.numpy(), np.float64)


@pytest.mark.parametrize("shape", [(3, 3, 4, 8), (3, 3, 2, 40), (6, 5)])
def test_a_convergent_polynomial_gives_the_exact_polar_factor(shape):
    gradient = np.random.default_rng(0).standard_normal(shape).astype("float32")
    step = step_of(gradient, ns_steps=30, ns_coefficients=EXACT)
    matrix = gradient.astype("float64").reshape(-1, shape[-1])
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    scale = SCALES["jordan"](*matrix.shape)
    np.testing.assert_allclose(step.reshape(matrix.shape), scale * u @ v, atol=2e-6)


def test_the_default_polynomial_brings_singular_values_near_one():
    gradient = np.random.default_rng(1).standard_normal((3, 3, 8, 16)).astype("float32")
    values = np.linalg.svd(step_of(gradient).reshape(-1, 16), compute_uv=False)
    assert 0.65 < values.min() and values.max() < 1.25


def test_every_position_is_a_matrix_of_its_own():
    gradient = np.random.default_rng(2).standard_normal((3, 3, 4, 4)).astype("float32")
    step = step_of(gradient, reshape="positions", ns_steps=30, ns_coefficients=EXACT)
    for one in step.reshape(9, 4, 4):
        np.testing.assert_allclose(9 * one @ (9 * one).T, np.eye(4), atol=1e-5)


def test_the_step_depends_on_the_gradients_direction_alone():
    gradient = np.random.default_rng(3).standard_normal((3, 3, 4, 8)).astype("float32")
    np.testing.assert_allclose(step_of(1e3 * gradient), step_of(gradient), atol=2e-5)
    turn, _ = np.linalg.qr(np.random.default_rng(4).standard_normal((8, 8)))
    turned = step_of((gradient @ turn).astype("float32"))
    np.testing.assert_allclose(turned, step_of(gradient) @ turn, atol=2e-4)


def test_convolutions_are_matrices_and_the_rest_is_not():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, name="conv1"),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(4, 3, name="conv2"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="head"),
        ]
    )
    optimizer = Muon(0.02, no_adaptation=["(^|/)conv1/", "(^|/)head/"])
    optimizer.build(model.trainable_variables)
    adapted = [row.path.split("/")[-2:] for row in optimizer.exemptions() if row.adapted]
    assert adapted == [["conv2", "kernel"]]
    kept = [v.path for v in optimizer.variables if "second_moment" in v.path]
    assert len(kept) == len(model.trainable_variables) - 1  # no Adam for the matrix
    every = Muon(0.02, exclude_rank_below=0)
    every.build(model.trainable_variables)
    assert all(row.decay and row.adapted == (len(row.shape) > 1) for row in every.exemptions())


def test_zeros_and_broken_gradients():
    assert not step_of(np.zeros((2, 3), "float32")).any()
    assert np.isnan(step_of(np.float32([[np.inf, 1.0], [0.0, 1.0]]))).all()


def test_ratio_is_the_steps_length_over_the_momentums():
    gradient = np.random.default_rng(5).standard_normal((4, 6)).astype("float32")
    variable = keras.Variable(np.zeros((4, 6), "float32"), name="kernel")
    optimizer = Muon(1.0, momentum=0.0, record_trust_ratio=True)
    optimizer.build([variable])
    optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
    expected = oracles.length(variable.numpy()) / oracles.length(gradient)
    assert list(optimizer.trust_ratios().values()) == pytest.approx([expected], rel=1e-5)


def test_it_trains_a_network_that_saves_and_loads(tmp_path):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 6, 6, 2)).astype("float32")
    y = (x.mean((1, 2, 3)) > 0).astype("int32")
    layers = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 6, 2)), *layers, keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(Muon(0.05), loss=loss, metrics=["accuracy"])
    history = model.fit(x, y, batch_size=32, epochs=6, verbose=0).history
    assert history["accuracy"][-1] > 0.9 > history["accuracy"][0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.optimizer, Muon)
    for one in (model, again):
        keras.utils.set_random_seed(1)
        one.fit(x, y, batch_size=32, epochs=1, shuffle=False, verbose=0)
    for left, right in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reshape": "rows"}, "`reshape` must be one of 'flatten', 'positions'"),
        ({"scale": "none"}, "`scale` must be one of 'jordan'"),
        ({"others": "sgd"}, "`others` must be one of 'adam', 'momentum_sgd'"),
        ({"ns_steps": 0}, "`ns_steps` must be"),
        ({"ns_coefficients": (1.0, 2.0)}, "`ns_coefficients` must be three numbers"),
        ({"other_rate": -1.0}, "`other_rate` must be a number"),
        ({"epsilon": 0.0}, "`epsilon` must be a number"),
        ({"lr": 0.1}, "learning_rate"),
    ],
)
def test_bad_input_is_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        Muon(0.02, **options)
    assert "\n" not in str(error.value)
