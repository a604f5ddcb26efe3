"""Config, `.keras` files, pickles and checkpoints: what comes back is what was saved."""

import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from optimizer_replay import RateTable, make_problem, make_variables, values_of

from tf_largebatch.models.ghost_batchnorm import GhostBatchNormalization
from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD, Muon, RMSpropSGD
from tf_largebatch.optimizers.options import AdaptiveOptions, Options
from tf_largebatch.schedules import Constant, Warmup, trace

ROOT = Path(__file__).parent.parent
COMMON = {
    "weight_decay": 0.01,
    "no_decay": ("bias",),
    "exclude_rank_below": 1,
    "global_clipnorm": 3.0,
    "use_ema": True,
    "ema_momentum": 0.5,
    "name": "mine",
}
# Every argument differs from its default.
MAKERS = {
    "MomentumSGD": lambda: MomentumSGD(0.125, momentum=0.5, nesterov=True, **COMMON),
    "LARS": lambda: LARS(
        0.125,
        momentum=0.5,
        nesterov=True,
        trust_coefficient=0.5,
        epsilon=0.25,
        zero_rule="skip",
        clip_trust_ratio=True,
        momentum_correction=True,
        record_trust_ratio=True,
        no_adaptation=("kernel",),
        **COMMON,
    ),
    "LARS update": lambda: LARS(
        0.125, momentum_placement="update", decay_in_norm="combined", **COMMON
    ),
    "LAMB": lambda: LAMB(
        0.125,
        beta_1=0.5,
        beta_2=0.75,
        epsilon=0.25,
        decoupled_weight_decay=True,
        bias_correction=False,
        min_weight_norm=0.5,
        max_weight_norm=2.0,
        clip_trust_ratio=True,
        record_trust_ratio=True,
        no_adaptation=("kernel",),
        **COMMON,
    ),
    "Muon": lambda: Muon(
        0.125,
        momentum=0.5,
        nesterov=False,
        reshape="positions",
        scale="spectral",
        ns_steps=3,
        ns_coefficients=(1.5, -0.5, 0.0),
        others="momentum_sgd",
        other_rate=0.25,
        beta_1=0.5,
        beta_2=0.75,
        epsilon=0.25,
        record_trust_ratio=True,
        no_adaptation=("kernel",),
        **COMMON,
    ),
    "RMSpropSGD": lambda: RMSpropSGD(
        0.125,
        center_updates=3.0,
        period_updates=5.0,
        rmsprop_learning_rate=0.5,
        momentum=0.5,
        rho=0.75,
        epsilon=0.25,
        **COMMON,
    ),
}


def make_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, name="body"), keras.layers.Dense(1, name="head")]
    )


def data():
    x = np.random.default_rng(0).standard_normal((32, 4)).astype("float32")
    return x, x[:, :1] - 0.5 * x[:, 1:2]


def train(model, epochs=2):
    x, y = data()
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)


def state(optimizer):
    return [values_of(v) for v in optimizer.variables]


def choices(optimizer):
    """What is exempt, by layer and leaf: a loaded Sequential has no name of its own in the path."""
    return [
        ("/".join(row.path.split("/")[-2:]), row.decay, row.adapted)
        for row in optimizer.exemptions()
    ]


