"""The rows of `lars_or_sgd`, their searches, and the order in which the trials are run."""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tf_largebatch.studies.fitting import usable
from tf_largebatch.studies.study import FINAL, TUNE, Results, Scale, Trial
from tf_largebatch.studies.tuning import HELD_OUT_ERROR, Search, grid, search_points, search_rates

PLAIN, NORMED = "plain", "bn"
SGD, LARS, LAMB = "sgd", "lars", "lamb"
MOMENTUM = 0.9  # of the grids; beta_1 of LAMB


@dataclass(frozen=True, kw_only=True)
class Size:
    """What makes the whole study large, and a quick look small."""

    examples: int | None  # of the training set; None for all
    epochs: int
    small: int
    batches: tuple[int, ...]  # the last is the one that the claims are about
    networks: tuple[str, ...]
    optimizers: tuple[str, ...]
    rates: int  # of every grid, before it is widened
    widen: int
    tuning_seeds: int
    points: int  # of rate and momentum, at the largest batch
    sweep: int  # rates of SGD at the largest batch
    ratio_batch: int


FULL = Size(
    examples=None,
    epochs=12,
    small=128,
    batches=(512, 2_048, 8_192),
    networks=(PLAIN, NORMED),
    optimizers=(SGD, LARS, LAMB),
    rates=5,
    widen=3,
    tuning_seeds=2,
    points=16,
    sweep=10,
    ratio_batch=2_048,
)
QUICK = Size(
    examples=4_096,
    epochs=3,
    small=128,
    batches=(1_024,),
    networks=(PLAIN,),
    optimizers=(SGD, LARS),
    rates=2,
    widen=0,
    tuning_seeds=1,
    points=0,
    sweep=0,
    ratio_batch=1_024,
)
LOWEST = {  # rate of a grid, by optimizer and the least batch that it is for
    SGD: {1: 0.0125, 512: 0.025, 8_192: 0.05},
    LARS: {1: 0.01, 1_024: 0.02, 8_192: 0.04},
    LAMB: {1: 0.0025, 1_024: 0.005, 8_192: 0.01},
}
SWEEP_FROM = 0.0125  # by factors of 2
USABLE = 5.0  # points above the network's best: up to there a rate can be used
AGAIN = 4  # of the best points have a second seed
SPREAD, ONE_MINUS_MOMENTUM = 4.0, (0.02, 1.0)
RATIO_RATE = 0.05
HIDDEN = (256, 256)
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}
WARMUP_EPOCHS, DECAY_POWER = 2, 2
WEIGHT_DECAY = {SGD: 1e-4, LARS: 1e-4, LAMB: 0.01}
TRUST = 0.1
PIXELS = (72.94, 90.02)  # mean and deviation of the training images
DESIGN = {
    "data": "fashion_mnist",
    "hidden": list(HIDDEN),
    "batch_norm": BATCH_NORM,
    "warmup_epochs": WARMUP_EPOCHS,
    "decay_power": DECAY_POWER,
    "momentum": MOMENTUM,
    "weight_decay": WEIGHT_DECAY,
    "trust_coefficient": TRUST,
    "pixels": list(PIXELS),
    "full": asdict(FULL),
    "lowest_rate": {name: list(steps.items()) for name, steps in LOWEST.items()},
    "sweep_from": SWEEP_FROM,
    "usable": USABLE,
    "points_again": AGAIN,
    "spread": SPREAD,
    "one_minus_momentum": list(ONE_MINUS_MOMENTUM),
    "ratio_rate": RATIO_RATE,
}


@dataclass(frozen=True)
class Row:
    """A network, an optimizer and a batch: what has a search of its own."""

    network: str
    optimizer: str
    batch: int

    @property
    def name(self) -> str:
        """For example "bn-lars-b8192"."""
        return f"{self.network}-{self.optimizer}-b{self.batch:04d}"


