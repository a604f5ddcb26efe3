"""Does a scaled rate need a warmup, and how long? Goyal et al. 2017 against McCord & Dash.

    python -m tf_largebatch study warmup

The miniature of `recipes/goyal_8k` (scikit-learn's digits, 8 and 256 images an update, ghost batch
norm of 8) over a range of rates, with both first gammas, and with warmups of five lengths at two
batches. Trained with plain `compile` and `fit`.
"""

import statistics
from collections.abc import Sequence

from tf_largebatch.review.verdict import Rule
from tf_largebatch.studies.study import (
    Claim,
    Conclusion,
    Figure,
    Results,
    Scale,
    Study,
    Table,
    Trial,
    answer,
)
from tf_largebatch.studies.warmup_trials import (
    BASE_RATE,
    BASE_RATES,
    DESIGN,
    EPOCHS,
    GAMMAS,
    GOYALS,
    LARGE,
    LENGTHS,
    MIDDLE,
    QUICK_EPOCHS,
    RATES,
    SMALL,
    Row,
    deciding_rows,
    linear,
    other_rows,
    rows_of,
    run,
    small,
    straight,
    unscaled,
)

SEEDS = 10
HALF = SEEDS // 2  # seeds of all rows that come before the others, enough for verdicts
POINTS = Rule("more", smallest=1.0)
CLAIMS = (
    Claim(
        id="C2",
        text="With the linear rule and a gradual warmup a large batch has the small batch's error.",
        paper="Goyal et al. 2017, arXiv:1706.02677",
        published="23.74 +- 0.09 % at 8,192 images, 23.60 +- 0.12 at 256 [read: Table 1]",
        rule=Rule("no_worse", smallest=1.0),
        contrast="linear with warmup - small batch",
    ),
    Claim(
        id="C3",
        text="No warmup at all is the worst of the warmups.",
        paper="Goyal et al. 2017, arXiv:1706.02677; McCord & Dash, poster",
        published="24.84 +- 0.37 % without, 23.74 +- 0.09 with warmup at 8,192 images [quoted from "
        "memory: Table 1]; 0 is worst of 0, 5, 10, 20 epochs at 7,680 and at 30K [read: slides]",
        rule=POINTS,
        contrast="no warmup - the worst other warmup",
    ),
    Claim(
        id="C3b",
        text="The best length of the warmup grows with the batch.",
        paper="McCord & Dash, poster",
        published="5 epochs at 7,680 images, 10 at 30K, of 0, 5, 10, 20 [read: slides]",
        rule=Rule("more", smallest=5.0, unit="epochs of 90"),
        contrast="best length at 256 images - best length at 64",
    ),
    Claim(
        id="C4",
        text="The rate must be scaled with the batch.",
        paper="Goyal et al. 2017, arXiv:1706.02677",
        published="41.67 % at the small batch's rate, 23.74 scaled [quoted from memory: Table 2a]",
        rule=POINTS,
        contrast="small batch's rate - linear with warmup",
    ),
    Claim(
        id="C4b",
        text="Whether the rate is scaled makes no difference.",
        paper="McCord & Dash, poster",
        published="no significant difference at 7,680 images, base rate 0.0125 [read: slides]",
        rule=Rule("equal", smallest=1.0),
        contrast="small batch's rate - linear with warmup",
    ),
)
METHOD = (
    "1,280 of scikit-learn's digits (8 x 8) train a residual network with three blocks for 30 "
    "epochs; 517 test it once, at the end. Images are shifted by up to a pixel, with noise of 0.3.",
    "Nesterov momentum 0.9, decay 1e-4, the rate falls tenfold after 1/3, 2/3 and 8/9 of the run; "
    "batch norm over 8 images at every batch. All as in `recipes/goyal_8k`, trained with `fit`.",
    "Batches of 8, 64 and 256 images make 4,800, 600 and 150 updates. A warmup rises by the update "
    "from the base rate, that of 8 images, to the scaled one.",
    f"Nothing is searched: a base rate of {BASE_RATE:g} is the design's, fixed before the run, and "
    "every other rate is shown beside it. The claims are judged at that rate alone.",
    "A warmup of N epochs is named after a run of 90 and takes N / 3 here. Goyal's rows have the "
    "paper's own five epochs, which are 15 of 90.",
    "The best length of a seed is the one with the lowest error; of equal ones the shortest.",
)


