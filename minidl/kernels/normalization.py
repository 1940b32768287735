"""Normalisation: to mean 0 and variance 1 of each column over a batch, or of each row over its features.

Each function works on a `Block` of whole matrices (B, n). ``gamma`` and ``beta`` may be empty: 1 and 0. ``kept`` is
what a backward reads besides x. ``f`` holds epsilon first. A sum over a batch is one chain of additions in the order
of the rows, so its bits do not depend on who computes it.
"""

import numpy as np

from .jit import jit
from .softmax import row_product, row_sum
from .vectors import fma, lanes, load, pointer, rounded, splat, sqrt, store, total

# ---- of a batch. ``kept``: n means and n variances, those of the batch or their moving averages.


@jit
def batch_moments(kept, x, block):
    """Mean and biased variance of each column.

    Differences from the first row are summed, so an offset that all rows share costs no digits, and a constant column
    has exactly its value and 0.
    """
    n, rows = x.shape[1], rounded(x, np.float64(block.bottom - block.top))
    for j in range(block.left, block.right, lanes(x)):
        count = block.right - j
        origin, sums, squares = load(x, block.top * n + j, count, 0.0), splat(x, 0.0), splat(x, 0.0)
        for i in range(block.top, block.bottom):
            sums = sums + (load(x, i * n + j, count, 0.0) - origin)
        mean = origin + sums / rows
        for i in range(block.top, block.bottom):
            difference = load(x, i * n + j, count, 0.0) - mean
            squares = fma(difference, difference, squares)
        store(kept, j, count, mean)
        store(kept, n + j, count, squares / rows)


@jit
def normalize(out, x, gamma, beta, kept, f, block):
    """out = (x - mean) gamma / sqrt(variance + epsilon) + beta, with the moments ``kept``."""
    n, epsilon = x.shape[1], rounded(x, f[0])
    for j in range(block.left, block.right, lanes(x)):
        count = block.right - j
        mean, spread = load(kept, j, count, 0.0), sqrt(load(kept, n + j, count, 1.0) + epsilon)
        scale = load(gamma, j, gamma.size - j, 1.0) / spread
        offset = load(beta, j, beta.size - j, 0.0)
        for i in range(block.top, block.bottom):
            store(out, i * n + j, count, fma(load(x, i * n + j, count, 0.0) - mean, scale, offset))


@jit
def normalize_backward(dx, dout, x, gamma, kept, f, block):
    """dx = dout gamma / sqrt(variance + epsilon): of moments that do not depend on x."""
    n, epsilon = x.shape[1], rounded(x, f[0])
    for j in range(block.left, block.right, lanes(x)):
        count = block.right - j
        scale = load(gamma, j, gamma.size - j, 1.0) / sqrt(load(kept, n + j, count, 1.0) + epsilon)
        for i in range(block.top, block.bottom):
            store(dx, i * n + j, count, load(dout, i * n + j, count, 0.0) * scale)


@jit
def normalize_gradients(dgamma, dbeta, averages, dout, x, kept, f, block):
    """dgamma = sum over the rows of dout xhat, dbeta = sum of dout; of the block's columns. No ``averages`` move."""
    n, epsilon = x.shape[1], rounded(x, f[0])
    for j in range(block.left, block.right, lanes(x)):
        count, at = block.right - j, j - block.left
        mean, spread = load(kept, j, count, 0.0), sqrt(load(kept, n + j, count, 1.0) + epsilon)
        sums, products = splat(x, 0.0), splat(x, 0.0)
        for i in range(block.top, block.bottom):
            d = load(dout, i * n + j, count, 0.0)
            sums = sums + d
            products = fma(d, load(x, i * n + j, count, 0.0) - mean, products)
        store(dgamma, at, dgamma.size - at, products / spread)
        store(dbeta, at, dbeta.size - at, sums)


def batch_forward(out, x, gamma, beta, kept, f, block):
    """`normalize` by the batch's own moments, which are left in ``kept``."""
    batch_moments(kept, x, block)
    normalize(out, x, gamma, beta, kept, f, block)