@dataclass(frozen=True)
class Tried:
    """A search of rate and momentum: its trials, and the best pair once all are there."""

    trials: tuple[Trial, ...]
    best: tuple[float, float] | None
    table: tuple[tuple[float, float, list[float | None]], ...]  # rate, momentum, held-out errors


def size(scale: Scale) -> Size:
    """The whole study's, or that of a quick look."""
    return QUICK if scale.quick else FULL


def rows(scale: Scale) -> list[Row]:
    """All rows, in the order of their worth."""
    own = size(scale)
    at_largest = [
        Row(net, name, batch)
        for names, batch in (
            (own.optimizers[:1], own.small),
            (own.optimizers[:2], own.batches[-1]),
            (own.optimizers[2:], own.batches[-1]),
        )
        for net in own.networks
        for name in names
    ]
    return at_largest + [
        Row(net, name, batch)
        for batch in reversed(own.batches[:-1])
        for net in own.networks
        for name in own.optimizers
    ]


def plan(results: Results, scale: Scale) -> list[Trial]:
    """All trials known to be needed, those of the claims before the rest of the ladder."""
    own = size(scale)
    wanted = [ratio_trial(net, seed, scale) for net in own.networks for seed in range(scale.seeds)]
    ends = (own.small, own.batches[-1])
    for row in (row for row in rows(scale) if row.batch in ends):
        wanted += row_trials(row, results, scale)
    for name in own.optimizers:
        for net in reversed(own.networks):  # batch norm first, as in the claim of Nado et al.
            row = Row(net, name, own.batches[-1])
            tried = tuned(row, results, scale)
            wanted += (*tried.trials, *tuned_finals(row, tried, scale))
        if name == own.optimizers[1]:
            wanted += [trial for net in own.networks for trial in sweep(net, scale)]
    for row in (row for row in rows(scale) if row.batch not in ends):
        wanted += row_trials(row, results, scale)
    return list({trial.name: trial for trial in wanted}.values())


def row_trials(row: Row, results: Results, scale: Scale) -> list[Trial]:
    """The search of a row's rate, its final trials, and those of the linear rule."""
    found = search(row, results, scale)
    wanted = grid_trials(row, found, scale) + finals(row, found.best, MOMENTUM, scale)
    if row.optimizer == SGD and row.batch != size(scale).small:
        wanted += finals(row, linear_rate(row, results, scale), MOMENTUM, scale)
    return wanted


def make_trial(
    row: Row, stage: str, rate: float, momentum: float, seed: int, scale: Scale
) -> Trial:
    """One training of a row."""
    own = size(scale)
    settings = {
        "stage": stage,
        "kind": "fit",
        **asdict(row),
        "rate": rate,
        "momentum": momentum,
        "seed": seed,
        "epochs": own.epochs,
        "examples": own.examples,
    }
    return Trial(f"{stage}/{row.name}/r{rate:.6g}-m{momentum:.6g}-s{seed}", settings)


def ratio_trial(network: str, seed: int, scale: Scale) -> Trial:
    """The norms of one epoch; on training images only."""
    own = size(scale)
    settings = {
        "stage": TUNE,
        "kind": "ratios",
        "network": network,
        "batch": own.ratio_batch,
        "rate": RATIO_RATE,
        "seed": seed,
        "examples": own.examples,
    }
    return Trial(f"ratios/{network}-s{seed}", settings)


def search(row: Row, results: Results, scale: Scale) -> Search:
    """The search of the row's rate at momentum 0.9."""
    own = size(scale)
    steps = LOWEST[row.optimizer]
    lowest = steps[max(batch for batch in steps if batch <= row.batch)]
    return search_rates(
        row.name,
        grid(lowest, own.rates),
        results,
        lambda rate, seed: make_trial(row, TUNE, rate, MOMENTUM, seed, scale),
        seeds=own.tuning_seeds,
        widen=own.widen,
    )


