"""Update rules: each has the fields of the class of `optimizers` in its first line.

Tensors of a lower rank than `exclude_rank_below` have neither weight decay nor a trust ratio (2:
biases and batch norm have not).
"""

from dataclasses import dataclass
from typing import Literal

from tf_largebatch.records.checks import check_fields

_COMMON = ("weight_decay", "exclude_rank_below")


@dataclass(frozen=True, kw_only=True)
class SGDSpec:
    """`MomentumSGD`: the rate outside the velocity (arXiv:1706.02677 eq. 9)."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    exclude_rank_below: int = 2

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.", "in [0, 1)", "momentum")
        check_fields(self, "optimizer.", "at least 0", *_COMMON)


@dataclass(frozen=True, kw_only=True)
class LARSSpec:
    """`LARS` (arXiv:1708.03888 Algorithm 1): momentum SGD with a rate per tensor."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    trust_coefficient: float = 0.001
    epsilon: float = 0.0
    momentum_placement: Literal["inside", "outside", "update", "whole"] = "inside"
    decay_in_norm: Literal["sum", "combined"] = "sum"
    exclude_rank_below: int = 2

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.", "in [0, 1)", "momentum")
        check_fields(self, "optimizer.", "above 0", "trust_coefficient")
        check_fields(self, "optimizer.", "at least 0", "epsilon", *_COMMON)


@dataclass(frozen=True, kw_only=True)
class LAMBSpec:
    """`LAMB` (arXiv:1904.00962 Algorithm 2): Adam with a trust ratio per tensor."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 0.0
    bias_correction: bool = True
    global_clipnorm: float | None = None
    exclude_rank_below: int = 2

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.", "in [0, 1)", "beta_1", "beta_2")
        check_fields(self, "optimizer.", "above 0", "epsilon")
        check_fields(self, "optimizer.", "above 0 or none", "global_clipnorm")
        check_fields(self, "optimizer.", "at least 0", *_COMMON)


@dataclass(frozen=True, kw_only=True)
class RMSpropSGDSpec:
    """`RMSpropSGD`: RMSprop that turns into SGD (Akiba et al. 2017, arXiv:1711.04325 §3.1).

    Attributes:
        center_epochs: where the ramp has reached one half.
        period_epochs: twice the length of its linear part.
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
        at_least_0 = ("center_epochs", "rmsprop_learning_rate", *_COMMON)
        check_fields(self, "optimizer.", "in [0, 1)", "momentum", "rho")
        check_fields(self, "optimizer.", "at least 0", *at_least_0)
        check_fields(self, "optimizer.", "above 0", "period_epochs", "epsilon")


@dataclass(frozen=True, kw_only=True)
class ShampooSpec:
    """Distributed Shampoo (arXiv:2002.09018): a matrix for each side of a tensor; planned only.

    Attributes:
        matrix_epsilon: added to the statistics before their root.
        root: of the inverse: statistics to the power -1 / root.
        block_size: largest side of a matrix; larger tensors are cut.
        start_update: first one that the matrices shape.
    """

    beta_1: float  # of the momentum
    beta_2: float  # of the statistics
    matrix_epsilon: float
    root: int
    block_size: int
    start_update: int
    nesterov: bool = True
    weight_decay: float = 0.0
    exclude_rank_below: int = 2

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.", "in [0, 1)", "beta_1", "beta_2")
        check_fields(self, "optimizer.", "above 0", "matrix_epsilon", "root", "block_size")
        check_fields(self, "optimizer.", "at least 0", "start_update", *_COMMON)


@dataclass(frozen=True, kw_only=True)
class KFACSpec:
    """`KFAC` (arXiv:1811.12019): a Kronecker-factored Fisher matrix for each layer.

    Attributes:
        damping: added to the Fisher matrix, split between its two factors.
        momentum_correction: momentum follows the rate where that falls.
        statistics_decay: share of new factors in running means; 1 for those of the update alone.
        refresh_updates: from one refresh of the factors to the next.
        stability: damping of batch norm over that of the other layers.
        limit_norm: scale weights down to a norm of at most sqrt(2 x outputs) after each update.
    """

    momentum: float
    damping: float
    momentum_correction: bool = True
    statistics_decay: float = 1.0
    refresh_updates: int = 1
    stability: float = 1.0
    limit_norm: bool = False
    weight_decay: float = 0.0
    exclude_rank_below: int = 2

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.", "in [0, 1)", "momentum")
        check_fields(self, "optimizer.", "above 0", "damping", "stability")
        check_fields(self, "optimizer.", "above 0, at most 1", "statistics_decay")
        check_fields(self, "optimizer.", "a whole number of at least 1", "refresh_updates")
        check_fields(self, "optimizer.", "at least 0", *_COMMON)


OptimizerSpec = SGDSpec | LARSSpec | LAMBSpec | RMSpropSGDSpec | ShampooSpec | KFACSpec
# Without a class of `optimizers`: their recipes are plans.
PLANNED: dict[type, str] = {ShampooSpec: "Shampoo"}
