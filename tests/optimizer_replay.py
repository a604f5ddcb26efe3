"""One fixed problem for every optimizer: weights, gradients and rates that feed nothing back."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

UPDATES = 20

# Warmup from 0 and quadratic decay: no two rates are equal, and the first update has rate 0.
RATES = tuple(
    float(r)
    for r in np.float32([10 * t / 5 if t < 5 else 10 * (1 - t / 21) ** 2 for t in range(20)])
)

# Path, shape, size of the weights, size of the gradients. Random directions: where a gradient is
# parallel to its weights, wrong denominators and wrong decay cancel.
TENSORS = (
    ("conv/kernel", (3, 3, 2, 4), 0.3, 0.1),
    ("attention/kernel", (4, 2, 3), 0.2, 3.0),
    ("dense/kernel", (6, 5), 0.5, 1e-3),
    ("zero/kernel", (4, 3), 0.0, 0.01),
    ("pause/kernel", (3, 4), 0.4, 0.02),
    ("norm/gamma", (4,), 1.0, 0.01),
    ("dense/bias", (5,), 0.0, 0.01),
    ("scale/scalar", (), 0.7, 0.01),
)
ZERO, PAUSE = 3, 4  # no gradient at updates 0 and 1; none at updates 9 and 10


@keras.saving.register_keras_serializable("tests")
class RateTable(keras.optimizers.schedules.LearningRateSchedule):
    """Rate of each update from a table."""

    def __init__(self, rates=RATES):
        self.rates = tuple(rates)

    def __call__(self, step):
        return keras.ops.take(keras.ops.convert_to_tensor(self.rates, "float32"), step)

    def get_config(self):
        return {"rates": list(self.rates)}


def make_problem(seed=0, updates=UPDATES):
    """Weights, and gradients[t][i] of update t and tensor i, as float32 arrays."""
    rng = np.random.default_rng(seed)
    weights = [np.float32(size * rng.standard_normal(shape)) for _, shape, size, _ in TENSORS]
    gradients = [
        [np.float32(size * rng.standard_normal(shape)) for _, shape, _, size in TENSORS]
        for _ in range(updates)
    ]
    for update, tensor in ((0, ZERO), (1, ZERO), (9, PAUSE), (10, PAUSE)):
        if update < updates:
            gradients[update][tensor] = np.zeros_like(gradients[update][tensor])
    return weights, gradients


def make_variables(weights, names=None, dtype="float32"):
    """Keras variables with the paths of `TENSORS`."""
    names = names or [name for name, *_ in TENSORS]
    variables = []
    for name, value in zip(names, weights, strict=True):
        *scopes, leaf = name.split("/")
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(keras.name_scope(scope))
            variables.append(keras.Variable(value, name=leaf, dtype=dtype))
    return variables


def values_of(variable):
    """A copy: NumPy may otherwise look into the buffer that the next update writes."""
    return np.array(variable.numpy())


def replay(optimizer, weights, gradients, *, graph=False, xla=False):
    """The values of all tensors before the first and after each update."""
    variables = make_variables(weights)
    optimizer.build(variables)

    def update(*grads):
        optimizer.apply(list(grads), variables)

    if graph or xla:
        update = tf.function(update, jit_compile=xla)
    path = [[values_of(v) for v in variables]]
    for grads in gradients:
        update(*[tf.constant(g) for g in grads])
        path.append([values_of(v) for v in variables])
    return path


def worst_difference(path, oracle, weights, gradients, rates=RATES):
    """Largest |difference| over all updates and tensors, relative to the largest weight.

    `oracle(index, w, gradients, rates)` returns the trajectory of tensor `index`.
    """
    worst = 0.0
    for index, w in enumerate(weights):
        expected = oracle(index, w, [g[index] for g in gradients], rates)
        largest = max(float(np.max(np.abs(value))) for value in expected)
        for got, want in zip(path, expected, strict=True):
            worst = max(worst, float(np.max(np.abs(got[index] - want))) / largest)
    return worst
