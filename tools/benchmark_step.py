"""Do fused optimizer kernels pay? Whole training steps of ResNet-50: plain arithmetic and fused.

    python tools/benchmark_step.py                      # prints the table
    python tools/benchmark_step.py --out tools/records/benchmark_step.json

A step is forward, backward and update. Both forms of an optimizer act on the same network, in turn
and in changing order, so that a busy machine slows both; a round gives one quotient of CPU times
(all cores of this process) and one of wall times, and the record has the quartiles over the rounds.
The update alone is timed too: it bounds what can be gained where whole steps scatter more.
The peak of memory is that of a process of its own for each form.

The rule: the package keeps a fused kernel only where plain arithmetic makes a step of the first
case more than 2 % longer.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone as it is

import keras
import tensorflow as tf
from keras import ops

from tf_largebatch.models.network import make_network
from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD
from tf_largebatch.optimizers.tensors import norm
from tf_largebatch.records import run_folder
from tf_largebatch.records.datasets import ImageFacts
from tf_largebatch.records.model_spec import ModelSpec

LIMIT = 1.02
# Name, images, side of a picture in px, rounds, what it stands for.
CASES = {
    "micro-batch": (32, 224, 9, "the micro-batch of 32 images that the recipes' workers have"),
    "smallest": (8, 64, 41, "the least work an update that somebody would train ResNet-50 on"),
}


class FusedMomentumSGD(MomentumSGD):
    """Its update in one kernel of TensorFlow."""

    def update_step(self, gradient, variable, learning_rate):
        """`v = momentum * v + d;  w = w - lr * v`."""
        i, w, g, lr = self._symbols(gradient, variable, learning_rate)
        decay = self._decay_of(i)
        d = g + decay * w if decay else g
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self._velocities[i].value.handle,
            lr=lr,
            grad=d,
            momentum=tf.constant(self.momentum),
        )


class FusedLARS(LARS):
    """The paper's update with the step in one kernel of TensorFlow."""

    def update_step(self, gradient, variable, learning_rate):
        """`v = momentum * v - lr * r * d;  w = w + v`."""
        i, w, g, lr = self._symbols(gradient, variable, learning_rate)
        decay = self._decay_of(i)
        d = g + decay * w if decay else g
        r = self._trust_ratio(i, w, g, d, decay, lr)
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self._velocities[i].value.handle,
            lr=lr * r,
            grad=d,
            momentum=tf.constant(self.momentum),
        )


class FusedLAMB(LAMB):
    """Both moments in one kernel, the corrections of bias in scalars, the step in one kernel."""

    def update_step(self, gradient, variable, learning_rate):
        """`u = scale * x`, with the scale apart: two passes over the moments fewer."""
        i, w, g, lr = self._symbols(gradient, variable, learning_rate)
        m, v, decay = self._first[i], self._second[i], self._decay_of(i)
        zero, one = tf.constant(0.0), tf.constant(1.0)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=m.value.handle,
            v=v.value.handle,
            beta1_power=zero,
            beta2_power=zero,
            lr=zero,
            beta1=tf.constant(self.beta_1),
            beta2=tf.constant(self.beta_2),
            epsilon=one,
            grad=g,
        )
        c_1, c_2 = self._corrections(self.beta_1, self.beta_2, "float32")
        scale = ops.sqrt(c_2) / c_1
        x = ops.convert_to_tensor(m) / (ops.sqrt(v) + self.epsilon * ops.sqrt(c_2))
        if decay:
            x = x + (decay / scale) * w
        r = 1.0
        if self._exemptions[i].adapted:
            r = norm(w) / (scale * norm(x))
        tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=lr * r * scale, delta=x)


# Rates at which the weights hardly move: it is the time that is asked for.
RULES: dict[str, dict[str, Callable[[], keras.optimizers.Optimizer]]] = {
    "MomentumSGD": {
        "plain": lambda: MomentumSGD(1e-6, weight_decay=1e-4),
        "fused": lambda: FusedMomentumSGD(1e-6, weight_decay=1e-4),
    },
    "LARS": {
        "plain": lambda: LARS(1e-4, weight_decay=1e-4),
        "fused": lambda: FusedLARS(1e-4, weight_decay=1e-4),
    },
    "LAMB": {
        "plain": lambda: LAMB(1e-6, weight_decay=0.01),
        "fused": lambda: FusedLAMB(1e-6, weight_decay=0.01),
    },
}


def make_model(side: int) -> keras.Model:
    """ResNet-50 for square pictures of `side` px."""
    images = ImageFacts(
        shape=(side, side, 3), classes=1000, pixel_mean=(127.5,) * 3, pixel_std=(64.0,) * 3
    )
    return make_network(ModelSpec(architecture="resnet50"), images, seed=0)