def grid_trials(row: Row, found: Search, scale: Scale) -> list[Trial]:
    """Every trial of a search so far."""
    seeds = range(size(scale).tuning_seeds)
    return [
        make_trial(row, TUNE, rate, MOMENTUM, seed, scale)
        for rate, *_ in found.points
        for seed in seeds
    ]


def finals(row: Row, rate: float | None, momentum: float, scale: Scale) -> list[Trial]:
    """The trials that read the test set, once the rate is known."""
    if rate is None:
        return []
    seeds = range(scale.seeds)
    return [make_trial(row, FINAL, rate, momentum, seed, scale) for seed in seeds]


def tuned_finals(row: Row, tried: Tried, scale: Scale) -> list[Trial]:
    """The same at the best pair of rate and momentum."""
    rate, momentum = tried.best or (None, MOMENTUM)
    return finals(row, rate, momentum, scale)


def linear_rate(row: Row, results: Results, scale: Scale) -> float | None:
    """The rate of the small batch times the ratio of the batches."""
    small = size(scale).small
    best = search(Row(row.network, SGD, small), results, scale).best
    return None if best is None else best * row.batch / small


def sweep(network: str, scale: Scale) -> list[Trial]:
    """SGD at rates from small to far too large, at the largest batch."""
    own = size(scale)
    row = Row(network, SGD, own.batches[-1])
    return [
        make_trial(row, TUNE, rate, MOMENTUM, seed, scale)
        for seed in range(scale.seeds)
        for rate in (grid(SWEEP_FROM, own.sweep) if own.sweep else ())
    ]


def tuned(row: Row, results: Results, scale: Scale) -> Tried:
    """The search of rate and momentum around the best rate at momentum 0.9."""
    count, center = size(scale).points, search(row, results, scale).best
    if center is None or not count:
        return Tried((), None, ())
    pairs = [_pair(row, center, point) for point in _points(count)]
    first = [make_trial(row, TUNE, *pair, 0, scale) for pair in pairs]
    errors = {trial.name: _error(trial, results) for trial in first}
    if None in errors.values():
        return Tried(tuple(first), None, ())
    order = sorted(range(count), key=lambda place: (errors[first[place].name], place))
    chosen = [pairs[place] for place in order[:AGAIN]]
    second = [make_trial(row, TUNE, *pair, 1, scale) for pair in chosen]
    both = {
        pair: [_error(make_trial(row, TUNE, *pair, seed, scale), results) for seed in (0, 1)]
        for pair in (*chosen, (center, MOMENTUM))
    }
    one_seed = {pair: [errors[t.name]] for pair, t in zip(pairs, first, strict=True)}
    table = tuple((*pair, own) for pair, own in (one_seed | both).items())
    sums = {pair: sum(e for e in own if e is not None) for pair, own in both.items()}
    if any(None in own for own in both.values()):
        return Tried((*first, *second), None, table)
    best = min(sums, key=lambda pair: (sums[pair], pair))
    return Tried((*first, *second), best, table)


@functools.cache
def _points(count: int) -> list[dict[str, float]]:
    space = {"speed": (1 / SPREAD, SPREAD), "one_minus_momentum": ONE_MINUS_MOMENTUM}
    return search_points(space, count, seed=0)


def _pair(row: Row, center: float, point: Mapping[str, float]) -> tuple[float, float]:
    """Rate and momentum of a point, of four digits: `speed` is of what the rate amounts to.

    That is rate / (1 - momentum) for a velocity, and the rate itself for LAMB, whose step has the
    length of the weights whatever beta_1.
    """
    rest = point["one_minus_momentum"]
    stretch = 1.0 if row.optimizer == LAMB else rest / (1.0 - MOMENTUM)
    rate = center * point["speed"] * stretch
    return float(f"{rate:.4g}"), float(f"{max(0.0, 1.0 - rest):.4g}")


def _error(trial: Trial, results: Results) -> float | None:
    """The held-out error; None where the trial is missing."""
    if trial.name not in results:
        return None
    error = results[trial.name].get(HELD_OUT_ERROR)
    return usable(error)