def assert_equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_the_config_holds_every_argument(make):
    import inspect

    optimizer = make()
    config = optimizer.get_config()
    parameters = inspect.signature(type(optimizer).__init__).parameters
    shared = AdaptiveOptions if optimizer.adapts else Options
    missing = {*parameters, *shared.__annotations__} - {"self", "options"} - set(config)
    assert not missing
    again = type(optimizer).from_config(config)
    assert again.get_config() == optimizer.get_config()
    copied = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(copied) is type(optimizer) and copied.get_config() == config


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=() if name in ("LARS", "LAMB") else pytest.mark.slow)
        for name, make in MAKERS.items()
    ],
)
def test_a_saved_model_continues_as_if_it_had_not_been(make, tmp_path):
    model = make_model()
    model.compile(make(), loss="mse", jit_compile=False)
    train(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert choices(again.optimizer) == choices(model.optimizer)
    assert_equal(state(model.optimizer), state(again.optimizer))
    model.compile(model.optimizer, loss="mse", jit_compile=False)
    again.compile(again.optimizer, loss="mse", jit_compile=False)
    train(model, 1)
    train(again, 1)
    assert_equal(model.get_weights(), again.get_weights())


@pytest.mark.slow
def test_after_keras_the_package_alone_lets_a_fresh_process_load_a_model(tmp_path):
    ghost = GhostBatchNormalization(group=2)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), ghost])
    model.compile(LARS(Warmup(Constant(1.0), updates=5, start_rate=0.1)), loss="mse")
    model.save(tmp_path / "model.keras")
    code = "import sys, keras, tf_largebatch; m = keras.saving.load_model(sys.argv[1]); "
    code += "print(*(type(x).__name__ for x in (m.layers[-1], m.optimizer)))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.keras")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.split() == ["GhostBatchNormalization", "LARS"], done.stderr[-500:]


