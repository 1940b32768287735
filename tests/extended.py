"""The oracle in extended precision (80 or 128 bits where the platform has them), for numbers at the edge.

Each loss: its value on every row (B,) and its gradient (B, C) on the logits z, in np.longdouble, everything
about probabilities by their logarithms. Imports nothing of minidl.
"""

from __future__ import annotations

import numpy as np

Real = np.longdouble


def log_softmax(z, temperature=1):
    z = np.asarray(z).astype(Real) / Real(temperature)
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def softmax(z, temperature=1):
    return np.exp(log_softmax(z, temperature))


def crossentropy(z, y):
    """y (B, C) of Reals."""
    return -(y * log_softmax(z)).sum(axis=-1), softmax(z) * y.sum(axis=-1, keepdims=True) - y


def binary_crossentropy(z, y):
    z = np.asarray(z).astype(Real)
    small = np.exp(-np.abs(z))
    sigmoid = np.where(z >= 0, 1, small) / (1 + small)
    value = np.maximum(z, 0) + np.log1p(small) - y * z
    return value.mean(axis=-1), (sigmoid - y) / z.shape[1]


def squared_error(z, y):
    error = np.asarray(z).astype(Real) - y
    return (error**2).mean(axis=-1), 2 * error / z.shape[1]


def half_squared_error(z, y):
    value, gradient = squared_error(z, y)
    return value * z.shape[1] / 2, gradient * z.shape[1] / 2


def absolute_error(z, y):
    error = np.asarray(z).astype(Real) - y
    return np.abs(error).mean(axis=-1), np.sign(error) / z.shape[1]


def huber(z, y):
    error = np.asarray(z).astype(Real) - y
    near = np.abs(error) <= 1
    value = np.where(near, error**2 / 2, np.abs(error) - Real(0.5))
    return value.mean(axis=-1), np.where(near, error, np.sign(error)) / z.shape[1]


def divergence(log_p, log_q):
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def soft(z, v, temperature):
    """T^2 KL(p || q)."""
    t = Real(temperature)
    log_p, log_q = log_softmax(v, t), log_softmax(z, t)
    return t**2 * divergence(log_p, log_q), t * (np.exp(log_q) - np.exp(log_p))


def sigmoids(z, v, temperature):
    """T^2 times the sum over the outputs of KL between two answers each."""
    t = Real(temperature)
    a, b = np.asarray(v).astype(Real) / t, np.asarray(z).astype(Real) / t

    def log_sigmoid(x):
        return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))

    p, q = np.exp(log_sigmoid(a)), np.exp(log_sigmoid(b))
    each = p * (log_sigmoid(a) - log_sigmoid(b)) + np.exp(log_sigmoid(-a)) * (
        log_sigmoid(-a) - log_sigmoid(-b)
    )
    return t**2 * each.sum(axis=-1), t * (q - p)


def standardized(z, v, temperature):
    """T^2 KL of (z - mean) / (1e-7 + std), by the chain rule through mean and standard deviation."""
    z, v = np.asarray(z).astype(Real), np.asarray(v).astype(Real)
    classes = z.shape[1]
    center = z - z.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((center**2).sum(axis=-1, keepdims=True) / (classes - 1))
    divisor = deviation + Real("1e-7")
    v_center = v - v.mean(axis=-1, keepdims=True)
    v_divisor = np.sqrt((v_center**2).sum(axis=-1, keepdims=True) / (classes - 1)) + Real("1e-7")
    value, ds = soft(center / divisor, v_center / v_divisor, temperature)
    inner = (ds * center).sum(axis=-1, keepdims=True)
    slope = np.where(
        deviation > 0, inner / np.where(deviation > 0, (classes - 1) * deviation * divisor, 1), 0
    )
    dz = (ds - center * slope) / divisor
    return value, dz - dz.mean(axis=-1, keepdims=True)


def _without(z, labels):
    keep = np.ones(z.shape, bool)
    keep[np.arange(len(z)), labels] = False
    return z[keep].reshape(len(z), -1), keep


