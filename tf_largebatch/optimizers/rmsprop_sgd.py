"""RMSprop turning into momentum SGD: Akiba, Suzuki & Fukuda (2017), arXiv:1711.04325."""

from typing import Unpack

import keras
from keras import ops

from tf_largebatch.optimizers.base import LargeBatchOptimizer
from tf_largebatch.optimizers.options import Options, Rate, check_momentum
from tf_largebatch.optimizers.tensors import Tensor
from tf_largebatch.records.checks import check_number


@keras.saving.register_keras_serializable("tf_largebatch")
class RMSpropSGD(LargeBatchOptimizer):
    """Starts as RMSprop, ends as momentum SGD: the warmup of "15 minutes".

    Update number `t` = 0, 1, ... of one tensor `w` with gradient `g` (paper section 3.1):

        d = g + decay * w
        m = rho * m + (1 - rho) * d^2
        a = alpha(t)
        b = (1 - a) * rmsprop_learning_rate / lr                    # 0 where lr is 0
        v = momentum * v + (a + b / (sqrt(m) + epsilon)) * d
        w = w - lr * v

    with x = (t - center_updates) / period_updates and

        alpha = exp(2 x) / 2    for x < 0
              = 1/2 + x         for 0 <= x < 1/2
              = 1               from x = 1/2 on

    Choices the paper leaves open, and ours:
      ramp     the paper's text has 1/2 + 2 x in the middle, which jumps from 3/2 to 1; this is the
               form with a continuous slope, as in the public GPU code.
      decay    inside the gradient, before both the moment and the velocity.
      rate 0   nothing moves and `b` is 0, where the equation would divide by 0.

    Shapes: `g`, `w`, `m`, `v` share one shape. There is no trust ratio.

    Args:
        learning_rate: number >= 0, LearningRateSchedule of the update, or callable.
        center_updates: number >= 0, where the ramp has reached 1/2; the paper's 10 epochs.
        period_updates: number > 0, twice the length of its linear part; the paper's 5 epochs.
        rmsprop_learning_rate: number >= 0, the rate of the RMSprop part.
        momentum: number in [0, 1).
        rho: number in [0, 1), decay of the second moment.
        epsilon: number > 0, taken literally.
        **options: `weight_decay`, `no_decay`, `exclude_rank_below`, clipping, moving averages and
            `name`: those of every optimizer here, see `help(LargeBatchOptimizer)`.

    Raises:
        ValueError: an argument is out of range; at `build`, a pattern matches no variable.

    Example:
        >>> from tf_largebatch import RMSpropSGD
        >>> optimizer = RMSpropSGD(
        ...     3.2, center_updates=400, period_updates=200, rmsprop_learning_rate=3e-4
        ... )
        >>> optimizer.momentum, optimizer.rho
        (0.9, 0.99)
    """

    own_options = (
        "center_updates",
        "period_updates",
        "rmsprop_learning_rate",
        "momentum",
        "rho",
        "epsilon",
    )

    def __init__(
        self,
        learning_rate: Rate,
        *,
        center_updates: float,
        period_updates: float,
        rmsprop_learning_rate: float = 3e-4,
        momentum: float = 0.9,
        rho: float = 0.99,
        epsilon: float = 1e-8,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.center_updates = check_number(
            "center_updates", center_updates, fix="Give 10 * updates_per_epoch, as in the paper."
        )
        self.period_updates = check_number(
            "period_updates",
            period_updates,
            low_open=True,
            fix="Give 5 * updates_per_epoch, as in the paper.",
        )
        self.rmsprop_learning_rate = check_number(
            "rmsprop_learning_rate", rmsprop_learning_rate, fix="3e-4 is the authors' value."
        )
        self.momentum = check_momentum(momentum)
        self.rho = check_number("rho", rho, high=1.0, fix="0.99 is the authors' value.")
        self.epsilon = check_number(
            "epsilon", epsilon, low_open=True, fix="1e-8 is the authors' value."
        )

    def _build_slots(self, variables: list[keras.Variable]) -> None:
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        self._seconds = self.add_optimizer_variables(variables, "second_moment")

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """The lines above, for one tensor."""
        i, w, g, lr = self._symbols(gradient, variable, learning_rate)
        v, m, momentum, rho = self._velocities[i], self._seconds[i], self.momentum, self.rho
        decay, epsilon = self._decay_of(i), self.epsilon
        t = ops.cast(self.iterations, lr.dtype)

        d = g + decay * w
        m = rho * m + (1.0 - rho) * ops.square(d)
        a = self._alpha(t)
        b = (1.0 - a) * self.rmsprop_learning_rate / ops.where(lr > 0, lr, float("inf"))
        v = momentum * v + (a + b / (ops.sqrt(m) + epsilon)) * d
        w = w - lr * v

        self.assign(self._seconds[i], m)
        self.assign(self._velocities[i], v)
        self.assign(variable, w)

    def _alpha(self, t: Tensor) -> Tensor:
        x = (t - self.center_updates) / self.period_updates
        before = 0.5 * ops.exp(2.0 * ops.minimum(x, 0.0))
        after = ops.minimum(0.5 + x, 1.0)
        return ops.where(x < 0, before, after)