@pytest.mark.slow
def test_a_fresh_process_loads_optimizer_and_exemptions(tmp_path):
    model = make_model()
    optimizer = LARS(RateTable((0.5, 0.25, 0.125, 0.0625)), weight_decay=0.01, exclude_rank_below=0)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[1].kernel])
    optimizer.exclude_from_layer_adaptation(var_names=["bias"])
    model.compile(optimizer, loss="mse", jit_compile=False)
    train(model, 1)
    model.save(tmp_path / "model.keras")
    code = (
        "import sys, keras\n"
        "from test_optimizers_saving import choices\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "print(choices(model.optimizer))\n"
        "print(float(sum(abs(v.numpy()).sum() for v in model.optimizer.variables)))\n"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.keras")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    rows, total = done.stdout.strip().splitlines()[-2:]
    assert rows == str(choices(optimizer))
    assert float(total) == pytest.approx(sum(np.abs(v).sum() for v in state(optimizer)), rel=1e-6)


def make_trained(make, gradients):
    """A built optimizer after these updates, and its variables."""
    leaves = ["kernel"] * 5 + ["gamma", "bias", "scale"]
    names = [f"layer{i}/{leaf}" for i, leaf in enumerate(leaves)]
    variables = make_variables(make_problem()[0], names)
    optimizer = make()
    optimizer.build(variables)
    for grads in gradients:
        optimizer.apply([tf.constant(g) for g in grads], variables)
    return optimizer, variables


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_a_pickled_optimizer_keeps_its_config_and_its_state(make):
    _, gradients = make_problem(updates=3)
    optimizer, variables = make_trained(make, gradients[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = pickle.loads(pickle.dumps(optimizer))
    assert again.get_config() == optimizer.get_config()
    _, twins = make_trained(make, [])
    for twin, variable in zip(twins, variables, strict=True):
        twin.assign(variable)
    again.build(twins)
    assert_equal(state(optimizer), state(again))
    optimizer.apply([tf.constant(g) for g in gradients[2]], variables)
    again.apply([tf.constant(g) for g in gradients[2]], twins)
    assert_equal([values_of(v) for v in variables], [values_of(v) for v in twins])


def test_state_waiting_for_build_is_restored_outside_the_graph_that_builds():
    weights, gradients = make_problem(updates=2)
    variables = make_variables(weights)
    optimizer = MomentumSGD(0.1)
    optimizer.build(variables)
    optimizer.apply([tf.constant(g) for g in gradients[0]], variables)
    again = pickle.loads(pickle.dumps(optimizer))
    twins = make_variables([values_of(v) for v in variables])
    update = tf.function(lambda *grads: again.apply(list(grads), twins))
    for _ in range(2):  # a restore inside the graph would run again with the second call
        update(*map(tf.constant, gradients[1]))
        optimizer.apply([tf.constant(g) for g in gradients[1]], variables)
    assert_equal([values_of(v) for v in variables], [values_of(v) for v in twins])


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_a_tensorflow_checkpoint_restores_everything(make, tmp_path):
    optimizer, _ = make_trained(make, make_problem(updates=2)[1])
    path = tf.train.Checkpoint(optimizer=optimizer).save(tmp_path / "checkpoint")
    again, _ = make_trained(make, [])
    tf.train.Checkpoint(optimizer=again).restore(path).assert_existing_objects_matched()
    assert_equal(state(optimizer), state(again))


def test_state_of_another_model_is_an_error_not_a_warning(tmp_path):
    model = make_model()
    model.compile(LARS(0.1), loss="mse", jit_compile=False)
    train(model)
    store = {str(i): v for i, v in enumerate(state(model.optimizer))}

    fewer = LARS(0.1)
    fewer.build(make_variables([np.ones((2, 2), np.float32)], ["a/kernel"]))
    with pytest.raises(ValueError, match="6 saved arrays for 3 variables"):
        fewer.load_own_variables(store)

    reshaped = LARS(0.1)
    shapes = [(4, 3), (3,), (5, 1), (1,)]
    reshaped.build(make_variables([np.ones(s, np.float32) for s in shapes], ["a/k"] * 4))
    with pytest.raises(ValueError, match=r"saved array 4 of shape \(3, 1\) .* \(5, 1\)"):
        reshaped.load_own_variables(store)

    waiting = LARS(0.1)
    waiting.load_own_variables(store)
    with pytest.raises(ValueError, match="6 saved arrays for 3 variables"):
        waiting.build(make_variables([np.ones((2, 2), np.float32)], ["a/kernel"]))


def test_new_variables_for_a_built_optimizer_are_an_error():
    optimizer = LARS(0.1)
    optimizer.build(make_variables([np.ones((2, 2), np.float32)], ["a/kernel"]))
    stranger = make_variables([np.ones((2, 2), np.float32)], ["b/kernel"])
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([tf.ones((2, 2))], stranger)


# What version 0.1.0 wrote, by golden/make_saved.py: `record_norms` is on in two of them.
SAVED = ROOT / "tests" / "golden" / "saved"
OLD = sorted(path.stem for path in SAVED.glob("*.keras"))
# What its layers' files say, older Keras does not know (`GlorotUniform(input_axes)`).
OF_KERAS_3_15 = pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 15), reason="files of Keras 3.15"
)


def assert_continues_as_before(name, model):
    x, y = data()
    model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    with np.load(SAVED / f"{name}.npz") as arrays:
        want = [a for a in arrays.values() if a.shape != (4, 4)]  # the table of norms is gone
    got = [values_of(v) for v in (*model.variables, *model.optimizer.variables)]
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


@OF_KERAS_3_15
@pytest.mark.parametrize("name", OLD)
def test_a_model_file_of_version_0_1_continues_as_it_did_then(name):
    assert_continues_as_before(name, keras.saving.load_model(SAVED / f"{name}.keras"))


@OF_KERAS_3_15
@pytest.mark.parametrize("name", ["LARS_of_a_recipe", "LAMB_of_a_recipe"])
def test_a_checkpoint_of_version_0_1_is_restored_in_full(name):
    made = keras.saving.load_model(SAVED / f"{name}.keras").optimizer.get_config()
    model = make_model()
    optimizer = {"LARS": LARS, "LAMB": LAMB}[name[:4]].from_config(made)
    model.compile(optimizer=optimizer, loss="mse")
    optimizer.build(model.trainable_variables)
    saved = tf.train.Checkpoint(model=model, optimizer=optimizer).read(f"{SAVED / name}.ckpt")
    saved.assert_existing_objects_matched()
    assert_continues_as_before(name, model)


def test_schedules_of_version_0_1_have_the_rates_that_they_had():
    for saved in json.loads((SAVED / "schedules.json").read_text()):
        schedule = keras.saving.deserialize_keras_object(saved["config"])
        got = trace(schedule, len(saved["rates"]))
        np.testing.assert_array_equal(got, np.float32(saved["rates"]), err_msg=str(saved["config"]))
        assert keras.saving.serialize_keras_object(schedule) == saved["config"]
