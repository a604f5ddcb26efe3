"""Muon, orthogonalised momentum of Jordan et al. (2024), also for the kernels of convolutions."""

import math
from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import ops

from tf_largebatch.optimizers.base import LargeBatchOptimizer
from tf_largebatch.optimizers.options import AdaptiveOptions, Rate, check_momentum
from tf_largebatch.optimizers.tensors import Tensor, norm, poison, quotient
from tf_largebatch.records.checks import (
    check,
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_sequence,
)

# kellerjordan.github.io/posts/muon [quoted from memory]: steep at 0, and between 0.7 and 1.2 at 1.
QUINTIC = (3.4445, -4.7750, 2.0315)
RESHAPES = ("flatten", "positions")
SCALES = ("jordan", "spectral", "adam_rms")
OTHERS = ("adam", "momentum_sgd")


@keras.saving.register_keras_serializable("tf_largebatch")
class Muon(LargeBatchOptimizer):
    """Momentum whose matrix has all singular values near 1 before it becomes the step.

    Update of a kernel `w` with gradient `g`:

        v = momentum * v + g
        d = g + momentum * v                    # nesterov=False: d = v
        X = M / |M|_F  with M = matrix(d)
        X = a X + (b A + c A A) X,  A = X X^T   # `ns_steps` times; toward U V^T of M = U S V^T
        w = w - lr * (scale * X + decay * w)

    and of every other tensor, with `rate = other_rate * lr`:

        adam          m, s: moments of Adam;  w = w - rate * (m / c_1) / (sqrt(s / c_2) + epsilon)
        momentum_sgd  v, d as above;          w = w - rate * d

    followed by w = w - lr * decay * w where it has decay (of the w before the update).

    Which tensors: kernels of rank 2 and more are matrices; those below, and those that
    `no_adaptation` names, are the others. Jordan et al. leave the first and last layer to Adam too
    [quoted from memory]: `no_adaptation=["(^|/)conv1/", "(^|/)head/"]`. `exemptions()` lists them.
    `keras.optimizers.Muon` leaves every kernel of rank 4 to Adam, all of a ResNet's but one.

    Choices:
      reshape   of a kernel [height, width, in, out]. "flatten": one matrix [height width in, out],
                as Jordan et al. "positions": a matrix [in, out] for each position; the step is
                divided by their number, since the norms of positions add up in the layer's output.
      scale     of the step, by rows n (what comes in) and columns m (what goes out) of a matrix.
                "jordan": sqrt(max(1, m / n)). "spectral": sqrt(m / n), Bernstein 2024,
                arXiv:2409.20325. "adam_rms": 0.2 sqrt(max(n, m)), so that the rate and decay of
                AdamW carry over, Liu et al. 2025, arXiv:2502.16982. [all quoted from memory]
      ns_steps, ns_coefficients
                The default polynomial is quick and leaves singular values between 0.7 and 1.2;
                (1.875, -1.25, 0.375) converges to 1 and needs more iterations.
      exempt    ours: no decay on tensors of rank 0 and 1.
      zeros     a gradient of zero gives a step of zero; one that is not finite a tensor of NaN.

    Decay is decoupled: outside the momentum, times the rate. The step does not depend on the
    gradient's length, but for moments of the other tensors that start from zero.

    Args:
        learning_rate: number >= 0, LearningRateSchedule of the update, or callable; 0.02 with
            scale "jordan", that of AdamW with "adam_rms".
        momentum: number in [0, 1); 0.95 is usual here.
        nesterov: whether to look ahead along the velocity.
        reshape: "flatten" or "positions".
        scale: "jordan", "spectral" or "adam_rms".
        ns_steps: how often the polynomial is applied (Newton and Schulz), >= 1.
        ns_coefficients: its a, b and c.
        others: "adam" or "momentum_sgd".
        other_rate: number >= 0: their rate over that of the matrices.
        beta_1: Adam's, in [0, 1).
        beta_2: Adam's, in [0, 1).
        epsilon: Adam's, > 0.
        **options: `weight_decay`, `no_decay`, `no_adaptation`, `exclude_rank_below`,
            `record_trust_ratio` (r = |step| / |d|), clipping, moving averages and `name`: those
            of every optimizer here, see `help(LargeBatchOptimizer)`.

    Raises:
        ValueError: an argument is out of range; at `build`, a pattern matches no variable.

    Example:
        >>> from tf_largebatch import Muon
        >>> Muon(0.02, weight_decay=0.01, no_adaptation=["(^|/)head/"]).momentum
        0.95
    """

    adapts = True
    own_options = (
        "momentum",
        "nesterov",
        "reshape",
        "scale",
        "ns_steps",
        "ns_coefficients",
        "others",
        "other_rate",
        "beta_1",
        "beta_2",
        "epsilon",
    )

    def __init__(
        self,
        learning_rate: Rate,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        reshape: str = "flatten",
        scale: str = "jordan",
        ns_steps: int = 5,
        ns_coefficients: Sequence[float] = QUINTIC,
        others: str = "adam",
        other_rate: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        **options: Unpack[AdaptiveOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.momentum = check_momentum(momentum)
        self.nesterov = check_flag("nesterov", nesterov)
        self.reshape = check_choice("reshape", reshape, RESHAPES)
        self.scale = check_choice("scale", scale, SCALES)
        self.ns_steps = check_count("ns_steps", ns_steps, 1)
        name = "ns_coefficients"
        three = check_sequence(name, ns_coefficients)
        check(len(three) == 3, name, "three numbers", ns_coefficients)
        self.ns_coefficients = tuple(check_number(name, c, low=-math.inf) for c in three)
        self.others = check_choice("others", others, OTHERS)
        self.other_rate = check_number("other_rate", other_rate)
        self.beta_1 = check_number("beta_1", beta_1, high=1.0, fix="0.9 is usual.")
        self.beta_2 = check_number("beta_2", beta_2, high=1.0, fix="0.999 is usual.")
        self.epsilon = check_number("epsilon", epsilon, low_open=True, fix="1e-8 is usual.")

    def _build_slots(self, variables: list[keras.Variable]) -> None:
        adam = self.others == "adam"
        # A scalar or a vector is no matrix, whatever `exclude_rank_below` lets through.
        self._exemptions = tuple(
            row._replace(adapted=row.adapted and len(row.shape) > 1) for row in self._exemptions
        )
        by_adam = [adam and not row.adapted for row in self._exemptions]
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        # The first moment of Adam is kept in the velocity's place.
        self._seconds: list[Any] = [
            self.add_variable_from_reference(v, "second_moment") if own else None
            for v, own in zip(variables, by_adam, strict=True)
        ]

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """The lines above, for one tensor."""
        i, w, g, lr = self._symbols(gradient, variable, learning_rate)
        v, momentum, decay = self._velocities[i], self.momentum, self._decay_of(i)
        rate = self.other_rate * lr

        if self._seconds[i] is not None:
            v, step = self._adam(i, g)
            w = w - rate * step - lr * decay * w
        else:
            v = momentum * v + g
            d = g + momentum * v if self.nesterov else v
            if self._exemptions[i].adapted:
                step = self._orthogonal(d)
                w = w - lr * (step + decay * w)
                size = norm(d)
                r = quotient(norm(step), size, size > 0)
                self._record_trust_ratio(i, poison(r, size))
            else:
                w = w - rate * d - lr * decay * w

        self.assign(self._velocities[i], v)
        self.assign(variable, w)

    def _adam(self, i: int, g: Tensor) -> tuple[Tensor, Tensor]:
        """Moves both moments; returns the first, and the step."""
        m = self.beta_1 * self._velocities[i] + (1 - self.beta_1) * g
        s = self.beta_2 * self._seconds[i] + (1 - self.beta_2) * ops.square(g)
        self.assign(self._seconds[i], s)
        t = ops.cast(self.iterations, g.dtype) + 1.0
        betas = (self.beta_1, self.beta_2)
        c_1, c_2 = (-ops.expm1(t * math.log(b)) if b else 1.0 for b in betas)
        return m, (m / c_1) / (ops.sqrt(s / c_2) + self.epsilon)

    def _orthogonal(self, d: Tensor) -> Tensor:
        """`scale * X` in the shape of `d`."""
        *positions, rows, columns = d.shape
        count = math.prod(positions)
        if self.reshape == "flatten":
            rows, count = rows * count, 1
        matrices = ops.reshape(d, (count, rows, columns))
        x = self._scale(rows, columns) / count * self._polar(matrices)
        return ops.reshape(x, d.shape)

    def _scale(self, rows: int, columns: int) -> float:
        match self.scale:
            case "jordan":
                return math.sqrt(max(1.0, columns / rows))
            case "spectral":
                return math.sqrt(columns / rows)
            case _:
                return 0.2 * math.sqrt(max(rows, columns))

    def _polar(self, m: Tensor) -> Tensor:
        """U V^T of each matrix U S V^T, nearly: [n, rows, columns] to the same."""
        wide = m.shape[1] <= m.shape[2]
        x = m if wide else ops.transpose(m, (0, 2, 1))  # A is then as small as it can be
        size = ops.sqrt(ops.sum(ops.square(x), axis=(1, 2), keepdims=True))
        x = x / ops.where(size > 0, size, ops.ones_like(size))
        a, b, c = self.ns_coefficients
        for _ in range(self.ns_steps):
            square = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
            x = a * x + ops.matmul(b * square + c * ops.matmul(square, square), x)
        return x if wide else ops.transpose(x, (0, 2, 1))
