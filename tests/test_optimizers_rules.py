"""Every update rule over 20 updates against its float64 statement, within 2e-6."""

import numpy as np
import oracles
import pytest
from optimizer_replay import RATES, TENSORS, RateTable, make_problem, replay, worst_difference

from tf_largebatch.optimizers import LAMB, LARS, MomentumSGD, RMSpropSGD

TOLERANCE = 2e-6  # float32 has 6e-8; 20 updates of a dozen roundings each stay below this
DECAY = 0.01  # large enough that a second or a missing decay lands 1e-3 away
COMPILED = (
    pytest.param({"graph": True}, id="graph"),
    pytest.param({"xla": True}, id="xla", marks=pytest.mark.slow),
)
FAMILIES = {"inside": "A", "outside": "B", "update": "C", "whole": "D"}


def check(optimizer, oracle, *, rates=RATES, **how):
    weights, gradients = make_problem()
    path = replay(optimizer, weights, gradients, **how)
    assert worst_difference(path, oracle, weights, gradients, rates) < TOLERANCE


def high_rank(index):
    return len(TENSORS[index][1]) >= 2


def lars_cases():
    variants = ((False, False), (True, False), (False, True))  # nesterov, clip
    for placement in FAMILIES:
        for nesterov, clip in variants:
            if placement != "whole":
                yield placement, nesterov, 0, "combined", "one", clip
            if placement != "update":
                yield placement, nesterov, 0, "sum", "one", clip
        yield placement, True, 2, "sum" if placement == "whole" else "combined", "one", True
        if placement not in ("update", "whole"):
            yield placement, False, 0, "sum", "skip", False
            yield placement, False, 0, "sum", "skip", True
            yield placement, False, 0, "sum", "denominator", False


@pytest.mark.parametrize(
    "placement, nesterov, rank, denominator, zero_rule, clip", list(lars_cases())
)
def test_lars_is_its_equation(placement, nesterov, rank, denominator, zero_rule, clip):
    def oracle(index, w, gradients, rates):
        covered = rank == 0 or high_rank(index)
        return oracles.lars(
            w,
            gradients,
            rates,
            family=FAMILIES[placement],
            nesterov=nesterov,
            decay=DECAY if covered else 0.0,
            adapted=covered,
            trust=0.02,
            denominator=denominator,
            zero_rule=zero_rule,
            clip=clip,
        )

    optimizer = LARS(
        RateTable(),
        momentum_placement=placement,
        nesterov=nesterov,
        weight_decay=DECAY,
        trust_coefficient=0.02,
        decay_in_norm=denominator,
        zero_rule=zero_rule,
        clip_trust_ratio=clip,
        exclude_rank_below=rank,
    )
    check(optimizer, oracle)


@pytest.mark.parametrize("how", COMPILED)
@pytest.mark.parametrize("placement", list(FAMILIES))
def test_lars_is_its_equation_when_compiled(placement, how):
    denominator = "combined" if placement == "update" else "sum"

    def oracle(index, w, gradients, rates):
        return oracles.lars(
            w,
            gradients,
            rates,
            family=FAMILIES[placement],
            decay=DECAY if high_rank(index) else 0.0,
            adapted=high_rank(index),
            trust=0.02,
            denominator=denominator,
        )

    optimizer = LARS(
        RateTable(),
        momentum_placement=placement,
        weight_decay=DECAY,
        trust_coefficient=0.02,
        decay_in_norm=denominator,
    )
    check(optimizer, oracle, **how)


def test_lars_takes_epsilon_literally():
    # 0.05 is of the size of the gradient norms: ignoring or replacing it is seen.
    def oracle(index, w, gradients, rates):
        return oracles.lars(
            w,
            gradients,
            rates,
            family="A",
            epsilon=0.05,
            trust=0.02,
            adapted=high_rank(index),
        )

    check(LARS(RateTable(), epsilon=0.05, trust_coefficient=0.02), oracle)


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_momentum_correction_rescales_the_velocity_with_the_rate(nesterov):
    rates = tuple(rate + 0.5 for rate in RATES)  # the literal correction divides by the rate

    def oracle(index, w, gradients, rates):
        return oracles.lars(
            w,
            gradients,
            rates,
            family="A",
            corrected=True,
            nesterov=nesterov,
            decay=DECAY if high_rank(index) else 0.0,
            adapted=high_rank(index),
            trust=0.02,
        )

    optimizer = LARS(
        RateTable(rates),
        momentum_correction=True,
        nesterov=nesterov,
        weight_decay=DECAY,
        trust_coefficient=0.02,
    )
    check(optimizer, oracle, rates=rates)


@pytest.mark.parametrize("how", [{}, *COMPILED])
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_sgd_is_goyal_equation_9(nesterov, how):
    rates = tuple(rate / 100 for rate in RATES)

    def oracle(index, w, gradients, rates):
        decay = DECAY if high_rank(index) else 0.0
        return oracles.goyal_eq_9(w, gradients, rates, momentum=0.9, decay=decay, nesterov=nesterov)

    optimizer = MomentumSGD(RateTable(rates), nesterov=nesterov, weight_decay=DECAY)
    check(optimizer, oracle, rates=rates, **how)


