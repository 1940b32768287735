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


def max_norm(w, limit):
    norm = np.sqrt(np.sum(w**2, axis=0))
    return w * np.clip(norm, 0, limit) / (1e-7 + norm)


def cosine_decay(step, start, steps, alpha=0.0, target=None, warmup=0):
    if target is not None and step < warmup:
        return start + (target - start) * step / warmup
    if target is not None:
        start, step = target, step - warmup
    wave = 0.5 * (1 + np.cos(np.pi * min(step, steps) / steps))
    return start * ((1 - alpha) * wave + alpha)


def activation(name, x):
    x = np.asarray(x, np.float64)
    if name == "softmax":
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)
    if name == "gelu":
        return x * np.reshape([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel()], x.shape)
    return {
        "linear": lambda: x,
        "relu": lambda: np.maximum(x, 0),
        "leaky_relu": lambda: np.where(x > 0, x, 0.2 * x),
        "sigmoid": lambda: 1 / (1 + np.exp(-x)),
        "tanh": lambda: np.tanh(x),
        "silu": lambda: x / (1 + np.exp(-x)),
        "softplus": lambda: np.logaddexp(x, 0),
        "elu": lambda: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    }[name]()


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