def batch_backward(dx, dout, x, gamma, kept, f, block):
    """dx = gamma / s (dout - mean(dout) - xhat mean(dout xhat)), means over the batch; s = sqrt(variance + epsilon).

    mean and s depend on every row. Through the mean each row's gradient loses the mean of all; through s, the part
    along xhat: see `minidl.layers.BatchNormalization`.
    """
    n, epsilon = x.shape[1], rounded(x, f[0])
    rows = rounded(x, np.float64(block.bottom - block.top))
    for j in range(block.left, block.right, lanes(x)):
        count = block.right - j
        mean, spread = load(kept, j, count, 0.0), sqrt(load(kept, n + j, count, 1.0) + epsilon)
        scale = load(gamma, j, gamma.size - j, 1.0) / spread
        sums, products = splat(x, 0.0), splat(x, 0.0)
        for i in range(block.top, block.bottom):
            d = load(dout, i * n + j, count, 0.0)
            sums = sums + d
            products = fma(d, load(x, i * n + j, count, 0.0) - mean, products)
        common, slope = sums / rows, products / (spread * spread * rows)
        for i in range(block.top, block.bottom):
            d, difference = load(dout, i * n + j, count, 0.0), load(x, i * n + j, count, 0.0) - mean
            store(dx, i * n + j, count, (d - common - difference * slope) * scale)


def batch_gradients(dgamma, dbeta, averages, dout, x, kept, f, block):
    """`normalize_gradients`, and the step's move of the averages, if there are any here: a layer moves its own."""
    if dgamma.size or dbeta.size:
        normalize_gradients(dgamma, dbeta, averages, dout, x, kept, f, block)
    if averages.size:
        move_averages(averages, kept, f, block)


@jit
def move_averages(averages, kept, f, block):
    """average = average momentum + moment (1 - momentum), of the block's columns; both are n means and n variances."""
    n, momentum, rest = kept.size // 2, rounded(kept, f[1]), rounded(kept, 1.0 - f[1])
    for first in (0, n):
        for j in range(first + block.left, first + block.right):
            averages[j] = averages[j] * momentum + kept[j] * rest


# ---- of a row. ``kept``: each row's mean and 1 / sqrt(variance + epsilon).


def row_forward(out, x, gamma, beta, kept, f, block):
    """out = (x - mean) gamma / sqrt(variance + epsilon) + beta, with each row's own mean and biased variance."""
    n = x.shape[1]
    for i in range(block.top, block.bottom):
        mean = rounded(x, row_sum(pointer(x), i * n, n) / n)
        center = np.float64(mean)
        variance = row_product(pointer(x), pointer(x), center, center, i * n, n) / n
        inverse = rounded(x, 1.0 / np.sqrt(variance + f[0]))
        kept[2 * i], kept[2 * i + 1] = mean, inverse
        for j in range(0, n, lanes(x)):
            scale, offset = load(gamma, j, gamma.size - j, 1.0), load(beta, j, beta.size - j, 0.0)
            store(
                out, i * n + j, n - j, fma((load(x, i * n + j, n - j, 0.0) - mean) * inverse, scale, offset)
            )


def row_backward(dx, dout, x, gamma, kept, f, block):
    """dx = (g - mean(g) - xhat mean(g xhat)) / s with g = dout gamma, means over the row."""
    n = x.shape[1]
    for i in range(block.top, block.bottom):
        mean, inverse = kept[2 * i], kept[2 * i + 1]
        sums, products = splat(x, 0.0), splat(x, 0.0)
        for j in range(0, n, lanes(x)):
            g = load(dout, i * n + j, n - j, 0.0) * load(gamma, j, gamma.size - j, 1.0)
            sums = sums + g
            products = fma(g, (load(x, i * n + j, n - j, 0.0) - mean) * inverse, products)
        common, slope = rounded(x, total(sums) / n), rounded(x, total(products) / n)
        for j in range(0, n, lanes(x)):
            g = load(dout, i * n + j, n - j, 0.0) * load(gamma, j, gamma.size - j, 1.0)
            xhat = (load(x, i * n + j, n - j, 0.0) - mean) * inverse
            store(dx, i * n + j, n - j, (g - common - xhat * slope) * inverse)


def row_gradients(dgamma, dbeta, averages, dout, x, kept, f, block):
    """dgamma = sum over the rows of dout xhat, dbeta = sum of dout; of the block's columns."""
    n = x.shape[1]
    for j in range(block.left, block.right, lanes(x)):
        count, at = block.right - j, j - block.left
        sums, products = splat(x, 0.0), splat(x, 0.0)
        for i in range(block.top, block.bottom):
            d, xhat = load(dout, i * n + j, count, 0.0), load(x, i * n + j, count, 0.0) - kept[2 * i]
            sums = sums + d
            products = fma(d, xhat * kept[2 * i + 1], products)
        store(dgamma, at, dgamma.size - at, products)
        store(dbeta, at, dbeta.size - at, sums)
