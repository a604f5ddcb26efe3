"""LARS, the layer-wise rate of You, Gitman & Ginsburg (2017), arXiv:1708.03888, all families."""

from typing import Unpack

import keras
from keras import ops

from tf_largebatch.optimizers.base import LargeBatchOptimizer
from tf_largebatch.optimizers.options import AdaptiveOptions, Rate, check_momentum
from tf_largebatch.optimizers.tensors import Tensor, norm, poison, quotient
from tf_largebatch.records.checks import check, check_choice, check_flag, check_number

_PLACEMENTS = {
    "inside": "the velocity contains the rate (the paper, MLPerf, optax)",
    "outside": "the rate multiplies the velocity (timm, apex LARC, VICReg)",
    "update": "the ratio is taken on the velocity (SimCLR with classic_momentum=False)",
    "whole": "rate and ratio multiply the whole velocity (tf.contrib.opt.LARSOptimizer of 2018)",
}
_DENOMINATORS = {
    "sum": "|g| + decay * |w| (the paper, MLPerf, timm, LARC)",
    "combined": "|g + decay * w| (SimCLR, optax, VICReg)",
}
_ZERO_RULES = {
    "one": "ratio 1 where |w| or |g| is 0, decay stays (the paper's codes)",
    "skip": "ratio 1 and no decay where |w| or |g| is 0 (apex LARC)",
    "denominator": "ratio 1 where |w| or the whole denominator is 0 (pytorch_optimizer)",
}


