"""The Fisher matrix of one layer in factors, and its inverse: pure functions in `keras.ops`.

Martens & Grosse 2015, arXiv:1503.05671, for dense layers; Grosse & Martens 2016, arXiv:1602.01407,
for convolutions; Osawa et al. 2020, arXiv:2002.06015, for batch norm [all quoted from memory; the
factors of convolutions and pi as in the code tyohei/chainerkfac].

Everything is empirical Fisher: output gradients are those of the loss that is minimised. A factor
is a sum over examples, so that those of micro-batches and replicas add up to that of the batch.
"""

import math
from collections.abc import Sequence

from keras import ops

from tf_largebatch.optimizers.tensors import Tensor, norm, quotient


def patches(
    x: Tensor,
    kernel_size: Sequence[int],
    strides: Sequence[int] = (1, 1),
    padding: str = "valid",
    dilation: Sequence[int] = (1, 1),
) -> Tensor:
    """What each position of a convolution sees: [n, h, w, c] to [n, h', w', kh * kw * c].

    The last axis has the order of the rows of a kernel [kh, kw, c, out] reshaped to a matrix.
    Padding is "valid" or "same", as TensorFlow pads: the odd pixel on the right.
    """
    reach = [(k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True)]
    sides = x.shape[1:3]
    if None in tuple(sides):
        raise ValueError(
            "The pictures of a convolution with Fisher factors must have a known size. Received: "
            f"shape={tuple(x.shape)}. Give `keras.Input` height and width"
        )
    if padding == "same":
        outs = [-(-side // s) for side, s in zip(sides, strides, strict=True)]
        pads = [
            max((out - 1) * s + r - side, 0)
            for out, s, r, side in zip(outs, strides, reach, sides, strict=True)
        ]
        around = [(pad // 2, pad - pad // 2) for pad in pads]
        x = ops.pad(x, [(0, 0), *around, (0, 0)])
    else:
        outs = [(side - r) // s + 1 for side, s, r in zip(sides, strides, reach, strict=True)]
    (down, right), (height, width) = strides, outs
    seen = []
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (height - 1) * down + 1, down)
            columns = slice(left, left + (width - 1) * right + 1, right)
            seen.append(x[:, rows, columns])
    return ops.concatenate(seen, axis=-1)


def input_factor(inputs: Tensor, examples: Tensor, *, bias: bool) -> Tensor:
    """A = sum over positions t, mean over examples, of a_t a_t^T, with a 1 for the bias last.

    Args:
        inputs: [n, ..., rows], the inputs of n examples or fewer at each position.
        examples: of the whole batch, whose other parts have their own share.
        bias: whether the layer has one.

    Returns:
        [rows, rows], or one more of each with a bias.
    """
    a = _matrix(inputs)
    if bias:
        a = ops.concatenate([a, ops.ones_like(a[:, :1])], axis=1)
    return ops.matmul(ops.transpose(a), a) / ops.cast(examples, a.dtype)


def output_factor(gradients: Tensor, examples: Tensor) -> Tensor:
    """G = mean over positions and examples of g_t g_t^T.

    Args:
        gradients: [n, ..., columns], of the *mean* loss of the batch by the outputs: an example's
            own gradient is `examples` times as long.
        examples: of the whole batch.
    """
    positions = 1
    for side in gradients.shape[1:-1]:
        positions *= int(side)
    g = _matrix(gradients)
    return ops.matmul(ops.transpose(g), g) * (ops.cast(examples, g.dtype) / positions)


def unit_factor(
    normalized: Tensor, gradients: Tensor, examples: Tensor, *, units: Sequence[bool]
) -> Tensor:
    """U: mean over examples of u u^T, u = (gradient by gamma, by beta) of one channel.

    Args:
        normalized: [n, ..., channels], what gamma multiplies.
        gradients: of its shape, of the mean loss of the batch by the layer's output.
        examples: of the whole batch.
        units: whether the layer has gamma, and beta.

    Returns:
        [channels, k, k], k the number of the two that are there.
    """
    g = ops.cast(gradients, "float32")
    x = ops.cast(normalized, "float32")
    positions = tuple(range(1, len(g.shape) - 1))
    each = [part for part, there in zip((g * x, g), units, strict=True) if there]
    u = ops.stack([ops.sum(part, axis=positions) if positions else part for part in each], axis=-1)
    u = ops.transpose(u, (1, 0, 2))  # [channels, n, k]
    return ops.matmul(ops.transpose(u, (0, 2, 1)), u) * ops.cast(examples, u.dtype)


def split_damping(a: Tensor, g: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """(pi sqrt(damping), sqrt(damping) / pi), pi^2 = (tr A / dim A) / (tr G / dim G).

    arXiv:1503.05671 §6.3. Where a trace is 0, pi is 1.
    """
    of_a, of_g = (ops.trace(f) / int(f.shape[0]) for f in (a, g))
    pi = ops.sqrt(quotient(of_a, of_g, (of_a > 0) & (of_g > 0)))
    return pi * damping**0.5, damping**0.5 / pi


def inverse(factor: Tensor, damping: Tensor) -> Tensor:
    """(F + damping I)^-1 of one matrix or of each of several, by Cholesky.

    Where there is no such matrix, TensorFlow's CPU raises InvalidArgumentError and other devices
    and backends return NaN. A factor that is not finite gives NaN everywhere.
    """
    eye = ops.eye(factor.shape[-1], dtype=factor.dtype)
    finite = ops.all(ops.isfinite(factor))
    damped = ops.where(finite, factor + damping * eye, eye)
    root = ops.cholesky(damped)
    half = ops.solve_triangular(root, ops.broadcast_to(eye, factor.shape), lower=True)
    axes = (*range(len(factor.shape) - 2), len(factor.shape) - 1, len(factor.shape) - 2)
    inverted = ops.matmul(ops.transpose(half, axes), half)
    return ops.where(finite, inverted, float("nan"))


def share_out(sizes: Sequence[Sequence[Sequence[int]]], workers: int) -> list[int]:
    """Which of `workers` inverts the matrices of each layer: the dearest go first, to the freest.

    Args:
        sizes: the shapes [..., n, n] of each layer's matrices; one costs n^3.
        workers: >= 1.

    Returns:
        A number from 0 to workers - 1 for each layer.
    """
    costs = [sum(math.prod(size) * size[-1] for size in layer) for layer in sizes]
    owners, load = [0] * len(costs), [0] * workers
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        owners[place] = load.index(min(load))
        load[owners[place]] += costs[place]
    return owners


def rescale(w: Tensor, limit: float) -> Tensor:
    """`w`, scaled down to a norm of at most `limit`."""
    size = norm(w)
    return w * ops.where(size > limit, limit / ops.where(size > limit, size, 1.0), 1.0)


def _matrix(x: Tensor) -> Tensor:
    return ops.cast(ops.reshape(x, (-1, x.shape[-1])), "float32")
