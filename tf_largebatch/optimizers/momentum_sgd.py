"""Momentum SGD as Goyal et al. (2017) write it, arXiv:1706.02677: the rate stays outside."""

import keras
from keras import ops

from tf_largebatch.optimizers import checks, kernels
from tf_largebatch.optimizers.base import LargeBatchOptimizer


@keras.saving.register_keras_serializable("tf_largebatch")
class MomentumSGD(LargeBatchOptimizer):
    """Stochastic gradient descent whose velocity does not contain the learning rate.

    Update of one tensor `w` with gradient `g` (paper Eq. 9, decay as in its section 3):

        d = g + decay * w
        v = momentum * v + d
        w = w - lr * v                      # nesterov: w - lr * (d + momentum * v)

    `keras.optimizers.SGD` keeps `lr` inside `v` (paper Eq. 10). Both agree while the rate is
    constant. When the rate moves, Eq. 10 needs the momentum correction of the paper's Remark 2 and
    Eq. 9 does not: the whole velocity moves at today's rate.

    Decay is inside the gradient, so it enters the velocity; it is not decoupled.

    Args:
        learning_rate: number >= 0, LearningRateSchedule of the update, or callable.
        momentum: number in [0, 1).
        nesterov: whether to look ahead along the velocity.
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
        momentum=0.9,
        nesterov=False,
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
        self.momentum = checks.check_number(
            "momentum", momentum, high=1.0, fix="0.9 is usual; 0 switches it off."
        )
        self.nesterov = checks.check_flag("nesterov", nesterov)

    def _build_slots(self, variables):
        self._velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient, variable, learning_rate):
        """One update of one tensor, by the equation above."""
        i = self._get_variable_index(variable)
        dtype = kernels.compute_dtype(variable)
        lr, g = ops.cast(learning_rate, dtype), ops.cast(gradient, dtype)
        decay, measure = self._decay_of(i), self.record_norms
        norms = (kernels.norm(kernels.widened(variable)), kernels.norm(g)) if measure else ()
        d = g + decay * kernels.widened(variable) if decay else g
        update_norm = kernels.step_outside(
            self,
            variable,
            self._velocities[i],
            d,
            lr,
            self.momentum,
            nesterov=self.nesterov,
            measure=measure,
        )
        if measure:
            self._record(i, *norms, update_norm)

    def get_config(self):
        """The arguments of this optimizer, from which an equal one can be made."""
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}
