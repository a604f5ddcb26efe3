"""What the trials of `lars_or_sgd` say: differences, tables, figures."""

import math
import statistics
from collections.abc import Mapping, Sequence

from tf_largebatch.review.tables import number_text, spread_text
from tf_largebatch.studies.fitting import GUESSING_PCT, usable
from tf_largebatch.studies.lars_or_sgd_figures import (
    Ladder,
    Panel,
    Sweep,
    draw_ladders,
    draw_ratios,
    draw_sweeps,
)
from tf_largebatch.studies.lars_or_sgd_plan import (
    LAMB,
    LARS,
    MOMENTUM,
    NORMED,
    PLAIN,
    SGD,
    USABLE,
    Row,
    finals,
    linear_rate,
    ratio_trial,
    rows,
    search,
    size,
    sweep,
    tuned,
    tuned_finals,
)
from tf_largebatch.studies.study import (
    Claim,
    Conclusion,
    Figure,
    Results,
    Scale,
    Table,
    Trial,
    answer,
)
from tf_largebatch.studies.tuning import HELD_OUT_ERROR, tuning_table

Errors = list[float | None]  # of each seed, None where it is missing
TITLES = {PLAIN: "without batch norm", NORMED: "with batch norm"}
LABELS = {SGD: "SGD", LARS: "LARS", LAMB: "LAMB"}
LINEAR = "linear rule"
HIGHEST = 30.0  # percent, of the figure
PUBLISHED_RATIOS = (5.76, 1345.0)  # [paper: digest] You et al.: conv1 and fc6 of AlexNet-BN
NOTES = (
    "Ranges were chosen on held-out examples with a seed of their own (100), before the rules: "
    "fifteen trainings. LARS with trust 0.001, rate 16 and no tensor exempt gave 13.84 % there, "
    "with trust 0.1, rate 0.16 and vectors exempt 14.14 %: as good, so that the rows need one "
    "form only.",
    "The published networks are AlexNets of eight layers, dense and convolutional, on ImageNet; "
    "this one has three dense layers. What carries over is the contrast, not its size.",
    "C7: three dense layers of one initialisation have ratios of one order. A verdict on the "
    "paper's own claim needs its network and pictures, as `python -m tf_largebatch diagnose` "
    "measures them on a run of `you_alexnet_bn`.",
    "C5b and C17 are one question asked twice: with momentum 0.9 for all, as You et al. compare, "
    "and with the momentum tuned as well, as Nado et al. demand.",
)


def conclude(claims: Mapping[str, Claim], results: Results, scale: Scale) -> Conclusion:
    """Applies the rules, and draws what there is."""
    own = size(scale)
    small, large = own.small, own.batches[-1]

    def errors(network: str, name: str, batch: int) -> Errors:
        return tuned_rate_errors(Row(network, name, batch), results, scale)

    sgd, lars = (errors(PLAIN, name, large) for name in (SGD, LARS))
    losses = {
        net: _minus(errors(net, SGD, large), errors(net, SGD, small)) for net in (PLAIN, NORMED)
    }
    linear = linear_errors(Row(PLAIN, SGD, large), results, scale)
    both = {
        net: _minus(*(pair_errors(Row(net, name, large), results, scale) for name in (SGD, LARS)))
        for net in (PLAIN, NORMED)
    }
    rates = {net: usable_rates(net, results, scale) for net in (PLAIN, NORMED)}
    differences: dict[str, Errors] = {
        "C5a": _minus(linear, errors(PLAIN, SGD, small)),
        "C5b": _minus(sgd, lars),
        "C6a": _minus(_doublings(rates[NORMED]), _doublings(rates[PLAIN])),
        "C6b": _minus(losses[PLAIN], losses[NORMED]),
        "C7": [*spreads(PLAIN, results, scale)],
        "C17a": both[NORMED],
        "C17b": both[PLAIN],
    }
    answers = [
        answer(claims[name], [d for d in found if d is not None], scale)
        for name, found in differences.items()
    ]
    searches = tuning_table([search(row, results, scale) for row in rows(scale)], scale)
    return Conclusion(
        answers=answers,
        tables=[error_table(results, scale), ratio_table(results, scale)],
        tuning=[searches, point_table(results, scale)],
        figures=draw(results, scale),
        notes=NOTES,
    )


