"""K-FAC in NumPy float64: a small network by hand, the factors by loops, the rule as written."""

import numpy as np

EPSILON = 1e-3  # of the batch norm
STRIDE, SIDE, KERNEL = 2, 5, 3


def positions(x, padding):
    """Patches [n, positions, kh * kw * c] of the convolution, one by one."""
    n, side, _, c = x.shape
    if padding == "same":
        out = -(-side // STRIDE)
        pad = max((out - 1) * STRIDE + KERNEL - side, 0)
        x = np.pad(x, [(0, 0), *[(pad // 2, pad - pad // 2)] * 2, (0, 0)])
    else:
        out = (side - KERNEL) // STRIDE + 1
    seen = np.empty((n, out * out, KERNEL * KERNEL * c))
    for place in range(out * out):
        top, left = STRIDE * (place // out), STRIDE * (place % out)
        seen[:, place] = x[:, top : top + KERNEL, left : left + KERNEL].reshape(n, -1)
    return seen


def passes(w, x, labels, padding):
    """(loss, gradients, what each block saw): mean softmax loss of conv, norm, relu and dense.

    `w` is kernel, bias, gamma, beta, kernel, bias. What a block saw is (inputs, output gradients of
    each example's own loss), [n, positions, columns] each.
    """
    kernel, bias, gamma, beta, head, head_bias = w
    n = len(x)
    seen = positions(x, padding)
    s = seen @ kernel.reshape(-1, kernel.shape[-1]) + bias
    mean, var = s.mean((0, 1)), s.var((0, 1))
    factor = 1 / np.sqrt(var + EPSILON)
    unit = (s - mean) * factor
    y = gamma * unit + beta
    flat = np.maximum(y, 0).reshape(n, -1)
    z = flat @ head + head_bias
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.mean(np.log(p[np.arange(n), labels]))
    dz = p.copy()
    dz[np.arange(n), labels] -= 1  # of each example's own loss
    dy = (dz @ head.T).reshape(y.shape) * (y > 0)
    du = dy * gamma
    count = s.shape[0] * s.shape[1]
    ds = factor * (du - du.sum((0, 1)) / count - unit * (du * unit).sum((0, 1)) / count)
    gradients = [
        np.einsum("npi,npj->ij", seen, ds).reshape(kernel.shape) / n,
        ds.sum((0, 1)) / n,
        (dy * unit).sum((0, 1)) / n,
        dy.sum((0, 1)) / n,
        flat.T @ dz / n,
        dz.sum(0) / n,
    ]
    return loss, gradients, [(seen, ds), (unit, dy), (flat[:, None], dz[:, None])]


def kronecker(inputs, gradients):
    """A with a bias, and G, by loops over examples and positions."""
    n, count, _ = inputs.shape
    a, g = 0.0, 0.0
    for i in range(n):
        for t in range(count):
            row = np.append(inputs[i, t], 1.0)
            a = a + np.outer(row, row) / n
            g = g + np.outer(gradients[i, t], gradients[i, t]) / (n * count)
    return a, g


def unit(normalized, gradients):
    """U: [channels, 2, 2]."""
    n, _, channels = normalized.shape
    total = np.zeros((channels, 2, 2))
    for i in range(n):
        for c in range(channels):
            u = np.array([gradients[i, :, c] @ normalized[i, :, c], gradients[i, :, c].sum()])
            total[c] += np.outer(u, u) / n
    return total


def damped(a, g, damping):
    """Both inverses."""
    pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
    return (
        np.linalg.inv(a + pi * np.sqrt(damping) * np.eye(len(a))),
        np.linalg.inv(g + np.sqrt(damping) / pi * np.eye(len(g))),
    )


def train(
    w,
    batches,
    rates,
    *,
    padding,
    momentum,
    damping,
    decay,
    statistics_decay,
    every,
    stability,
    limit,
    corrected=True,
):
    """Losses before each update, and the weights after all."""
    w = [np.float64(v) for v in w]
    v = [np.zeros_like(x) for x in w]
    losses, before, factors, inverses = [], None, None, None
    for update, ((x, labels), rate) in enumerate(zip(batches, rates, strict=True)):
        loss, g, saw = passes(w, np.float64(x), labels, padding)
        losses.append(loss)
        if update % every == 0:
            new = [*kronecker(*saw[0]), unit(*saw[1]), *kronecker(*saw[2])]
            share = statistics_decay
            if factors is not None:
                new = [share * f + (1 - share) * old for f, old in zip(new, factors, strict=True)]
            factors = new
            eye = stability * damping * np.eye(2)
            inverses = (
                damped(*factors[:2], damping),
                np.linalg.inv(factors[2] + eye),
                damped(*factors[3:], damping),
            )
        d = [grad + decay * (x.ndim > 1) * x for grad, x in zip(g, w, strict=True)]
        for place, (a, b) in ((0, inverses[0]), (4, inverses[2])):
            matrix = np.vstack([d[place].reshape(-1, d[place].shape[-1]), d[place + 1]])
            matrix = a @ matrix @ b
            d[place], d[place + 1] = matrix[:-1].reshape(d[place].shape), matrix[-1]
        both = np.einsum("cij,cj->ci", inverses[1], np.stack([d[2], d[3]], axis=1))
        d[2], d[3] = both[:, 0], both[:, 1]
        for i, step in enumerate(d):
            ratio = 1.0 if before is None or not corrected else rate / before
            v[i] = momentum * ratio * v[i] + rate * step
            w[i] = w[i] - v[i]
            if limit and w[i].ndim > 1:
                w[i] = w[i] * min(1.0, np.sqrt(2 * w[i].shape[-1]) / np.linalg.norm(w[i]))
        before = rate
    return losses, w
