"""Large batches on CIFAR-10: the rate, the start, and a batch that grows in place of a decay.

A residual network is trained with 128 pictures an update and with 2,048, in as many epochs: at the
small batch's rate, at 16 times that, so with a gradual warmup (Goyal et al. 2017), with RMSprop
turning into SGD (Akiba et al. 2017), and with a batch that grows where the rate falls in the other
rows (Smith et al. 2017). Plain `compile` and `fit`; phases of another batch are calls of `fit`.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict

from tf_largebatch.review.verdict import Rule
from tf_largebatch.studies import contrast_figures
from tf_largebatch.studies.cifar10_rows import (
    BEST_RMSPROP,
    BEST_WARMUP,
    FULL,
    GROWING,
    LINEAR,
    LINEAR_WARMUP,
    SAME,
    SMALL,
    Row,
    Size,
    make_trial,
    plan,
    rows,
    search,
    size_of,
)
from tf_largebatch.studies.cifar10_training import CONSTANTS, TEST_ERROR, run
from tf_largebatch.studies.study import (
    FINAL,
    Answer,
    Claim,
    Conclusion,
    Figure,
    Results,
    Scale,
    Study,
    Table,
    answer,
)
from tf_largebatch.studies.tuning import Search, tuning_table

GOYAL = "Goyal et al. 2017, arXiv:1706.02677"
CLAIMS = (
    Claim(
        id="C1",
        text="A large batch at the small batch's rate loses accuracy in the same epochs.",
        paper=GOYAL,
        published="41.67 against 23.60 % error on ImageNet, +18.07 points (quoted from memory: "
        "Table 2a)",
        rule=Rule("more", 2.0),
        contrast="large batch at the small batch's rate - small batch",
    ),
    Claim(
        id="C2",
        text="The rate in proportion to the batch, with a gradual warmup, recovers it.",
        paper=GOYAL,
        published="23.74 against 23.60 % error on ImageNet, +0.14 points (read: digest of the "
        "paper)",
        rule=Rule("no_worse", 1.0),
        contrast="linear rule with warmup - small batch",
    ),
    Claim(
        id="C3",
        text="Without the warmup the scaled rate loses accuracy.",
        paper=GOYAL,
        published="24.84 against 23.74 % error on ImageNet, +1.10 points (quoted from memory: "
        "Table 1)",
        rule=Rule("more", 0.5),
        contrast="linear rule without warmup - with warmup",
    ),
    Claim(
        id="C14",
        text="A batch that grows does what a rate that decays does, with fewer updates.",
        paper="Smith et al. 2017, arXiv:1711.00489",
        published="76.1 % accuracy both ways on ImageNet, 0.0 points (read: slides 002 for the "
        "growing batch; the other quoted from memory)",
        rule=Rule("equal", 1.0),
        contrast="growing batch - decaying rate, at one first rate",
    ),
    Claim(
        id="C15",
        text="RMSprop that turns into SGD does for a large batch what a gradual warmup does.",
        paper="Akiba et al. 2017, arXiv:1711.04325",
        published="74.9 % accuracy at 32,768 on ImageNet (read: slides 002), where warmup has not "
        "been tried beside it",
        rule=Rule("no_worse", 1.0),
        contrast="RMSprop start - warmup, each at its own best rate",
    ),
)
PUBLISHED = {  # points of error on ImageNet; the sources are in the claims
    "C1": 18.07,  # [derived] 41.67 - 23.60
    "C2": 0.14,  # [derived] 23.74 - 23.60
    "C3": 1.10,  # [derived] 24.84 - 23.74
    "C14": 0.0,  # [derived] 76.1 - 76.1
}


def conclude(results: Results, scale: Scale) -> Conclusion:
    """Differences, verdicts, tables and figures of what has finished."""
    size = size_of(scale)
    found = search(size, results)
    known = rows(size, found)
    finished = {label: _finished(size, row, results, scale) for label, row in known.items()}

    def differ(claim: Claim, label: str, other: str) -> Answer:
        one, two = (
            {seed: r[TEST_ERROR] for seed, r in finished.get(name, {}).items()}
            for name in (label, other)
        )
        return answer(claim, [one[s] - two[s] for s in sorted(set(one) & set(two))], scale)

    c1, c2, c3, c14, c15 = CLAIMS
    answers = [
        differ(c1, SAME, SMALL),
        differ(c2, LINEAR_WARMUP, SMALL),
        differ(c3, LINEAR, LINEAR_WARMUP),
        differ(c14, GROWING, SMALL),
        differ(c15, BEST_RMSPROP, BEST_WARMUP),
    ]
    table = Table(
        f"Test error after {size.epochs} epochs",
        ("row", "batch", "start", "rate", "updates", "test error, %", "seeds", "last loss, nats"),
        [_cells(known[label], finished[label]) for label in known],
        "Mean and standard deviation over the seeds.",
    )
    tuning = tuning_table(list(found.values()), scale)
    return Conclusion(
        answers=answers,
        tables=[table],
        tuning=[tuning],
        figures=_figures(answers, found, finished),
        notes=NOTES,
        numbers={
            label: {str(seed): r[TEST_ERROR] for seed, r in of_row.items()}
            for label, of_row in finished.items()
        },
    )


def _finished(size: Size, row: Row, results: Results, scale: Scale) -> dict[int, dict]:
    """The results of a row by seed."""
    names = {seed: make_trial(size, row, FINAL, seed).name for seed in range(scale.seeds)}
    return {seed: results[name] for seed, name in names.items() if name in results}


def _cells(row: Row, of_row: dict[int, dict]) -> list[str]:
    batch = " to ".join(f"{b:,}" for b in (row.batches[0], *row.batches[1:][-1:]))
    errors = [r[TEST_ERROR] for r in of_row.values()]
    cells = [row.label, batch, row.start, f"{row.rate:.4g}"]
    if not errors:
        return [*cells, "", "not run", "0", ""]
    spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    last = [r["loss"][-1] for r in of_row.values() if r["loss"][-1] is not None]
    return [
        *cells,
        f"{max(r['updates'][-1] for r in of_row.values()):,}",
        f"{statistics.fmean(errors):.2f}{spread}",
        str(len(errors)),
        f"{statistics.fmean(last):.3f}" if last else "not finite",
    ]


def _figures(
    answers: Sequence[Answer], found: dict[str, Search], finished: dict[str, dict[int, dict]]
) -> list[Figure]:
    """The differences beside the papers', the searches, and the loss of a batch that grows."""
    drawn = [
        contrast_figures.Contrast(f"{c.id} {c.contrast}", a.finding, c.rule, PUBLISHED.get(c.id))
        for c, a in zip(CLAIMS, answers, strict=True)
        if a.finding is not None
    ]
    figures = []
    if drawn:
        text = (
            "Differences of the test error with their 95 % intervals, a tick a seed; diamonds: the "
            "papers', on ImageNet. Shaded: where the claim holds."
        )
        png = contrast_figures.draw_contrasts(drawn, "difference of the error, points")
        figures.append(Figure("differences.png", png, text))
    curves = {s.row: s.curve for s in found.values()}
    if any(curves.values()):
        text = (
            "Held-out error against the rate, mean of the tuning seeds; a cross is the error of "
            "guessing."
        )
        figures.append(Figure("rates.png", contrast_figures.draw_rates(curves), text))
    pair = {label: finished.get(label, {}) for label in (SMALL, GROWING)}
    if all(pair.values()):
        losses = {
            "decaying rate" if label == SMALL else label: [
                (r["updates"], r["loss"]) for r in of_row.values()
            ]
            for label, of_row in pair.items()
        }
        text = "Training loss of a decaying rate and of a growing batch, by epoch and by update."
        figures.append(Figure("growing.png", contrast_figures.draw_losses(losses), text))
    return figures