def plan(results: Results, scale: Scale) -> list[Trial]:
    """All trials: nothing is tuned, so none depends on another's result."""
    if scale.quick:
        rows = [small(), linear(0), linear(GOYALS)]
        return [row.trial(seed, QUICK_EPOCHS) for seed in range(scale.seeds) for row in rows]
    halves = (range(min(HALF, scale.seeds)), range(HALF, scale.seeds))
    return [
        row.trial(seed, EPOCHS)
        for seeds in halves
        for some_rows in (deciding_rows, other_rows)
        for gamma in GAMMAS
        for seed in seeds
        for row in some_rows(gamma)
    ]


def conclude(results: Results, scale: Scale) -> Conclusion:
    """Answers the claims at the design's base rate, and shows all the others."""
    errors = Errors(results, scale)
    answers = [answer(claim, values, scale, part=part) for claim, part, values in _cases(errors)]
    return Conclusion(
        answers=answers,
        tables=[_base_rates(errors), _lengths(errors), _rates(errors)],
        tuning=[],
        figures=_figures(errors),
        notes=NOTES,
        numbers={"errors_pct": {row.label: errors.values(row) for row in errors.finished()}},
    )


class Errors:
    """Test errors of the rows, by seed."""

    def __init__(self, results: Results, scale: Scale):
        self._results, self._seeds = results, range(scale.seeds)

    def of(self, row: Row) -> dict[int, float]:
        """The seeds of a row that are finished."""
        named = {seed: self._results.get(row.name(seed)) for seed in self._seeds}
        return {seed: found["error_pct"] for seed, found in named.items() if found}

    def finished(self) -> list[Row]:
        """The rows with a result."""
        return [row for gamma in GAMMAS for row in rows_of(gamma) if self.of(row)]

    def values(self, row: Row) -> list[float]:
        """A row's errors."""
        return list(self.of(row).values())

    def minus(self, one: Row, other: Row) -> list[float]:
        """Differences of two rows, one a seed that both have."""
        first, second = self.of(one), self.of(other)
        return [first[seed] - second[seed] for seed in first if seed in second]

    def by_seed(self, rows: Sequence[Row]) -> list[list[float]]:
        """The errors of all these rows, one list a seed that every row has."""
        each = [self.of(row) for row in rows]
        return [[of[seed] for of in each] for seed in each[0] if all(seed in of for of in each)]


def _cases(errors: Errors) -> list[tuple[Claim, str, list[float]]]:
    """(claim, part, one difference a seed) of every answer."""
    of = {claim.id: claim for claim in CLAIMS}
    large, gamma_0, middle = f"{LARGE} images", f"{LARGE} images, gamma 0", f"{MIDDLE} images"
    cases = []
    for part, gamma in ((large, 1.0), (gamma_0, 0.0)):
        warmed = linear(GOYALS, gamma=gamma)
        cases.append((of["C2"], part, errors.minus(warmed, small(gamma=gamma))))
        cases.append((of["C4"], part, errors.minus(unscaled(gamma=gamma), warmed)))
    for batch, part in ((MIDDLE, middle), (LARGE, large)):
        each = errors.by_seed([linear(length, batch=batch) for length in LENGTHS])
        cases.append((of["C3"], part, [none - max(others) for none, *others in each]))
        difference = errors.minus(unscaled(batch=batch), linear(GOYALS, batch=batch))
        cases.append((of["C4b"], part, difference))
    difference = errors.minus(linear(0, gamma=0.0), linear(GOYALS, gamma=0.0))
    cases.append((of["C3"], f"{gamma_0}, one other length", difference))
    rows = [linear(length, batch=batch) for batch in (LARGE, MIDDLE) for length in LENGTHS]
    halves = [(seed[: len(LENGTHS)], seed[len(LENGTHS) :]) for seed in errors.by_seed(rows)]
    cases.append((of["C3b"], "", [best_length(a) - best_length(b) for a, b in halves]))
    return sorted(cases, key=lambda case: CLAIMS.index(case[0]))


def best_length(of_lengths: Sequence[float]) -> int:
    """The length with the lowest error, of equal ones the shortest."""
    return LENGTHS[min(range(len(LENGTHS)), key=of_lengths.__getitem__)]


def _text(values: Sequence[float]) -> str:
    """Mean and deviation over the seeds."""
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else "not run"
    return f"{statistics.fmean(values):.1f} +- {statistics.stdev(values):.1f}"