def make_steps(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, images: int, side: int
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The compiled whole step, and its update alone."""
    pictures = tf.random.stateless_uniform([images, side, side, 3], [1, 2], 0.0, 255.0)
    labels = tf.random.stateless_uniform([images], [3, 4], 0, 1000, tf.int32)
    variables = model.trainable_variables
    optimizer.build(variables)
    stand_ins = [1e-3 * tf.ones(v.shape) for v in variables]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            logits = model(pictures, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)

    @tf.function
    def update():
        optimizer.apply(stand_ins, variables)

    return step, update


def seconds(action: Callable[[], None]) -> tuple[float, float]:
    """CPU and wall time of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [round(v, 4) for v in statistics.quantiles(values, n=4, method="inclusive")]


def compare(plain: Callable[[], None], fused: Callable[[], None], rounds: int) -> dict:
    """Milliseconds of both and quartiles of their quotients."""
    times = {"plain": [], "fused": []}
    both = {"plain": plain, "fused": fused}
    for action in both.values():  # traces, then fills the caches
        action()
        action()
    for number in range(rounds):
        for name in sorted(both, reverse=number % 2 == 0):
            times[name].append(seconds(both[name]))
    result = {}
    for place, clock in enumerate(("cpu", "wall")):
        pairs = [(p[place], f[place]) for p, f in zip(times["plain"], times["fused"], strict=True)]
        for name, column in zip(("plain", "fused"), zip(*pairs, strict=True), strict=True):
            result[f"{name}_{clock}_ms"] = round(1000 * statistics.median(column), 2)
        result[f"{clock}_plain_to_fused"] = quartiles([p / f for p, f in pairs])
    return result


def measure_case(case: str, rounds: int | None) -> list[dict]:
    """One row a rule."""
    images, side, usual, _ = CASES[case]
    model, rows = make_model(side), []
    for rule, forms in RULES.items():
        made = {name: make_steps(model, make(), images, side) for name, make in forms.items()}
        step = compare(made["plain"][0], made["fused"][0], rounds or usual)
        update = compare(made["plain"][1], made["fused"][1], 31)
        saved = (update["plain_cpu_ms"] - update["fused_cpu_ms"]) / step["fused_cpu_ms"]
        rows.append(
            {
                "case": case,
                "rule": rule,
                "step": step,
                "update_alone": update,
                "update_share_of_step": round(saved, 4),
            }
        )
        print(format_row(rows[-1]), flush=True)
        rows[-1]["peak_mb"] = {name: measure_memory(case, rule, name) for name in forms}
        print(f"  peak of memory, MB: {rows[-1]['peak_mb']}", flush=True)
    return rows


def measure_memory(case: str, rule: str, form: str) -> int:
    """Megabytes at the peak of a process that makes two steps."""
    command = [sys.executable, __file__, "--memory", case, rule, form]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def run(rounds: int | None, idle: bool) -> dict:
    """The whole record."""
    rows = [row for case in CASES for row in measure_case(case, rounds)]
    decisive = [row for row in rows if row["case"] == next(iter(CASES))]
    return {
        "what": "a whole training step of ResNet-50, float32, graph mode: plain and fused update",
        "date": date.today().isoformat(),
        "machine": "idle" if idle else "not idle: other work ran beside; quotients within a round",
        "hardware": {"cpu": run_folder.processor(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
        "cases": {
            name: {"images": images, "side_px": side, "rounds": rounds or usual, "why": why}
            for name, (images, side, usual, why) in CASES.items()
        },
        "limit": LIMIT,
        "fused_kernels_stay_for": [
            row["rule"] for row in decisive if row["step"]["cpu_plain_to_fused"][1] > LIMIT
        ],
        "rows": rows,
    }


def format_row(row: dict) -> str:
    """One line of the table."""
    step, update = row["step"], row["update_alone"]
    low, middle, high = step["cpu_plain_to_fused"]
    return (
        f"| {row['case']} | {row['rule']} | {step['plain_cpu_ms']:.0f} | "
        f"{step['fused_cpu_ms']:.0f} | {middle:.3f} ({low:.3f} to {high:.3f}) | "
        f"{step['wall_plain_to_fused'][1]:.3f} | {update['plain_cpu_ms']:.1f} | "
        f"{update['fused_cpu_ms']:.1f} | {100 * row['update_share_of_step']:.1f} % |"
    )


def main() -> None:
    """Measures, prints, and writes the record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="steps of each form, in place of 9 and 41")
    parser.add_argument("--idle", action="store_true", help="nothing else runs on the machine")
    parser.add_argument("--out", type=Path, help="where to write the record as JSON")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    tf.get_logger().setLevel("ERROR")  # one function a form is meant, not a retracing
    if arguments.memory:
        case, rule, form = arguments.memory
        images, side, *_ = CASES[case]
        step, _ = make_steps(make_model(side), RULES[rule][form](), images, side)
        for _ in range(2):
            step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)
        return
    print(
        "| case | rule | plain CPU ms | fused CPU ms | plain / fused, quartiles | wall | "
        "update plain | update fused | of the step |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    record = run(arguments.rounds, arguments.idle)
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