NOTES = (
    "The network is ours and small: three stages of one block on 16 x 16 positions; "
    "batch statistics are of 128 pictures at every batch, and gamma starts at 0 in the last batch "
    "norm of each block, with which a start without warmup is easiest.",
    "The rows of the linear rule take their rate from the small batch's search; those with a rate "
    "of their own have a search of the same size, so that no rival is a straw man.",
    "The growing batch has the first rate of the decaying one, without a search; it grows by 5 "
    "twice, and at the third drop, where the batch would pass a tenth of the data, the rate falls.",
    "Akiba et al.'s slow start, half the rate, is a point of the grid; their batch norm without "
    "moving averages is left out, and momentum is plain there, Nesterov's in the other rows.",
)
STUDY = Study(
    name="cifar10",
    title="Large batches on CIFAR-10: rate, start, and a batch that grows",
    claims=CLAIMS,
    method=(
        f"CIFAR-10: {FULL.train:,} pictures to train, 5,000 held out, 10,000 to test, shifted by "
        "up to 4 pixels and mirrored.",
        f"A residual network of 309,994 weights, {FULL.epochs} epochs of full batches, Nesterov "
        f"momentum 0.9, decay 1e-4; the rate falls to a fifth after {FULL.drops[0]}, "
        f"{FULL.drops[1]} and {FULL.drops[2]} epochs.",
        f"Batches {FULL.small} and {FULL.large:,}; warmup over {FULL.warmup_epochs} epochs from "
        "the small batch's rate.",
        f"Searches: {len(FULL.rates)} rates of factor 2, {FULL.tuning_seeds} seeds, the same for "
        "every row.",
    ),
    data=("cifar10",),
    design={"full": asdict(FULL), **CONSTANTS},
    plan=plan,
    run=run,
    conclude=conclude,
    quick_seeds=1,
)
