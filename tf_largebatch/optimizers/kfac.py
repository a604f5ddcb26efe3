"""K-FAC, natural-gradient descent with a Fisher matrix in factors: Martens & Grosse (2015)."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Unpack

import keras
from keras import ops

from tf_largebatch.optimizers import kronecker
from tf_largebatch.optimizers.base import LargeBatchOptimizer
from tf_largebatch.optimizers.exemptions import resolve
from tf_largebatch.optimizers.options import AdaptiveOptions, Rate, check_momentum
from tf_largebatch.optimizers.tensors import (
    Tensor,
    norm,
    poison,
    quotient,
    sum_over_replicas,
    this_replica,
    together,
)
from tf_largebatch.records.checks import check, check_count, check_flag, check_number

FISHER_OF = "fisher_of_"  # scope of what a layer's factors become, for messages
NO_LAYERS = (
    "KFAC must be given the layers of the model. Received: an optimizer that knows none. Train "
    "with class Net(DistributedFit, keras.Model), or with a recipe"
)


class FisherBlock(NamedTuple):
    """One layer that has Fisher factors of its own.

    Attributes:
        layer: its name.
        tensors: places in what `build` gets of kernel and bias, if it has one; or of gamma and
            beta, or one of them.
        sizes: the shapes of its statistics: those of A and G, or that of U.
    """

    layer: str
    tensors: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...]


@keras.saving.register_keras_serializable("tf_largebatch")
class KFAC(LargeBatchOptimizer):
    """Momentum SGD on the gradient times the inverse Fisher matrix of each layer.

    Update of the kernel of a dense layer or convolution, as a matrix `w` [inputs (+ 1), outputs]
    with its bias as the last row, and gradient `g`:

        A, G  = input and output factor of the layer    # every `refresh_updates` updates
        A     = statistics_decay * A + (1 - statistics_decay) * A before;   G likewise
        pi    = sqrt((tr A / dim A) / (tr G / dim G))
        d     = (A + pi sqrt(damping) I)^-1 (g + decay w) (G + sqrt(damping) / pi I)^-1
        v     = momentum * (lr / lr before) * v + lr * d
        w     = w - v
        w     = w * min(1, sqrt(2 outputs) / |w|)       # limit_norm: the kernel, without the bias

    of gamma and beta of one channel of a batch norm, as a vector, with U their Fisher matrix:

        d     = (U + stability * damping * I)^-1 (g + decay w)

    and of every other tensor d = g + decay w: momentum SGD.

    `kronecker` has the factors: the empirical Fisher of the batch, from the backward pass that
    gives the gradient. Between refreshes the inverses are stale. The velocity contains the rate,
    and follows it; v / lr is what is kept, so that nothing is divided by a rate of 0. With
    momentum_correction=False v is kept, without the ratio of the rates.

    The optimizer must know the layers: `DistributedFit` tells it under `fit`, the training step in
    a recipe. Choices left open, and ours:
      refresh   at update 0 and every `refresh_updates` after it, whatever has changed; arXiv:
                2002.06015 waits longer where a factor has changed little.
      rises     the velocity follows the rate up too; the code tyohei/chainerkfac only down.
      norm      2 x 2 per channel, as arXiv:2002.06015; chainerkfac inverts 2 C x 2 C.
      decay     inside the gradient: the Fisher matrix is that of the loss without it.
      exempt    ours: no decay on tensors of rank 0 and 1. Factors they have.
      replicas  each inverts the factors of its share of the layers, as arXiv:2002.06015 has it; a
                sum of these and of zeros elsewhere brings all inverses to all. On a TPU, where all
                replicas run one program, every one inverts every factor.

    Args:
        learning_rate: number >= 0, LearningRateSchedule of the update, or callable.
        momentum: number in [0, 1).
        damping: number >= 0, added to the Fisher matrix. With 0 a singular factor ends training.
        statistics_decay: number in (0, 1]: share of the new factors; 1 for those alone.
        refresh_updates: updates from one refresh of factors and inverses to the next, >= 1.
        momentum_correction: whether the velocity follows the rate.
        stability: number > 0: damping of batch norm over that of kernels.
        limit_norm: whether kernels are scaled down.
        **options: `weight_decay`, `no_decay`, `no_adaptation` (tensors whose layers have no
            factors; they save the memory and time of large ones), `exclude_rank_below`,
            `record_trust_ratio` (r = |d| / |g + decay w|), clipping, moving averages and `name`:
            those of every optimizer here, see `help(LargeBatchOptimizer)`.

    Raises:
        ValueError: an argument is out of range; at `build`, a pattern matches no variable, or no
            layer is left that has factors.

    Example:
        >>> from tf_largebatch import KFAC
        >>> KFAC(0.01, damping=1e-3, refresh_updates=10).momentum
        0.9
    """

    adapts = True
    own_options = (
        "momentum",
        "damping",
        "statistics_decay",
        "refresh_updates",
        "momentum_correction",
        "stability",
        "limit_norm",
    )

    def __init__(
        self,
        learning_rate: Rate,
        *,
        momentum: float = 0.9,
        damping: float = 1e-3,
        statistics_decay: float = 1.0,
        refresh_updates: int = 1,
        momentum_correction: bool = True,
        stability: float = 1.0,
        limit_norm: bool = False,
        **options: Unpack[AdaptiveOptions],
    ) -> None:
        for name, fix in (
            ("gradient_accumulation_steps", "Call fit with `micro_batch`."),
            ("loss_scale_factor", "The policy mixed_float16 has a scale of its own."),
        ):
            value = options.get(name)
            check(value is None, name, "None for KFAC, whose statistics it misses", value, fix)
        super().__init__(learning_rate, **options)
        self.momentum = check_momentum(momentum)
        self.damping = check_number("damping", damping, fix="1e-3 is a beginning.")
        self.statistics_decay = check_number("statistics_decay", statistics_decay, low_open=True)
        rule = "in (0, 1]"
        check(self.statistics_decay <= 1, "statistics_decay", rule, statistics_decay)
        fix = "10 is cheap; 1 is a refresh at every update."
        self.refresh_updates = check_count("refresh_updates", refresh_updates, 1, fix)
        self.momentum_correction = check_flag("momentum_correction", momentum_correction)
        self.stability = check_number("stability", stability, low_open=True)
        self.limit_norm = check_flag("limit_norm", limit_norm)
        self._offered: tuple[FisherBlock, ...] = ()
        self.blocks: tuple[FisherBlock, ...] = ()

    def offer(self, blocks: Sequence[FisherBlock]) -> None:
        """Tells the layers that can have factors, before `build`."""
        self._offered = tuple(blocks)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the slots, once the layers are known; a loaded optimizer waits for them."""
        if self._offered:
            super().build(variables)

    def apply(
        self, grads: Iterable[Any], trainable_variables: Iterable[Any] | None = None
    ) -> Tensor:
        """Updates the variables by these gradients and the inverses of the last `refresh`."""
        if not self._offered:
            raise ValueError(NO_LAYERS)
        return super().apply(grads, trainable_variables)

    def refreshes(self) -> Any:
        """Whether the coming update takes new statistics: a tensor, or True where all do."""
        if self.refresh_updates == 1:
            return True
        return ops.equal(ops.mod(ops.convert_to_tensor(self.iterations), self.refresh_updates), 0)

    def refresh(self, statistics: Sequence[Tensor]) -> None:
        """Takes the statistics of `blocks`, one after the other, summed over replicas."""
        left, inverses = list(statistics), []
        here, replicas = this_replica()
        owners = kronecker.share_out([block.sizes for block in self.blocks], replicas)
        for block, means, owner in zip(self.blocks, self._means, owners, strict=True):
            factors = [left.pop(0) for _ in block.sizes]
            if means:
                factors = self._move(means, factors)
            if owner != here:
                inverses += [ops.zeros_like(factor) for factor in factors]
                continue
            with keras.name_scope(f"{FISHER_OF}{block.layer}"):
                inverses += self._invert(factors)
        if replicas > 1:
            inverses = sum_over_replicas(inverses)
        slots = [slot for slots in self._inverses for slot in slots]
        for slot, inverted in zip(slots, together(inverses), strict=True):
            self.assign(slot, inverted)

    def _move(self, means: list[keras.Variable], factors: list[Tensor]) -> list[Tensor]:
        """Moves the means toward new factors, onto them at update 0."""
        share = ops.where(ops.equal(self.iterations, 0), 1.0, self.statistics_decay)
        moved = []
        for mean, new in zip(means, factors, strict=True):
            moved.append(share * new + (1.0 - share) * ops.convert_to_tensor(mean))
            self.assign(mean, moved[-1])
        return moved

    def explain(self, error: Exception) -> ValueError | None:
        """What is wrong where a Cholesky decomposition failed; None if it is something else."""
        text = str(error)
        if "Cholesky" not in text:
            return None
        layers = [block.layer for block in self.blocks if f"{FISHER_OF}{block.layer}/" in text]
        of = f" of {layers[0]}" if layers else ""
        return ValueError(
            "`damping` must make the Fisher factors positive definite. Received: damping="
            f"{self.damping:g}, with a factor{of} that is singular. Raise it, for instance tenfold"
        )

    def _invert(self, factors: list[Tensor]) -> list[Tensor]:
        if len(factors) == 1:
            return [kronecker.inverse(factors[0], self.stability * self.damping)]
        a, g = factors
        parts = kronecker.split_damping(a, g, self.damping)
        return [kronecker.inverse(f, part) for f, part in zip(factors, parts, strict=True)]

    def _build_slots(self, variables: list[keras.Variable]) -> None:
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        # Biases and batch norm have factors, whatever the rank below which nothing decays.
        rows = resolve(
            variables,
            no_decay=(),
            no_adaptation=self.no_adaptation,
            exclude_rank_below=0,
            adapts=True,
        )
        self.blocks = tuple(
            block for block in self._offered if all(rows[i].adapted for i in block.tensors)
        )
        names = ", ".join(block.layer for block in self._offered)
        rule = f"patterns that leave some of {names}"
        check(bool(self.blocks), "no_adaptation", rule, self.no_adaptation, "Leave it out.")
        treated = {i for block in self.blocks for i in block.tensors}
        self._exemptions = tuple(
            row._replace(adapted=i in treated) for i, row in enumerate(self._exemptions)
        )
        keeps = self.statistics_decay < 1
        self._inverses = [self._add_matrices(block, "inverse") for block in self.blocks]
        self._means = [self._add_matrices(b, "mean") if keeps else [] for b in self.blocks]

    def _add_matrices(self, block: FisherBlock, what: str) -> list[keras.Variable]:
        # Every replica has the same sums and computes the same matrix: the first one's is taken.
        letters = "AG" if len(block.sizes) == 2 else "U"
        return [
            self.add_variable(
                shape,
                initializer="zeros",
                dtype="float32",
                aggregation="only_first_replica",
                name=f"{block.layer}_{letter}_{what}",
            )
            for shape, letter in zip(block.sizes, letters, strict=True)
        ]

    def _change_reduced(self, grads: list[Tensor], variables: list[Tensor]) -> list[Tensor]:
        """The lines above from `decay` to `d`, where a layer has factors."""
        places = [self._get_variable_index(v) for v in variables]
        d = dict(zip(places, super()._change_reduced(grads, variables), strict=True))
        weights = dict(zip(places, variables, strict=True))
        for block, inverses in zip(self.blocks, self._inverses, strict=True):
            if not all(i in d for i in block.tensors):  # a tensor that the loss does not reach
                continue
            g = [
                ops.cast(d[i], "float32") + self._decay_of(i) * ops.cast(weights[i], "float32")
                for i in block.tensors
            ]
            inverses = [ops.convert_to_tensor(inverse) for inverse in inverses]
            natural = _times_unit(g, *inverses) if len(inverses) == 1 else _times(g, *inverses)
            for i, before, after in zip(block.tensors, g, natural, strict=True):
                size = norm(before)
                r = quotient(norm(after), size, size > 0)
                self._record_trust_ratio(i, poison(r, size))
                d[i] = ops.cast(after, d[i].dtype)
        return [d[i] for i in places]

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """The lines above from `v` on, for one tensor."""
        i, w, d, lr = self._symbols(gradient, variable, learning_rate)
        v, momentum = self._velocities[i], self.momentum
        if not self._exemptions[i].adapted:
            d = d + self._decay_of(i) * w
        if self.momentum_correction:
            v = momentum * v + d
            w = w - lr * v
        else:
            v = momentum * v + lr * d
            w = w - v
        if self.limit_norm and len(w.shape) > 1:
            w = kronecker.rescale(w, math.sqrt(2 * w.shape[-1]))
        self.assign(self._velocities[i], v)
        self.assign(variable, w)


def _times(g: list[Tensor], a: Tensor, b: Tensor) -> list[Tensor]:
    """`a` times kernel and bias, one below the other, times `b`; in their shapes."""
    kernel, *bias = g
    matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
    rows = matrix.shape[0]
    if bias:
        matrix = ops.concatenate([matrix, bias[0][None]], axis=0)
    d = ops.matmul(ops.matmul(a, matrix), b)
    return [ops.reshape(d[:rows], kernel.shape), *([d[rows]] if bias else [])]


def _times_unit(g: list[Tensor], u: Tensor) -> list[Tensor]:
    """`u` of each channel times its gamma and beta."""
    d = ops.matmul(u, ops.stack(g, axis=-1)[..., None])[..., 0]
    return [d[:, k] for k in range(len(g))]