def _base_rates(errors: Errors) -> Table:
    """The four rows of the claims at every base rate."""
    rows = []
    for gamma in GAMMAS:
        for base in BASE_RATES:
            four = [
                small(base, gamma),
                unscaled(base, gamma),
                linear(0, base, gamma),
                linear(GOYALS, base, gamma),
            ]
            cells = [_text(errors.values(row)) for row in four]
            scaled = f"{base:g} to {base * LARGE / SMALL:g}"
            rows.append([f"{gamma:g}", scaled + " (the claims)" * (base == BASE_RATE), *cells])
    return Table(
        "The base rate decides the story: test error in percent, mean and deviation over the seeds",
        [
            "gamma",
            f"rate at {SMALL} and {LARGE} images",
            "small batch",
            "large, small batch's rate",
            "linear, no warmup",
            "linear, warmup",
        ],
        rows,
    )


def _lengths(errors: Errors) -> Table:
    """McCord & Dash's grid."""
    rows = []
    for batch in (MIDDLE, LARGE):
        cells = [_text(errors.values(linear(length, batch=batch))) for length in LENGTHS]
        unscaled_text = _text(errors.values(unscaled(batch=batch)))
        rows.append([str(batch), f"{BASE_RATE * batch / SMALL:g}", *cells, unscaled_text])
    header = ["batch", "rate", *(f"{n} epochs of 90" for n in LENGTHS), f"rate {BASE_RATE:g}"]
    return Table("Lengths of the warmup: test error in percent", header, rows)


def _rates(errors: Errors) -> Table:
    """Every rate at the large batch."""
    rows = []
    for gamma in GAMMAS:
        plain = [_text(errors.values(straight(rate, gamma))) for rate in RATES]
        peaks = {linear(GOYALS, base).rate: base for base in BASE_RATES}
        warmed = [
            _text(errors.values(linear(GOYALS, peaks[rate], gamma))) if rate in peaks else ""
            for rate in RATES
        ]
        rows += [[f"{gamma:g}", "none", *plain], [f"{gamma:g}", "5 of 30 epochs", *warmed]]
    header = ["gamma", "warmup", *(f"{rate:g}" for rate in RATES)]
    return Table(f"Every rate at {LARGE} images: test error in percent", header, rows)


def _figures(errors: Errors) -> list[Figure]:
    from tf_largebatch.studies import warmup_figures as draw

    panels = []
    for gamma in GAMMAS:
        peaks = [linear(GOYALS, base, gamma) for base in BASE_RATES]
        panels.append(
            draw.Panel(
                f"gamma starts at {gamma:g}",
                plain={rate: errors.values(straight(rate, gamma)) for rate in RATES},
                warmed={row.rate: errors.values(row) for row in peaks},
                small={
                    row.rate: errors.values(small(base, gamma))
                    for row, base in zip(peaks, BASE_RATES, strict=True)
                },
            )
        )
    lengths: dict[int, draw.Seeds] = {
        batch: {n: errors.values(linear(n, batch=batch)) for n in LENGTHS}
        for batch in (MIDDLE, LARGE)
    }
    marked = BASE_RATE * LARGE / SMALL
    return [
        Figure(
            "rates.png",
            draw.draw_rates(panels, unscaled=BASE_RATE, scaled=marked),
            f"Test error against the rate at {LARGE} images; lines are means over the seeds, bands "
            "their standard deviation, dots the seeds. The small batch stands at the rate that the "
            "linear rule makes of its own. Grey lines: the two rates of the claims.",
        ),
        Figure(
            "lengths.png",
            draw.draw_lengths(lengths, published={MIDDLE: 5, LARGE: 10}),
            f"Test error against the length of the warmup at {MIDDLE} and {LARGE} images, which "
            "stand for the poster's 7,680 and 30K; lines are means over the seeds, dots the seeds. "
            "Triangles: the best lengths of McCord & Dash (published, on ImageNet).",
        ),
    ]


NOTES = (
    "Both published results on scaling can be had on this data by the choice of the base rate "
    "alone: compare the second and fourth column of the first table at 0.05 and at 0.1.",
    "Where a network collapses it answers one class: about 90 % error, in every seed. Points at "
    "that height say unstable, not how unstable.",
    "The four rows at 0.05 are those of `recipes/goyal_8k`, which our own loop trains on "
    "TensorFlow: a test holds that its record and these trials, on another backend and with other "
    "draws, agree within the seeds' deviation.",
    "8 x 8 digits and 150 updates are not ImageNet: sizes of effects are this data's own. One of "
    "517 test images is 0.19 points.",
)

STUDY = Study(
    name="warmup",
    title="Does a scaled rate need a warmup, and how long?",
    claims=CLAIMS,
    method=METHOD,
    data=("digits",),
    design=DESIGN,
    plan=plan,
    run=run,
    conclude=conclude,
    seeds=SEEDS,
    quick_seeds=1,
)
