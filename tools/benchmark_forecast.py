"""Is the forecast right on the machine that was measured? 1, 2 and 4 workers on loopback.

    python tools/benchmark_forecast.py                      # prints the table
    python tools/benchmark_forecast.py --out tools/records/benchmark_forecast.json

`measure_speed` times one process alone and all-reduces between processes that do nothing else;
`planning.measured` makes of it the time of an update of K workers, which share the cores; then K
workers train and are timed. Two networks: a convnet whose update is mostly compute, and a dense one
whose update is mostly all-reduce. Nothing else should run.
"""

import argparse
import os
import sys
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone as it is

import benchmark_engine

from tf_largebatch.planning.measured import update_time
from tf_largebatch.records import run_folder
from tf_largebatch.records.files import write_json
from tf_largebatch.records.quiet import import_tensorflow

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 0.20
WORKERS = (1, 2, 4)
GLOBAL_BATCHES = (128, 256)


def make_model(name: str):
    """The convnet of the engine's benchmark, or a dense net of 4.9 million weights."""
    if name == "convnet":
        return benchmark_engine.make_model()
    import keras

    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(width, activation="relu") for width in (1024, 1024, 640)]
    shape = keras.Input(benchmark_engine.IMAGE)
    return keras.Sequential([shape, keras.layers.Flatten(), *hidden, keras.layers.Dense(10)])


def work(name: str, replica_batch: int, out: Path) -> None:
    """One worker: times updates of the whole team."""
    from tf_largebatch.optimizers import MomentumSGD
    from tf_largebatch.training.speed import enough, make_update, time_rounds
    from tf_largebatch.training.workers.team import Team

    team = Team()
    with team.strategy.scope():
        model, optimizer = make_model(name), MomentumSGD(1e-6, momentum=0.9)
    run = make_update(model, optimizer, replica_batch, team.strategy)
    seconds = time_rounds(run, team.any(enough(run)))[0]
    if team.chief:
        write_json(out, seconds)


def main() -> None:
    """Measures, forecasts, trains, compares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", nargs=2, metavar=("NETWORK", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    # The workers run from the clone too.
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    import_tensorflow()
    if arguments.worker:
        name, batch = arguments.worker
        return work(name, int(batch), arguments.out)
    from tf_largebatch.training.speed import ask_workers, measure_speed

    rows = []
    for name in ("convnet", "dense"):
        sizes = sorted({batch // k for batch in GLOBAL_BATCHES for k in WORKERS})
        several = [k for k in WORKERS if k > 1]
        speed = measure_speed(make_model(name), micro_batches=sizes, workers=several)
        for batch in GLOBAL_BATCHES:
            for workers in WORKERS:
                forecast = update_time(speed, workers, batch // workers)
                command = [__file__, "--worker", name, str(batch // workers), "--out"]
                measured = ask_workers(workers, command)
                rows.append(
                    {
                        "network": name,
                        "workers": workers,
                        "global_batch": batch,
                        "forecast_ms": round(1e3 * forecast.seconds, 2),
                        "of_it_all_reduce_ms": round(1e3 * forecast.exposed, 2),
                        "measured_ms": round(1e3 * measured, 2),
                        "off_by": round(forecast.seconds / measured - 1, 3),
                    }
                )
                print(rows[-1], flush=True)
    facts = run_folder.environment()
    record = {
        "what": __doc__.split("\n")[0],
        "date": date.today().isoformat(),
        "limit": LIMIT,
        "largest_error": max(abs(row["off_by"]) for row in rows),
        "hardware": {"cpu": facts["processor"], "cores": facts["cores"]},
        "load_average": os.getloadavg()[0],
        "versions": facts["versions"],
        "rows": rows,
    }
    print(f"largest error {record['largest_error']:.0%}, limit {LIMIT:.0%}")
    if arguments.out:
        write_json(arguments.out, record)


if __name__ == "__main__":
    main()
