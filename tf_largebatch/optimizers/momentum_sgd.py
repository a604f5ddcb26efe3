"""Momentum SGD as Goyal et al. (2017) write it, arXiv:1706.02677: the rate stays outside."""

from typing import Unpack

import keras

from tf_largebatch.optimizers.base import LargeBatchOptimizer
from tf_largebatch.optimizers.options import Options, Rate, check_momentum
from tf_largebatch.optimizers.tensors import Tensor, as_written
from tf_largebatch.records.checks import check_flag


@keras.saving.register_keras_serializable("tf_largebatch")
class MomentumSGD(LargeBatchOptimizer):
    """Stochastic gradient descent whose velocity does not contain the learning rate.

    Update of one tensor `w` with gradient `g` (paper Eq. 9, decay as in its section 3):

        d = g + decay * w
        v = momentum * v + d
        w = w - lr * v              # nesterov: w - (lr * d + lr * (momentum * v))

    `keras.optimizers.SGD` keeps `lr` inside `v` (paper Eq. 10). Both agree while the rate is
    constant. When the rate moves, Eq. 10 needs the momentum correction of the paper's Remark 2 and
    Eq. 9 does not: the whole velocity moves at today's rate.

    Decay is inside the gradient, so it enters the velocity; it is not decoupled.

    Args:
        learning_rate: number >= 0, LearningRateSchedule of the update, or callable.
        momentum: number in [0, 1).
        nesterov: whether to look ahead along the velocity.
        **options: `weight_decay`, `no_decay`, `exclude_rank_below`, clipping, moving averages and
            `name`: those of every optimizer here, see `help(LargeBatchOptimizer)`.

    Raises:
        ValueError: an argument is out of range; at `build`, a pattern matches no variable.

    Example:
        >>> import keras, numpy as np
        >>> from tf_largebatch import MomentumSGD
        >>> w, optimizer = keras.Variable([1.0]), MomentumSGD(0.1, momentum=0.9)
        >>> _ = optimizer.apply([np.ones(1, "float32")], [w])  # v = 1
        >>> optimizer.learning_rate = 0.2
        >>> _ = optimizer.apply([np.zeros(1, "float32")], [w])  # v = 0.9, all at today's rate
        >>> print(w.numpy().round(4))  # 1 - 0.1 * 1 - 0.2 * 0.9
        [0.72]
    """

    own_options = ("momentum", "nesterov")

    def __init__(
        self,
        learning_rate: Rate,
        *,
        momentum: float = 0.9,
        nesterov: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.momentum = check_momentum(momentum)
        self.nesterov = check_flag("nesterov", nesterov)

    def _build_slots(self, variables: list[keras.Variable]) -> None:
        self._velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """The lines above, for one tensor."""
        i, w, g, lr = self._symbols(gradient, variable, learning_rate)
        v, momentum, decay = self._velocities[i], self.momentum, self._decay_of(i)

        d = as_written(g + decay * w) if decay else g
        v = momentum * v + d
        if self.nesterov:
            w = w - (lr * d + as_written(lr * as_written(momentum * v)))
        else:
            w = w - lr * v

        self.assign(self._velocities[i], v)
        self.assign(variable, w)
