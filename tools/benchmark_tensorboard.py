"""What watching a run costs: the same updates with and without TensorBoard, in turn.

    python tools/benchmark_tensorboard.py                      # prints the table
    python tools/benchmark_tensorboard.py --out tools/records/benchmark_tensorboard.json

A convnet with LARS runs blocks of 20 updates: alone (`TrainingStep.run`, the weight norm), and as
the loop runs a block that is watched: the wait for data, a look at the layers, and everything that
`TensorBoardScalars` writes. Each round has one block of each, in alternating order; the ratio is
taken within rounds, of wall time and of the process's own CPU time, which other programs on the
machine disturb less. A run looks at its layers once in 20 updates or less often: this is the most
that it costs.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone as it is

BATCH, IMAGE, CLASSES = 24, (32, 32, 3), 10


def make_step():
    """The engine over a convnet, and endless batches that cost nothing."""
    import keras
    import tensorflow as tf

    from tf_largebatch.optimizers import LARS
    from tf_largebatch.records.batching import BatchPlan
    from tf_largebatch.training.step import TrainingStep

    keras.utils.set_random_seed(0)
    layers = [keras.Input(IMAGE)]
    for number, filters in enumerate((32, 32, 64, 64, 128, 128, 128, 128)):
        layers += [
            keras.layers.Conv2D(
                filters, 3, strides=2 if number in (2, 4) else 1, padding="same", use_bias=False
            ),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    model = keras.Sequential(
        [*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES)]
    )
    step = TrainingStep(
        model,
        LARS(0.1, weight_decay=1e-4, record_trust_ratio=True),
        loss=lambda y, z: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z),
        plan=BatchPlan(global_batch=BATCH, train_examples=50_000),
        strategy=tf.distribute.get_strategy(),
    )
    images = tf.random.stateless_normal([BATCH, *IMAGE], [1, 2])
    labels = tf.random.stateless_uniform([BATCH], [3, 4], 0, CLASSES, tf.int32)
    return step, iter(tf.data.Dataset.from_tensors((images, labels)).repeat())


def measure(rounds: int, folder: Path) -> dict:
    """Milliseconds an update, both ways."""
    import keras
    import tensorflow as tf

    from tf_largebatch.review.tensorboard.layer_changes import LayerChanges
    from tf_largebatch.review.tensorboard.scalars import TensorBoardScalars
    from tf_largebatch.training import loop
    from tf_largebatch.training.checkpoint import Progress

    step, iterator = make_step()
    board = TensorBoardScalars(folder, every=loop.BLOCK, plan_markdown="", hparams={})
    watchers = keras.callbacks.CallbackList([board], model=step.model)
    watchers.on_train_begin({})
    progress, layers = Progress(), LayerChanges(step.model, step.optimizer)

    def alone():
        step.run(iterator, tf.constant(loop.BLOCK)).numpy()
        float(step.weight_norm())

    def watched():
        loop._run_block(step, iterator, progress, loop.BLOCK, watchers, layers)

    times, cpu = {alone: [], watched: []}, {alone: [], watched: []}
    for number in range(rounds + 1):
        for work in (alone, watched) if number % 2 else (watched, alone):
            start, own = time.perf_counter(), time.process_time()
            work()
            cpu[work].append(time.process_time() - own)
            times[work].append(1000.0 * (time.perf_counter() - start) / loop.BLOCK)
    watchers.on_train_end({})
    plain, seen = times[alone][1:], times[watched][1:]  # the first ones compile
    ratios = [b / a for a, b in zip(plain, seen, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "tensors": len(step.model.trainable_variables),
        "rounds": rounds,
        "updates_per_block": loop.BLOCK,
        "alone_ms": round(statistics.median(plain), 2),
        "watched_ms": round(statistics.median(seen), 2),
        "ratio": round(statistics.median(ratios), 4),
        "cpu_ratio": round(
            statistics.median(b / a for a, b in zip(cpu[alone][1:], cpu[watched][1:], strict=True)),
            4,
        ),
        "ratio_quartiles": [round(low, 4), round(high, 4)],
        "writing_ms_a_block": round(_writing(board, folder), 2),
    }


def _writing(board, folder: Path) -> float:
    """Milliseconds in which a block's points are made and written, alone."""
    paths = [v.path for v in board.model.trainable_variables]
    ratios = {path: 0.001 * (i + 1) for i, path in enumerate(paths)}
    board._folder = folder / "writing"
    board.on_train_begin({})
    logs = {"loss": 1.0, "learning_rate": 1.0, "grad_norm": 1.0, "images_seen": 1}
    logs |= {"images_per_sec": 1.0, "step_ms": 1.0, "input_wait_pct": 1.0, "global_batch": BATCH}
    times = []
    for block in range(30):
        start = time.perf_counter()
        for i in range(20):
            last = {"weight_norm": 1.0, "update_ratio": ratios, "trust_ratio": ratios}
            board.on_train_batch_end(20 * block + i, logs | (last if i == 19 else {}))
        times.append(1000.0 * (time.perf_counter() - start))
    board.on_train_end({})
    return statistics.median(times)


def run(rounds: int) -> dict:
    """The whole record."""
    import keras
    import tensorflow as tf

    from tf_largebatch.records import run_folder

    with tempfile.TemporaryDirectory() as folder:
        result = measure(rounds, Path(folder))
    return {
        "what": "updates with and without everything that TensorBoard shows of them",
        "date": date.today().isoformat(),
        "hardware": {"cpu": run_folder.processor(), "cores": len(os.sched_getaffinity(0))},
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
        **result,
    }


def format_table(record: dict) -> str:
    """The record as a Markdown table."""
    low, high = record["ratio_quartiles"]
    return "\n".join(
        [
            f"| update of {record['tensors']} tensors | ms |",
            "|---|---|",
            f"| alone | {record['alone_ms']} |",
            f"| watched | {record['watched_ms']} |",
            f"| ratio within rounds | {record['ratio']} (quartiles {low} to {high}) |",
            f"| ratio of CPU time | {record['cpu_ratio']} |",
            f"| a block's points, in {record['updates_per_block']} updates | "
            f"{record['writing_ms_a_block']} |",
        ]
    )


def main() -> None:
    """Measures, prints, and writes the record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="where to write the record as JSON")
    arguments = parser.parse_args()
    record = run(arguments.rounds)
    print(format_table(record))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
