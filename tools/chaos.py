"""Kills random workers at random moments, and checks that the training ends as if nothing had been.

    python tools/chaos.py --kills 20 --out tools/records/chaos.json

A digits miniature is trained twice on two workers of this machine: once undisturbed, and once while
SIGKILL hits a random worker at a random moment, start-up included, until all kills are spent. The
launcher restarts the workers and they continue from the newest checkpoint. Weights and training
curve of the two runs are compared bit for bit. Exit status 1 if they differ. Linux only.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RECIPE = "tf_largebatch.recipes.goyal_256"
# Batch 32, so that a worker's 16 images are two of the recipe's batch-norm batches of 8.
SETTINGS = ["--set=global_batch=32", "--seed=11", "--checkpoint-updates=20"]


class Launched:
    """One `tf-largebatch launch`, watched through its messages.

    Args:
        folder: the run folder.
        epochs: length of the training.
        restarts: as the launcher's flag.
    """

    def __init__(self, folder: Path, *, epochs: float, restarts: int):
        arguments = ["--workers", "2", "--restarts", str(restarts), "--grace", "5"]
        drop = f"--set=schedule.drop_epochs={epochs / 2:g},{epochs:g}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tf_largebatch.launch", *arguments, "--", "-m", RECIPE]
            + ["--run-dir", str(folder), f"--set=epochs={epochs:g}", drop, *SETTINGS],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.starts = 0  # attempts whose workers exist
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            self.starts += "[launch] 2 workers, ports" in line

    def workers(self) -> dict[int, int]:
        """Process number of each worker that lives, by rank."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"\nPPid:\t{self.process.pid}\n" not in (process / "status").read_text():
                    continue
                environment = (process / "environ").read_text().split("\0")
            except OSError:  # it has just ended
                continue
            for entry in environment:
                if entry.startswith("TF_CONFIG="):
                    found[json.loads(entry[10:])["task"]["index"]] = int(process.name)
        return found


def newest_update(folder: Path) -> int:
    """The update of the newest checkpoint, 0 if there is none."""
    found = (folder / "checkpoints").glob("ckpt-*.index")
    return max((int(path.stem.removeprefix("ckpt-")) for path in found), default=0)


def disturb(launched: Launched, folder: Path, *, kills: int, longest: float, seed: int) -> list:
    """Kills one worker of each attempt; returns what was killed and where the run stood."""
    rng, done = random.Random(seed), []
    for number in range(kills):
        while launched.starts <= number and launched.process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, longest))
        rank, living = rng.randrange(2), launched.workers()
        if rank not in living or launched.process.poll() is not None:
            break
        os.kill(living[rank], signal.SIGKILL)
        done.append({"rank": rank, "newest_checkpoint": newest_update(folder)})
        print(
            f"kill {number + 1} of {kills}: worker {rank}, newest checkpoint at update "
            f"{done[-1]['newest_checkpoint']}",
            flush=True,
        )
    return done


def outcome(folder: Path) -> tuple[list, list]:
    """Weights and curve of a finished run."""
    import keras

    weights = keras.saving.load_model(folder / "model.keras").get_weights()
    ((row,),) = [json.loads((folder / "result.json").read_text())["rows"]]
    curve = [
        {name: value for name, value in epoch.items() if name != "seconds"}
        for epoch in row["runs"][0]["epochs"]
    ]
    return weights, curve


def run(arguments: argparse.Namespace, folder: Path) -> dict:
    """The whole record."""
    import numpy as np

    started = time.monotonic()
    calm = Launched(folder / "calm", epochs=arguments.epochs, restarts=0)
    if calm.process.wait():
        sys.exit("\n".join(calm.lines[-5:]))
    calm_seconds = time.monotonic() - started
    print(f"undisturbed: {calm_seconds:.0f} s", flush=True)

    started = time.monotonic()
    chaos = Launched(folder / "chaos", epochs=arguments.epochs, restarts=arguments.kills + 5)
    killed = disturb(
        chaos,
        folder / "chaos",
        kills=arguments.kills,
        longest=arguments.longest,
        seed=arguments.seed,
    )
    if chaos.process.wait():
        sys.exit("\n".join(chaos.lines[-5:]))
    (weights, curve), (expected, expected_curve) = (
        outcome(folder / name) for name in ("chaos", "calm")
    )
    return {
        "what": "a miniature on two workers, killed at random and restarted, beside the same one "
        "undisturbed",
        "date": date.today().isoformat(),
        "recipe": RECIPE.rpartition(".")[2],
        "epochs": arguments.epochs,
        "updates": curve[-1]["update"],
        "kills": len(killed),
        "killed": killed,
        "restarts": sum("] restart " in line for line in chaos.lines),
        "weights_identical": all(
            np.array_equal(a, b) for a, b in zip(weights, expected, strict=True)
        ),
        "curves_identical": curve == expected_curve,
        "undisturbed_seconds": round(calm_seconds),
        "disturbed_seconds": round(time.monotonic() - started),
    }


def main() -> None:
    """Runs both, prints the outcome, and writes the record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="default: %(default)s")
    parser.add_argument(
        "--epochs", type=float, default=90.0, help="of 40 updates each (default: %(default)g)"
    )
    parser.add_argument(
        "--longest",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds after a start within which the kill comes (default: %(default)g)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the kills (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="where to write the record as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = run(arguments, Path(folder))
    print(json.dumps({k: v for k, v in record.items() if k != "killed"}, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if record["kills"] < arguments.kills:
        sys.exit(f"the training ended after {record['kills']} kills: give it more --epochs")
    if not (record["weights_identical"] and record["curves_identical"]):
        sys.exit("the disturbed run ended differently")


if __name__ == "__main__":
    main()
