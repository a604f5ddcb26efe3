"""How the learning rate follows the batch: linear (Goyal et al.) or square root (Hoffer et al.)."""

import math

from tf_largebatch.records.checks import check

RULES = ("linear", "sqrt", "none")


def scale_factor(rule: str, global_batch: int, reference_batch: int) -> float:
    """Returns the factor by which the reference rate is multiplied.

    `linear`: B / B_ref, arXiv:1706.02677 §2.1. `sqrt`: sqrt(B / B_ref), arXiv:1705.08741 §4 and
    arXiv:1904.00962. `none`: 1, the rate is the same at every batch.

    Raises:
        ValueError: an unknown rule, or a batch below 1.
    """
    check(rule in RULES, "rule", f"one of {', '.join(RULES)}", rule)
    check(global_batch >= 1, "global_batch", "at least 1", global_batch)
    check(reference_batch >= 1, "reference_batch", "at least 1", reference_batch)
    ratio = global_batch / reference_batch
    return {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[rule]


def scaled_rate(rule: str, reference_rate: float, global_batch: int, reference_batch: int) -> float:
    """Returns the peak rate: `reference_rate` times `scale_factor`."""
    return reference_rate * scale_factor(rule, global_batch, reference_batch)


def explain_rate(rule: str, reference_rate: float, global_batch: int, reference_batch: int) -> str:
    """Returns the arithmetic in one line, for example `3.2 = 0.1 x 8192 / 256 (linear)`."""
    rate = scaled_rate(rule, reference_rate, global_batch, reference_batch)
    term = {
        "linear": f" x {global_batch} / {reference_batch} (linear)",
        "sqrt": f" x sqrt({global_batch} / {reference_batch}) (square root)",
        "none": " (not scaled with the batch)",
    }[rule]
    return f"{rate:.6g} = {reference_rate:g}{term}"
