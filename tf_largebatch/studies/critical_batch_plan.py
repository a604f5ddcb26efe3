"""The design of `critical_batch` and its plan: searches first, then seed by seed."""

import functools
import math
from collections.abc import Iterator
from typing import Any

from tf_largebatch.studies.study import FINAL, TUNE, Results, Scale, Trial
from tf_largebatch.studies.target_search import TargetSearch, five_digits
from tf_largebatch.studies.tuning import TUNING_SEEDS, Search, grid, search_points, search_rates

DESIGN: dict[str, Any] = {
    "hidden": [128],  # ours: the paper's fully connected network has three of 1,024
    "targets_pct": {"mnist": 3.0, "fashion_mnist": 13.0},  # ours, on the held-out examples
    "batches": [2**n for n in range(4, 14)],
    "space": {"rate": [0.002, 1.0], "one_minus_momentum": [0.03, 1.0]},  # momentum as the paper's
    "points": 24,  # the same at every batch; the paper has 100
    "waves": [4, 4, 16],  # a wave ends where the best of those before it has been at the target
    "search_seed": 1_000,
    "finalists": 4,
    "budget": {"epochs": 5, "updates": 400},  # of a trial: the larger of the two
    "noise_batches": [64, 512, 4_096],
    "ends": {"perfect": [16, 128], "flat": [2_048, 8_192]},  # of C9
    "ladder": {
        "data": "fashion_mnist",
        "batches": [64, 256, 1_024, 4_096],
        "epochs": 10,
        "warmup_epochs_at_least": 5 / 144,  # of 10 at 64, so that it is 2.2 at 4,096 as 20 of 90
        "weight_decay": {"lamb": 0.01, "sgd": 1e-4},
        "rates": {"lamb": 0.0025, "sgd": 0.0125},  # the lowest of each grid
        "grid": 5,
        "widen": 3,
        "momentum": 0.9,
    },
}
QUICK: dict[str, Any] = {
    "batches": [16, 64, 256],
    "waves": [2, 1],
    "finalists": 1,
    "noise_batches": [64],
    "target_pct": 20.0,
    "updates": 160,
    "ladder": {"data": "mnist", "batches": [64, 256], "epochs": 1, "grid": 2, "widen": 0},
}
ROWS = {  # the rules of each row of the ladder: optimizer, exponent of the batch in the rate
    "lamb_root": ("lamb", 0.5),
    "sgd_root": ("sgd", 0.5),
    "sgd_linear": ("sgd", 1.0),
}
TRAIN_EXAMPLES = 55_000  # without those held out
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}


def of(name: str, scale: Scale) -> Any:
    """A constant of the design at this scale."""
    return QUICK[name] if scale.quick else DESIGN[name]


def ladder(scale: Scale) -> dict[str, Any]:
    """The constants of the ladder."""
    return {**DESIGN["ladder"], **(QUICK["ladder"] if scale.quick else {})}


def target_pct(data: str, scale: Scale) -> float:
    """The held-out error to reach."""
    return QUICK["target_pct"] if scale.quick else DESIGN["targets_pct"][data]


def data_of(scale: Scale) -> list[str]:
    """The data sets of the search."""
    return ["mnist"] if scale.quick else ["mnist", "fashion_mnist"]


@functools.cache
def points() -> tuple[dict[str, float], ...]:
    """Rate and momentum of each point of the search."""
    space = {name: (low, high) for name, (low, high) in DESIGN["space"].items()}
    found = search_points(space, DESIGN["points"], seed=DESIGN["search_seed"])
    return tuple(
        {"rate": five_digits(p["rate"]), "momentum": five_digits(1.0 - p["one_minus_momentum"])}
        for p in found
    )


def budget(batch: int, scale: Scale) -> int:
    """Updates of a trial at the most."""
    if scale.quick:
        return QUICK["updates"]
    whole = DESIGN["budget"]
    updates = max(whole["updates"], math.ceil(whole["epochs"] * TRAIN_EXAMPLES / batch))
    return 16 * math.ceil(updates / 16)  # small batches are trained up to 16 updates at a time


# The search at one batch.


@functools.cache
def _trial(
    data: str, batch: int, place: int, updates: int, scale: Scale, seed: int | None = None
) -> Trial:
    """One training to the target; without a seed of the search."""
    final = seed is not None
    name = f"{data}/b{batch:04d}-" + (f"s{seed}-p{place:02d}" if final else f"search-p{place:02d}")
    return Trial(
        name,
        {
            "kind": "target",
            "data": data,
            "batch": batch,
            **points()[place],
            "updates": updates,
            "target_pct": target_pct(data, scale),
            "seed": DESIGN["search_seed"] if seed is None else seed,
            "stage": FINAL if final else TUNE,
        },
    )


