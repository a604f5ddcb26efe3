"""The network and the loss."""

from dataclasses import dataclass
from typing import Literal

from tf_largebatch.records import architectures
from tf_largebatch.records.checks import check, check_fields


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The network and the switches that recipes set on it."""

    architecture: str  # one of `architectures.ARCHITECTURES`, by name
    last_gamma: float = 0.0  # initial scale of the last batch norm of every residual block
    bn_batch: int | None = None  # images that share statistics; None for those of one forward pass
    # Decay of the running statistics per update; 0 keeps those of the last update, averaged over
    # replicas (Akiba et al. 2017, arXiv:1711.04325).
    bn_decay: float = 0.9
    bn_epsilon: float = 1e-5  # added to the variance
    # Training images from which the statistics of evaluation are taken afresh after every epoch; 0
    # for the running ones.
    bn_recompute_images: int = 0
    head_std: float = 0.01  # of the initial weights of the classifier
    dropout: float = 0.5  # share of the values dropped before the dense layers of AlexNet

    def __post_init__(self) -> None:
        architectures.get(self.architecture)
        check_fields(self, "model.", "finite", "last_gamma")
        shared = self.bn_batch
        check(shared is None or shared >= 2, "model.bn_batch", "at least 2 or none", shared)
        check_fields(self, "model.", "in [0, 1)", "bn_decay", "dropout")
        check_fields(self, "model.", "above 0", "bn_epsilon")
        check_fields(self, "model.", "at least 0", "bn_recompute_images", "head_std")


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
        check_fields(self, "loss.", "in [0, 1)", "label_smoothing")
