"""DecoupledKD and NormalizedKD, which treat the labelled class t apart from the others. Each is a function of a row.

Letters as in `distillation`; a hat leaves the class t out. An unlabelled row adds nothing to either soft term.
"""

import math
from collections import namedtuple

import numpy as np

from . import distillation
from .distillation import CLOSE, NOT_CLOSE, Exponents, Norms
from .elementary import exp_negative, log, log1p_unit, sigmoid, softplus
from .jit import jit
from .rows import ROW_OF_TARGETS, Row, loss
from .softmax import row_exp_sum, row_max
from .supervised import crossentropy_row
from .vectors import stay_apart


def of_labelled(name, Settings):
    """The decorator for ``soft_term(row, class, settings)``: the loss is hard_weight CE + this."""

    def register(function):
        soft_term = jit(function)

        @loss(name, settings=Settings._fields)
        def labelled_row(row, hyper):
            stay_apart()
            s = Settings(hyper[0], hyper[1], hyper[2], hyper[3])
            target = _labelled_class(row)
            if target < 0 or row.count < 2:
                return distillation.add_hard_term(row, 0.0, s.hard_weight, np.int64(0))
            return distillation.add_hard_term(row, soft_term(row, target, s), s.hard_weight, np.int64(1))

    return register


DecoupledSettings = namedtuple("DecoupledSettings", "temperature hard_weight target_weight nontarget_weight")


@of_labelled("DECOUPLED_KD", DecoupledSettings)
def decoupled(row, target, s):
    """T^2 [target_weight KL_bin(p_t || q_t) + nontarget_weight KL(p^ || q^)].

    The odds z_t/T - logsumexp of the others carry all about t: q_t = sigmoid(odds).
    log q_t = -softplus(-odds) and log(1 - q_t) = -softplus(odds) stay finite where q_t rounds to 0 or 1.
    """
    stay_apart()
    temperature, squared = s.temperature, distillation.times_t_squared(1.0, s.temperature)
    exponents = _exponents_without(row, target, temperature)
    v_sum, z_sum, ratio, _ = _sums_without(row, target, exponents)
    kl, center, excess = _divergence_without(row, target, exponents, v_sum, z_sum, ratio)
    value = s.nontarget_weight * squared * kl
    z_odds = np.float64(row.logits[row.at + target] - exponents.z_peak) / temperature - log(z_sum)
    v_odds = np.float64(row.teacher[row.at + target] - exponents.v_peak) / temperature - log(v_sum)
    p_t = sigmoid(v_odds)
    binary = p_t * (softplus(-z_odds) - softplus(-v_odds))
    binary += sigmoid(-v_odds) * (softplus(z_odds) - softplus(v_odds))
    # q_t - p_t, without cancellation where both are near 1
    if z_odds < 0:
        gap = sigmoid(z_odds) - p_t
    else:
        gap = sigmoid(-v_odds) - sigmoid(-z_odds)
    if excess >= 0:  # the others are close: what the odds differ by then follows without cancellation, too
        shift = np.float64(row.logits[row.at + target]) - np.float64(row.teacher[row.at + target])
        shift = (shift - (exponents.z_peak - exponents.v_peak)) / temperature - (kl - center)
        if -0.5 < shift < 0.5:
            growth = p_t * math.expm1(shift)
            binary = math.log1p(growth) - p_t * shift
            gap = growth * sigmoid(-v_odds) / (1.0 + growth)
    value += s.target_weight * squared * (0.0 if binary < 0.0 else binary)
    odds_step = row.scale * temperature * s.target_weight * gap  # the derivative by the student's odds
    step = row.scale * temperature * s.nontarget_weight
    if excess >= 0:
        norms = Norms(step / z_sum, step / v_sum, -odds_step / z_sum, center, excess)
    else:
        norms = Norms((step - odds_step) / z_sum, step / v_sum, 0.0, center, excess)
    _write_gradient(row, target, exponents, norms, odds_step)
    return value


NormalizedSettings = namedtuple("NormalizedSettings", "temperature hard_weight target_weight gamma")


