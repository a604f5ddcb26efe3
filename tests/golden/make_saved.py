"""Made saved/: files of optimizers and schedules as version 0.1.0 wrote them, at commit c4a610c.

    git worktree add ../old c4a610c && PYTHONPATH=../old python tests/golden/make_saved.py FOLDER

`record_norms`, an option of that version, is on where its table is part of the saved state.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch import optimizers, schedules
from tf_largebatch.schedules import trace

COMMON = {"weight_decay": 0.01, "no_decay": ("bias",), "exclude_rank_below": 1}
ADAPTED = {"no_adaptation": ("head/kernel",), "record_trust_ratio": True}
OPTIMIZERS = {
    "MomentumSGD": {"momentum": 0.5, "nesterov": True, "global_clipnorm": 3.0, **COMMON},
    "LARS": {
        "momentum": 0.5,
        "nesterov": True,
        "trust_coefficient": 0.5,
        "epsilon": 0.25,
        "zero_rule": "skip",
        "clip_trust_ratio": True,
        "momentum_correction": True,
        "record_norms": True,
        "use_ema": True,
        "ema_momentum": 0.5,
        **COMMON,
        **ADAPTED,
    },
    "LAMB": {
        "beta_1": 0.5,
        "beta_2": 0.75,
        "epsilon": 0.25,
        "decoupled_weight_decay": True,
        "bias_correction": False,
        "min_weight_norm": 0.5,
        "max_weight_norm": 2.0,
        "clip_trust_ratio": True,
        **COMMON,
        **ADAPTED,
    },
    "RMSpropSGD": {
        "center_updates": 3.0,
        "period_updates": 5.0,
        "rmsprop_learning_rate": 0.5,
        "momentum": 0.5,
        "rho": 0.75,
        "epsilon": 0.25,
        "record_norms": True,
        **COMMON,
    },
    # As the recipes make them.
    "LARS of a recipe": {"weight_decay": 1e-4, "momentum": 0.9, "record_trust_ratio": True},
    "LAMB of a recipe": {"weight_decay": 0.01, "record_trust_ratio": True},
}


def make_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, name="body"), keras.layers.Dense(1, name="head")]
    )


def train(model):
    x = np.random.default_rng(0).standard_normal((32, 4)).astype("float32")
    y = x[:, :1] - 0.5 * x[:, 1:2]
    model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)


def make_schedules():
    s = schedules
    decay = s.Polynomial(2.0, 0.1, 2.0, 3, decay_updates=20)
    return [
        s.Constant(0.5),
        s.Steps(1.0, [4, 9], factor=0.1),
        s.Steps(1.0, [4, 9], rates=[0.5, 0.25]),
        decay,
        s.Cosine(1.0, 0.1, 2, decay_updates=20),
        s.Exponential(1.0, 0.5, every_updates=7, begin=3),
        s.Warmup(decay, 5, 0.1, "power", power=3.0, peak=1.5),
        s.Warmup(s.Scaled(decay, "sqrt", global_batch=64, reference_batch=16), 5, 0.0),
        s.BatchPhases(
            [8, 16], [6, 6], [1.0, 0.5], over_images=s.Polynomial(1.0, decay_updates=150)
        ),
    ]


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in OPTIMIZERS.items():
        model = make_model()
        kind = getattr(optimizers, name.split()[0])
        rate = schedules.Warmup(schedules.Polynomial(0.125, decay_updates=20), 6, 0.01)
        model.compile(optimizer=kind(rate, **options), loss="mse")
        train(model)
        stem = folder / name.replace(" ", "_")
        model.save(f"{stem}.keras")
        if name.endswith("recipe"):
            tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(f"{stem}.ckpt")
        train(model)
        np.savez(
            f"{stem}.npz", *[np.array(v) for v in (*model.variables, *model.optimizer.variables)]
        )
    saved = [
        {
            "config": keras.saving.serialize_keras_object(schedule),
            "rates": trace(schedule, 30).tolist(),
        }
        for schedule in make_schedules()
    ]
    (folder / "schedules.json").write_text(json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