def cell(data: str, batch: int, scale: Scale) -> TargetSearch:
    """The search at one batch."""

    def make(place: int, updates: int, seed: int | None) -> Trial:
        return _trial(data, batch, place, updates, scale, seed)

    waves, finalists = of("waves", scale), of("finalists", scale)
    return TargetSearch(waves, finalists, [budget(batch, scale)], make)


def search(data: str, batch: int, results: Results, scale: Scale) -> tuple[list[Trial], list[int]]:
    """The trials of the search known so far, and its finalists, as `TargetSearch.search`."""
    return cell(data, batch, scale).search(results)


def fastest(
    data: str, batch: int, seed: int, results: Results, scale: Scale
) -> tuple[Trial, int] | None:
    """The seed's fastest final trial and its updates, as `TargetSearch.fastest`."""
    return cell(data, batch, scale).fastest(seed, results)


def noise_trial(data: str, batch: int, seed: int, results: Results, scale: Scale) -> Trial | None:
    """The noise scale along the seed's fastest run, once that is known."""
    found = fastest(data, batch, seed, results, scale)
    if found is None:
        return None
    trial, steps = found
    settings = trial.settings | {"kind": "noise", "updates": steps}
    return Trial(f"{data}/noise-b{batch:04d}-s{seed}", settings)


# The ladder.


def ladder_trial(row: str, batch: int, rate: float, seed: int, stage: str, scale: Scale) -> Trial:
    """One training of the ladder: `rate` is the one at the smallest batch."""
    optimizer, exponent = ROWS[row]
    rules = ladder(scale)
    times = batch / rules["batches"][0]
    name = f"ladder/{row}-b{batch:04d}-s{seed}"
    if stage == TUNE:
        name = f"ladder/{optimizer}-tune-r{rate:.6g}-s{seed}"
    return Trial(
        name,
        {
            "kind": "ladder",
            "data": rules["data"],
            "optimizer": optimizer,
            "batch": batch,
            "rate": five_digits(rate * times**exponent),
            "epochs": rules["epochs"],
            "warmup_epochs": rules["warmup_epochs_at_least"] * times,
            "seed": seed,
            "stage": stage,
        },
    )


def ladder_search(optimizer: str, results: Results, scale: Scale) -> Search:
    """The search of an optimizer's rate at the smallest batch."""
    rules = ladder(scale)
    batch = rules["batches"][0]
    rates = grid(rules["rates"][optimizer], rules["grid"])

    def make(rate: float, seed: int) -> Trial:
        return _tuning_trial(optimizer, rate, seed, scale)

    return search_rates(f"{optimizer}, batch {batch}", rates, results, make, widen=rules["widen"])


def _tuning_trial(optimizer: str, rate: float, seed: int, scale: Scale) -> Trial:
    batch = ladder(scale)["batches"][0]
    return ladder_trial(f"{optimizer}_root", batch, rate, DESIGN["search_seed"] + seed, TUNE, scale)


def ladder_rungs(results: Results, seed: int, scale: Scale) -> Iterator[Trial]:
    """The final trials of a seed, of the optimizers whose rate is known."""
    for row, (optimizer, exponent) in ROWS.items():
        found = ladder_search(optimizer, results, scale)
        if found.best is None:
            continue
        # At the smallest batch the linear rule's training is the root rule's.
        for batch in ladder(scale)["batches"][exponent == 1.0 :]:
            yield ladder_trial(row, batch, found.best, seed, FINAL, scale)


def plan(results: Results, scale: Scale) -> list[Trial]:
    """All trials that are known to be needed: searches, then seed by seed; MNIST's first."""
    mnist, *others = data_of(scale)
    trials = _plan_data(mnist, results, scale) + _plan_ladder(results, scale)
    return trials + [trial for data in others for trial in _plan_data(data, results, scale)]


def _plan_data(data: str, results: Results, scale: Scale) -> list[Trial]:
    trials: list[Trial] = []
    finalists: dict[int, list[int]] = {}
    for batch in of("batches", scale):
        known, finalists[batch] = search(data, batch, results, scale)
        trials += known
    for seed in range(scale.seeds):
        for batch, best in finalists.items():
            if best:
                trials += cell(data, batch, scale).finals(seed, results, best)
        for batch in of("noise_batches", scale):
            trial = noise_trial(data, batch, seed, results, scale)
            trials += [] if trial is None else [trial]
    return trials


def _plan_ladder(results: Results, scale: Scale) -> list[Trial]:
    trials: list[Trial] = []
    for optimizer in ("lamb", "sgd"):
        points = ladder_search(optimizer, results, scale).points
        trials += [
            _tuning_trial(optimizer, rate, seed, scale)
            for rate, _, _ in points
            for seed in range(TUNING_SEEDS)
        ]
    for seed in range(scale.seeds):
        trials += ladder_rungs(results, seed, scale)
    return trials
