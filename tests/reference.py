"""The oracle: naive float64 NumPy, one formula a function. Imports nothing of minidl."""

from __future__ import annotations

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
