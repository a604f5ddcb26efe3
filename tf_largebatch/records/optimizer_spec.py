"""Update rules."""

from dataclasses import dataclass
from typing import Any, Literal

from tf_largebatch.records.checks import check, check_at_least


def _check_common(spec: Any) -> None:
    decay, rank = spec.weight_decay, spec.exclude_rank_below
    check_at_least(0, optimizer_weight_decay=decay, optimizer_exclude_rank_below=rank)


def _check_momentum(spec: Any) -> None:
    check(0 <= spec.momentum < 1, "optimizer.momentum", "in [0, 1)", spec.momentum)
    _check_common(spec)


@dataclass(frozen=True, kw_only=True)
class SGDSpec:
    """Momentum SGD with the rate outside the velocity (arXiv:1706.02677 eq. 9).

    Attributes:
        momentum: decay of the velocity per update.
        nesterov: look ahead by one momentum step.
        weight_decay: L2 coefficient inside the gradient.
        exclude_rank_below: tensors of lower rank have no decay (2: biases and batch norm).
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    exclude_rank_below: int = 2

    def __post_init__(self) -> None:
        _check_momentum(self)


@dataclass(frozen=True, kw_only=True)
class LARSSpec:
    """LARS (arXiv:1708.03888 Algorithm 1): momentum SGD with a rate per tensor.

    Attributes:
        momentum: decay of the velocity per update.
        nesterov: look ahead by one momentum step.
        weight_decay: L2 coefficient inside the update.
        trust_coefficient: the paper's eta.
        epsilon: added to the denominator of the ratio.
        momentum_placement: "inside" (the rate in the velocity: the paper), "outside" or "update".
        decay_in_norm: "sum" for |g| + decay |w| (the paper), "combined" for |g + decay w|.
        exclude_rank_below: tensors of lower rank have no decay and no ratio.
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    trust_coefficient: float = 0.001
    epsilon: float = 0.0
    momentum_placement: Literal["inside", "outside", "update"] = "inside"
    decay_in_norm: Literal["sum", "combined"] = "sum"
    exclude_rank_below: int = 2

    def __post_init__(self) -> None:
        _check_momentum(self)
        trust = self.trust_coefficient
        check(trust > 0, "optimizer.trust_coefficient", "above 0", trust)
        check_at_least(0, optimizer_epsilon=self.epsilon)


@dataclass(frozen=True, kw_only=True)
class LAMBSpec:
    """LAMB (arXiv:1904.00962 Algorithm 2): Adam with a trust ratio per tensor.

    Attributes:
        beta_1: decay of the first moment per update.
        beta_2: decay of the second moment.
        epsilon: added to the root of the second moment.
        weight_decay: added to the update, inside the ratio.
        bias_correction: of both moments.
        global_clipnorm: limit of the gradient's norm over all tensors; None for none.
        exclude_rank_below: tensors of lower rank have no decay and no ratio.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 0.0
    bias_correction: bool = True
    global_clipnorm: float | None = None
    exclude_rank_below: int = 2

    def __post_init__(self) -> None:
        for name in ("beta_1", "beta_2"):
            value = getattr(self, name)
            check(0 <= value < 1, f"optimizer.{name}", "in [0, 1)", value)
        check(self.epsilon > 0, "optimizer.epsilon", "above 0", self.epsilon)
        limit = self.global_clipnorm
        check(limit is None or limit > 0, "optimizer.global_clipnorm", "above 0 or none", limit)
        _check_common(self)


@dataclass(frozen=True, kw_only=True)
class RMSpropSGDSpec:
    """RMSprop that turns into momentum SGD (Akiba et al. 2017, arXiv:1711.04325 §3.1).

    Attributes:
        center_epochs: where the ramp has reached one half.
        period_epochs: twice the length of its linear part.
        rmsprop_learning_rate: rate of the RMSprop part.
        momentum: decay of the velocity per update.
        rho: decay of the second moment.
        epsilon: added to its root.
        weight_decay: L2 coefficient inside the gradient.
        exclude_rank_below: tensors of lower rank have no decay.
    """

    center_epochs: float
    period_epochs: float
    rmsprop_learning_rate: float
    momentum: float = 0.9
    rho: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    exclude_rank_below: int = 2

    def __post_init__(self) -> None:
        _check_momentum(self)
        center, rate = self.center_epochs, self.rmsprop_learning_rate
        check_at_least(0, optimizer_center_epochs=center, optimizer_rmsprop_learning_rate=rate)
        check(0 <= self.rho < 1, "optimizer.rho", "in [0, 1)", self.rho)
        for name in ("period_epochs", "epsilon"):
            check(getattr(self, name) > 0, f"optimizer.{name}", "above 0", getattr(self, name))


OptimizerSpec = SGDSpec | LARSSpec | LAMBSpec | RMSpropSGDSpec
