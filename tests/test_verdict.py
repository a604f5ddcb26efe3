"""The rule of every verdict, and its interval against closed forms."""

import math

import numpy as np
import pytest
from scipy import stats

from tf_largebatch.review.verdict import Rule, combine, decide, interval

MORE, EQUAL, NO_WORSE = (Rule(kind, smallest=1.0) for kind in ("more", "equal", "no_worse"))


@pytest.mark.parametrize(
    ("differences", "rule", "verdict"),
    [
        ([2.1, 1.7, 2.4, 1.9, 2.2], MORE, "agrees"),
        ([0.1, 0.2, 0.3, 0.2, 0.1], MORE, "contradicts"),  # there, and too small to matter
        ([-2.0, -2.2, -1.9, -2.1, -2.3], MORE, "contradicts"),
        ([2.1, -1.7, 2.4, 1.9, 0.2], MORE, "cannot tell"),
        ([0.8, 1.1, 0.9, 0.7, 1.2], MORE, "cannot tell"),  # real; its mean falls short by 0.06
        ([2.1, 1.7, 2.4, 1.9], MORE, "cannot tell"),  # four seeds
        ([0.1, -0.2, 0.3, 0.0, -0.1], EQUAL, "agrees"),
        ([1.5, 1.6, 1.7, 1.5, 1.6], EQUAL, "contradicts"),
        ([-1.5, -1.6, -1.7, -1.5, -1.6], EQUAL, "contradicts"),
        ([0.5, 1.6, 0.2, 1.5, 0.1], EQUAL, "cannot tell"),
        ([-1.5, -1.6, -1.7, -1.5, -1.6], NO_WORSE, "agrees"),  # better is no worse
        ([1.5, 1.6, 1.7, 1.5, 1.6], NO_WORSE, "contradicts"),
        ([0.5, 1.6, 0.2, 1.5, 0.1], NO_WORSE, "cannot tell"),
    ],
)
def test_verdict_of_made_up_differences(differences, rule, verdict):
    assert decide(differences, rule).verdict == verdict


def test_interval_is_students_where_the_values_are_normal():
    values = np.random.default_rng(1).normal(3.0, 2.0, 200)
    half = stats.t.ppf(0.975, 199) * values.std(ddof=1) / math.sqrt(200)
    low, high = interval(values)
    assert low == pytest.approx(values.mean() - half, abs=0.04 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.04 * half)


def test_interval_at_five_seeds_covers_what_it_says():
    draws = np.random.default_rng(2).normal(0.0, 1.0, (400, 5))
    inside = sum(low <= 0 <= high for low, high in map(interval, draws))
    assert 0.90 <= inside / 400 <= 0.99  # the plain percentile interval covers 0.83


def test_interval_is_the_same_twice_and_moves_with_the_values():
    values = [2.1, 1.7, 2.4, 1.9, 2.2]
    low, high = interval(values)
    assert interval(values) == (low, high)
    assert interval([v + 1 for v in values]) == pytest.approx((low + 1, high + 1))
    assert interval([1.5] * 5) == (1.5, 1.5)


def test_a_claim_of_several_parts():
    assert combine(["agrees", "agrees"]) == "agrees"
    assert combine(["agrees", "cannot tell"]) == "cannot tell"
    assert combine(["agrees", "cannot tell", "contradicts"]) == "contradicts"
    assert combine([]) == "cannot tell"


def test_bad_input_is_one_line():
    with pytest.raises(ValueError, match=r"`rule.smallest` must be above 0"):
        Rule("more", smallest=0.0)
    with pytest.raises(ValueError, match=r"`rule.kind` must be one of more, equal"):
        Rule("less", smallest=1.0)
    with pytest.raises(ValueError, match=r"`values` must be two or more"):
        decide([1.0], MORE)
    with pytest.raises(ValueError, match=r"`values` must be finite"):
        decide([1.0, math.nan], MORE)


def test_rule_and_finding_in_words():
    assert "above 0 and its mean is 1 points or more" in MORE.explain("same rate - linear")
    found = decide([2.1, 1.7, 2.4, 1.9, 2.2], MORE)
    assert found.describe().startswith("+2.06 points [") and found.seeds == 5
