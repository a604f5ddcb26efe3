"""Time of an update of the digits ResNet with K-FAC and Muon, beside momentum SGD.

    python tools/benchmark_update.py                      # prints the table
    python tools/benchmark_update.py --out tools/records/benchmark_update.json

The whole update of the training step: forward, backward, statistics, weights. A round gives every
rule as many updates as K-FAC has from one refresh to the next, in turn and in the other order in
every second round, so that a busy machine slows all of them; the ratio to momentum SGD is taken
within a round, and the record has its median and quartiles. Run it on an idle machine.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone as it is

import keras
import tensorflow as tf

from tf_largebatch import KFAC, BatchPlan, MomentumSGD, Muon
from tf_largebatch.models.network import make_network
from tf_largebatch.records import run_folder
from tf_largebatch.records.datasets import ImageFacts
from tf_largebatch.records.model_spec import ModelSpec
from tf_largebatch.training.step import TrainingStep

BATCH, UPDATES = 256, 10  # of a round: one refresh of K-FAC and nine updates without
DIGITS = (8, 8, 1)
REFERENCE = "momentum SGD"
RULES = {
    REFERENCE: lambda: MomentumSGD(1e-3, weight_decay=1e-4),
    "K-FAC, refresh every 10": lambda: KFAC(1e-4, damping=1e-2, refresh_updates=10),
    "K-FAC, refresh every 1": lambda: KFAC(1e-4, damping=1e-2, refresh_updates=1),
    "Muon": lambda: Muon(1e-4, weight_decay=1e-4),
}
LIMITS = {"K-FAC, refresh every 10": 1.5, "Muon": 1.3}


def make_work(make, batch: int):
    """A call that runs the updates of a round on data that cost next to nothing."""
    facts = ImageFacts(shape=DIGITS, classes=10, pixel_mean=(8.0,), pixel_std=(6.0,))
    step = TrainingStep(
        make_network(ModelSpec(architecture="digits_resnet"), facts, seed=0),
        make(),
        loss=lambda y, z: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z),
        plan=BatchPlan(global_batch=batch, train_examples=10 * batch),
        strategy=tf.distribute.get_strategy(),
    )
    images = tf.random.stateless_uniform([batch, *facts.shape], [1, 2], 0, 16)
    labels = tf.random.stateless_uniform([batch], [3, 4], 0, facts.classes, tf.int32)
    iterator = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    return lambda: step.run(iterator, tf.constant(UPDATES)).numpy()


def measure(works: dict, rounds: int) -> list[dict]:
    """One row a rule."""
    wall, cpu = {name: [] for name in works}, {name: [] for name in works}
    for number in range(rounds + 2):  # the first two trace, and fill the caches
        for name in list(works)[:: 1 if number % 2 else -1]:
            start, own = time.perf_counter(), time.process_time()
            works[name]()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - own)
    rows = []
    for name in works:
        row = {"rule": name}
        for what, times in (("wall", wall), ("cpu", cpu)):
            pairs = zip(times[name][2:], times[REFERENCE][2:], strict=True)
            low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
            row[f"{what}_ms"] = round(1000 * statistics.median(times[name][2:]) / UPDATES, 2)
            row[f"{what}_ratio"] = round(middle, 3)
            row[f"{what}_quartiles"] = [round(low, 3), round(high, 3)]
        rows.append({**row, "limit": LIMITS.get(name)})
    return rows


def run(rounds: int, batch: int) -> dict:
    """The whole record."""
    load = os.getloadavg()[0]
    works = {name: make_work(make, batch) for name, make in RULES.items()}
    return {
        "what": "one update of the digits ResNet by the training step, and its ratio to that of "
        "momentum SGD within rounds",
        "date": date.today().isoformat(),
        "batch": batch,
        "updates_per_round": UPDATES,
        "rounds": rounds,
        "hardware": {"cpu": run_folder.processor(), "cores": len(os.sched_getaffinity(0))},
        "load_average_before": round(load, 1),
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
        "rows": measure(works, rounds),
    }


def format_table(record: dict) -> str:
    """The record as a Markdown table."""
    lines = ["| rule | ms | ratio | quartiles | CPU ratio | at most |", "|---|---|---|---|---|---|"]
    for row in record["rows"]:
        low, high = row["wall_quartiles"]
        lines.append(
            f"| {row['rule']} | {row['wall_ms']} | {row['wall_ratio']} | {low} to {high} | "
            f"{row['cpu_ratio']} | {row['limit'] or ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, and writes the record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=31, help="of each rule (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=BATCH, help="images (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="where to write the record as JSON")
    arguments = parser.parse_args()
    record = run(max(arguments.rounds, 2), arguments.batch)
    print(format_table(record))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
