"""The optimizers' equations once more, in NumPy float64, sharing no code with the package.

Each function takes one tensor from its first value through a list of gradients and rates and
returns the list of its values, the first included.
"""

import numpy as np


def length(x):
    return np.sqrt(np.sum(np.square(np.asarray(x, np.float64))))


def goyal_eq_9(w, gradients, rates, *, momentum, decay=0.0, nesterov=False):
    """Velocity without the rate: u <- m u + g; w <- w - lr u (arXiv:1706.02677)."""
    w, u, path = np.array(w, np.float64), 0.0, [np.array(w, np.float64)]
    for g, lr in zip(gradients, rates, strict=True):
        g = g + decay * w
        u = momentum * u + g
        w = w - lr * (g + momentum * u if nesterov else u)
        path.append(w)
    return path


def goyal_eq_10_corrected(w, gradients, rates, *, momentum):
    """Velocity with the rate, multiplied by lr_t / lr_(t-1) (Remark 2); rates must not be 0."""
    w, v, path, before = np.array(w, np.float64), 0.0, [np.array(w, np.float64)], rates[0]
    for g, lr in zip(gradients, rates, strict=True):
        v = momentum * (lr / before) * v + lr * g
        w, before = w - v, lr
        path.append(w)
    return path


def lars_ratio(w, g, *, decay, trust, epsilon, denominator, zero_rule):
    """The trust ratio, the decay in force, and whether the tensor has a ratio at all."""
    a, b = length(w), length(g)
    if denominator == "combined":
        c = length(g + decay * w)
        if a == 0.0 or c == 0.0:
            return 1.0, decay, False
        return trust * a / (c + epsilon), decay, True
    if zero_rule == "denominator":
        if a == 0.0 or b + decay * a == 0.0:
            return 1.0, decay, False
    elif a == 0.0 or b == 0.0:
        return 1.0, 0.0 if zero_rule == "skip" else decay, False
    return trust * a / (b + decay * a + epsilon), decay, True


def lars(
    w,
    gradients,
    rates,
    *,
    family,
    momentum=0.9,
    nesterov=False,
    decay=0.0,
    trust=0.001,
    epsilon=0.0,
    denominator="sum",
    zero_rule="one",
    clip=False,
    adapted=True,
    corrected=False,
):
    """LARS of families "A" to "D" (arXiv:1708.03888 Algorithm 1 is "A" with "sum")."""
    w = np.array(w, np.float64)
    buffer, path, before = np.zeros_like(w), [w], None
    for g, rate in zip(gradients, rates, strict=True):
        g = np.asarray(g, np.float64)

        def clipped(r, rate=rate):
            """LARC: the local rate lr * r is at most lr; in the limit of rate 0, r is 1."""
            if not clip:
                return r
            return min(r / rate, 1.0) if rate > 0 else 1.0

        if family == "C":
            buffer = momentum * buffer + g + decay * w
            u = g + decay * w + momentum * buffer if nesterov else buffer
            r = 1.0
            if adapted:
                both = length(w) > 0 and length(u) > 0
                r = clipped(trust * length(w) / (length(u) + epsilon) if both else 1.0)
            w = w - rate * r * u
        elif family == "D":
            # tf.contrib of 2018: apply_momentum(lr r, g), where g has the loss's decay in it.
            g = g + decay * w
            buffer = momentum * buffer + g
            r = 1.0
            if adapted and length(w) > 0 and length(g) > 0:
                r = trust * length(w) / (length(g) + decay * length(w) + epsilon)
            if adapted:
                r = clipped(r)
            w = w - rate * r * (g + momentum * buffer if nesterov else buffer)
        else:
            r, in_force = 1.0, decay
            if adapted:
                r, in_force, usable = lars_ratio(
                    w,
                    g,
                    decay=decay,
                    trust=trust,
                    epsilon=epsilon,
                    denominator=denominator,
                    zero_rule=zero_rule,
                )
                if usable or zero_rule != "skip":
                    r = clipped(r)
            d = r * (g + in_force * w)
            if family == "A":
                if corrected and before is not None:
                    buffer = buffer * (rate / before)
                buffer = momentum * buffer + rate * d
                w = w - (momentum * buffer + rate * d if nesterov else buffer)
            else:
                buffer = momentum * buffer + d
                w = w - rate * (d + momentum * buffer if nesterov else buffer)
        before = rate
        path.append(w)
    return path