def _target_logs(z, labels, temperature):
    """log q_t and log(1 - q_t), from the odds against all other classes."""
    z = np.asarray(z).astype(Real) / Real(temperature)
    others, _ = _without(z, labels)
    peak = others.max(axis=-1)
    odds = z[np.arange(len(z)), labels] - peak - np.log(np.exp(others - peak[:, None]).sum(axis=-1))
    return -np.logaddexp(Real(0), -odds), -np.logaddexp(Real(0), odds)


def decoupled(z, v, labels, temperature, target_weight, other_weight):
    t, rows = Real(temperature), np.arange(len(z))
    (log_q, log_not_q), (log_p, log_not_p) = (_target_logs(x, labels, t) for x in (z, v))
    target = np.exp(log_p) * (log_p - log_q) + np.exp(log_not_p) * (log_not_p - log_not_q)
    gap = np.where(  # q_t - p_t without cancellation near 1
        log_q > np.log(Real(0.5)), np.exp(log_not_p) - np.exp(log_not_q), np.exp(log_q) - np.exp(log_p)
    )
    z_others, keep = _without(np.asarray(z), labels)
    v_others, _ = _without(np.asarray(v), labels)
    value, dothers = soft(z_others, v_others, t)
    gradient = np.zeros(np.shape(z), Real)
    shares = softmax(z_others, t)
    gradient[keep] = (other_weight * dothers - t * target_weight * gap[:, None] * shares).reshape(-1)
    gradient[rows, labels] = t * target_weight * gap
    return t**2 * target_weight * target + other_weight * value, gradient


def normalized(z, v, labels, temperature, gamma, target_weight):
    t, rows = Real(temperature), np.arange(len(z))
    one_hot = np.eye(np.shape(z)[1], dtype=Real)[labels]
    value, gradient = crossentropy(z, one_hot)
    weight = target_weight * softmax(v)[rows, labels]
    value, gradient = value * weight, gradient * weight[:, None]
    z_others, keep = _without(np.asarray(z), labels)
    v_others, _ = _without(np.asarray(v), labels)
    p, log_q = softmax(v_others, t), log_softmax(z_others, t)
    gradient[keep] += (gamma * t * (np.exp(log_q) - p)).reshape(-1)
    return value - gamma * t**2 * (p * log_q).sum(axis=-1), gradient


def logit_matching(z, v):
    d = np.asarray(z).astype(Real) - np.asarray(v).astype(Real)
    d = d - d.mean(axis=-1, keepdims=True)
    return (d**2).mean(axis=-1), 2 * d / d.shape[1]


def _correlation(q, p, epsilon):
    """Along the last axis: rho, and its gradient on q."""
    a, b = q - q.mean(axis=-1, keepdims=True), p - p.mean(axis=-1, keepdims=True)
    a_norm, b_norm = np.sqrt((a**2).sum(axis=-1)), np.sqrt((b**2).sum(axis=-1))
    bottom, inner = a_norm * b_norm + epsilon, (a * b).sum(axis=-1)
    safe = np.where(a_norm > 0, a_norm, 1)
    slope = np.where(a_norm > 0, inner * b_norm / (safe * bottom**2), 0)
    gradient = b / bottom[..., None] - slope[..., None] * a
    return inner / bottom, gradient - gradient.mean(axis=-1, keepdims=True)


def dist(z, v, temperature, beta, gamma, copies=1):
    """The batch's value as B equal shares, and the gradient of the batch's mean times B.

    ``copies``: of a batch that holds every row so often.
    """
    t, (rows, classes) = Real(temperature), np.shape(z)
    q, p = softmax(z, t), softmax(v, t)
    rho, slope = _correlation(q, p, Real("1e-8"))
    column_rho, column_slope = _correlation(q.T, p.T, Real("1e-8") / copies)
    value = t**2 * (beta * (1 - rho) + gamma * (1 - column_rho.mean()))
    dq = -(t**2) * (beta * slope + gamma * column_slope.T * rows / classes)
    return value, q * (dq - (dq * q).sum(axis=-1, keepdims=True)) / t
