"""Plain `fit` on Keras's JAX backend: on one device, on four, and as one of two processes.

Run in processes of their own; each prints a line of JSON.

    python jax_fit.py here                 public names; losses and last weights on one device and
                                           on four virtual ones; what the page's code prints
    python jax_fit.py worker RANK PORT     the same losses and weights of one of two processes
"""

import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path

BATCH, UPDATES, EPOCHS, DEVICES, WORKERS = 16, 5, 4, 4, 2
OPTIMIZERS = ("LARS", "LAMB", "MomentumSGD", "Muon")
PAGE = Path(__file__).parents[1] / "docs" / "jax.md"


def make_optimizer(name: str):
    import tf_largebatch as tfl

    rate = tfl.Warmup(tfl.Cosine(0.1, begin=5, decay_updates=15), 5, 0.01)
    own = {"LARS": {"trust_coefficient": 0.1}, "MomentumSGD": {"nesterov": True}}.get(name, {})
    return getattr(tfl, name)(rate, weight_decay=1e-3, global_clipnorm=5.0, **own)


def train_all(split=None, rank: int = 0, workers: int = 1) -> dict[str, dict]:
    """Twenty updates of each optimizer in `fit`, on this process's part of every batch."""
    import keras
    import numpy as np

    from tf_largebatch import GhostBatchNormalization

    rng = np.random.default_rng(0)
    x = rng.normal(size=(UPDATES, BATCH, 6, 6, 2)).astype("float32")
    y = rng.integers(0, 5, (UPDATES, BATCH)).astype("int32")
    mine = slice(rank * BATCH // workers, (rank + 1) * BATCH // workers)
    x, y = x[:, mine].reshape(-1, 6, 6, 2), y[:, mine].reshape(-1)
    found = {}
    for name in OPTIMIZERS:
        keras.utils.set_random_seed(1)
        with split.scope() if split else contextlib.nullcontext():
            layers = [keras.Input((6, 6, 2)), keras.layers.Conv2D(4, 3, use_bias=False)]
            layers += [GhostBatchNormalization(4), keras.layers.ReLU(), keras.layers.Flatten()]
            model = keras.Sequential([*layers, keras.layers.Dense(5)])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(make_optimizer(name), loss)
            size = BATCH // workers
            fitted = model.fit(x, y, batch_size=size, epochs=EPOCHS, shuffle=False, verbose=0)
        weights = [keras.ops.convert_to_numpy(w).ravel() for w in model.trainable_weights]
        found[name] = {
            "loss": fitted.history["loss"],
            "weights": np.concatenate(weights).tolist(),
        }
    return found


def describe_names() -> dict[str, str]:
    """Each public name with what its import says, "" where it is there."""
    import tf_largebatch

    said = {}
    for name in tf_largebatch.__all__:
        try:
            getattr(tf_largebatch, name)
            said[name] = ""
        except ImportError as error:
            said[name] = str(error)
    return said


def run_page() -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
            exec(block, {})
    return printed.getvalue()


def main(how: str, rank: str = "0", port: str = "") -> None:
    """Prints what the module's text says."""
    count = DEVICES if how == "here" else 1
    # Unoptimised code: it is compiled sooner.
    flags = f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = flags
    import keras

    if how == "worker":
        keras.utils.set_random_seed(1)  # else Keras draws one for all processes
        keras.distribution.initialize(f"localhost:{port}", WORKERS, int(rank))
    split = keras.distribution.DataParallel(auto_shard_dataset=False)
    assert split.device_mesh.shape[0] == (DEVICES if how == "here" else WORKERS)
    if how == "worker":
        print(json.dumps(train_all(split, int(rank), WORKERS)))
        return
    found = {"one": train_all(), "four": train_all(split)}
    found |= {"names": describe_names(), "page": run_page()}
    found["tensorflow"] = "tensorflow" in sys.modules
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