def error_table(results: Results, scale: Scale) -> Table:
    """Test errors of every row, with the rate they were reached at."""
    own = size(scale)
    batches = (own.small, *own.batches)
    table = []
    for network in own.networks:
        for name in own.optimizers:
            cells = [TITLES[network], LABELS[name]]
            for batch in batches:
                row = Row(network, name, batch)
                known = row in rows(scale)
                errors = tuned_rate_errors(row, results, scale) if known else []
                rate = search(row, results, scale).best if known else None
                cells.append(_cell(errors, f"{rate:.4g}" if rate else None))
            table.append([*cells, *_tuned_cell(Row(network, name, batches[-1]), results, scale)])
        linear = [Row(network, SGD, batch) for batch in own.batches]
        found = [
            _cell(linear_errors(row, results, scale), f"{rate:.4g}" if rate else None)
            for row in linear
            for rate in [linear_rate(row, results, scale)]
        ]
        table.append([TITLES[network], LINEAR, "", *found, ""])
    header = ["network", "optimizer", *(f"{b:,}" for b in batches), "the last, momentum tuned too"]
    note = "Mean and deviation over the seeds; the rate, or rate and momentum, in brackets."
    return Table("Test error, %", header, table, note)


def _tuned_cell(row: Row, results: Results, scale: Scale) -> list[str]:
    best = tuned(row, results, scale).best
    pair = f"{best[0]:.4g}, {best[1]:.4g}" if best else None
    return [_cell(pair_errors(row, results, scale), pair)]


def _cell(errors: Errors, setting: str | None) -> str:
    known = _known(errors)
    if not known:
        return ""
    deviation = statistics.stdev(known) if len(known) > 1 else None
    lost = sum(error >= GUESSING_PCT for error in known)
    text = f"; {lost} of {len(known)} diverged" if lost else ""
    return f"{spread_text(statistics.fmean(known), deviation)} ({setting}{text})"


def ratio_table(results: Results, scale: Scale) -> Table:
    """|W| / |grad W| of the kernels at the first and the last update of the first epoch."""
    table = []
    for network in size(scale).networks:
        found = ratios(network, results, scale)
        for update, name in ((0, "first"), (-1, "last")):
            columns = zip(*(one["ratios"][update] for one in found), strict=True)
            means = [statistics.fmean(column) for column in columns]
            spread = spreads(network, results, scale, update)
            ends = f"{10 ** statistics.fmean(spread):.1f}" if spread else ""
            table.append([TITLES[network], name, *(f"{mean:.1f}" for mean in means), ends])
    header = ("network", "update", "hidden 1", "hidden 2", "head", "largest / smallest")
    return Table("Norm of a kernel / norm of its gradient, mean of the seeds", header, table)


def point_table(results: Results, scale: Scale) -> Table:
    """Every point of the searches of rate and momentum."""
    table = []
    for row in rows(scale):
        found = tuned(row, results, scale) if row.batch == size(scale).batches[-1] else None
        for rate, momentum, errors in found.table if found else ():
            mark = "**" if found and found.best == (rate, momentum) else ""
            cells = ", ".join(number_text(e) for e in errors)
            table.append([row.name, f"{mark}{rate:.4g}{mark}", f"{momentum:.4g}", cells])
    header = ("row", "rate", "momentum (LAMB: beta_1)", "held-out error of each tuning seed, %")
    return Table("Searches of rate and momentum", header, table)


def draw(results: Results, scale: Scale) -> list[Figure]:
    """The figures for which there is something to draw."""
    own = size(scale)
    panels = [_panel(network, results, scale) for network in own.networks]
    figures = []
    if any(ladder.errors for panel in panels for ladder in panel.ladders):
        png = draw_ladders(panels, HIGHEST)
        caption = (
            "Test error against the batch, every rate tuned on its own: median and range of the "
            "seeds; diamonds have the momentum tuned too, a triangle at the top is an error above "
            f"{HIGHEST:g} %."
        )
        figures.append(Figure("ladder.png", png, caption))
    if any(len(s.errors) > 1 for panel in panels for s in panel.sweeps):
        caption = (
            f"Held-out error against the rate at {own.batches[-1]:,} images, median and range: SGD "
            "over all seeds, others over the tuning seeds; dotted: the largest usable rate of SGD."
        )
        figures.append(Figure("rates.png", draw_sweeps(panels), caption))
    if any(panel.ratios for panel in panels):
        caption = (
            f"Norm of a kernel over that of its gradient, first epoch at {own.ratio_batch:,} "
            "images; bands are the range of the seeds. No rate suits layers far apart."
        )
        figures.append(Figure("ratios.png", draw_ratios(panels, PUBLISHED_RATIOS), caption))
    return figures


