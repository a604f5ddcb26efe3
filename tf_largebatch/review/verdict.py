"""Whether measured differences agree with a claim, by a rule fixed before they are measured.

    rule = Rule("more", smallest=1.0, unit="points")  # a claim: the row loses a point or more
    decide([2.1, 1.7, 2.4, 1.9, 2.2], rule).verdict   # 'agrees'

The interval is the percentile bootstrap of the mean with the levels widened for few seeds: as they
stand they cover about 83 % at five seeds where they say 95 % (Hesterberg 2015, arXiv:1411.5279,
section 5.3: "expanded percentile interval" [quoted from memory]).
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tf_largebatch.records.checks import check
from tf_largebatch.records.contrast import KINDS

AGREES, CONTRADICTS, CANNOT_TELL = "agrees", "contradicts", "cannot tell"
VERDICTS = (AGREES, CONTRADICTS, CANNOT_TELL)
CONFIDENCE = 0.95
RESAMPLES = 19_999
LEAST_SEEDS = 5  # of a verdict that may be other than "cannot tell"


@dataclass(frozen=True)
class Rule:
    """What paired differences must show for a claim, stated before the run.

    `more`: the difference is above 0, and at least `smallest`.
        agrees: the interval lies above 0 and the mean is `smallest` or more.
        contradicts: the interval lies below `smallest`: an effect that matters is ruled out.
    `equal`: the difference is smaller than `smallest`, whichever its sign.
        agrees: the interval lies within -smallest .. smallest. contradicts: wholly outside.
    `no_worse`: the difference is a loss, and smaller than `smallest`.
        agrees: the interval lies below `smallest`. contradicts: above it.
    Everything else, and fewer differences than `least`, cannot tell.
    """

    kind: Literal["more", "equal", "no_worse"]
    smallest: float  # the least difference that matters, above 0, in `unit`
    unit: str = "points"
    least: int = LEAST_SEEDS

    def __post_init__(self) -> None:
        check(self.kind in KINDS, "rule.kind", f"one of {', '.join(KINDS)}", self.kind)
        smallest = self.smallest
        check(0 < smallest < math.inf, "rule.smallest", "above 0 and finite", smallest)
        check(self.least >= 2, "rule.least", "at least 2", self.least)

    def explain(self, difference: str) -> str:
        """The rule in a sentence, about `difference`, such as "unscaled - linear"."""
        least = f"{self.smallest:g} {self.unit}"
        match self.kind:
            case "more":
                agrees = f"the interval lies above 0 and its mean is {least} or more"
                against = f"the interval lies below {least}"
            case "equal":
                agrees = f"the interval lies within {least} of 0"
                against = f"the interval lies wholly more than {least} from 0"
            case _:
                agrees = f"the interval lies below {least}"
                against = f"the interval lies above {least}"
        return (
            f"{difference}: agrees where {agrees}; contradicts where {against}; else, or with "
            f"fewer than {self.least} seeds, cannot tell"
        )


@dataclass(frozen=True)
class Finding:
    """Paired differences, their mean with its 95 % interval, and what they say."""

    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    verdict: str

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.differences)

    def describe(self, unit: str = "points") -> str:
        """For example: +13.60 points [12.90, 14.21], n = 5."""
        return f"{self.mean:+.2f} {unit} [{self.low:.2f}, {self.high:.2f}], n = {self.seeds}"


def decide(differences: Sequence[float], rule: Rule) -> Finding:
    """Applies `rule` to one difference a seed; two or more, all finite."""
    low, high = interval(differences)
    mean = statistics.fmean(differences)
    return Finding(tuple(differences), mean, low, high, _decide(mean, low, high, rule, differences))


def _decide(mean: float, low: float, high: float, rule: Rule, differences: Sequence[float]) -> str:
    least = rule.smallest
    match rule.kind:
        case "more":
            agrees, contradicts = low > 0 and mean >= least, high < least
        case "equal":
            agrees, contradicts = -least < low and high < least, low > least or high < -least
        case _:
            agrees, contradicts = high < least, low > least
    if len(differences) < rule.least or not (agrees or contradicts):
        return CANNOT_TELL
    return AGREES if agrees else CONTRADICTS


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The bootstrap interval of the mean of two values or more; the same for the same values."""
    import numpy as np
    from scipy import stats

    count = len(values)
    check(count >= 2, "values", "two or more, for an interval", count)
    check(all(map(math.isfinite, values)), "values", "finite", list(values))
    if min(values) == max(values):
        return float(values[0]), float(values[0])
    # Student's quantile and the sample's deviation, which resampling alone leaves out.
    quantile = stats.t.ppf((1 - confidence) / 2, count - 1) * math.sqrt(count / (count - 1))
    level = 1 - 2 * stats.norm.cdf(quantile)
    found = stats.bootstrap(
        (np.asarray(values, float),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def combine(verdicts: Iterable[str]) -> str:
    """The verdict on a claim of several parts: all agree, or one contradicts, or cannot tell."""
    found = list(verdicts)
    if CONTRADICTS in found:
        return CONTRADICTS
    return AGREES if found and set(found) == {AGREES} else CANNOT_TELL
