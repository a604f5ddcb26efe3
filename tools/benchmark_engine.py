"""What the training engine costs: beside Keras's `fit`, when it accumulates, and on two workers.

    python tools/benchmark_engine.py                      # prints the tables
    python tools/benchmark_engine.py --out tools/records/benchmark_engine.json

fit           a small convnet at batch 256: updates by `TrainingStep` and by Keras's `fit`, the same
              network, optimizer, data pipeline and number of updates per call, in turn; medians.
accumulation  a global batch of 1,024 in 1, 4, 16 and 64 micro-batches, beside separate updates of
              that micro-batch: images per second, and the peak memory of a process of its own.
workers       two workers on loopback with 128 images each, beside one process with 256, on the same
              cores; and the all-reduce of the same gradients alone.

A process of its own is started for each memory figure and for each worker. Linux.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone as it is

FIT_BATCH, UPDATES_PER_CALL = 256, 10
GLOBAL_BATCH, ACCUMULATIONS = 1024, (1, 4, 16, 64)
WORKERS, WORKER_BATCH = 2, 128
IMAGE, CLASSES = (32, 32, 3), 10


def make_model():
    """A convnet of 0.29 million weights; about 16 million multiply-adds an image."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input(IMAGE)]
    for filters in (32, 64, 128):
        layers += [
            keras.layers.Conv2D(filters, 3, strides=2 if filters > 32 else 1, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    layers += [keras.layers.Conv2D(128, 3, padding="same", activation="relu")]
    return keras.Sequential(
        [*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES)]
    )


def make_batches(batch: int):
    """Endless batches that cost next to nothing: what is measured is the update."""
    import tensorflow as tf

    images = tf.random.stateless_normal([batch, *IMAGE], [1, 2])
    labels = tf.random.stateless_uniform([batch], [3, 4], 0, CLASSES, tf.int32)
    return tf.data.Dataset.from_tensors((images, labels)).repeat()


def make_step(batch: int, micro_batch: int | None = None, strategy=None):
    """The engine over the convnet, and its iterator."""
    import keras
    import tensorflow as tf

    from tf_largebatch.records.batching import BatchPlan
    from tf_largebatch.training.step import TrainingStep

    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    plan = BatchPlan(
        global_batch=batch, train_examples=50_000, replicas=replicas, micro_batch=micro_batch
    )
    with strategy.scope():
        step = TrainingStep(
            make_model(),
            keras.optimizers.SGD(0.01, momentum=0.9),
            loss=lambda y, z: tf.nn.sparse_softmax_cross_entropy_with_logits(y, z),
            plan=plan,
            strategy=strategy,
        )
    batches = make_batches(plan.replica_batch)
    return step, iter(strategy.distribute_datasets_from_function(lambda _: batches))


def seconds(work) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare_with_fit(rounds: int) -> dict:
    """Milliseconds an update of both, in turn."""
    import keras
    import tensorflow as tf

    step, iterator = make_step(FIT_BATCH)
    model = make_model()
    model.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=UPDATES_PER_CALL,
        jit_compile=False,
    )
    # One long fit: starting one costs tens of milliseconds, which is not what is compared.
    times = {"engine": [], "fit": []}

    class Interleave(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            times["fit"].append(time.perf_counter() - self.start)
            work = seconds(lambda: step.run(iterator, tf.constant(UPDATES_PER_CALL)).numpy())
            times["engine"].append(work)

    model.fit(
        make_batches(FIT_BATCH),
        steps_per_epoch=(rounds + 2) * UPDATES_PER_CALL,
        callbacks=[Interleave()],
        shuffle=False,
        verbose=0,
    )
    ms = {k: 1000 * statistics.median(v[2:]) / UPDATES_PER_CALL for k, v in times.items()}
    return {
        "batch": FIT_BATCH,
        "rounds": rounds,
        "engine_ms": round(ms["engine"], 2),
        "keras_fit_ms": round(ms["fit"], 2),
        "engine_over_fit": round(ms["engine"] / ms["fit"], 3),
    }


def measure_accumulation(rounds: int) -> list[dict]:
    """Images per second of each accumulation, and of plain updates of its micro-batch, in turn."""
    import tensorflow as tf

    runs = {}
    for count in ACCUMULATIONS:
        micro = GLOBAL_BATCH // count
        runs[count, "accumulated"] = (*make_step(GLOBAL_BATCH, micro), 1)
        runs[count, "plain"] = (*make_step(micro), count)
    times = {key: [] for key in runs}
    for _ in range(rounds + 1):
        for key, (step, iterator, updates) in runs.items():
            work = seconds(lambda s=step, i=iterator, n=updates: s.run(i, tf.constant(n)).numpy())
            times[key].append(work)
    rows = []
    for count in ACCUMULATIONS:
        accumulated, plain = (
            GLOBAL_BATCH / statistics.median(times[count, kind][1:])
            for kind in ("accumulated", "plain")
        )
        rows.append(
            {
                "accumulation": count,
                "micro_batch": GLOBAL_BATCH // count,
                "images_per_s": round(accumulated),
                "plain_updates_images_per_s": round(plain),
                "overhead_pct": round(100 * (plain / accumulated - 1), 1),
                "peak_mb": peak_memory(count),
            }
        )
    return rows


def peak_memory(accumulation: int) -> int:
    """Peak memory in MB that a process of its own adds by training so."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory-of", str(accumulation)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


def print_memory(accumulation: int) -> None:
    """In that process: trains a little and prints by how much the peak rose."""
    import tensorflow as tf

    make_step(2)[0].run(iter(make_batches(2)), tf.constant(1)).numpy()  # all libraries are in
    before = _peak_kilobytes()
    step, iterator = make_step(GLOBAL_BATCH, GLOBAL_BATCH // accumulation)
    step.run(iterator, tf.constant(3)).numpy()
    print(round((_peak_kilobytes() - before) / 1024))


def _peak_kilobytes() -> int:
    """Of this program: `getrusage` would count the parent's memory from before it was started."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def measure_workers(rounds: int) -> dict:
    """Milliseconds an update on one process and on two, and of the all-reduce alone."""
    import tensorflow as tf

    step, iterator = make_step(WORKERS * WORKER_BATCH)
    alone = [
        seconds(lambda: step.run(iterator, tf.constant(UPDATES_PER_CALL)).numpy())
        for _ in range(rounds + 1)
    ]
    with socket.socket() as a, socket.socket() as b:
        for s in (a, b):
            s.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in (a, b)]
    processes = []
    for rank in range(WORKERS):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, "--worker", str(rounds)],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    texts = [process.communicate(timeout=600)[0] for process in processes]
    two = json.loads(texts[0].splitlines()[-1])
    one_ms = 1000 * statistics.median(alone[1:]) / UPDATES_PER_CALL
    return {
        "global_batch": WORKERS * WORKER_BATCH,
        "one_process_ms": round(one_ms, 2),
        "two_workers_ms": round(two["update_ms"], 2),
        "two_over_one": round(two["update_ms"] / one_ms, 3),
        "all_reduce_ms": round(two["all_reduce_ms"], 2),
        "gradient_mb": two["gradient_mb"],
    }


