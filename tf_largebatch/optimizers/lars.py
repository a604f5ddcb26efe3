"""LARS, the layer-wise rate of You, Gitman & Ginsburg (2017), arXiv:1708.03888, all families."""

import keras
from keras import ops

from tf_largebatch.optimizers import checks, kernels
from tf_largebatch.optimizers.base import LargeBatchOptimizer

_PLACEMENTS = {
    "inside": "the velocity contains the rate (the paper, MLPerf, optax)",
    "outside": "the rate multiplies the velocity (timm, apex LARC, VICReg)",
    "update": "the ratio is taken on the velocity (SimCLR with classic_momentum=False)",
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
        v = momentum * v + lr * r * d
        w = w - v                       # nesterov: w - (lr * r * d + momentum * v)

    With decay_in_norm="combined" the denominator is |d| + epsilon. `momentum_placement` names the
    three families in use; the first two are equal while `lr` is constant:

        "inside"    the paper, above
        "outside"   v = momentum * v + r * d
                    w = w - lr * v      # nesterov: w - lr * (r * d + momentum * v)
        "update"    v = momentum * v + d
                    u = v               # nesterov: d + momentum * v
                    w = w - lr * r * u, with r = trust * |w| / (|u| + epsilon)

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

    Shapes: `g`, `w`, `v`, `d` share one shape; `|.|` is the 2-norm over all elements, in float32
    or wider. The slot of "inside" holds -v, as that of `keras.optimizers.SGD` does.

    Args:
        learning_rate: number >= 0, LearningRateSchedule of the update, or callable.
        momentum: number in [0, 1).
        nesterov: whether to look ahead along the velocity.
        weight_decay: number >= 0, `decay` above; None is 0. Not decoupled: its effect on an
            adapted tensor is lr * r * decay.
        trust_coefficient: number > 0, `trust` above. Only lr * trust matters to adapted tensors.
        epsilon: number >= 0, taken literally.
        momentum_placement: "inside", "outside" or "update".
        decay_in_norm: "sum" or "combined"; "update" knows only "combined".
        zero_rule: "one", "skip" or "denominator"; "combined" knows only "one".
        clip_trust_ratio: whether to bound lr * r by lr.
        momentum_correction: whether to correct the velocity when the rate moves; "inside" only.
        no_decay: regular expressions searched in `variable.path`: tensors without decay.
        no_adaptation: the same: tensors without trust ratio.
        exclude_rank_below: tensors of lower rank have neither; 0 switches that off.
        record_norms: whether each update keeps the norms that `recorded_norms()` reads.
        record_trust_ratio: whether each update keeps the r that `trust_ratios()` reads, one scalar
            a tensor.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm` (all three act on the gradient after
            the sum over replicas, before norms and decay), `use_ema`, `ema_momentum`,
            `ema_overwrite_frequency`, `loss_scale_factor`, `gradient_accumulation_steps`, `name`:
            as in `keras.optimizers.Optimizer`.

    Raises:
        ValueError: an argument is out of range or contradicts another; at `build`, a pattern
            matches no variable.
    """

    adapts = True

    def __init__(
        self,
        learning_rate,
        *,
        momentum=0.9,
        nesterov=False,
        weight_decay=0.0,
        trust_coefficient=0.001,
        epsilon=0.0,
        momentum_placement="inside",
        decay_in_norm="sum",
        zero_rule="one",
        clip_trust_ratio=False,
        momentum_correction=False,
        no_decay=(),
        no_adaptation=(),
        exclude_rank_below=2,
        record_norms=False,
        record_trust_ratio=False,
        **kwargs,
    ):
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            no_decay=no_decay,
            no_adaptation=no_adaptation,
            exclude_rank_below=exclude_rank_below,
            record_norms=record_norms,
            record_trust_ratio=record_trust_ratio,
            **kwargs,
        )
        self.momentum = checks.check_number(
            "momentum", momentum, high=1.0, fix="0.9 is usual; 0 switches it off."
        )
        self.nesterov = checks.check_flag("nesterov", nesterov)
        self.trust_coefficient = checks.check_number(
            "trust_coefficient", trust_coefficient, low_open=True, fix="The paper uses 0.001."
        )
        self.epsilon = checks.check_number("epsilon", epsilon, fix="0 is the paper's.")
        self.momentum_placement = checks.check_choice(
            "momentum_placement", momentum_placement, _PLACEMENTS
        )
        self.decay_in_norm = checks.check_choice("decay_in_norm", decay_in_norm, _DENOMINATORS)
        self.zero_rule = checks.check_choice("zero_rule", zero_rule, _ZERO_RULES)
        self.clip_trust_ratio = checks.check_flag("clip_trust_ratio", clip_trust_ratio)
        self.momentum_correction = checks.check_flag("momentum_correction", momentum_correction)
        self._check_combination()

    def _build_slots(self, variables):
        self._velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient, variable, learning_rate):
        """One update of one tensor, by the equation above."""
        i = self._get_variable_index(variable)
        dtype = kernels.compute_dtype(variable)
        lr, g = ops.cast(learning_rate, dtype), ops.cast(gradient, dtype)
        adapted, decay = self._exemptions[i].adapted, self._decay_of(i)
        w = kernels.widened(variable) if adapted or decay or self.record_norms else None
        w_norm = kernels.norm(w) if adapted or self.record_norms else None
        g_norm = kernels.norm(g) if self._needs_gradient_norm(adapted) else None

        r = 1.0
        if adapted and self.decay_in_norm == "sum":
            r, decay = self._ratio_of_sum(w_norm, g_norm, decay, lr)
            d = g + decay * w
        else:
            d = g + decay * w if decay else g
            if adapted and self.momentum_placement != "update":
                r = self._ratio(w_norm, kernels.norm(d), lr)

        velocity = self._velocities[i]
        if self.momentum_placement == "update":
            r, update_norm = self._step_by_velocity(variable, velocity, d, lr, w_norm, adapted)
        elif self.momentum_placement == "outside" or self.momentum_correction:
            update_norm = self._step(kernels.step_outside, variable, velocity, r * d, lr)
        else:
            update_norm = self._step(kernels.step_inside, variable, velocity, d, lr * r)
        if self.record_norms:
            self._record(i, w_norm, g_norm, update_norm, r)
        self._record_ratio(i, r)

    def get_config(self):
        """The arguments of this optimizer, from which an equal one can be made."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "trust_coefficient": self.trust_coefficient,
            "epsilon": self.epsilon,
            "momentum_placement": self.momentum_placement,
            "decay_in_norm": self.decay_in_norm,
            "zero_rule": self.zero_rule,
            "clip_trust_ratio": self.clip_trust_ratio,
            "momentum_correction": self.momentum_correction,
        }

    def _needs_gradient_norm(self, adapted):
        return self.record_norms or (adapted and self.decay_in_norm == "sum")

    def _step(self, kernel, variable, velocity, direction, rate):
        return kernel(
            self,
            variable,
            velocity,
            direction,
            rate,
            self.momentum,
            nesterov=self.nesterov,
            measure=self.record_norms,
        )

    def _step_by_velocity(self, variable, velocity, d, lr, w_norm, adapted):
        v = self.momentum * ops.convert_to_tensor(velocity) + d
        u = d + self.momentum * v if self.nesterov else v
        u_norm = kernels.norm(u) if adapted or self.record_norms else None
        r = self._ratio(w_norm, u_norm, lr) if adapted else 1.0
        self.assign(velocity, v)
        kernels.subtract_scaled(self, variable, lr * r, u)
        return r, lr * r * u_norm if self.record_norms else None

    def _ratio(self, w_norm, d_norm, lr):
        """The ratio whose denominator is one norm."""
        denominator = d_norm + self.epsilon
        r = self._divide(w_norm, denominator, (w_norm > 0) & (d_norm > 0))
        return kernels.poison(self._clip(r, lr), d_norm)

    def _ratio_of_sum(self, w_norm, g_norm, decay, lr):
        """The ratio whose denominator is a sum of norms, and the decay that goes with it."""
        denominator = g_norm + decay * w_norm
        tested = denominator if self.zero_rule == "denominator" else g_norm
        usable = (w_norm > 0) & (tested > 0)
        r = self._clip(self._divide(w_norm, denominator + self.epsilon, usable), lr)
        if self.zero_rule == "skip":
            r = ops.where(usable, r, ops.ones_like(r))
            decay = ops.where(usable, decay * ops.ones_like(r), ops.zeros_like(r))
        return kernels.poison(r, g_norm), decay

    def _divide(self, w_norm, denominator, usable):
        one = ops.ones_like(w_norm)
        safe = ops.where(usable, denominator, one)
        return ops.where(usable, self.trust_coefficient * w_norm / safe, one)

    def _clip(self, r, lr):
        if not self.clip_trust_ratio:
            return r
        one = ops.ones_like(r)
        return ops.where(r < lr, r / ops.where(lr > 0, lr, one), one)

    def _check_combination(self):
        if self.momentum_placement == "update" and self.decay_in_norm != "combined":
            raise ValueError(
                "`decay_in_norm` must be 'combined' when momentum_placement='update', whose ratio "
                f"is taken on the velocity. Received: decay_in_norm={self.decay_in_norm!r}. "
                "Pass decay_in_norm='combined'."
            )
        if self.decay_in_norm == "combined" and self.zero_rule != "one":
            raise ValueError(
                "`zero_rule` must be 'one' when decay_in_norm='combined', which tests |g + decay "
                f"* w|. Received: zero_rule={self.zero_rule!r}. Leave it out."
            )
        if self.momentum_correction and self.momentum_placement != "inside":
            raise ValueError(
                "`momentum_correction` must be False unless momentum_placement='inside', the only "
                "velocity that contains the rate. Received: momentum_correction=True, "
                f"momentum_placement={self.momentum_placement!r}. Leave it out."
            )