@of_labelled("NORMALIZED_KD", NormalizedSettings)
def normalized(row, target, s):
    """gamma T^2 CE(p^, q^) - target_weight p_t log q_t, p_t and q_t at T = 1.

    The cross-entropy over the others is their divergence plus the teacher's entropy.
    """
    stay_apart()
    squared = distillation.times_t_squared(1.0, s.temperature)
    exponents = _exponents_without(row, target, s.temperature)
    v_sum, z_sum, ratio, weighted = _sums_without(row, target, exponents)
    kl, center, excess = _divergence_without(row, target, exponents, v_sum, z_sum, ratio)
    value = s.gamma * squared * kl
    value += s.gamma * squared * (log(v_sum) - weighted / v_sum)
    step = row.scale * s.temperature * s.gamma
    _write_gradient(row, target, exponents, Norms(step / z_sum, step / v_sum, 0.0, center, excess), 0.0)
    own = row.teacher[row.at + target]
    peak = own if own > exponents.v_peak else exponents.v_peak
    weight = s.target_weight * np.float64(exp_negative(own - peak))  # becomes target_weight p_t
    weight /= row_exp_sum(row.teacher, row.teacher, row.at, row.count, np.int64(0), peak, 1.0)
    own_row = _part_of(row, np.int64(0), row.count, target)
    return value + weight * crossentropy_row(own_row, row.scale * weight, 0.0, np.int64(1))


# ---- all classes but one: those before it, and those after it


@jit
def _labelled_class(row):
    """The row's class: of a row of targets the first of the largest. Negative for a row without a label."""
    target = row.label
    if row.label == ROW_OF_TARGETS:
        target = np.int64(0)
        for j in range(1, row.count):
            if row.targets[row.at + j] > row.targets[row.at + target]:
                target = j
    return target


@jit
def _part_of(row, start, count, label):
    """The ``count`` elements from ``start`` on, as a row of their own with another label."""
    return Row(
        row.dlogits,
        row.logits,
        row.targets,
        row.teacher,
        row.at + start,
        count,
        count if row.written > 0 else np.int64(0),
        label,
        row.scale,
    )


@jit
def _others(row, target):
    """The classes before the target and those after it, each as a row of their own."""
    rest = row.count - target - 1
    return _part_of(row, np.int64(0), target, row.label), _part_of(row, target + 1, rest, row.label)


@jit
def _peak_without(x, row, target):
    left = row_max(x, row.at, target)
    right = row_max(x, row.at + target + 1, row.count - target - 1)
    return right if right > left else left


@jit
def _exponents_without(row, target, temperature):
    z_peak, v_peak = _peak_without(row.logits, row, target), _peak_without(row.teacher, row, target)
    return Exponents(z_peak, v_peak, 1.0 / temperature, 1.0 / temperature)


@jit
def _sums_without(row, target, exponents):
    """The first four of `relative_sums`."""
    v_sum, z_sum, ratio, weighted = 0.0, 0.0, 0.0, 0.0
    for part in _others(row, target):
        sums = distillation.relative_sums(part, exponents, np.int64(0))
        v_sum, z_sum, ratio, weighted = v_sum + sums[0], z_sum + sums[1], ratio + sums[2], weighted + sums[3]
    return v_sum, z_sum, ratio, weighted


@jit
def _divergence_without(row, target, exponents, v_sum, z_sum, ratio):
    """KL(p^ || q^), and the mean and excess that `Norms` has."""
    kl, center, excess = distillation.divergence(ratio, v_sum, z_sum), ratio / v_sum, NOT_CLOSE
    if kl < CLOSE:
        excess, drift = 0.0, 0.0
        for part in _others(row, target):
            found = distillation.close_excess(part, exponents, center)
            excess, drift = excess + found[0] / v_sum, drift + found[1] / v_sum
        kl, center = log1p_unit(excess), center - drift
    return kl, center, excess


@jit
def _write_gradient(row, target, exponents, norms, own):
    """`write_difference` for the others, and ``own`` for the target itself."""
    if row.written > 0:
        for part in _others(row, target):
            distillation.write_difference(part, exponents, norms, np.int64(0))
        row.dlogits[row.at + target] = own
