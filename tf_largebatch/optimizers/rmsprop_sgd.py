"""RMSprop turning into momentum SGD: Akiba, Suzuki & Fukuda (2017), arXiv:1711.04325."""

import keras
from keras import ops

from tf_largebatch.optimizers import checks, kernels
from tf_largebatch.optimizers.base import LargeBatchOptimizer


@keras.saving.register_keras_serializable("tf_largebatch")
class RMSpropSGD(LargeBatchOptimizer):
    """Starts as RMSprop, ends as momentum SGD: the warmup of "15 minutes".

    Update number `t` = 0, 1, ... of one tensor `w` with gradient `g` (paper section 3.1):

        d = g + decay * w
        m = rho * m + (1 - rho) * d^2
        a = alpha(t),  b = (1 - a) * rmsprop_learning_rate / lr
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
        weight_decay: number >= 0, `decay` above; None is 0.
        no_decay: regular expressions searched in `variable.path`: tensors without decay.
        exclude_rank_below: tensors of lower rank have no decay; 0 switches that off.
        record_norms: whether each update keeps the norms that `recorded_norms()` reads.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm` (all three act on the gradient after
            the sum over replicas, before decay), `use_ema`, `ema_momentum`,
            `ema_overwrite_frequency`, `loss_scale_factor`, `gradient_accumulation_steps`, `name`:
            as in `keras.optimizers.Optimizer`.

    Raises:
        ValueError: an argument is out of range; at `build`, a pattern matches no variable.
    """

    def __init__(
        self,
        learning_rate,
        *,
        center_updates,
        period_updates,
        rmsprop_learning_rate=3e-4,
        momentum=0.9,
        rho=0.99,
        epsilon=1e-8,
        weight_decay=0.0,
        no_decay=(),
        exclude_rank_below=2,
        record_norms=False,
        **kwargs,
    ):
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            no_decay=no_decay,
            exclude_rank_below=exclude_rank_below,
            record_norms=record_norms,
            **kwargs,
        )
        self.center_updates = checks.check_number(
            "center_updates", center_updates, fix="Give 10 * updates_per_epoch, as in the paper."
        )
        self.period_updates = checks.check_number(
            "period_updates",
            period_updates,
            low_open=True,
            fix="Give 5 * updates_per_epoch, as in the paper.",
        )
        self.rmsprop_learning_rate = checks.check_number(
            "rmsprop_learning_rate", rmsprop_learning_rate, fix="3e-4 is the authors' value."
        )
        self.momentum = checks.check_number(
            "momentum", momentum, high=1.0, fix="0.9 is usual; 0 switches it off."
        )
        self.rho = checks.check_number("rho", rho, high=1.0, fix="0.99 is the authors' value.")
        self.epsilon = checks.check_number(
            "epsilon", epsilon, low_open=True, fix="1e-8 is the authors' value."
        )

    def _build_slots(self, variables):
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        self._seconds = self.add_optimizer_variables(variables, "second_moment")

    def update_step(self, gradient, variable, learning_rate):
        """One update of one tensor, by the equation above."""
        i = self._get_variable_index(variable)
        dtype = kernels.compute_dtype(variable)
        lr, g = ops.cast(learning_rate, dtype), ops.cast(gradient, dtype)
        decay, measure = self._decay_of(i), self.record_norms
        norms = (kernels.norm(kernels.widened(variable)), kernels.norm(g)) if measure else ()

        d = g + decay * kernels.widened(variable) if decay else g
        m = self.rho * ops.convert_to_tensor(self._seconds[i]) + (1.0 - self.rho) * ops.square(d)
        self.assign(self._seconds[i], m)
        a = self._sgd_share(dtype)
        one = ops.ones_like(lr)
        b = ops.where(
            lr > 0, (1.0 - a) * self.rmsprop_learning_rate / ops.where(lr > 0, lr, one), 0.0 * one
        )
        step = (a + b / (ops.sqrt(m) + self.epsilon)) * d
        update_norm = kernels.step_outside(
            self, variable, self._velocities[i], step, lr, self.momentum, measure=measure
        )
        if measure:
            self._record(i, *norms, update_norm)

    def get_config(self):
        """The arguments of this optimizer, from which an equal one can be made."""
        return {
            **super().get_config(),
            "center_updates": self.center_updates,
            "period_updates": self.period_updates,
            "rmsprop_learning_rate": self.rmsprop_learning_rate,
            "momentum": self.momentum,
            "rho": self.rho,
            "epsilon": self.epsilon,
        }

    def _sgd_share(self, dtype):
        """Alpha above, at this update."""
        t = ops.cast(self.iterations, dtype)
        x = (t - self.center_updates) / self.period_updates
        before = 0.5 * ops.exp(2.0 * ops.minimum(x, ops.zeros_like(x)))
        after = ops.minimum(0.5 + x, ops.ones_like(x))
        return ops.where(x < 0, before, after)
