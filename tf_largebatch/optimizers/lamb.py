"""LAMB, layer-wise Adam of You et al. (2020), arXiv:1904.00962."""

import math

import keras
import numpy as np
from keras import ops

from tf_largebatch.optimizers import checks, kernels
from tf_largebatch.optimizers.base import LargeBatchOptimizer


@keras.saving.register_keras_serializable("tf_largebatch")
class LAMB(LargeBatchOptimizer):
    """Adam whose step on each weight tensor has a length set by that tensor's norm.

    Update number `t` = 1, 2, ... of one tensor `w` with gradient `g` (paper Algorithm 2):

        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g^2
        u = (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon) + decay * w
        r = phi(|w|) / |u|                                  # 1 where phi(|w|) or |u| is 0
        w = w - lr * r * u

    with phi(z) = min(max(z, min_weight_norm), max_weight_norm), the identity by default. Tensors
    exempt from adaptation take r = 1, tensors exempt from decay take decay = 0.

    Choices:
      decay    inside `u`, as in the paper. `decoupled_weight_decay` is the rule of
               `keras.optimizers.Lamb` instead: w = w - lr * decay * w first, `u` without decay,
               and |w| taken after it.
      bias correction can be dropped, as in the paper's first versions. It is accurate in float32
               from t = 1 on: -expm1(t * log(beta)) in place of 1 - beta^t, with beta as rounded
               in the moments.
      clip     `clip_trust_ratio` is LAMBC: r = min(r, 1). Clipping of the gradient before the
               moments, as apex and timm do, is `global_clipnorm=1.0`.
      exempt   ours: tensors of rank 0 and 1.
      broken   a norm that is not finite makes the whole tensor NaN; r = 0 would hide it.

    Shapes: `g`, `w`, `m`, `v`, `u` share one shape; `|.|` is the 2-norm over all elements, in
    float32 or wider.

    Args:
        learning_rate: number >= 0, LearningRateSchedule of the update, or callable.
        beta_1: number in [0, 1).
        beta_2: number in [0, 1).
        epsilon: number > 0, taken literally; a zero moment would divide by 0 without it.
        weight_decay: number >= 0, `decay` above; None is 0.
        decoupled_weight_decay: whether decay is outside the trust ratio.
        bias_correction: whether to divide the moments by 1 - beta^t.
        min_weight_norm: number >= 0, the lower bound of phi, or None.
        max_weight_norm: number > 0, the upper bound of phi, or None.
        clip_trust_ratio: whether to bound r by 1.
        no_decay: regular expressions searched in `variable.path`: tensors without decay.
        no_adaptation: the same: tensors without trust ratio.
        exclude_rank_below: tensors of lower rank have neither; 0 switches that off.
        record_norms: whether each update keeps the norms that `recorded_norms()` reads.
        record_trust_ratio: whether each update keeps the r that `trust_ratios()` reads, one scalar
            a tensor.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm` (all three act on the gradient after
            the sum over replicas), `use_ema`, `ema_momentum`, `ema_overwrite_frequency`,
            `loss_scale_factor`, `gradient_accumulation_steps`, `name`: as in
            `keras.optimizers.Optimizer`.

    Raises:
        ValueError: an argument is out of range; at `build`, a pattern matches no variable.
    """

    adapts = True

    def __init__(
        self,
        learning_rate,
        *,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-6,
        weight_decay=0.0,
        decoupled_weight_decay=False,
        bias_correction=True,
        min_weight_norm=None,
        max_weight_norm=None,
        clip_trust_ratio=False,
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
        self.beta_1 = checks.check_number("beta_1", beta_1, high=1.0, fix="0.9 is usual.")
        self.beta_2 = checks.check_number("beta_2", beta_2, high=1.0, fix="0.999 is usual.")
        self.epsilon = checks.check_number(
            "epsilon", epsilon, low_open=True, fix="1e-6 is the paper's."
        )
        self.decoupled_weight_decay = checks.check_flag(
            "decoupled_weight_decay", decoupled_weight_decay
        )
        self.bias_correction = checks.check_flag("bias_correction", bias_correction)
        self.min_weight_norm, self.max_weight_norm = _bounds(min_weight_norm, max_weight_norm)
        self.clip_trust_ratio = checks.check_flag("clip_trust_ratio", clip_trust_ratio)

    def _build_slots(self, variables):
        self._first = self.add_optimizer_variables(variables, "first_moment")
        self._second = self.add_optimizer_variables(variables, "second_moment")

    def update_step(self, gradient, variable, learning_rate):
        """One update of one tensor, by the equation above."""
        i = self._get_variable_index(variable)
        dtype = kernels.compute_dtype(variable)
        lr, g = ops.cast(learning_rate, dtype), ops.cast(gradient, dtype)
        adapted, decay = self._exemptions[i].adapted, self._decay_of(i)
        beta_1, beta_2 = _rounded(self.beta_1, dtype), _rounded(self.beta_2, dtype)

        m, v = kernels.update_moments(
            self, variable, self._first[i], self._second[i], g, beta_1, beta_2
        )
        w = kernels.widened(variable)
        first, second = self._corrections(beta_1, beta_2, dtype)
        # u = scale * x: with both corrections in scalars, two passes over the moments are saved.
        scale = first / ops.sqrt(second)
        x = m / (ops.sqrt(v) + self.epsilon / ops.sqrt(second))
        outside = self.decoupled_weight_decay and decay > 0.0
        if decay and not outside:
            x = x + (decay / scale) * w

        measured, r = self.record_norms, ops.ones_like(lr)
        u_norm = scale * kernels.norm(x) if adapted or measured else None
        if adapted:
            r = self._ratio(kernels.norm((1.0 - lr * decay) * w if outside else w), u_norm)
        if measured:
            norms = (kernels.norm(w), kernels.norm(g), lr * r * u_norm)
        if outside:
            step = (lr * r * scale) * x + (lr * decay) * w
            if measured:
                norms = (*norms[:2], kernels.norm(step))
            kernels.subtract_scaled(self, variable, 1.0, step)
        else:
            kernels.subtract_scaled(self, variable, lr * r * scale, x)
        if measured:
            self._record(i, *norms, r)
        self._record_ratio(i, r)

    def get_config(self):
        """The arguments of this optimizer, from which an equal one can be made."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "decoupled_weight_decay": self.decoupled_weight_decay,
            "bias_correction": self.bias_correction,
            "min_weight_norm": self.min_weight_norm,
            "max_weight_norm": self.max_weight_norm,
            "clip_trust_ratio": self.clip_trust_ratio,
        }

    def _corrections(self, beta_1, beta_2, dtype):
        """Factors on m and v: 1 / (1 - beta^t), or what the rounding of beta took from m and v."""
        if not self.bias_correction:
            factors = ((1 - self.beta_1) / (1 - beta_1), (1 - self.beta_2) / (1 - beta_2))
            return tuple(ops.cast(factor, dtype) for factor in factors)
        t = ops.cast(self.iterations, dtype) + 1.0
        return tuple(
            -1.0 / ops.expm1(t * math.log(beta)) if beta else ops.ones_like(t)
            for beta in (beta_1, beta_2)
        )

    def _ratio(self, w_norm, u_norm):
        one = ops.ones_like(w_norm)
        size = w_norm
        if self.min_weight_norm is not None:
            size = ops.maximum(size, self.min_weight_norm * one)
        if self.max_weight_norm is not None:
            size = ops.minimum(size, self.max_weight_norm * one)
        usable = (size > 0) & (u_norm > 0)
        r = ops.where(usable, size / ops.where(usable, u_norm, one), one)
        if self.clip_trust_ratio:
            r = ops.minimum(r, one)
        return kernels.poison(r, u_norm)


def _rounded(beta: float, dtype: str) -> float:
    """Beta as the moments see it: 1 - beta is then exact in that dtype."""
    return float(np.dtype(dtype).type(beta))


def _bounds(low, high) -> tuple[float | None, float | None]:
    if low is not None:
        low = checks.check_number("min_weight_norm", low, fix="None leaves |w| unbounded below.")
    if high is not None:
        high = checks.check_number(
            "max_weight_norm", high, low_open=True, fix="None leaves |w| unbounded above."
        )
    if low is not None and high is not None and low > high:
        raise ValueError(
            "`min_weight_norm` must be at most max_weight_norm. Received: "
            f"min_weight_norm={low!r}, max_weight_norm={high!r}. Exchange them."
        )
    return low, high
