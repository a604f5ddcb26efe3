"""Is the forecast right on the machine that was measured? 1, 2 and 4 workers on loopback.

    python tools/benchmark_forecast.py                      # prints the table
    python tools/benchmark_forecast.py --out tools/records/benchmark_forecast.json
    python tools/benchmark_forecast.py --render             # docs/planning.md from the record

`measure_speed` times updates, alone and in processes at once that send nothing, all-reduces
between processes that do nothing else, and updates with both; `planning.measured` makes of it the
time of an update of K workers; then K workers are started anew, train and are timed. All of it
several times in turn, since the speed of a machine drifts; each number is the median. Two networks,
each in processes of its own, as a user trains one: a convnet whose update is mostly compute, and a
dense one whose update is mostly all-reduce. Nothing else should run. Some 20 minutes on two cores.
"""

import argparse
import json
import os
import statistics
import sys
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone as it is

import benchmark_engine

from tf_largebatch.planning.measured import update_time
from tf_largebatch.records import run_folder
from tf_largebatch.records.files import write_json, write_text
from tf_largebatch.records.quiet import import_tensorflow

ROOT = Path(__file__).resolve().parents[1]
PAGE, RECORD = ROOT / "docs" / "planning.md", ROOT / "tools" / "records" / "benchmark_forecast.json"
BEGIN, END = "<!-- forecast -->\n", "<!-- end forecast -->"
LIMIT = 0.20
ROUNDS = 2  # of measuring and training
WORKERS = (1, 2, 4)
NETWORKS, BATCHES = ("convnet", "dense"), (128, 256)


def make_model(name: str):
    """The convnet of the engine's benchmark, or a dense net of 4.9 million weights."""
    if name == "convnet":
        return benchmark_engine.make_model()
    import keras

    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(width, activation="relu") for width in (1024, 1024, 640)]
    shape = keras.Input(benchmark_engine.IMAGE)
    return keras.Sequential([shape, keras.layers.Flatten(), *hidden, keras.layers.Dense(10)])


def work(name: str, out: Path) -> None:
    """One worker: times updates of the whole team, each batch in turn."""
    from tf_largebatch.optimizers import MomentumSGD
    from tf_largebatch.training.speed import make_update, time_in_turn
    from tf_largebatch.training.workers.team import Team

    team, runs = Team(), []
    for batch in BATCHES:
        with team.strategy.scope():
            model, optimizer = make_model(name), MomentumSGD(1e-6, momentum=0.9)
        runs.append(make_update(model, optimizer, batch // team.replicas, team.strategy))
    seconds = time_in_turn(runs, team)
    if team.chief:
        write_json(out, seconds)


def measure() -> list[dict]:
    """The rows of the record."""
    from tf_largebatch.training.speed import ask_workers, measure_speed

    forecasts, trained = {}, {}
    for _ in range(ROUNDS):
        for name in NETWORKS:
            sizes = sorted({batch // k for batch in BATCHES for k in WORKERS})
            speed = measure_speed(make_model(name), micro_batches=sizes, workers=WORKERS[1:])
            for k in WORKERS:
                told = ask_workers(k, [__file__, "--worker", name])
                for batch, seconds in zip(BATCHES, told, strict=True):
                    forecast = update_time(speed, k, batch // k)
                    forecasts.setdefault((name, batch, k), []).append(forecast)
                    trained.setdefault((name, batch, k), []).append(seconds)
    rows = []
    for (name, batch, k), found in forecasts.items():
        seconds = statistics.median(one.seconds for one in found)
        measured = statistics.median(trained[name, batch, k])
        rows.append(
            {
                "network": name,
                "workers": k,
                "global_batch": batch,
                "forecast_ms": round(1e3 * seconds, 2),
                "of_it_all_reduce_ms": round(
                    1e3 * statistics.median(one.exposed for one in found), 2
                ),
                "measured_ms": round(1e3 * measured, 2),
                "off_by": round(seconds / measured - 1, 3),
                "forecasts_ms": [round(1e3 * one.seconds, 2) for one in found],
                "trained_ms": [round(1e3 * one, 2) for one in trained[name, batch, k]],
            }
        )
    return rows


def rendered(record: dict) -> str:
    """The page with the record's numbers."""
    beyond = [row for row in record["rows"] if abs(row["off_by"]) > record["limit"]]
    named = [_name(row) for row in beyond]
    aim = f"the {record['limit']:.0%} that were the aim"
    lines = [
        f"On the machine that was measured ({record['hardware']['cores']} cores of "
        f"{record['hardware']['cpu']}), forecasts were at most "
        f"**{record['largest_error']:.0%}** off: "
        + (f"beyond {aim} for {'; '.join(named)}." if beyond else f"within {aim}."),
        "",
        "| network | workers | images an update | forecast, ms | of it all-reduce | trained, ms "
        "| off by |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in record["rows"]:
        lines.append(
            f"| {r['network']} | {r['workers']} | {r['global_batch']} | {r['forecast_ms']:.1f} "
            f"| {r['of_it_all_reduce_ms']:.1f} | {r['measured_ms']:.1f} | {r['off_by']:+.0%} |"
        )
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2]


def _name(row: dict) -> str:
    workers = "1 worker" if row["workers"] == 1 else f"{row['workers']} workers"
    return f"{row['network']}, {workers}, {row['global_batch']} images"


def main() -> None:
    """Measures, forecasts, trains, compares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--render", action="store_true", help="write the page, measure nothing")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.render:
        record = json.loads(RECORD.read_text(encoding="utf-8"))
        write_text(PAGE, rendered(record))
        return
    # The workers run from the clone too.
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    import_tensorflow()
    if arguments.worker:
        name, out = arguments.worker
        return work(name, Path(out))
    load, rows = os.getloadavg()[0], measure()
    facts = run_folder.environment()
    record = {
        "what": __doc__.split("\n")[0],
        "date": date.today().isoformat(),
        "limit": LIMIT,
        "largest_error": max(abs(row["off_by"]) for row in rows),
        "hardware": {"cpu": facts["processor"], "cores": facts["cores"]},
        "load_average_before": round(load, 2),
        "versions": facts["versions"],
        "rows": rows,
    }
    for row in rows:
        print(row)
    print(f"largest error {record['largest_error']:.0%}, limit {LIMIT:.0%}")
    if arguments.out:
        write_json(arguments.out, record)


if __name__ == "__main__":
    main()
