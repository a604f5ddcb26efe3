"""The same numbers on Keras's JAX and torch backends, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Prints how far each optimizer is from its float64 statement, stateless where the backend has it,
# and the losses of a short `fit`.
PROGRAM = """
import json
import keras
import numpy as np
import oracles
from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD, Muon, RMSpropSGD

rng = np.random.default_rng(0)
shapes = [(3, 3, 2, 4), (6, 5), (4, 3), (5,), ()]
weights = [np.float32(0.5 * rng.standard_normal(s)) for s in shapes]
weights[2][:] = 0.0
gradients = [[np.float32(0.1 * rng.standard_normal(s)) for s in shapes] for _ in range(12)]
rate = 0.125


def lars(w, g, on, family, **how):
    return oracles.lars(w, g, [rate] * 12, family=family, decay=0.01 * on, adapted=on, trust=0.1,
                        **how)


lars_options = {"weight_decay": 0.01, "trust_coefficient": 0.1, "record_trust_ratio": True}
combined = {"momentum_placement": "update", "decay_in_norm": "combined"}
cases = {
    "MomentumSGD": (
        lambda: MomentumSGD(rate, nesterov=True, weight_decay=0.01),
        lambda w, g, on: oracles.goyal_eq_9(w, g, [rate] * 12, momentum=0.9, decay=0.01 * on,
                                            nesterov=True),
    ),
    "LARS inside": (
        lambda: LARS(rate, **lars_options), lambda w, g, on: lars(w, g, on, "A")
    ),
    "LARS outside": (
        lambda: LARS(rate, momentum_placement="outside", zero_rule="skip", clip_trust_ratio=True,
                     **lars_options),
        lambda w, g, on: lars(w, g, on, "B", zero_rule="skip", clip=True),
    ),
    "LARS update": (
        lambda: LARS(rate, **combined, **lars_options), lambda w, g, on: lars(w, g, on, "C")
    ),
    "LAMB": (
        lambda: LAMB(rate, weight_decay=0.01, record_trust_ratio=True),
        lambda w, g, on: oracles.lamb(w, g, [rate] * 12, decay=0.01 * on, adapted=on),
    ),
    "LAMB decoupled": (
        lambda: LAMB(rate, weight_decay=0.01, decoupled_weight_decay=True),
        lambda w, g, on: oracles.lamb(w, g, [rate] * 12, decay=0.01 * on, adapted=on,
                                      decoupled=True),
    ),
    "Muon": (
        lambda: Muon(rate, weight_decay=0.01, record_trust_ratio=True),
        lambda w, g, on: oracles.muon(w, g, [rate] * 12, decay=0.01 * on, adapted=on),
    ),
    "RMSpropSGD": (
        lambda: RMSpropSGD(rate, center_updates=4, period_updates=6, weight_decay=0.01),
        lambda w, g, on: oracles.akiba(w, g, [rate] * 12, center=4, period=6, decay=0.01 * on),
    ),
}
differences, losses = {}, {}
for name, (make, oracle) in cases.items():
    variables = [keras.Variable(w, name="w") for w in weights]
    optimizer = make()
    optimizer.build(variables)
    if keras.backend.backend() == "jax":
        import jax

        step = jax.jit(optimizer.stateless_apply)
        values = [v.value for v in variables]
        state = [v.value for v in optimizer.variables]
        for grads in gradients:
            values, state = step(state, grads, values)
        for variable, value in zip(optimizer.variables, state):
            variable.assign(value)
    else:
        for grads in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(g) for g in grads], variables)
        values = variables
    worst = 0.0
    for i, w in enumerate(weights):
        want = oracle(w, [g[i] for g in gradients], w.ndim >= 2)
        got = keras.ops.convert_to_numpy(values[i])
        largest = max(np.max(np.abs(x)) for x in want)
        worst = max(worst, float(np.max(np.abs(got - want[-1])) / largest))
    if optimizer.record_trust_ratio:
        clipped = getattr(optimizer, "clip_trust_ratio", False)  # to 1 at the most
        ratios = optimizer.trust_ratios().values()
        assert all(0.0 < r and (clipped or r != 1.0) for r in ratios), name
    differences[name] = worst

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    optimizer = make()
    optimizer.learning_rate = 0.02
    model.compile(optimizer, loss="mse")
    x = rng.standard_normal((64, 4)).astype("float32")
    history = model.fit(x, x[:, :1], epochs=4, verbose=0).history["loss"]
    losses[name] = [history[0], history[-1]]
print(json.dumps({"differences": differences, "losses": losses}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_follow_the_equations_and_train(backend):
    # A variable names the interpreter, where the backend is not installed beside TensorFlow.
    python = os.environ.get(f"TF_LARGEBATCH_{backend.upper()}_PYTHON", sys.executable)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": paths}
    probe = subprocess.run([python, "-c", f"import {backend}, keras"], capture_output=True, env=env)
    if probe.returncode:
        pytest.skip(f"{backend} is not importable by {python}")
    done = subprocess.run(
        [python, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert max(result["differences"].values()) < 2e-6, result["differences"]
    for name, (first, last) in result["losses"].items():
        assert last < first, (name, first, last)