def lamb(
    w,
    gradients,
    rates,
    *,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-6,
    decay=0.0,
    decoupled=False,
    bias_correction=True,
    low=0.0,
    high=np.inf,
    clip=False,
    adapted=True,
):
    """LAMB (arXiv:1904.00962 Algorithm 2)."""
    w = np.array(w, np.float64)
    m, v, path = np.zeros_like(w), np.zeros_like(w), [w]
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = np.asarray(g, np.float64)
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        m_hat, v_hat = (m, v)
        if bias_correction:
            m_hat, v_hat = m / (1 - beta_1**t), v / (1 - beta_2**t)
        u = m_hat / (np.sqrt(v_hat) + epsilon)
        if decoupled:
            w = w * (1 - rate * decay)
        else:
            u = u + decay * w
        size = min(max(length(w), low), high)
        r = 1.0
        if adapted and size > 0 and length(u) > 0:
            r = size / length(u)
        if adapted and clip:
            r = min(r, 1.0)
        w = w - rate * r * u
        path.append(w)
    return path


def nearly_polar(m, steps, coefficients):
    """U f(S) V^T of m = U S V^T, f the odd polynomial applied `steps` times to S / |S|."""
    u, values, v = np.linalg.svd(m, full_matrices=False)
    x = values / max(np.sqrt(np.sum(values**2)), 1e-300)
    a, b, c = coefficients
    for _ in range(steps):
        x = a * x + b * x**3 + c * x**5
    return (u * x) @ v


def muon(
    w,
    gradients,
    rates,
    *,
    momentum=0.95,
    nesterov=True,
    decay=0.0,
    adapted=True,
    positions=False,
    scale=lambda rows, columns: np.sqrt(max(1, columns / rows)),
    steps=5,
    coefficients=(3.4445, -4.7750, 2.0315),
    other="adam",
    other_rate=0.1,
    betas=(0.9, 0.999),
):
    """Muon (Jordan et al. 2024) by singular values; decay decoupled."""
    w = np.array(w, np.float64)
    v, s, path = np.zeros_like(w), np.zeros_like(w), [w]
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = np.asarray(g, np.float64)
        if not adapted and other == "adam":
            v = betas[0] * v + (1 - betas[0]) * g
            s = betas[1] * s + (1 - betas[1]) * g**2
            step = (v / (1 - betas[0] ** t)) / (np.sqrt(s / (1 - betas[1] ** t)) + 1e-8)
            w = w - other_rate * rate * step - rate * decay * w
            path.append(w)
            continue
        v = momentum * v + g
        d = g + momentum * v if nesterov else v
        if adapted:
            columns = w.shape[-1]
            parts = d.reshape(-1, *w.shape[-2:]) if positions else [d.reshape(-1, columns)]
            step = np.stack([nearly_polar(m, steps, coefficients) for m in parts])
            step = step * scale(parts[0].shape[0], columns) / len(parts)
            w = w - rate * (step.reshape(w.shape) + decay * w)
        else:
            w = w - other_rate * rate * d - rate * decay * w
        path.append(w)
    return path


def akiba_share(t, center, period):
    """How much of the step is momentum SGD at update t (arXiv:1711.04325, continuous ramp)."""
    if t < center:
        return np.exp(2 * (t - center) / period) / 2
    if t < center + period / 2:
        return 0.5 + (t - center) / period
    return 1.0


def akiba(
    w, gradients, rates, *, center, period, rms_rate=3e-4, mu_1=0.9, mu_2=0.99, eps=1e-8, decay=0.0
):
    """RMSprop turning into momentum SGD, in the paper's signs: delta points downhill."""
    w = np.array(w, np.float64)
    m, delta, path = np.zeros_like(w), np.zeros_like(w), [w]
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True)):
        g = np.asarray(g, np.float64) + decay * w
        m = mu_2 * m + (1 - mu_2) * g**2
        share = akiba_share(t, center, period)
        other = (1 - share) * rms_rate / rate
        delta = mu_1 * delta - (share + other / (np.sqrt(m) + eps)) * g
        w = w + rate * delta
        path.append(w)
    return path


def clip_together(gradients, limit):
    """All gradients of one update scaled to a joint norm of at most `limit`."""
    joint = np.sqrt(sum(length(g) ** 2 for g in gradients))
    return [np.asarray(g, np.float64) * min(1.0, limit / joint) for g in gradients]
