"""The oracle: naive float64 NumPy, one formula a function. Imports nothing of minidl."""

from __future__ import annotations

import math

import numpy as np


def matmul(a, b):
    return np.asarray(a, np.float64) @ np.asarray(b, np.float64)


def random_bits(key, index):
    """SplitMix64 in Python integers."""
    mask = 2**64 - 1
    z = (int(key) + (int(index) + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def random_key(seed, purpose, epoch, step):
    key = 0
    for part in (seed, purpose, epoch, step):
        key = random_bits(key, part)
    return key


def random_uniform(key, index):
    return (random_bits(key, index) >> 11) / 2.0**53


def random_normal(key, index):
    u = ((random_bits(key, 2 * index) >> 11) + 0.5) / 2.0**53
    return np.sqrt(-2 * np.log(u)) * np.cos(np.pi * random_uniform(key, 2 * index + 1))


def dropout(x, rate, key, first_row=0):
    index = first_row * x.shape[1]
    keep = [random_uniform(key, index + i) >= rate for i in range(x.size)]
    return np.asarray(x, np.float64) * np.reshape(keep, x.shape) / (1 - rate)


def translate(images, shifts, fill_value=0.0):
    """Images (B, H, W, C) moved down and right by shifts (B, 2), through a padded copy."""
    height, width = images.shape[1:3]
    out = np.empty(images.shape)
    for image, (dy, dx), target in zip(images, shifts, out, strict=True):
        padded = np.pad(
            np.asarray(image, np.float64),
            ((height, height), (width, width), (0, 0)),
            constant_values=fill_value,
        )
        top, left = height - np.clip(dy, -height, height), width - np.clip(dx, -width, width)
        target[...] = padded[top : top + height, left : left + width]
    return out


def random_shifts(key, rows, low, high, first_row=0):
    """(rows, 2) whole-pixel shifts; low and high are (dy, dx)."""
    shifts = np.empty((rows, 2), np.int64)
    for r, axis in np.ndindex(rows, 2):
        draw = random_uniform(key, 2 * (first_row + r) + axis)
        shifts[r, axis] = low[axis] + int(draw * (high[axis] - low[axis] + 1))
    return shifts


def sparse_accuracy(labels, pred):
    return np.array([float(np.argmax(row) == label) for row, label in zip(pred, labels, strict=True)])


def top_k(labels, pred, k):
    return np.array([float(np.sum(row > row[label]) < k) for row, label in zip(pred, labels, strict=True)])


def sgd(w, g, state, lr, momentum=0.0, nesterov=False):
    u = momentum * state.get("u", 0.0) - lr * g
    state["u"] = u
    return w + momentum * u - lr * g if nesterov else w + u


def adam(w, g, state, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False):
    """The textbook's weighted means, corrected for their zero start, with epsilon outside the correction."""
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = beta_1 * state.get("m", 0.0) + (1 - beta_1) * g
    v = state["v"] = beta_2 * state.get("v", 0.0) + (1 - beta_2) * g**2
    if amsgrad:
        v = state["top"] = np.maximum(v, state.get("top", 0.0))
    return w - lr * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon)


def rmsprop(w, g, state, lr, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    v = state["v"] = rho * state.get("v", 0.0) + (1 - rho) * g**2
    a = state["a"] = rho * state.get("a", 0.0) + (1 - rho) * g
    u = state["u"] = momentum * state.get("u", 0.0) + lr * g / np.sqrt(v - centered * a**2 + epsilon)
    return w - u


def nadam(w, g, state, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """The momenta one after the other, as the paper multiplies them."""
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = beta_1 * state.get("m", 0.0) + (1 - beta_1) * g
    v = state["v"] = beta_2 * state.get("v", 0.0) + (1 - beta_2) * g**2
    u, following = (beta_1 * (1 - 0.96**i / 2) for i in (t, t + 1))
    product = state["product"] = state.get("product", 1.0) * u
    ahead = following * m / (1 - product * following) + (1 - u) * g / (1 - product)
    return w - lr * ahead / (np.sqrt(v / (1 - beta_2**t)) + epsilon)


def adamax(w, g, state, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = beta_1 * state.get("m", 0.0) + (1 - beta_1) * g
    u = state["u"] = np.maximum(beta_2 * state.get("u", 0.0), np.abs(g))
    return w - lr * m / ((1 - beta_1**t) * (u + epsilon))


def adagrad(w, g, state, lr, initial=0.1, epsilon=1e-7):
    a = state["a"] = state.get("a", initial) + g**2
    return w - lr * g / np.sqrt(a + epsilon)


def lion(w, g, state, lr, beta_1=0.9, beta_2=0.99):
    m = state.get("m", 0.0)
    state["m"] = beta_2 * m + (1 - beta_2) * g
    return w - lr * np.sign(beta_1 * m + (1 - beta_1) * g)


def max_norm(w, limit):
    norm = np.sqrt(np.sum(w**2, axis=0))
    return w * np.clip(norm, 0, limit) / (1e-7 + norm)


def min_max_norm(w, low, high, rate):
    norm = np.sqrt(np.sum(w**2, axis=0))
    return w * (rate * np.clip(norm, low, high) + (1 - rate) * norm) / (1e-7 + norm)


def unit_norm(w):
    return w / (1e-7 + np.sqrt(np.sum(w**2, axis=0)))


def cosine_decay(step, start, steps, alpha=0.0, target=None, warmup=0):
    if target is not None and step < warmup:
        return start + (target - start) * step / warmup
    if target is not None:
        start, step = target, step - warmup
    wave = 0.5 * (1 + np.cos(np.pi * min(step, steps) / steps))
    return start * ((1 - alpha) * wave + alpha)


def polynomial_decay(step, start, steps, end=0.0001, power=1.0, cycle=False):
    if cycle:
        steps *= max(1, -(-step // steps))
    return (start - end) * (1 - min(step, steps) / steps) ** power + end


def cosine_decay_restarts(step, start, length, factor=2, height=1.0, alpha=0.0):
    peak = start
    while step >= length:
        step, length, peak = step - length, length * factor, peak * height
    return (1 - alpha) * peak * 0.5 * (1 + np.cos(np.pi * step / length)) + alpha * start


def _softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": lambda x: np.tanh(x),
    "softmax": _softmax,
    "gelu": lambda x: x * np.reshape([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel()], x.shape),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def activation(name, x):
    return ACTIVATIONS[name](np.asarray(x, np.float64))


def tanh_classifier_step(weights, x, y, sample_weight, learning_rate):
    """(loss, accuracy, new weights) of a gradient-descent step of Dense(tanh), Dense, softmax crossentropy."""
    w1, b1, w2, b2 = (np.array(w, np.float64) for w in weights)
    rows = len(x)
    scale = (np.ones(rows) if sample_weight is None else sample_weight) / rows
    hidden = np.tanh(x @ w1 + b1)
    logits = hidden @ w2 + b2
    shifted = logits - logits.max(axis=1, keepdims=True)
    probs = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    loss = -(scale * np.log(probs[np.arange(rows), y])).sum()
    dlogits = scale[:, None] * (probs - np.eye(logits.shape[1])[y])
    dhidden = (dlogits @ w2.T) * (1 - hidden**2)
    steps = x.T @ dhidden, dhidden.sum(0), hidden.T @ dlogits, dlogits.sum(0)
    new = [w - learning_rate * g for w, g in zip((w1, b1, w2, b2), steps, strict=True)]
    return loss, (probs.argmax(1) == y).mean(), new


def softmax(z, temperature=1.0):
    z = np.asarray(z, np.float64) / temperature
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(z, temperature=1.0):
    z = np.asarray(z, np.float64) / temperature
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def crossentropy(y, z):
    return -(y * log_softmax(z)).sum(axis=-1)


def crossentropy_on_probs(y, probs):
    o = np.clip(probs / probs.sum(axis=-1, keepdims=True), 1e-7, 1 - 1e-7)
    return -(y * np.log(o)).sum(axis=-1)


def binary_crossentropy(y, z):
    return (np.logaddexp(0, z) - y * z).mean(axis=-1)


def binary_crossentropy_on_probs(y, probs):
    o = np.clip(probs, 1e-7, 1 - 1e-7)
    return -(y * np.log(o) + (1 - y) * np.log(1 - o)).mean(axis=-1)


def squared_error(y, z):
    return ((y - z) ** 2).mean(axis=-1)


def absolute_error(y, z):
    return np.abs(y - z).mean(axis=-1)


def huber(y, z, delta):
    e = np.abs(y - z)
    return np.where(e <= delta, 0.5 * e**2, delta * e - 0.5 * delta**2).mean(axis=-1)


def log_cosh(y, z):
    return (np.logaddexp(z - y, y - z) - np.log(2)).mean(axis=-1)


def percentage_error(y, z):
    return 100 * (np.abs(y - z) / np.maximum(np.abs(y), 1e-7)).mean(axis=-1)


def logarithmic_error(y, z):
    return ((np.log1p(np.maximum(y, 1e-7)) - np.log1p(np.maximum(z, 1e-7))) ** 2).mean(axis=-1)


def poisson(y, rate):
    return (rate - y * np.log(rate + 1e-7)).mean(axis=-1)


def hinge(y, z, power=1):
    return (np.maximum(1 - np.where(y == 0, -1, y) * z, 0) ** power).mean(axis=-1)


def categorical_hinge(y, z):
    return np.maximum(((1 - y) * z).max(axis=-1) - (y * z).sum(axis=-1) + 1, 0)


def cosine_similarity(y, z):
    norms = (np.maximum(np.sqrt((a**2).sum(axis=-1)), 1e-7) for a in (y, z))
    return -(y * z).sum(axis=-1) / np.prod(list(norms), axis=0)


def binary_focal(y, z, gamma, alpha=None, on_probs=False):
    """Of logits, or of probabilities; ``alpha`` balances the classes."""
    p = z if on_probs else 1 / (1 + np.exp(-z))
    cross = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    weight = 1 if alpha is None else y * alpha + (1 - y) * (1 - alpha)
    return (weight * (1 - y * p - (1 - y) * (1 - p)) ** gamma * cross).mean(axis=-1)


def categorical_focal(y, z, gamma, alpha, on_probs=False):
    """Of logits, or of probabilities, which are clipped."""
    log_q = log_softmax(np.log(z) if on_probs else z)
    if on_probs:
        log_q = np.log(np.clip(np.exp(log_q), 1e-7, 1 - 1e-7))
    return -(alpha * (1 - np.exp(log_q)) ** gamma * y * log_q).sum(axis=-1)


def kl_divergence(y, probs):
    y, q = np.clip(y, 1e-7, 1), np.clip(probs, 1e-7, 1)
    return (y * np.log(y / q)).sum(axis=-1)


def soft_kl(v, z, temperature):
    """KL(p || q) of the softened teacher and student, summed over the classes."""
    log_p, log_q = log_softmax(v, temperature), log_softmax(z, temperature)
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def sigmoid_kl(v, z, temperature):
    """The sum over the outputs of KL between two answers each, of probabilities sigmoid(v / T) and sigmoid(z / T)."""
    a, b = np.asarray(v, np.float64) / temperature, np.asarray(z, np.float64) / temperature
    p = np.exp(-np.logaddexp(0, -a))
    each = p * (np.logaddexp(0, -b) - np.logaddexp(0, -a)) + (1 - p) * (
        np.logaddexp(0, b) - np.logaddexp(0, a)
    )
    return each.sum(axis=-1)


def bounded_error(y, z, v, margin):
    """The student's squared error where it is larger than the teacher's less a margin, else 0."""
    error = squared_error(y, z)
    return np.where(error + margin > squared_error(y, v), error, 0.0)


def standardize(z):
    return (z - z.mean(axis=-1, keepdims=True)) / (1e-7 + z.std(axis=-1, ddof=1, keepdims=True))


def without(z, labels):
    """(B, C - 1): each row without its labelled class."""
    keep = np.ones(z.shape, bool)
    keep[np.arange(len(z)), labels] = False
    return z[keep].reshape(len(z), -1)


def decoupled(z, v, labels, temperature, target_weight, nontarget_weight):
    rows = np.arange(len(z))
    p, q = softmax(v, temperature)[rows, labels], softmax(z, temperature)[rows, labels]
    target = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    other = soft_kl(without(v, labels), without(z, labels), temperature)
    return temperature**2 * (target_weight * target + nontarget_weight * other)


def normalized(z, v, labels, temperature, gamma, target_weight):
    rows = np.arange(len(z))
    target = -softmax(v)[rows, labels] * log_softmax(z)[rows, labels]
    p, log_q = softmax(without(v, labels), temperature), log_softmax(without(z, labels), temperature)
    return target_weight * target - gamma * temperature**2 * (p * log_q).sum(axis=-1)


def correlation(a, b):
    """Pearson's, along the last axis, as in the DIST authors' code."""
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    norms = np.sqrt((a**2).sum(axis=-1)) * np.sqrt((b**2).sum(axis=-1))
    return (a * b).sum(axis=-1) / (norms + 1e-8)


def dist(z, v, temperature, beta, gamma):
    q, p = softmax(z, temperature), softmax(v, temperature)
    rows, columns = 1 - correlation(q, p).mean(), 1 - correlation(q.T, p.T).mean()
    return temperature**2 * (beta * rows + gamma * columns)


def logit_matching(z, v):
    d = z - v
    return ((d - d.mean(axis=-1, keepdims=True)) ** 2).mean(axis=-1)


def batch_normalization(x, gamma, beta, epsilon):
    mean, variance = x.mean(axis=0), ((x - x.mean(axis=0)) ** 2).mean(axis=0)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta, mean, variance


def layer_normalization(x, gamma, beta, epsilon):
    return batch_normalization(x.T, 1.0, 0.0, epsilon)[0].T * gamma + beta


def prelu(x, alpha):
    return np.maximum(x, 0) + alpha * np.minimum(x, 0)


def differences(value, x, step=1e-6):
    """The gradient of ``value(x)`` by central differences, entry by entry."""
    x = np.array(x, np.float64)
    out = np.empty_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        up = value(x)
        x[index] = kept - step
        out[index] = (up - value(x)) / (2 * step)
        x[index] = kept
    return out


# ---- metrics that are functions of several sums


def decisions(y, pred, threshold):
    """(TP, FP, FN, TN): a prediction above the threshold is positive."""
    positive, true = pred > threshold, y != 0
    return tuple(
        np.sum(a & b) for a, b in ((positive, true), (positive, ~true), (~positive, true), (~positive, ~true))
    )


def ranked_area(y, pred):
    """The exact area under the ROC curve: how often a positive has the larger prediction; equal ones count half."""
    a, b = pred[y != 0][:, None], pred[y == 0][None]
    return float(np.mean((a > b) + 0.5 * (a == b)))


def f_score(y, positive, beta):
    """Of 0/1 vectors, from precision and recall."""
    true = np.sum(y * positive)
    precision, recall = true / max(positive.sum(), 1), true / max(y.sum(), 1)
    return (1 + beta**2) * precision * recall / max(beta**2 * precision + recall, 1e-30)


def r2(y, pred):
    return 1 - np.sum((y - pred) ** 2, axis=0) / np.sum((y - y.mean(axis=0)) ** 2, axis=0)
