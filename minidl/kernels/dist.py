"""DIST: correlations of probabilities, along a sample's classes and along a class's samples, of a whole batch."""

import math
from collections import namedtuple

import numpy as np

from .distillation import times_t_squared
from .jit import jit
from .rows import Batch, row_of, sum_of_rows
from .softmax import row_product, softmax_backward, softmax_forward
from .supervised import crossentropy_row
from .vectors import pointer, stay_apart

CORRELATION_EPSILON = 1e-8
_ROUNDING = np.finfo(np.float64).eps

DistSettings = namedtuple("DistSettings", "temperature hard_weight beta gamma")


@jit
def _correlation(xy, xx, yy, size, mean):
    """rho = xy / (|x| |y| + eps) for centred x and y, and the factors of y and x in d rho / dx.

    x that is constant to rounding has no direction: its correlation is 0 and so is the gradient.
    """
    if xx <= 16 * size * (_ROUNDING * mean) ** 2 or yy <= 0:
        return 0.0, 0.0, 0.0
    x_norm, y_norm = math.sqrt(xx), math.sqrt(yy)
    bottom = x_norm * y_norm + CORRELATION_EPSILON
    return xy / bottom, 1.0 / bottom, -xy * y_norm / (x_norm * bottom * bottom)


@jit
def _relate_rows(row_loss, dq, q, p, row_scale, beta):
    """row_loss = row_scale beta (1 - rho of each row), and its gradient by q in dq."""
    rows, count = q.shape
    center = 1.0 / count
    for i in range(rows):
        at, x, y = i * count, pointer(q), pointer(p)
        xy = row_product(x, y, center, center, at, count)
        xx = row_product(x, x, center, center, at, count)
        yy = row_product(y, y, center, center, at, count)
        rho, y_factor, x_factor = _correlation(xy, xx, yy, count, center)
        row_loss[i] = row_scale[i] * beta * (1.0 - rho)
        step = -row_scale[i] * beta
        for c in range(count):
            dq[i, c] = step * (y_factor * (p[i, c] - center) + x_factor * (q[i, c] - center))


@jit(allocates=True)
def _relate_columns(row_loss, dq, q, p, row_scale, gamma):
    """Add mass gamma (1 - mean rho of the columns), mass the sum of row_scale, and its gradient.

    The columns are correlated with the rows weighted by row_scale, and the term is spread over row_loss in proportion
    to it.
    """
    rows, count = q.shape
    mass = sum_of_rows(row_scale)
    if not mass > 0:
        return
    q_mean, p_mean = np.zeros(count), np.zeros(count)
    for i in range(rows):
        weight = row_scale[i] / mass
        for c in range(count):
            q_mean[c] += weight * q[i, c]
            p_mean[c] += weight * p[i, c]
    xy, xx, yy = np.zeros(count), np.zeros(count), np.zeros(count)
    for i in range(rows):
        weight = row_scale[i] / mass * rows
        for c in range(count):
            x, y = q[i, c] - q_mean[c], p[i, c] - p_mean[c]
            xy[c] += weight * x * y
            xx[c] += weight * x * x
            yy[c] += weight * y * y
    mean_rho = 0.0
    y_factors, x_factors = np.empty(count), np.empty(count)
    for c in range(count):
        rho, y_factors[c], x_factors[c] = _correlation(xy[c], xx[c], yy[c], rows, q_mean[c])
        mean_rho += rho / count
    for i in range(rows):
        row_loss[i] += row_scale[i] * gamma * (1.0 - mean_rho)
        step = -row_scale[i] * rows * gamma / count  # mass times the row's normalised weight
        for c in range(count):
            x, y = q[i, c] - q_mean[c], p[i, c] - p_mean[c]
            dq[i, c] += step * (y_factors[c] * y + x_factors[c] * x)


@jit(allocates=True)
def dist_batch(row_loss, dlogits, logits, labels, targets, teacher_logits, row_scale, hyper):
    """hard_weight CE + T^2 [beta (1 - rho of each row) + gamma (1 - mean rho of the columns)], whole batch.

    rho is Pearson's correlation of the student's and the teacher's probabilities at T. Arguments as in `rows.Batch`.
    """
    stay_apart()
    s = DistSettings(hyper[0], hyper[1], hyper[2], hyper[3])
    squared = times_t_squared(1.0, s.temperature)
    # in float64: where T is large the probabilities are nearly equal, and only their differences count
    q, p, dq = np.empty(logits.shape), np.empty(logits.shape), np.empty(logits.shape)
    softmax_forward(q, logits.astype(np.float64), s.temperature)
    softmax_forward(p, teacher_logits.astype(np.float64), s.temperature)
    _relate_rows(row_loss, dq, q, p, row_scale, s.beta * squared)
    _relate_columns(row_loss, dq, q, p, row_scale, s.gamma * squared)
    if dlogits.size > 0:
        softmax_backward(dq, dq, q, s.temperature)
        for i in range(dlogits.shape[0]):
            for c in range(dlogits.shape[1]):
                dlogits[i, c] = dq[i, c]
    if s.hard_weight != 0:
        batch = Batch(logits, labels, targets, teacher_logits, row_scale)
        for i in range(logits.shape[0]):
            row = row_of(batch, dlogits, i)
            hard = row_scale[i] * s.hard_weight
            row_loss[i] += hard * crossentropy_row(row, hard, 0.0, np.int64(1))
