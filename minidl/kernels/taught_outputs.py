"""Distillation where every output is a question of its own: sigmoids, and regression. Each is a function of a row.

z are the student's outputs (of sigmoids the logits), v the teacher's, y the targets: the label of each output, of
sigmoids below 0 where there is none. Rows as in `rows.Row`; ``distillation`` has the losses of a softmax.
"""

from collections import namedtuple

import numpy as np

from .distillation import times_t_squared
from .elementary import exp_remainder, log1p_remainder, sigmoid, softplus
from .errors import binary_crossentropy, mean_by_share, mean_squared_error, plain
from .jit import jit
from .rows import ROW_OF_TARGETS, clear_gradient, loss
from .vectors import CHUNK, absolute, keep, lanes, load, splat, stay_apart, store, total, where_le

_NEAR = 0.34
"""`exp_remainder` is good up to ln(2) / 2."""


@jit(inline=True)
def _labelled_crossentropy(z, y, setting):
    """Binary cross-entropy and its slope; both 0 where y is below 0."""
    value, slope = binary_crossentropy(z, y, setting)
    return where_le(0.0, y, value, y - y), where_le(0.0, y, slope, y - y)


@jit(inline=True)
def _binary_divergence(z, v, inverse):
    """KL(p || q) of p = sigmoid(v / T) and q = sigmoid(z / T), and q - p, for any finite logits.

    Of the two answers yes and no the one with p <= 1/2 is looked at: sigmoid(a), a <= 0. The student's is
    sigmoid(b), and d = b - a. With u = p (exp(d) - 1), KL = log(1 + u) - p d, and q - p = u (1 - p) / (1 + u).
    Near d = 0 both terms of KL are p d, so it is written p (exp(d) - 1 - d) - (u - log(1 + u)), about
    p d^2 / 2 - p^2 d^2 / 2. Away from 0, log(1 + u) = softplus(b) - softplus(a), which does not overflow.
    """
    gap = (z - v) * inverse
    d, b = where_le(v, 0.0, gap, 0.0 - gap), where_le(v, 0.0, z, 0.0 - z) * inverse
    a = (0.0 - absolute(v)) * inverse
    p, size = sigmoid(a), absolute(d)
    remainder = exp_remainder(d)
    u = p * (d + remainder)
    far = softplus(b) - softplus(a) - p * d
    value = where_le(size, _NEAR, p * remainder - log1p_remainder(u), where_le(far, 0.0, 0.0 * p, far))
    slope = where_le(size, _NEAR, u * (1.0 - p) / (u + 1.0), sigmoid(b) - p)
    return value, where_le(v, 0.0, slope, 0.0 - slope)


def _in_two_terms(name, hard_formula, soft_formula, reduction, settings):
    """The loss of a row: hard_weight and soft_weight times ``reduction`` of the formulas' sums over the outputs.

    The hard formula is given outputs and targets, the soft one outputs, the teacher's outputs, and 1/T. The soft
    term is multiplied by T squared, of which one T is left in its gradient. A term of weight 0, and the hard one
    where there are no targets, is not computed.
    """
    reduction = jit(reduction, inline=True)
    has_temperature = "temperature" in settings

    @loss(name, settings=settings)
    def taught_row(row, hyper):
        stay_apart()
        at, count, z_row = row.at, row.count, row.logits
        hard = hyper[0] if row.label == ROW_OF_TARGETS else 0.0
        soft, temperature = hyper[1], hyper[2] if has_temperature else 1.0
        inverse = 1.0 / temperature
        hard_step, soft_step = (
            reduction(row.scale * hard, count),
            reduction(row.scale * soft * temperature, count),
        )
        hard_value = soft_value = 0.0
        for first in range(0, count, CHUNK):
            hard_part = soft_part = splat(z_row, 0.0)
            for j in range(first, min(first + CHUNK, count), lanes(z_row)):
                z, d = load(z_row, at + j, count - j, 0.0), splat(z_row, 0.0)
                if hard != 0:
                    value, slope = hard_formula(z, load(row.targets, at + j, count - j, 0.0), 0.0)
                    hard_part, d = hard_part + keep(value, count - j), slope * hard_step
                if soft != 0:
                    value, slope = soft_formula(z, load(row.teacher, at + j, count - j, 0.0), inverse)
                    soft_part, d = soft_part + keep(value, count - j), d + slope * soft_step
                store(row.dlogits, at + j, row.written - j, d)
            hard_value += np.float64(total(hard_part))
            soft_value += np.float64(total(soft_part))
        soft_value *= times_t_squared(soft, temperature)
        return hard * reduction(hard_value, count) + reduction(soft_value, count)


_WEIGHTS = ("hard_weight", "soft_weight")
_in_two_terms(
    "BINARY_KNOWLEDGE_DISTILLATION",
    _labelled_crossentropy,
    _binary_divergence,
    plain,
    (*_WEIGHTS, "temperature"),
)
_in_two_terms("REGRESSION_DISTILLATION", mean_squared_error, mean_squared_error, mean_by_share, _WEIGHTS)

BoundedSettings = namedtuple("BoundedSettings", "hard_weight soft_weight margin")


@loss("TEACHER_BOUNDED_REGRESSION", settings=BoundedSettings._fields)
def teacher_bounded_regression(row, hyper):
    """(hard_weight + soft_weight [e_z + margin > e_v]) e_z, e the mean squared error of student and of teacher."""
    stay_apart()
    s = BoundedSettings(hyper[0], hyper[1], hyper[2])
    if row.label != ROW_OF_TARGETS:
        clear_gradient(row)
        return 0.0
    at, count, z_row = row.at, row.count, row.logits
    z_error = v_error = 0.0
    for first in range(0, count, CHUNK):
        z_part = v_part = splat(z_row, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(z_row)):
            y = load(row.targets, at + j, count - j, 0.0)
            value, slope = mean_squared_error(load(z_row, at + j, count - j, 0.0), y, 0.0)
            z_part = z_part + keep(value, count - j)
            store(row.dlogits, at + j, row.written - j, slope)
            if s.soft_weight != 0:
                value, _ = mean_squared_error(load(row.teacher, at + j, count - j, 0.0), y, 0.0)
                v_part = v_part + keep(value, count - j)
        z_error += np.float64(total(z_part))
        v_error += np.float64(total(v_part))
    share = 1.0 / count
    z_error, v_error = z_error * share, v_error * share
    weight = s.hard_weight
    if not z_error + s.margin <= v_error:  # a NaN shows
        weight += s.soft_weight
    step = row.scale * weight * share
    for j in range(0, row.written, lanes(z_row)):
        store(row.dlogits, at + j, count - j, load(row.dlogits, at + j, count - j, 0.0) * step)
    return weight * z_error
