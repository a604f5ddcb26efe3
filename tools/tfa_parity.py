"""Compares our LAMB with tensorflow-addons' over 20 updates, in a child process of its own.

    python tools/tfa_parity.py            # prints a table
    python tools/tfa_parity.py --write    # also writes tests/golden/tfa_lamb.npz

Exit status: 0 where every row is within tolerance, 1 where one is not, 2 without tensorflow-addons.

tensorflow-addons ended at 0.23.0, for TensorFlow 2.15 with the Keras of that time. It still runs
beside TensorFlow 2.21 where `TF_USE_LEGACY_KERAS` is set before TensorFlow is imported and two
modules that tf-keras moved are put back under their former names. Both change the whole process, so
they happen in a child; nothing else in this project sets the switch.

Both optimizers replay the same weights and gradients, so no difference feeds back into the next
gradient. Weights, gradients and rates are written to the golden file with the trajectories, and the
tests use it where tensorflow-addons has no wheel.
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone as it is

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "tfa_lamb.npz"
COMMAND = "python tools/tfa_parity.py --write"
SEED = 20_190_401
UPDATES = 20
# tensorflow-addons takes 1 - beta ** t in float32, which moves it by some 3e-6 from the equation.
TOLERANCE = 2e-5
# An empty adaptation list of tensorflow-addons means its decay list; this pattern means no tensor.
NEVER = "matches-nothing"

SHAPES = {
    "scale": (),
    "bias": (5,),
    "gamma": (7,),
    "kernel": (4, 5),
    "paused": (4, 3),
    "head": (3, 4),
    "attention": (2, 2, 4),
    "conv": (2, 2, 3, 4),
}
RANK_0_AND_1 = ("scale", "bias", "gamma")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One set of hyperparameters, with the exclusions stated as names of `SHAPES`.

    Attributes:
        weight_decay, beta_1, beta_2, epsilon: as in both optimizers.
        no_decay: tensors without decay.
        no_adaptation: tensors without a trust ratio.
        by_rank: let ours find both by rank; for tensorflow-addons they are still named.
    """

    weight_decay: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    no_decay: tuple[str, ...] = ()
    no_adaptation: tuple[str, ...] = ()
    by_rank: bool = False

    @property
    def hyperparameters(self) -> dict:
        """The arguments that both optimizers name alike."""
        names = ("weight_decay", "beta_1", "beta_2", "epsilon")
        return {name: getattr(self, name) for name in names}


CASES = {
    "no exclusions": Case(),
    "no decay at all": Case(weight_decay=0.0),
    "decay and adaptation by list": Case(no_decay=RANK_0_AND_1, no_adaptation=RANK_0_AND_1),
    "decay and adaptation by rank": Case(
        no_decay=RANK_0_AND_1, no_adaptation=RANK_0_AND_1, by_rank=True
    ),
    "decay by list, adaptation of all": Case(no_decay=("bias", "gamma")),
    "adaptation by list, decay of all": Case(no_adaptation=("scale", "conv")),
    "two different lists": Case(no_decay=("bias", "kernel"), no_adaptation=("gamma", "attention")),
    "other constants": Case(weight_decay=0.1, beta_1=0.8, beta_2=0.99, epsilon=1e-3),
}


def make_inputs() -> dict[str, np.ndarray]:
    """Returns the weights, the gradients of every update and the rates, by key.

    Keys: "weight/NAME" in the tensor's shape, "gradient/NAME" with the updates in front, both
    float32; "rate", float64, shape (UPDATES,). The gradients are random, so that none is parallel
    to its weights; their size changes from tensor to tensor and over time. `bias` and `head` start
    at zero; `head` gets no gradient for two updates at the start, `paused` for two in the middle.
    """
    generator = np.random.default_rng(SEED)
    inputs = {}
    for index, (name, shape) in enumerate(SHAPES.items()):
        size = 10.0 ** generator.uniform(-3, 1, (UPDATES,) + (1,) * len(shape))
        inputs[f"weight/{name}"] = generator.normal(0, 0.5 + index, shape).astype("float32")
        gradients = size * generator.normal(size=(UPDATES, *shape))
        inputs[f"gradient/{name}"] = gradients.astype("float32")
    inputs["weight/gamma"][:] = 1.0
    inputs["weight/bias"][:] = 0.0
    inputs["weight/head"][:] = 0.0
    inputs["gradient/head"][:2] = 0.0
    inputs["gradient/paused"][9:11] = 0.0
    # The equation of `our_schedule`, restated: linear from 0.002 to 0.02 over 5, then power 2.
    updates = np.arange(UPDATES, dtype=np.float64)
    decay = 1e-4 + (0.02 - 1e-4) * (1 - (updates - 5) / 16) ** 2
    inputs["rate"] = np.where(updates < 5, 0.002 + 0.018 * updates / 5, decay)
    return inputs


def our_schedule():
    """Returns the rate of the replay as our own schedule."""
    from tf_largebatch.schedules import Polynomial, Warmup

    return Warmup(Polynomial(0.02, 1e-4, 2.0, 5, decay_updates=16), 5, 0.002)


def our_lamb(case: Case):
    """Returns our LAMB with the hyperparameters and exclusions of `case`."""
    from tf_largebatch.optimizers import LAMB

    exclusions = {"exclude_rank_below": 2}
    if not case.by_rank:
        exclusions = {
            "exclude_rank_below": 0,
            "no_decay": [f"^{name}$" for name in case.no_decay],
            "no_adaptation": [f"^{name}$" for name in case.no_adaptation],
        }
    return LAMB(our_schedule(), **case.hyperparameters, **exclusions)


