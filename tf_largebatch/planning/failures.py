"""Checkpoints against failures: how often, and what both cost, in closed form.

A failure comes after an exponential time of mean M, the mean time between failures of the whole
machine: that of one device over the number of devices. It loses the work since the last
checkpoint, and `restart` seconds.

Young 1974, CACM 17(9); Daly 2006, FGCS 22(3). [formulas quoted from memory; `simulation` and its
tests find the same times by events]
"""

import math

from tf_largebatch.records.checks import check_number


def young_interval(cost: float, between_failures: float) -> float:
    """Seconds of work between checkpoints that lose least, to first order: sqrt(2 C M).

    Args:
        cost: C, seconds of one checkpoint, > 0.
        between_failures: M, seconds, > 0.
    """
    _check(cost=cost, between_failures=between_failures)
    return math.sqrt(2.0 * cost * between_failures)


def daly_interval(cost: float, between_failures: float) -> float:
    """The same to higher order (Daly's Eq. 37); M where a checkpoint costs 2 M or more."""
    _check(cost=cost, between_failures=between_failures)
    share = cost / (2.0 * between_failures)
    if share >= 1.0:
        return between_failures
    series = 1.0 + math.sqrt(share) / 3.0 + share / 9.0
    return young_interval(cost, between_failures) * series - cost


def expected_seconds(
    work: float, *, interval: float, cost: float, restart: float, between_failures: float
) -> float:
    """Expected seconds for `work` seconds of undisturbed training (Daly's complete model).

        T = M exp(R / M) (exp((interval + C) / M) - 1) work / interval

    Failures may come during checkpoints and restarts too.

    Args:
        work: seconds, >= 0.
        interval: seconds of work between two checkpoints, > 0.
        cost: C, seconds of a checkpoint, >= 0.
        restart: R, seconds from a failure to the first new update, >= 0.
        between_failures: M, seconds, > 0; infinite for none.
    """
    _check(interval=interval, between_failures=between_failures)
    if math.isinf(between_failures):
        return work * (1.0 + cost / interval)
    mean = between_failures
    segments = work / interval
    return mean * math.exp(restart / mean) * math.expm1((interval + cost) / mean) * segments


def _check(**above_zero: float) -> None:
    for name, value in above_zero.items():
        if value != math.inf:
            check_number(name, value, low_open=True, fix="In seconds.")
