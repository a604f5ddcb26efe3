"""The design of `beyond_sgd` and its plan: the searches of all optimizers, then seed by seed."""

import functools
import math
from typing import Any

from tf_largebatch.studies.study import FINAL, TUNE, Results, Scale, Trial
from tf_largebatch.studies.target_search import TargetSearch, five_digits
from tf_largebatch.studies.tuning import search_points

DESIGN: dict[str, Any] = {
    "data": "fashion_mnist",
    "hidden": [128],  # as in `critical_batch`, like the target
    "target_pct": 13.0,
    "batches": [64, 512, 2_048, 8_192],
    # Of rate and one number more: the momentum (LAMB: beta_1), 1 - it; of K-FAC the damping.
    "spaces": {
        "sgd": {"rate": [0.005, 0.5], "one_minus_momentum": [0.03, 1.0]},
        "lars": {"rate": [0.002, 0.2], "one_minus_momentum": [0.03, 1.0]},
        "lamb": {"rate": [0.0005, 0.05], "one_minus_beta_1": [0.03, 1.0]},
        "muon": {"rate": [0.002, 0.2], "one_minus_momentum": [0.03, 1.0]},
        "kfac": {"rate": [0.01, 1.0], "damping": [0.003, 0.3]},
    },
    "fixed": {
        "lars": {"trust_coefficient": 0.1},  # ours: as in `lars_or_sgd`
        "lamb": {},
        "muon": {},
        "kfac": {"momentum": 0.9, "statistics_examples": 512},
    },
    "waves": [4, 4, 8],  # points, the same number for every optimizer at every batch
    "search_seed": 1_000,
    "finalists": 2,
    "budget": {"epochs": 3, "updates": 300},  # of a trial: the larger of the two
}
QUICK: dict[str, Any] = {
    "batches": [64, 256, 1_024],
    "waves": [1, 1],
    "finalists": 1,
    "target_pct": 30.0,
    "updates": 96,
}
# Epochs of the second budget; added when LARS had not arrived, and not in the design, so that what
# had run counts: it shows in the settings of the trials that it is for.
LONG = 8
TITLES = {
    "sgd": "Nesterov SGD",
    "lars": "LARS",
    "lamb": "LAMB",
    "muon": "Muon",
    "kfac": "K-FAC",
}
TRAIN_EXAMPLES = 55_000  # without those held out


def of(name: str, scale: Scale) -> Any:
    """A constant of the design at this scale."""
    return QUICK[name] if scale.quick else DESIGN[name]


@functools.cache
def points(optimizer: str) -> tuple[dict[str, float], ...]:
    """The rate and the other number of each point of an optimizer's search."""
    space = {name: (low, high) for name, (low, high) in DESIGN["spaces"][optimizer].items()}
    found = search_points(space, sum(DESIGN["waves"]), seed=DESIGN["search_seed"])
    return tuple(dict(_number(*item) for item in point.items()) for point in found)


def _number(name: str, value: float) -> tuple[str, float]:
    """The number itself of what is searched as 1 - it."""
    known = name.removeprefix("one_minus_")
    return known, five_digits(value if known == name else 1.0 - value)


def budgets(batch: int, scale: Scale) -> list[int]:
    """Updates of a trial at the most, and where none of a search reached the target in them."""
    if scale.quick:
        return [QUICK["updates"]]
    whole = DESIGN["budget"]
    lengths = [math.ceil(epochs * TRAIN_EXAMPLES / batch) for epochs in (whole["epochs"], LONG)]
    # Small batches are trained up to 4 updates at a time.
    known = [4 * math.ceil(max(whole["updates"], updates) / 4) for updates in lengths]
    return list(dict.fromkeys(known))


def cell(optimizer: str, batch: int, scale: Scale) -> TargetSearch:
    """The search of an optimizer at one batch."""

    def make(place: int, updates: int, seed: int | None) -> Trial:
        return _trial(optimizer, batch, place, updates, seed, scale)

    waves, finalists = of("waves", scale), of("finalists", scale)
    return TargetSearch(waves, finalists, budgets(batch, scale), make)


@functools.cache
def _trial(
    optimizer: str, batch: int, place: int, updates: int, seed: int | None, scale: Scale
) -> Trial:
    """One training to the target; without a seed of the search."""
    run = "search" if seed is None else f"s{seed}"
    return Trial(
        f"{optimizer}/b{batch:04d}-{run}-p{place:02d}",
        {
            "optimizer": optimizer,
            "batch": batch,
            "point": dict(points(optimizer)[place]),
            "updates": updates,
            "target_pct": of("target_pct", scale),
            "seed": DESIGN["search_seed"] if seed is None else seed,
            "stage": TUNE if seed is None else FINAL,
        },
    )


def plan(results: Results, scale: Scale) -> list[Trial]:
    """All trials that are known to be needed: searches, then seed by seed, slow batches first."""
    batches = sorted(of("batches", scale), reverse=True)
    cells = [cell(optimizer, batch, scale) for batch in batches for optimizer in TITLES]
    searches = [one.search(results) for one in cells]
    trials = [trial for known, _ in searches for trial in known]
    for seed in range(scale.seeds):
        for one, (_, finalists) in zip(cells, searches, strict=True):
            trials += one.finals(seed, results, finalists) if finalists else []
    return trials