def print_worker(rounds: int) -> None:
    """In a worker: times updates, then the all-reduce of gradients alone."""
    import tensorflow as tf

    from tf_largebatch.training.workers.strategy import make_strategy

    strategy = make_strategy()
    step, iterator = make_step(WORKERS * WORKER_BATCH, strategy=strategy)
    updates = [
        seconds(lambda: step.run(iterator, tf.constant(UPDATES_PER_CALL)).numpy())
        for _ in range(rounds + 1)
    ]
    shapes = [v.shape for v in step.model.trainable_variables]

    @tf.function
    def reduce_alone():
        def several():
            tensors = [tf.ones(shape) for shape in shapes]
            for _ in range(UPDATES_PER_CALL):
                tensors = step._sum_over_replicas(tensors)
            return tf.add_n([tf.reduce_sum(t) for t in tensors])

        return strategy.reduce("SUM", strategy.run(several), axis=None)

    alone = [seconds(lambda: reduce_alone().numpy()) for _ in range(rounds + 1)]
    values = sum(int(tf.size(tf.zeros(shape))) for shape in shapes)
    print(
        json.dumps(
            {
                "update_ms": 1000 * statistics.median(updates[1:]) / UPDATES_PER_CALL,
                "all_reduce_ms": 1000 * statistics.median(alone[1:]) / UPDATES_PER_CALL,
                "gradient_mb": round(4 * values / 1e6, 2),
            }
        ),
        flush=True,
    )
    # A worker that leaves first makes the other one abort.
    reduce_alone()
    time.sleep(2)
    os._exit(0)


def run(rounds: int) -> dict:
    """The whole record."""
    import keras
    import tensorflow as tf

    from tf_largebatch.records import run_folder

    tf.get_logger().setLevel("ERROR")
    record = {
        "what": "the training engine: beside Keras's fit, accumulating, on two workers",
        "date": date.today().isoformat(),
        "network": f"a convnet of {make_model().count_params():,} weights on 32 x 32 x 3",
        "hardware": {"cpu": run_folder.processor(), "cores": len(os.sched_getaffinity(0))},
        "versions": {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    }
    for name, measure in (
        ("fit", compare_with_fit),
        ("accumulation", measure_accumulation),
        ("workers", measure_workers),
    ):
        print(f"{name} ...", file=sys.stderr, flush=True)
        record[name] = measure(rounds)
    return record


def format_tables(record: dict) -> str:
    """The record as Markdown tables."""
    fit, workers = record["fit"], record["workers"]
    lines = [
        "| update of 256 images | ms |",
        "|---|---|",
        f"| Keras fit | {fit['keras_fit_ms']} |",
        f"| engine | {fit['engine_ms']} ({fit['engine_over_fit']} x) |",
        "",
        "| accumulation | micro-batch | images/s | plain updates of it | overhead | peak MB |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r['accumulation']} | {r['micro_batch']} | {r['images_per_s']:,} | "
            f"{r['plain_updates_images_per_s']:,} | {r['overhead_pct']} % | {r['peak_mb']} |"
            for r in record["accumulation"]
        ),
        "",
        f"| update of {workers['global_batch']} images | ms |",
        "|---|---|",
        f"| one process | {workers['one_process_ms']} |",
        f"| two workers on the same cores | {workers['two_workers_ms']} "
        f"({workers['two_over_one']} x) |",
        f"| all-reduce of {workers['gradient_mb']} MB alone | {workers['all_reduce_ms']} |",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, and writes the record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="where to write the record as JSON")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print_memory(arguments.memory_of)
    elif arguments.worker:
        print_worker(arguments.worker)
    else:
        record = run(arguments.rounds)
        print(format_tables(record))
        if arguments.out:
            arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
