"""From the recipe to the gradient: how many calls, over which modules, in how long a file."""

import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from tf_largebatch.recipes import goyal_8k
from tf_largebatch.training import build, train
from tf_largebatch.training.command import main

PACKAGE = Path(build.__file__).parents[1]


class Seen(Exception):
    """Ends the run where it was looked at."""


def calls_to(function: str, monkeypatch, where, argv) -> list[str]:
    """The calls of this package, from `main` on, that are open when TensorFlow takes a gradient."""
    frames = []

    def look(*arguments, **options):
        frame = sys._getframe(1)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if PACKAGE in path.parents:
                frames.append(f"{path.relative_to(PACKAGE)}: {frame.f_code.co_name}")
            frame = frame.f_back
        raise Seen

    monkeypatch.setattr(where, function, look)
    with pytest.raises(Seen):
        main(goyal_8k.RECIPE, goyal_8k.MINIATURE, argv)
    return frames[::-1]


@pytest.mark.parametrize("micro_batch", ["8", "4"], ids=["whole", "micro-batches"])
def test_the_gradient_is_at_most_eight_calls_over_four_modules_away(
    tmp_path, monkeypatch, micro_batch
):
    argv = ["--run-dir", str(tmp_path / "run"), "--set=model.bn_batch=4"]
    argv += ["--micro-batch", micro_batch]
    calls = calls_to("gradient", monkeypatch, tf.GradientTape, argv)
    # `python -m` adds the recipe's own call of `main`, and its module.
    modules = {"recipes/goyal_8k.py", *(call.partition(":")[0] for call in calls)}
    assert len(calls) <= 8 and len(modules) <= 4, calls
    assert modules == {
        "recipes/goyal_8k.py",
        "training/command.py",
        "training/train.py",
        "training/step.py",
    }


def test_the_loop_is_in_plain_sight():
    text = (PACKAGE / "training" / "train.py").read_text()
    assert len(text.splitlines()) <= 160
    assert "lambda" not in text
    assert "for epoch in" in text and "while progress.update < end" in text


def test_the_learning_rate_is_two_jumps_from_the_loop():
    # train.py -> build.make_step -> build.make_schedule: the class of the schedule stands there.
    assert "make_step(run)" in (PACKAGE / "training" / "train.py").read_text()
    names = build.make_optimizer.__code__.co_names
    assert "make_schedule" in names and "make_optimizer" in build.make_step.__code__.co_names


def test_a_run_leaves_keras_policy_as_it_was(tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise Seen

    monkeypatch.setattr(train, "fit", stop)
    keras.config.set_dtype_policy("float64")
    argv = ["--run-dir", str(tmp_path / "run"), "--precision=float16"]
    with pytest.raises(Seen):
        main(goyal_8k.RECIPE, goyal_8k.MINIATURE, argv)
    assert keras.config.dtype_policy().name == "float64"
