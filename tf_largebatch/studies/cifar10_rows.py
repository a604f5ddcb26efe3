"""The rows of the study on CIFAR-10: sizes, searches, rates, trials in their order."""

from dataclasses import asdict, dataclass, replace

from tf_largebatch.studies.study import FINAL, TUNE, Results, Scale, Trial
from tf_largebatch.studies.tuning import Search, search_rates

NONE, WARMUP, RMSPROP = "no start", "warmup", "RMSprop start"


@dataclass(frozen=True)
class Size:
    """How large the experiment is; batches are pictures an update."""

    train: int  # pictures
    epochs: int
    drops: tuple[int, ...]  # epochs after which the rate falls, or the batch grows
    warmup_epochs: int
    small: int
    large: int
    growing: tuple[int, ...]  # batches of its phases; the rate falls at the drops that are left
    width: int  # channels of the first stage
    stages: int
    rates: tuple[float, ...]  # the grid of the small batch; the large one's is its linear multiple
    searched: tuple[str, ...]  # the starts that have a search of their own at the large batch
    tuning_seeds: int
    widen: int

    @property
    def factor(self) -> int:
        """Large batch by small batch, the linear rule's."""
        return self.large // self.small


# Ours but for the course: drops by 5 after 30, 60 and 80 % of the epochs, and a batch that grows by
# 5 with them while it is below a tenth of the data, are Smith et al.'s on CIFAR-10 [recall].
FULL = Size(
    train=45_000,
    epochs=20,
    drops=(6, 12, 16),
    warmup_epochs=3,
    small=128,
    large=2_048,
    growing=(128, 640, 3_200),
    width=32,
    stages=3,
    rates=(0.05, 0.1, 0.2, 0.4),
    searched=(NONE, WARMUP, RMSPROP),
    tuning_seeds=2,
    widen=3,
)
QUICK = Size(
    train=512,
    epochs=4,
    drops=(2, 3),
    warmup_epochs=1,
    small=32,
    large=256,
    growing=(32, 128),
    width=8,
    stages=1,
    rates=(0.05, 0.1),
    searched=(),
    tuning_seeds=1,
    widen=0,
)


@dataclass(frozen=True)
class Row:
    """One row of the table: what is trained, at which rate."""

    label: str
    batches: tuple[int, ...]
    start: str
    rate: float

    @property
    def kind(self) -> str:
        """The part of a trial's name that seeds and rates share."""
        first = "growing" if len(self.batches) > 1 else f"b{self.batches[0]:04d}"
        return "-".join([first, *self.start.lower().split()])


# The rows that the claims are about, by their labels.
SMALL, SAME, LINEAR, LINEAR_WARMUP = (
    "small batch",
    "large, same rate",
    "large, linear rule",
    "large, linear rule, warmup",
)
GROWING, BEST, BEST_WARMUP, BEST_RMSPROP = (
    "growing batch",
    "large, own rate",
    "large, own rate, warmup",
    "large, own rate, RMSprop start",
)
OWN = {NONE: BEST, WARMUP: BEST_WARMUP, RMSPROP: BEST_RMSPROP}


def size_of(scale: Scale) -> Size:
    """The size of a run of this scale."""
    return QUICK if scale.quick else FULL


def searched(size: Size) -> dict[str, Row]:
    """The rows that have a search of their own; their `rate` multiplies the grid."""
    large = [Row(OWN[start], (size.large,), start, size.factor) for start in size.searched]
    return {row.label: row for row in (Row(SMALL, (size.small,), NONE, 1.0), *large)}


def search(size: Size, results: Results) -> dict[str, Search]:
    """The state of every search, by its row's label; all grids have one size."""
    found = {}
    for label, row in searched(size).items():

        def tune(rate: float, seed: int, row: Row = row) -> Trial:
            return make_trial(size, replace(row, rate=rate), TUNE, seed)

        found[label] = search_rates(
            f"{label}, {row.batches[0]:,}",
            [row.rate * rate for rate in size.rates],
            results,
            tune,
            seeds=size.tuning_seeds,
            widen=size.widen,
        )
    return found


def rows(size: Size, found: dict[str, Search]) -> dict[str, Row]:
    """The rows whose rates are known by now, by label."""
    rate, large = found[SMALL].best, (size.large,)
    if rate is None:
        known = []
    else:
        known = [
            Row(SMALL, (size.small,), NONE, rate),
            Row(SAME, large, NONE, rate),
            Row(LINEAR, large, NONE, size.factor * rate),
            Row(LINEAR_WARMUP, large, WARMUP, size.factor * rate),
            Row(GROWING, size.growing, NONE, rate),
        ]
    for label, row in searched(size).items():
        best = found[label].best
        if label != SMALL and best is not None:
            known.append(replace(row, rate=best))
    return {row.label: row for row in known}


def make_trial(size: Size, row: Row, stage: str, seed: int) -> Trial:
    """Returns one training of a row."""
    of_size = asdict(size)
    settings = {
        "stage": stage,
        "seed": seed,
        "batches": list(row.batches),
        "start": row.start,
        "rate": row.rate,
        "warmup_from": row.rate / size.factor,
        "bn_batch": size.small,
        "drops": list(size.drops),
        **{name: of_size[name] for name in ("train", "epochs", "warmup_epochs", "width", "stages")},
    }
    return Trial(f"{stage}/{row.kind}-r{row.rate:.4g}-s{seed}", settings)


def plan(results: Results, scale: Scale) -> list[Trial]:
    """Every trial that is known to be needed, in the order of its worth."""
    size = size_of(scale)
    found = search(size, results)
    known = rows(size, found)

    def tuning(label: str) -> list[Trial]:
        row, rates = searched(size)[label], [point[0] for point in found[label].points]
        places = [(seed, rate) for seed in range(size.tuning_seeds) for rate in rates]
        return [make_trial(size, replace(row, rate=rate), TUNE, seed) for seed, rate in places]

    def finals(*labels: str) -> list[Trial]:
        chosen = [known[label] for label in labels if label in known]
        return [make_trial(size, row, FINAL, s) for s in range(scale.seeds) for row in chosen]

    trials = tuning(SMALL) + finals(SMALL, SAME, LINEAR, LINEAR_WARMUP, GROWING)
    own = [OWN[start] for start in size.searched]
    trials += [trial for label in own for trial in tuning(label)] + finals(*own)
    # A row whose best rate is the linear rule's is trained once.
    return list({trial.name: trial for trial in trials}.values())