@keras.saving.register_keras_serializable("tf_largebatch")
class LARS(LargeBatchOptimizer):
    """Momentum SGD whose step on each weight tensor is set by that tensor's own norm.

    Update of one tensor `w` with gradient `g` (paper Eq. 6 and Algorithm 1, the default):

        d = g + decay * w
        r = trust * |w| / (|g| + decay * |w| + epsilon)
        v = momentum * v - lr * r * d
        w = w + v                   # nesterov: w + (momentum * v - lr * r * d)

    `v` is the paper's with its sign turned, as `keras.optimizers.SGD` keeps it. With
    decay_in_norm="combined" the denominator of r is |d| + epsilon. `momentum_placement` names the
    four families in use; the first two are equal while `lr` is constant:

        "inside"    the paper, above
        "outside"   v = momentum * v + r * d
                    w = w - lr * v  # nesterov: w - lr * (r * d + momentum * v)
        "update"    v = momentum * v + d
                    u = v           # nesterov: d + momentum * v
                    r = trust * |w| / (|u| + epsilon)
                    w = w - lr * r * u
        "whole"     v, u as in "update"
                    r = trust * |w| / (|d| + decay * |w| + epsilon)
                    w = w - lr * r * u

    "whole" is for runs of 2018 and early 2019, whose decay came with the loss: where d is 0 once,
    r = 1 and the velocity is applied at the raw `lr`.

    Tensors exempt from adaptation take r = 1, tensors exempt from decay take decay = 0.

    Choices the paper leaves open, and ours:
      zero     r = 1 where |w| or the norm in which g enters is 0; `zero_rule` has the others.
      exempt   ours: tensors of rank 0 and 1, which then move at the raw `lr`, often above 10.
      clip     `clip_trust_ratio` is LARC: r = min(r / lr, 1), so that lr * r never exceeds lr.
               Under zero_rule="skip" a tensor with a zero norm is not clipped, as in apex.
      momentum correction multiplies the velocity by lr / (lr of the update before). It makes
               "inside" equal to "outside", and is computed as that: nothing is divided by a rate
               of 0.
      broken   a norm that is not finite makes the whole tensor NaN; r = 0 would hide it.

    Shapes: `g`, `w`, `v`, `d`, `u` share one shape; `|.|` is the 2-norm over all elements, in
    float32 or wider.

    Args:
        learning_rate: number >= 0, LearningRateSchedule of the update, or callable.
        momentum: number in [0, 1).
        nesterov: whether to look ahead along the velocity.
        trust_coefficient: number > 0, `trust` above. Only lr * trust matters to adapted tensors.
        epsilon: number >= 0, taken literally.
        momentum_placement: "inside", "outside", "update" or "whole".
        decay_in_norm: "sum" or "combined"; "update" knows only "combined", "whole" only "sum".
        zero_rule: "one", "skip" or "denominator"; "combined" and "whole" know only "one".
        clip_trust_ratio: whether to bound lr * r by lr.
        momentum_correction: whether to correct the velocity when the rate moves; "inside" only.
        **options: `weight_decay`, `no_decay`, `no_adaptation`, `exclude_rank_below`,
            `record_trust_ratio`, clipping, moving averages and `name`: those of every optimizer
            here, see `help(LargeBatchOptimizer)`.

    Raises:
        ValueError: an argument is out of range or contradicts another; at `build`, a pattern
            matches no variable.

    Example:
        >>> import keras, numpy as np
        >>> from tf_largebatch import LARS
        >>> w = keras.Variable([[3.0, 4.0]])  # |w| = 5
        >>> g = np.array([[0.6, 0.8]], "float32")  # |g| = 1: r = 0.001 * 5 / 1
        >>> _ = LARS(10.0).apply([g], [w])  # w - 10 * r * g
        >>> print(w.numpy().round(4))
        [[2.97 3.96]]
    """

    adapts = True
    own_options = (
        "momentum",
        "nesterov",
        "trust_coefficient",
        "epsilon",
        "momentum_placement",
        "decay_in_norm",
        "zero_rule",
        "clip_trust_ratio",
        "momentum_correction",
    )

    def __init__(
        self,
        learning_rate: Rate,
        *,
        momentum: float = 0.9,
        nesterov: bool = False,
        trust_coefficient: float = 0.001,
        epsilon: float = 0.0,
        momentum_placement: str = "inside",
        decay_in_norm: str = "sum",
        zero_rule: str = "one",
        clip_trust_ratio: bool = False,
        momentum_correction: bool = False,
        **options: Unpack[AdaptiveOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.momentum = check_momentum(momentum)
        self.nesterov = check_flag("nesterov", nesterov)
        self.trust_coefficient = check_number(
            "trust_coefficient", trust_coefficient, low_open=True, fix="The paper uses 0.001."
        )
        self.epsilon = check_number("epsilon", epsilon, fix="0 is the paper's.")
        self.momentum_placement = check_choice(
            "momentum_placement", momentum_placement, _PLACEMENTS
        )
        self.decay_in_norm = check_choice("decay_in_norm", decay_in_norm, _DENOMINATORS)
        self.zero_rule = check_choice("zero_rule", zero_rule, _ZERO_RULES)
        self.clip_trust_ratio = check_flag("clip_trust_ratio", clip_trust_ratio)
        self.momentum_correction = check_flag("momentum_correction", momentum_correction)
        self._check_combination()

    def _build_slots(self, variables: list[keras.Variable]) -> None:
        self._velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """The lines above, for one tensor."""
        i, w, g, lr = self._symbols(gradient, variable, learning_rate)
        v, momentum, decay = self._velocities[i], self.momentum, self._decay(i, w, g)

        d = g + decay * w
        if self.momentum_placement in ("update", "whole"):
            v = momentum * v + d
            u = d + momentum * v if self.nesterov else v
            r = self._trust_ratio(i, w, d, u, decay, lr)
            w = w - lr * r * u
        elif self.momentum_placement == "outside" or self.momentum_correction:
            r = self._trust_ratio(i, w, g, d, decay, lr)
            v = momentum * v + r * d
            w = w - lr * (r * d + momentum * v if self.nesterov else v)
        else:
            r = self._trust_ratio(i, w, g, d, decay, lr)
            v = momentum * v - lr * r * d
            w = w + (momentum * v - lr * r * d if self.nesterov else v)

        self.assign(self._velocities[i], v)
        self.assign(variable, w)
        self._record_trust_ratio(i, r)

    def _decay(self, i: int, w: Tensor, g: Tensor) -> Tensor:
        decay = self._decay_of(i)
        if self.zero_rule == "skip" and self._exemptions[i].adapted:
            decay = decay * ops.cast((norm(w) > 0) & (norm(g) > 0), w.dtype)
        return decay

    def _trust_ratio(
        self, i: int, w: Tensor, g: Tensor, d: Tensor, decay: Tensor, lr: Tensor
    ) -> Tensor:
        """R above; 1 on tensors exempt from it and where a norm is 0."""
        if not self._exemptions[i].adapted:
            return 1.0
        w_norm = norm(w)
        if self.decay_in_norm == "combined":
            tested = denominator = norm(d)
        else:
            denominator = norm(g) + decay * w_norm
            tested = denominator if self.zero_rule == "denominator" else norm(g)
        usable = (w_norm > 0) & (tested > 0)
        r = quotient(self.trust_coefficient * w_norm, denominator + self.epsilon, usable)
        if self.clip_trust_ratio:
            clipped = ops.where(r < lr, quotient(r, lr, lr > 0), 1.0)
            r = ops.where(usable, clipped, r) if self.zero_rule == "skip" else clipped
        return poison(r, tested)

    def _check_combination(self) -> None:
        check(
            self.momentum_placement != "update" or self.decay_in_norm == "combined",
            "decay_in_norm",
            "'combined' when momentum_placement='update', whose ratio is taken on the velocity",
            self.decay_in_norm,
            "Pass decay_in_norm='combined'.",
        )
        check(
            self.momentum_placement != "whole"
            or (self.decay_in_norm, self.zero_rule) == ("sum", "one"),
            "decay_in_norm and zero_rule",
            "'sum' and 'one' when momentum_placement='whole', whose rule has no others",
            (self.decay_in_norm, self.zero_rule),
            "Leave them out.",
        )
        check(
            self.decay_in_norm != "combined" or self.zero_rule == "one",
            "zero_rule",
            "'one' when decay_in_norm='combined', which tests |g + decay * w|",
            self.zero_rule,
            "Leave it out.",
        )
        check(
            not self.momentum_correction or self.momentum_placement == "inside",
            "momentum_correction",
            "False unless momentum_placement='inside', the only velocity that contains the rate",
            self.momentum_correction,
            f"Leave it out, or momentum_placement={self.momentum_placement!r}.",
        )