def replay(optimizer, inputs: dict) -> dict[str, np.ndarray]:
    """Returns the weights after every update of a Keras 3 optimizer, by name of the tensor."""
    import keras

    weights = {name: keras.Variable(inputs[f"weight/{name}"], name=name) for name in SHAPES}
    trajectories = {name: [] for name in SHAPES}
    for update in range(UPDATES):
        gradients = [inputs[f"gradient/{name}"][update] for name in SHAPES]
        gradients = [keras.ops.convert_to_tensor(gradient) for gradient in gradients]
        optimizer.apply(gradients, list(weights.values()))
        for name, weight in weights.items():
            trajectories[name].append(weight.numpy().copy())
    return {name: np.stack(values) for name, values in trajectories.items()}


def difference(ours: dict, theirs: dict) -> float:
    """Returns max |ours - theirs| / max |theirs| of the tensor where it is largest."""
    return max(
        float(
            np.max(np.abs(ours[name].astype("float64") - theirs[name]))
            / np.max(np.abs(theirs[name]))
        )
        for name in SHAPES
    )


def run_reference(inputs: dict) -> dict:
    """Returns the arrays of tensorflow-addons, by "CASE/NAME", and their "origin", from a child.

    Raises:
        RuntimeError: tensorflow-addons or tf-keras is missing, or the child failed.
    """
    for module, project in (("tensorflow_addons", "tensorflow-addons"), ("tf_keras", "tf-keras")):
        if importlib.util.find_spec(module) is None:
            raise RuntimeError(
                f"{project} is not installed. Where it has a wheel (Python 3.9 to 3.11): "
                "pip install tensorflow-addons==0.23.0 tf-keras. "
                "Elsewhere, tests/test_tfa_parity.py compares with the golden arrays."
            )
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "inputs.npz"), Path(folder, "reference.npz")
        np.savez(given, **inputs)
        child = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--child", str(given), str(made)],
            env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode:
            raise RuntimeError(f"the child process failed:\n{child.stderr[-2000:]}")
        with np.load(made) as arrays:
            return dict(arrays)


def child(given: str, made: str) -> None:
    """Replays every case with tensorflow-addons. Runs in the child process only."""
    tf, addons = _import_addons()
    with np.load(given) as arrays:
        inputs = dict(arrays)
    results = {}
    for label, case in CASES.items():
        optimizer = addons.optimizers.LAMB(
            _table(tf, inputs["rate"]),
            **case.hyperparameters,
            exclude_from_weight_decay=[f"^{name}:0$" for name in case.no_decay] or None,
            exclude_from_layer_adaptation=[f"^{name}:0$" for name in case.no_adaptation] or [NEVER],
        )
        weights = {name: tf.Variable(inputs[f"weight/{name}"], name=name) for name in SHAPES}
        trajectories = {name: [] for name in SHAPES}
        for update in range(UPDATES):
            gradients = [tf.constant(inputs[f"gradient/{name}"][update]) for name in SHAPES]
            optimizer.apply_gradients(zip(gradients, weights.values(), strict=True))
            for name, weight in weights.items():
                trajectories[name].append(weight.numpy())
        results |= {f"{label}/{name}": np.stack(values) for name, values in trajectories.items()}
    versions = {p: metadata.version(p) for p in ("tensorflow-addons", "tensorflow", "tf-keras")}
    origin = {
        "command": COMMAND,
        "seed": SEED,
        "updates": UPDATES,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **versions,
    }
    np.savez(made, origin=json.dumps(origin), **results)


def _import_addons():
    """Imports TensorFlow and tensorflow-addons over tf-keras; needs the switch to be set."""
    import warnings

    import tensorflow as tf

    # The modules that addons names by the path they had before tf-keras was its own package.
    import tf_keras.src.engine
    import tf_keras.src.engine.keras_tensor

    sys.modules["keras.src.engine"] = tf_keras.src.engine
    sys.modules["keras.src.engine.keras_tensor"] = tf_keras.src.engine.keras_tensor
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the notices of its end of life
        import tensorflow_addons as addons
    return tf, addons


def _table(tf, rates: np.ndarray):
    """Returns a schedule of the former Keras that looks the rate up by update number."""

    class Table(tf.keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return tf.gather(tf.constant(rates, "float32"), tf.cast(step, "int64"))

    return Table()


def main() -> int:
    """Compares, prints a table, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the golden arrays")
    parser.add_argument("--child", nargs=2, metavar=("GIVEN", "MADE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return 0
    inputs = make_inputs()
    try:
        reference = run_reference(inputs)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.write:
        GOLDEN.parent.mkdir(exist_ok=True)
        np.savez_compressed(GOLDEN, **inputs, **reference)
    print(f"reference: {reference['origin']}")
    print(f"{'case':36}{'max difference':>16}   within {TOLERANCE:g}")
    agreed = True
    for label, case in CASES.items():
        theirs = {name: reference[f"{label}/{name}"] for name in SHAPES}
        found = difference(replay(our_lamb(case), inputs), theirs)
        agreed &= found <= TOLERANCE
        print(f"{label:36}{found:16.2e}   {'yes' if found <= TOLERANCE else 'NO'}")
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
