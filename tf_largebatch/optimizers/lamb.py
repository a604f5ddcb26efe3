"""LAMB, layer-wise Adam of You et al. (2020), arXiv:1904.00962."""

import math
from typing import Unpack

import keras
import numpy as np
from keras import ops

from tf_largebatch.optimizers.base import LargeBatchOptimizer
from tf_largebatch.optimizers.options import AdaptiveOptions, Rate
from tf_largebatch.optimizers.tensors import Tensor, norm, poison, quotient
from tf_largebatch.records.checks import check, check_flag, check_number


@keras.saving.register_keras_serializable("tf_largebatch")
class LAMB(LargeBatchOptimizer):
    """Adam whose step on each weight tensor has a length set by that tensor's norm.

    Update number `t` = 1, 2, ... of one tensor `w` with gradient `g` (paper Algorithm 2):

        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g^2
        c_1 = 1 - beta_1^t,  c_2 = 1 - beta_2^t
        u = (m / c_1) / (sqrt(v / c_2) + epsilon) + decay * w
        r = phi(|w|) / |u|                                  # 1 where phi(|w|) or |u| is 0
        w = w - lr * r * u

    with phi(z) = min(max(z, min_weight_norm), max_weight_norm), the identity by default. Tensors
    exempt from adaptation take r = 1, tensors exempt from decay take decay = 0.

    Choices:
      decay    inside `u`, as in the paper. `decoupled_weight_decay` is the rule of
               `keras.optimizers.Lamb` instead: w = w - lr * decay * w first, `u` without decay,
               and |w| taken after it.
      bias correction (c_1, c_2) can be dropped, as in the paper's first versions. It is accurate
               in float32 from t = 1 on: -expm1(t * log(beta)) in place of 1 - beta^t, with beta as
               rounded in the moments.
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
        decoupled_weight_decay: whether decay is outside the trust ratio.
        bias_correction: whether to divide the moments by 1 - beta^t.
        min_weight_norm: number >= 0, the lower bound of phi, or None.
        max_weight_norm: number > 0, the upper bound of phi, or None.
        clip_trust_ratio: whether to bound r by 1.
        **options: `weight_decay`, `no_decay`, `no_adaptation`, `exclude_rank_below`,
            `record_trust_ratio`, clipping, moving averages and `name`: those of every optimizer
            here, see `help(LargeBatchOptimizer)`.

    Raises:
        ValueError: an argument is out of range; at `build`, a pattern matches no variable.

    Example:
        >>> import keras, numpy as np
        >>> from tf_largebatch import LAMB
        >>> w = keras.Variable([[3.0, 4.0]])  # |w| = 5
        >>> g = np.array([[0.1, 7.0]], "float32")  # at t = 1, u is the sign of g: |u| = sqrt(2)
        >>> _ = LAMB(0.1).apply([g], [w])  # w - 0.1 * 5 / sqrt(2) * u
        >>> print(w.numpy().round(4))
        [[2.6464 3.6464]]
    """

    adapts = True
    own_options = (
        "beta_1",
        "beta_2",
        "epsilon",
        "decoupled_weight_decay",
        "bias_correction",
        "min_weight_norm",
        "max_weight_norm",
        "clip_trust_ratio",
    )

    def __init__(
        self,
        learning_rate: Rate,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        decoupled_weight_decay: bool = False,
        bias_correction: bool = True,
        min_weight_norm: float | None = None,
        max_weight_norm: float | None = None,
        clip_trust_ratio: bool = False,
        **options: Unpack[AdaptiveOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = check_number("beta_1", beta_1, high=1.0, fix="0.9 is usual.")
        self.beta_2 = check_number("beta_2", beta_2, high=1.0, fix="0.999 is usual.")
        self.epsilon = check_number("epsilon", epsilon, low_open=True, fix="1e-6 is the paper's.")
        self.decoupled_weight_decay = check_flag("decoupled_weight_decay", decoupled_weight_decay)
        self.bias_correction = check_flag("bias_correction", bias_correction)
        self.min_weight_norm, self.max_weight_norm = _bounds(min_weight_norm, max_weight_norm)
        self.clip_trust_ratio = check_flag("clip_trust_ratio", clip_trust_ratio)

    def _build_slots(self, variables: list[keras.Variable]) -> None:
        self._first = self.add_optimizer_variables(variables, "first_moment")
        self._second = self.add_optimizer_variables(variables, "second_moment")

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """The lines above, for one tensor."""
        i, w, g, lr = self._symbols(gradient, variable, learning_rate)
        m, v, decay, epsilon = self._first[i], self._second[i], self._decay_of(i), self.epsilon
        beta_1, beta_2 = _rounded(self.beta_1, g.dtype), _rounded(self.beta_2, g.dtype)

        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * ops.square(g)
        c_1, c_2 = self._corrections(beta_1, beta_2, g.dtype)
        u = (m / c_1) / (ops.sqrt(v / c_2) + epsilon)
        if self.decoupled_weight_decay:
            w = w - lr * decay * w
        else:
            u = u + decay * w
        r = self._trust_ratio(i, w, u)
        w = w - lr * r * u

        self.assign(self._first[i], m)
        self.assign(self._second[i], v)
        self.assign(variable, w)
        self._record_trust_ratio(i, r)

    def _corrections(self, beta_1: float, beta_2: float, dtype: str) -> tuple[Tensor, Tensor]:
        """1 - beta^t; without bias correction, what the rounding of beta made of m and v."""
        if not self.bias_correction:
            return (1 - beta_1) / (1 - self.beta_1), (1 - beta_2) / (1 - self.beta_2)
        t = ops.cast(self.iterations, dtype) + 1.0
        c_1, c_2 = (-ops.expm1(t * math.log(b)) if b else 1.0 for b in (beta_1, beta_2))
        return c_1, c_2

    def _trust_ratio(self, i: int, w: Tensor, u: Tensor) -> Tensor:
        """R above; 1 on tensors exempt from it and where a norm is 0."""
        if not self._exemptions[i].adapted:
            return 1.0
        phi, u_norm = norm(w), norm(u)
        if self.min_weight_norm is not None:
            phi = ops.maximum(phi, self.min_weight_norm)
        if self.max_weight_norm is not None:
            phi = ops.minimum(phi, self.max_weight_norm)
        r = quotient(phi, u_norm, (phi > 0) & (u_norm > 0))
        if self.clip_trust_ratio:
            r = ops.minimum(r, 1.0)
        return poison(r, u_norm)


def _rounded(beta: float, dtype: str) -> float:
    """Beta as the moments see it: 1 - beta is then exact in that dtype."""
    return float(np.dtype(keras.backend.standardize_dtype(dtype)).type(beta))


def _bounds(low: float | None, high: float | None) -> tuple[float | None, float | None]:
    if low is not None:
        low = check_number("min_weight_norm", low, fix="None leaves |w| unbounded below.")
    if high is not None:
        fix = "None leaves |w| unbounded above."
        high = check_number("max_weight_norm", high, low_open=True, fix=fix)
    if low is not None and high is not None:
        rule = f"at most max_weight_norm={high!r}"
        check(low <= high, "min_weight_norm", rule, low, "Exchange them.")
    return low, high
