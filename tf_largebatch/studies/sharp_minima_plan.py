"""The trials of `sharp_minima`: which solutions, and what is measured of each."""

from dataclasses import asdict, dataclass
from typing import Any

from tf_largebatch.studies.study import FINAL, Results, Scale, Trial

DECAY = 5e-4  # [code: tomgoldstein/loss-landscape cifar10/main.py]
DECAYS = (0.0, DECAY)
SMALL, LARGE = "small", "large"
SIDES = (SMALL, LARGE)
EPSILONS = (1e-3, 5e-4)  # [paper: digest] Keskar et al., Tables 3 and 4
ITERATIONS = 10  # [recall] Keskar et al.: of L-BFGS-B
RATE = 1e-3  # [code: keskarnitish/large-batch-training] Keras's default of Adam
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}  # ours
NEAR = 0.25  # of the way between two solutions: where the rise around an end is averaged
DIRECTIONS = 2  # filter-normalised, of each solution


@dataclass(frozen=True, kw_only=True)
class Size:
    """What makes the whole study large, and a quick look small."""

    examples: int | None  # of the training set; None for all
    hidden: tuple[int, ...]
    epochs: int
    batches: tuple[int, int]
    sharpness_examples: int
    landscape_examples: int
    plane_examples: int
    line_points: int  # from -1 to 1
    between_points: int  # from -0.5 to 1.5
    plane_points: int  # of each axis from -1 to 1; 0 for no plane
    variations: bool  # whether sharpness is measured in other ways too


FULL = Size(
    examples=None,
    hidden=(512,) * 5,  # [recall] F1 of Keskar et al.; [code: eladhoffer/bigBatch] the same
    epochs=20,  # [code: keskarnitish/large-batch-training]
    batches=(256, 6_000),  # [paper: digest] 256, and 10 % of the training set
    sharpness_examples=20_000,
    landscape_examples=10_000,
    plane_examples=5_000,
    line_points=21,
    between_points=41,
    plane_points=21,
    variations=True,
)
QUICK = Size(
    examples=4_096,
    hidden=(64,),
    epochs=3,
    batches=(64, 1_024),
    sharpness_examples=1_000,
    landscape_examples=1_000,
    plane_examples=1_000,
    line_points=5,
    between_points=9,
    plane_points=0,
    variations=False,
)
DESIGN = {
    "data": "mnist",
    "decays": list(DECAYS),
    "epsilons": list(EPSILONS),
    "iterations": ITERATIONS,
    "rate": RATE,
    "batch_norm": BATCH_NORM,
    "near": NEAR,
    "directions": DIRECTIONS,
    "full": asdict(FULL),
}


def size(scale: Scale) -> Size:
    """The whole study's, or that of a quick look."""
    return QUICK if scale.quick else FULL


def plan(results: Results, scale: Scale) -> list[Trial]:
    """All trials, the most telling first; what is between two solutions once both are there."""
    own, first, wanted = size(scale), 0, []
    for decay in DECAYS:
        for seed in range(scale.seeds):
            wanted += [make_trial("solution", decay, seed, scale, side) for side in SIDES]
    for side in SIDES:
        if own.variations and make_trial("solution", 0.0, first, scale, side).name in results:
            wanted.append(make_trial("variations", 0.0, first, scale, side))
    for seed in range(scale.seeds):
        for decay in DECAYS:
            ends = [make_trial("solution", decay, seed, scale, side) for side in SIDES]
            if all(end.name in results for end in ends):
                wanted.append(make_trial("between", decay, seed, scale))
    for decay in DECAYS:
        for side in SIDES:
            done = make_trial("solution", decay, first, scale, side).name in results
            if own.plane_points and done:
                wanted.append(make_trial("plane", decay, first, scale, side))
    return wanted


def make_trial(kind: str, decay: float, seed: int, scale: Scale, side: str | None = None) -> Trial:
    """A trial that trains or measures one solution, or both of a seed."""
    settings: dict[str, Any] = {
        "stage": FINAL,
        "kind": kind,
        "decay": decay,
        "seed": seed,
        "side": side,
        "quick": scale.quick,
    }
    ends = f"decay{decay:g}{f'-{side}' if side else ''}-s{seed}"
    return Trial(f"{kind}/{ends}", settings)