def test_momentum_sgd_is_equation_10_with_the_correction_of_remark_2():
    rates = tuple((rate + 0.5) / 100 for rate in RATES)

    def oracle(index, w, gradients, rates):
        return oracles.goyal_eq_10_corrected(w, gradients, rates, momentum=0.9)

    check(MomentumSGD(RateTable(rates)), oracle, rates=rates)


@pytest.mark.parametrize(
    "options, statement",
    [
        ({}, {}),
        ({"bias_correction": False}, {"bias_correction": False}),
        ({"decoupled_weight_decay": True}, {"decoupled": True}),
        ({"min_weight_norm": 0.5, "max_weight_norm": 2.0}, {"low": 0.5, "high": 2.0}),
        ({"clip_trust_ratio": True}, {"clip": True}),
        ({"epsilon": 1e-2}, {"epsilon": 1e-2}),
        ({"beta_1": 0.0, "beta_2": 0.9}, {"beta_1": 0.0, "beta_2": 0.9}),
        ({"beta_1": 0.8, "beta_2": 0.0}, {"beta_1": 0.8, "beta_2": 0.0}),
    ],
    ids=lambda value: "-".join(value) or "paper",
)
@pytest.mark.parametrize("rank", [2, 0])
def test_lamb_is_its_equation(rank, options, statement):
    rates = tuple(rate / 100 for rate in RATES)

    def oracle(index, w, gradients, rates):
        covered = rank == 0 or high_rank(index)
        return oracles.lamb(
            w, gradients, rates, decay=DECAY if covered else 0.0, adapted=covered, **statement
        )

    optimizer = LAMB(RateTable(rates), weight_decay=DECAY, exclude_rank_below=rank, **options)
    check(optimizer, oracle, rates=rates)


@pytest.mark.parametrize("how", COMPILED)
def test_lamb_is_its_equation_when_compiled(how):
    rates = tuple(rate / 100 for rate in RATES)

    def oracle(index, w, gradients, rates):
        covered = high_rank(index)
        return oracles.lamb(w, gradients, rates, decay=DECAY if covered else 0.0, adapted=covered)

    check(LAMB(RateTable(rates), weight_decay=DECAY), oracle, rates=rates, **how)


@pytest.mark.parametrize("center", [0.0, 4.0, 8.0, 40.0])
def test_rmsprop_sgd_is_its_equation_on_every_part_of_the_ramp(center):
    rates = tuple((rate + 0.5) / 100 for rate in RATES)

    def oracle(index, w, gradients, rates):
        return oracles.akiba(
            w,
            gradients,
            rates,
            center=center,
            period=6.0,
            rms_rate=3e-3,
            decay=DECAY if high_rank(index) else 0.0,
        )

    optimizer = RMSpropSGD(
        RateTable(rates),
        center_updates=center,
        period_updates=6.0,
        rmsprop_learning_rate=3e-3,
        weight_decay=DECAY,
    )
    check(optimizer, oracle, rates=rates)


@pytest.mark.parametrize("make", [LARS, LAMB])
def test_global_clipping_comes_before_the_norms_and_the_moments(make):
    weights, gradients = make_problem()
    limits = 0.5  # the joint norm is about 15: active at every update
    clipped = [oracles.clip_together(g, limits) for g in gradients]
    rates = tuple(rate / 100 for rate in RATES)
    options = {"weight_decay": DECAY, "exclude_rank_below": 0}

    def oracle(index, w, gradients, rates):
        if make is LARS:
            return oracles.lars(w, gradients, rates, family="A", decay=DECAY)
        return oracles.lamb(w, gradients, rates, decay=DECAY)

    path = replay(make(RateTable(rates), global_clipnorm=limits, **options), weights, gradients)
    assert worst_difference(path, oracle, weights, clipped, rates) < TOLERANCE


def test_the_problem_tells_the_families_apart():
    """Guards the tests above: each other rule is far outside their tolerance here."""
    weights, gradients = make_problem()
    common = {"trust": 0.02, "decay": DECAY}
    right = [
        oracles.lars(w, [g[i] for g in gradients], RATES, family="A", **common)
        for i, w in enumerate(weights)
    ]
    others = (
        {"family": "B"},
        {"family": "C"},
        {"family": "A", "denominator": "combined"},
        {"family": "A", "zero_rule": "skip"},
        {"family": "A", "nesterov": True},
        {"family": "A", "clip": True},
        {"family": "A", "epsilon": 1e-4},
    )
    for other in others:
        wrong = [
            oracles.lars(w, [g[i] for g in gradients], RATES, **common, **other)
            for i, w in enumerate(weights)
        ]
        far = max(
            np.max(np.abs(a[-1] - b[-1])) / np.max(np.abs(a))
            for a, b in zip(right, wrong, strict=True)
        )
        assert far > 100 * TOLERANCE, other
