"""Time of one optimizer update over the tensors of ResNet-50: ours beside Keras's own.

    python tools/benchmark_optimizers.py                      # prints the table
    python tools/benchmark_optimizers.py --out tools/records/benchmark_optimizers.json

Every round runs one update of every optimizer in turn, so that a busy machine slows all of them.
CPU time (all cores of this process) is the stable column; the record holds medians over the rounds.
The floor is the traffic that an update cannot avoid, at the bandwidth of a plain copy on one core.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone as it is

import keras
import numpy as np
import tensorflow as tf

from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD, RMSpropSGD
from tf_largebatch.records import run_folder

REFERENCE = "keras SGD momentum"
RESNET50_TENSORS = 161
RESNET50_PARAMETERS = 25_557_032

# Passes over one copy of the weights that the rule itself needs: reads of gradient, weight and
# slots, writes of weight and slots, and one more read of each tensor whose norm comes first.
FLOOR_PASSES = {"momentum SGD": 5, "LARS": 7, "LAMB": 10}

OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    REFERENCE: lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "keras SGD momentum, decay": lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-4),
    "keras Adam": lambda: keras.optimizers.Adam(1e-3),
    "keras Lamb": lambda: keras.optimizers.Lamb(1e-3),
    "keras Lamb, decay": lambda: keras.optimizers.Lamb(1e-3, weight_decay=0.01),
    "MomentumSGD, decay": lambda: MomentumSGD(0.1, weight_decay=1e-4),
    "LARS, decay": lambda: LARS(1.0, weight_decay=1e-4),
    "LARS outside, decay": lambda: LARS(1.0, weight_decay=1e-4, momentum_placement="outside"),
    "LARS, decay, record_trust_ratio": lambda: LARS(
        1.0, weight_decay=1e-4, record_trust_ratio=True
    ),
    "LAMB, decay": lambda: LAMB(1e-3, weight_decay=0.01),
    "RMSpropSGD, decay": lambda: RMSpropSGD(
        0.1, center_updates=1000.0, period_updates=500.0, weight_decay=1e-4
    ),
}


def resnet50_shapes() -> list[tuple[int, ...]]:
    """Shapes of the trainable tensors of ResNet-50 with 1000 classes, convolutions without bias."""
    shapes = [(7, 7, 3, 64), (64,), (64,)]
    width_in = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            convolutions = [(1, 1, width_in, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            if block == 0:
                convolutions.append((1, 1, width_in, 4 * width))
            for shape in convolutions:
                shapes += [shape, shape[-1:], shape[-1:]]
            width_in = 4 * width
    return [*shapes, (2048, 1000), (1000,)]


def make_update(
    make: Callable[[], keras.optimizers.Optimizer], gradients: list[tf.Tensor], *, xla: bool
) -> Callable[[], None]:
    """A compiled update of fresh weights."""
    rng = np.random.default_rng(0)
    variables = [
        keras.Variable(0.05 * rng.standard_normal(g.shape, np.float32), name=f"tensor_{i}")
        for i, g in enumerate(gradients)
    ]
    optimizer = make()
    optimizer.build(variables)

    @tf.function(jit_compile=xla)
    def update():
        optimizer.apply(gradients, variables)

    return update


def measure(updates: dict[str, Callable[[], None]], rounds: int) -> list[dict]:
    """Median and minimum of CPU and wall time in milliseconds, one row an optimizer."""
    for update in updates.values():  # traces, then fills the caches
        update()
        update()
    cpu = {name: [] for name in updates}
    wall = {name: [] for name in updates}
    for _ in range(rounds):
        for name, update in updates.items():
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            update()
            cpu[name].append(1000 * (time.process_time() - cpu_start))
            wall[name].append(1000 * (time.perf_counter() - wall_start))
    return [
        {
            "optimizer": name,
            "cpu_ms_median": round(statistics.median(cpu[name]), 2),
            "wall_ms_median": round(statistics.median(wall[name]), 2),
            "wall_ms_min": round(min(wall[name]), 2),
        }
        for name in updates
    ]


def copy_gigabytes_per_second() -> float:
    """Bytes read and written per second of CPU time by a copy much larger than any cache."""
    source = np.zeros(RESNET50_PARAMETERS, np.float32)
    target = np.ones_like(source)
    seconds = []
    for _ in range(15):
        start = time.process_time()
        np.copyto(target, source)
        seconds.append(time.process_time() - start)
    return 2 * source.nbytes / statistics.median(seconds) / 1e9


def run(rounds: int) -> dict:
    """The whole record."""
    shapes = resnet50_shapes()
    rng = np.random.default_rng(1)
    gradients = [tf.constant(1e-3 * rng.standard_normal(s, np.float32)) for s in shapes]
    bandwidth = copy_gigabytes_per_second()
    megabytes = 4 * RESNET50_PARAMETERS / 1e6
    rows = []
    for mode in ("graph", "xla"):
        updates = {
            name: make_update(make, gradients, xla=mode == "xla")
            for name, make in OPTIMIZERS.items()
        }
        measured = measure(updates, rounds)
        base = next(row for row in measured if row["optimizer"] == REFERENCE)["cpu_ms_median"]
        for row in measured:
            ratio = round(row["cpu_ms_median"] / base, 2)
            rows.append({"mode": mode, **row, "cpu_ratio_to_keras_sgd": ratio})
    return {
        "what": "one optimizer update over the trainable tensors of ResNet-50, float32",
        "date": date.today().isoformat(),
        "tensors": len(shapes),
        "parameters": sum(int(np.prod(s)) for s in shapes),
        "rounds": rounds,
        "hardware": {"cpu": run_folder.processor(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
        "copy_gb_per_cpu_second": round(bandwidth, 1),
        "floor_cpu_ms": {
            name: round(passes * megabytes / bandwidth, 1) for name, passes in FLOOR_PASSES.items()
        },
        "rows": rows,
    }


def format_table(record: dict) -> str:
    """The record as a Markdown table."""
    lines = [
        "| mode | optimizer | CPU ms | wall ms | wall min | CPU / Keras SGD |",
        "|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        lines.append(
            f"| {row['mode']} | {row['optimizer']} | {row['cpu_ms_median']:.1f} | "
            f"{row['wall_ms_median']:.1f} | {row['wall_ms_min']:.1f} | "
            f"{row['cpu_ratio_to_keras_sgd']:.2f} |"
        )
    for name, milliseconds in record["floor_cpu_ms"].items():
        lines.append(f"| floor | {name} | {milliseconds:.1f} | | | |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, and writes the record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31, help="updates of each optimizer")
    parser.add_argument("--out", type=Path, help="where to write the record as JSON")
    arguments = parser.parse_args()
    tf.get_logger().setLevel("ERROR")  # one function an optimizer is meant, not a retracing
    record = run(arguments.rounds)
    print(format_table(record))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
