"""The network and the loss."""

import math
from dataclasses import dataclass
from typing import Literal

from tf_largebatch.records import architectures
from tf_largebatch.records.checks import check, check_at_least


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The network and the switches that recipes set on it.

    Attributes:
        architecture: one of `architectures.ARCHITECTURES`, by name.
        last_gamma: initial scale of the last batch norm of every residual block.
        bn_batch: images whose statistics are shared by one batch normalisation; None for those of
            one forward pass.
        bn_decay: decay of the running statistics per update; 0 keeps those of the last update,
            averaged over replicas (Akiba et al. 2017, arXiv:1711.04325).
        bn_epsilon: added to the variance.
        bn_recompute_images: training images from which the statistics of evaluation are taken
            afresh after every epoch; 0 for the running ones.
        head_std: deviation of the initial weights of the classifier.
        dropout: share of the values dropped before the dense layers of AlexNet.
    """

    architecture: str
    last_gamma: float = 0.0
    bn_batch: int | None = None
    bn_decay: float = 0.9
    bn_epsilon: float = 1e-5
    bn_recompute_images: int = 0
    head_std: float = 0.01
    dropout: float = 0.5

    def __post_init__(self) -> None:
        architectures.get(self.architecture)
        check(math.isfinite(self.last_gamma), "model.last_gamma", "finite", self.last_gamma)
        check(
            self.bn_batch is None or self.bn_batch >= 2,
            "model.bn_batch",
            "at least 2 or none",
            self.bn_batch,
        )
        check(0 <= self.bn_decay < 1, "model.bn_decay", "in [0, 1)", self.bn_decay)
        check(self.bn_epsilon > 0, "model.bn_epsilon", "above 0", self.bn_epsilon)
        check_at_least(
            0, model_bn_recompute_images=self.bn_recompute_images, model_head_std=self.head_std
        )
        check(0 <= self.dropout < 1, "model.dropout", "in [0, 1)", self.dropout)


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """What is minimised.

    Attributes:
        kind: "softmax" is cross-entropy; "sigmoid" is one binary cross-entropy a class, summed over
            classes (Wightman et al. 2021, arXiv:2110.00476).
        label_smoothing: tau; targets are (1 - tau) onehot + tau / classes.
    """

    kind: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check(
            0 <= self.label_smoothing < 1, "loss.label_smoothing", "in [0, 1)", self.label_smoothing
        )
