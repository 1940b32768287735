"""Solutions of chapter 2."""

import numpy as np

DLOGITS = (
    -0.33,
    0.24,
    0.09,
)  # exp(2), exp(1), exp(0) are 7.39, 2.72, 1: q = 0.67, 0.24, 0.09; minus 1 at class 0
NORM_100_CLASSES = 0.995  # sqrt(1 - 1 / 100)
FACTOR_IN_A_BATCH_OF_32 = 1 / 32


def softmax_backward(dout, q, T):
    return q * (dout - (dout * q).sum(axis=1, keepdims=True)) / T


def layer_normalization_backward(dout, x, gamma, epsilon):
    s = np.sqrt(x.var(axis=1, keepdims=True) + epsilon)
    xhat = (x - x.mean(axis=1, keepdims=True)) / s
    g = gamma * dout
    dx = (g - g.mean(axis=1, keepdims=True) - xhat * (g * xhat).mean(axis=1, keepdims=True)) / s
    return dx, (dout * xhat).sum(axis=0), dout.sum(axis=0)