def _panel(network: str, results: Results, scale: Scale) -> Panel:
    own = size(scale)
    ladders, sweeps = [], []
    for name in own.optimizers:
        mine = [row for row in rows(scale) if (row.network, row.optimizer) == (network, name)]
        errors = {row.batch: _known(tuned_rate_errors(row, results, scale)) for row in mine}
        last = Row(network, name, own.batches[-1])
        pair = _known(pair_errors(last, results, scale))
        ladders.append(Ladder(LABELS[name], _kept(errors), tuned=pair))
        points = search(last, results, scale).points
        by_rate = {rate: [e for e in seeds if e is not None] for rate, seeds, _ in points}
        usable_ones = _known(usable_rates(network, results, scale)) if name == SGD else []
        if name == SGD:
            by_rate |= sweep_errors(network, results, scale)
        middle = statistics.median(usable_ones) if usable_ones else None
        sweeps.append(Sweep(LABELS[name], _kept(by_rate), middle))
    linear = {b: _known(linear_errors(Row(network, SGD, b), results, scale)) for b in own.batches}
    ladders.append(Ladder(LINEAR, _kept(linear), dashed=True))
    found = ratios(network, results, scale)
    layers = found[0]["layers"] if found else ()
    return Panel(TITLES[network], ladders, sweeps, layers, [one["ratios"] for one in found])


def sweep_errors(network: str, results: Results, scale: Scale) -> dict[float, list[float]]:
    """Held-out errors of SGD by rate, of the seeds that are there."""
    found: dict[float, list[float]] = {}
    for trial in sweep(network, scale):
        if trial.name in results:
            error = usable(results[trial.name].get(HELD_OUT_ERROR))
            found.setdefault(trial.settings["rate"], []).append(error)
    return found


def _kept(errors: Mapping) -> dict:
    return {place: values for place, values in errors.items() if values}


def _known(errors: Errors) -> list[float]:
    return [error for error in errors if error is not None]


def tuned_rate_errors(row: Row, results: Results, scale: Scale) -> Errors:
    """Test errors at the best rate and momentum 0.9."""
    return _test_errors(finals(row, search(row, results, scale).best, MOMENTUM, scale), results)


def linear_errors(row: Row, results: Results, scale: Scale) -> Errors:
    """Test errors of SGD at the rate of the linear rule."""
    trials = finals(row, linear_rate(row, results, scale), MOMENTUM, scale)
    return _test_errors(trials, results)


def pair_errors(row: Row, results: Results, scale: Scale) -> Errors:
    """Test errors at the best pair of rate and momentum."""
    return _test_errors(tuned_finals(row, tuned(row, results, scale), scale), results)


def usable_rates(network: str, results: Results, scale: Scale) -> Errors:
    """The largest usable rate of the sweep, of each seed whose rates are all there."""
    trials = sweep(network, scale)
    found: Errors = []
    for seed in range(scale.seeds):
        points = [
            (t.settings["rate"], usable(results[t.name].get(HELD_OUT_ERROR)))
            for t in trials
            if t.settings["seed"] == seed and t.name in results
        ]
        complete = points and len(points) == size(scale).sweep
        found.append(largest_usable(points) if complete else None)
    return found


def largest_usable(points: Sequence[tuple[float, float]]) -> float:
    """The largest rate such that from the best one to it no error is over the best by USABLE."""
    points = sorted(points)
    least = min(error for _, error in points)
    place = next(n for n, (_, error) in enumerate(points) if error == least)
    while place + 1 < len(points) and points[place + 1][1] <= least + USABLE:
        place += 1
    return points[place][0]


def ratios(network: str, results: Results, scale: Scale) -> list[dict]:
    """|W| / |grad W| of the kernels, [update][layer], of each seed that is there."""
    names = [ratio_trial(network, seed, scale).name for seed in range(scale.seeds)]
    return [
        {
            "layers": results[name]["layers"],
            "ratios": [
                [w / g if g else math.nan for w, g in zip(*pair, strict=True)]
                for pair in zip(
                    results[name]["weight_norms"], results[name]["gradient_norms"], strict=True
                )
            ],
        }
        for name in names
        if name in results
    ]


def spreads(network: str, results: Results, scale: Scale, update: int = 0) -> list[float]:
    """Decades between the largest and the smallest ratio of a kernel at an update."""
    found = [one["ratios"][update] for one in ratios(network, results, scale)]
    return [math.log10(max(own) / min(own)) for own in found]


def _test_errors(trials: Sequence[Trial], results: Results) -> Errors:
    return [results[t.name]["test_error_pct"] if t.name in results else None for t in trials]


def _doublings(rates: Errors) -> Errors:
    return [None if rate is None else math.log2(rate) for rate in rates]


def _minus(first: Errors, second: Errors) -> Errors:
    """Seed by seed, where both are there."""
    pairs = zip(first, second, strict=False)  # what has no trial planned yet is empty
    return [a - b if a is not None and b is not None else None for a, b in pairs]
