"""What a miniature's rows say of its claims: differences of errors, seed by seed, and verdicts.

A run that diverged has the error of guessing: it cannot be left out, or a row would be judged by
the seeds on which it went well.
"""

import statistics
from collections.abc import Iterable, Sequence

from tf_largebatch.records.contrast import Contrast
from tf_largebatch.records.datasets import DATASETS
from tf_largebatch.records.errors import InputError
from tf_largebatch.records.recipe import Miniature, Recipe
from tf_largebatch.records.result import Found, Result, RowResult
from tf_largebatch.review.verdict import CANNOT_TELL, Finding, Rule, combine, decide


def rule(contrast: Contrast) -> Rule:
    """Returns how a contrast is decided."""
    return Rule(contrast.kind, contrast.smallest)


def judge(
    claims: Iterable[Contrast], rows: Sequence[RowResult], *, stated_before: bool
) -> tuple[Found, ...]:
    """Returns what rows say of claims that name them."""
    errors = {row.label: _errors(row) for row in rows}
    return tuple(
        _judge(claim, errors[claim.row], errors[claim.minus], stated_before) for claim in claims
    )


def find(miniature: Miniature, result: Result) -> tuple[Found, ...]:
    """Returns what a record of a miniature shows, read where it says it, else computed.

    InputError: a record of other rows, batches or rates.
    """
    own = [_named(row.label, row.recipe) for row in miniature.rows]
    recorded = [_named(row.label, row) for row in result.rows]
    if own != recorded:
        raise InputError(
            f"the record of {result.recipe} must have the rows of its module ({'; '.join(own)}). "
            f"Received: {'; '.join(recorded)}. Run the miniature again"
        )
    if [found.contrast for found in result.claims] == list(miniature.claims):
        return result.claims
    return judge(miniature.claims, result.rows, stated_before=False)


def combined(found: Iterable[Found]) -> str:
    """Returns the verdict on all of them together."""
    return combine(one.verdict for one in found)


def numbers(found: Found) -> str:
    """Returns what was measured, for example: +13.60 points [12.90, 14.21], n = 5."""
    if found.mean is None:
        return "no seed that both rows have"
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f} points, n = 1"
    mean, low, high = found.mean, found.low, found.high
    return Finding(found.differences, mean, low, high, found.verdict).describe()


def sentences(found: Sequence[Found]) -> list[str]:
    """Returns one line for each claim, and the verdict on all where they are several."""
    lines = [
        f"{one.verdict}: {one.contrast.claim} ({one.contrast.difference}: {numbers(one)})"
        for one in found
    ]
    return lines + [f"together: {combined(found)}"] * (len(lines) > 1)


def _named(label: str, of: Recipe | RowResult) -> str:
    return f"{label} at {of.global_batch:,}, rate {of.peak_rate:g}"


def _judge(
    claim: Contrast, row: dict[int, float], minus: dict[int, float], stated_before: bool
) -> Found:
    differences = tuple(row[seed] - minus[seed] for seed in row if seed in minus)
    mean = statistics.fmean(differences) if differences else None
    low = high = None
    verdict = CANNOT_TELL
    if len(differences) > 1:
        decided = decide(differences, rule(claim))
        low, high, verdict = decided.low, decided.high, decided.verdict
    return Found(
        contrast=claim,
        differences=differences,
        mean=mean,
        low=low,
        high=high,
        verdict=verdict,
        stated_before=stated_before,
    )


def _errors(row: RowResult) -> dict[int, float]:
    """The error of each seed that ended."""
    guess = 100 - 100 / DATASETS[row.recipe["data"]["name"]].classes
    errors = {
        run.seed: guess if run.diverged_at is not None else run.top1_error_pct for run in row.runs
    }
    return {seed: error for seed, error in errors.items() if error is not None}
