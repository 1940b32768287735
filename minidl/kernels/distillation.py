"""Knowledge distillation by softened probabilities (Hinton) and by the logits themselves. Each is a function of a row.

z are the student's logits, v the teacher's, q and p their softmax at temperature T. The sums over a row give
KL(p || q) = sum p (log p - log q) without a logarithm of an element, so nothing here overflows or rounds to
infinity at any logits. `target_aware` uses them too. Rows as in `rows.Row`.
"""

import math
from collections import namedtuple
from typing import NamedTuple

import numpy as np

from .elementary import exp, exp_negative, exp_remainder, log, log1p_unit
from .jit import jit
from .rows import NO_LABEL, ROW_OF_TARGETS, clear_gradient, in_lane, loss
from .softmax import row_max, row_product, row_sum
from .supervised import crossentropy_row, subtract_target, target_sums
from .vectors import (
    CHUNK,
    absolute,
    keep,
    lanes,
    largest,
    load,
    rounded,
    splat,
    stay_apart,
    store,
    total,
    where_le,
)

_STANDARDIZE_EPSILON = 1e-7
CLOSE = 2.0**-7
"""Under this KL(p || q) the sums of exponentials cancel: see `close_excess`."""
_NEAR = 0.34
"""`exp_remainder` is good up to ln(2) / 2."""
NOT_CLOSE = -1.0


@jit(inline=True)
def times_t_squared(weight, temperature):
    """The factor of a soft term's value; what is left of it in the gradient by the logits is one T.

    Softening multiplies the gradient by 1/T once exactly, by the chain rule (z enters as z / T). A second 1/T appears
    only as the logits become small beside T: q - p is then about (z - v) / (T C). T squared undoes both, so a
    weight keeps its meaning roughly when T changes, not at any T.
    """
    return weight * temperature * temperature


class Exponents(NamedTuple):
    """How logits become exponents: b = (z - z_peak) z_inverse and a = (v - v_peak) v_inverse, both at most 0."""

    z_peak: float
    v_peak: float
    z_inverse: float
    v_inverse: float


class Norms(NamedTuple):
    """Factors of exp(b), exp(a) and exp(2^doublings b) in a gradient, and the mean and excess of `close_excess`."""

    z: float
    v: float
    power: float
    center: float
    excess: float  # NOT_CLOSE where p and q differ enough


@jit
def relative_sums(row, exponents, doublings):
    """The sums of exp(a), exp(b), exp(a) (a - b), exp(a) a, and exp(2^doublings b).

    The exp(a) are left in dlogits, if the gradient is wanted, for `write_difference`.
    """
    stay_apart()
    at, count, logits = row.at, row.count, row.logits
    z_peak, v_peak, z_inverse, v_inverse = exponents
    v_sum = z_sum = ratio = weighted = power = 0.0
    for first in range(0, count, CHUNK):
        v_part = z_part = ratio_part = weighted_part = power_part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(logits)):
            a = (load(row.teacher, at + j, count - j, v_peak) - v_peak) * v_inverse
            b = (load(logits, at + j, count - j, z_peak) - z_peak) * z_inverse
            v_exp = keep(exp_negative(a), count - j)
            z_exp = keep(exp_negative(b), count - j)
            store(row.dlogits, at + j, row.written - j, v_exp)
            v_part = v_part + v_exp
            z_part = z_part + z_exp
            ratio_part = ratio_part + v_exp * (a - b)
            weighted_part = weighted_part + v_exp * a
            for _ in range(doublings):
                z_exp = z_exp * z_exp
            power_part = power_part + z_exp
        v_sum += np.float64(total(v_part))
        z_sum += np.float64(total(z_part))
        ratio += np.float64(total(ratio_part))
        weighted += np.float64(total(weighted_part))
        power += np.float64(total(power_part))
    return v_sum, z_sum, ratio, weighted, power


@jit
def write_difference(row, exponents, norms, doublings):
    """dlogits = norms.z exp(b) + norms.power exp(2^doublings b) - norms.v exp(a), the last from dlogits."""
    stay_apart()
    at, count, logits, dlogits = row.at, row.count, row.logits, row.dlogits
    z_peak, z_inverse = exponents.z_peak, exponents.z_inverse
    for j in range(0, count, lanes(logits)):
        b = (load(logits, at + j, count - j, z_peak) - z_peak) * z_inverse
        z_exp, v_exp = exp_negative(b), load(dlogits, at + j, count - j, 0.0)
        d = z_exp * norms.z - v_exp * norms.v
        if norms.excess >= 0.0:
            x = _gap(row, j, exponents) + norms.center
            d = close_difference(d, v_exp, x, norms.v, norms.excess)
        for _ in range(doublings):
            z_exp = z_exp * z_exp
        store(dlogits, at + j, count - j, d + z_exp * norms.power)


@jit(inline=True)
def divergence(ratio, v_sum, z_sum):
    """KL(p || q) from the sums above; rounding must not make it negative."""
    value = ratio / v_sum + log(z_sum / v_sum)
    return 0.0 if value < 0.0 else value


# ---- p close to q: the student is near the teacher, or T is large. Then KL is about the square of the differences
# ---- x = b - a - mean_p(b - a), far below the rounding errors of its two terms above. Its exact form without
# ---- cancellation is log(1 + excess) with excess = sum p (exp(x) - 1 - x), and q - p = p (exp(x) - 1 - excess) / (1 +
# ---- excess). An error of the mean counts in second order only in KL.


@jit(inline=True)
def _gap(row, j, exponents):
    """b - a of the elements from j on, exact where the logits are near each other."""
    z_peak, v_peak, z_inverse, v_inverse = exponents
    v = load(row.teacher, row.at + j, row.count - j, v_peak)
    z = load(row.logits, row.at + j, row.count - j, z_peak)
    peaks = rounded(row.logits, z_peak - v_peak)
    return (z - v - peaks) * z_inverse + (v - v_peak) * (z_inverse - v_inverse)


@jit(inline=True)
def _excess_terms(v_exp, z_exp, x, growth):
    return where_le(absolute(x), _NEAR, v_exp * exp_remainder(x), z_exp * growth - v_exp - v_exp * x)


@jit(inline=True)
def close_difference(plain, v_exp, x, v_norm, excess):
    """step (q - p), without cancellation where x is small."""
    d = v_exp * (x + exp_remainder(x) - excess) * (v_norm / (1.0 + excess))
    return where_le(absolute(x), _NEAR, d, plain)


@jit
def close_excess(row, exponents, center):
    """The sums of exp(a) (exp(x) - 1 - x) and of exp(a) x, x = b - a + center; the second is 0 but for rounding."""
    stay_apart()
    at, count, logits = row.at, row.count, row.logits
    z_peak, v_peak, z_inverse, v_inverse = exponents
    growth, excess, drift = exp(center), 0.0, 0.0
    for first in range(0, count, CHUNK):
        excess_part = drift_part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(logits)):
            v_exp = exp_negative((load(row.teacher, at + j, count - j, v_peak) - v_peak) * v_inverse)
            z_exp = exp_negative((load(logits, at + j, count - j, z_peak) - z_peak) * z_inverse)
            x = _gap(row, j, exponents) + center
            excess_part = excess_part + keep(_excess_terms(v_exp, z_exp, x, growth), count - j)
            drift_part = drift_part + keep(v_exp * x, count - j)
        excess += np.float64(total(excess_part))
        drift += np.float64(total(drift_part))
    return excess, drift


@jit
def add_hard_term(row, value, hard_weight, adds):
    """``value`` plus hard_weight CE(y, q at T = 1), its gradient too; ``adds`` 1 if dlogits hold a soft term."""
    stay_apart()
    if hard_weight != 0 and row.label != NO_LABEL:
        return value + hard_weight * crossentropy_row(row, row.scale * hard_weight, 0.0, adds)
    if adds == 0:
        clear_gradient(row)
    return value


KDSettings = namedtuple("KDSettings", "temperature hard_weight soft_weight standardize")


@loss("KNOWLEDGE_DISTILLATION", settings=KDSettings._fields)
def knowledge_distillation(row, hyper):
    """hard_weight CE + soft_weight T^2 KL(p || q), in one of three ways, each with its reason.

    - A row that fits one vector stays in registers: most classifiers have few classes, and it is twice as fast.
    - A longer row goes through memory. If T is 1, 2, 4 or 8, its hard term comes with the soft one: exp(z) is
      exp(z / T) squared a few times, which saves two of five exponentials an element.
    - Standardized logits are a longer row whose gradient then goes through the row's own mean and deviation.
    """
    stay_apart()
    s = KDSettings(hyper[0], hyper[1], hyper[2], hyper[3])
    # np.int64: a literal would be a type of its own, and compile the callees once more
    if s.soft_weight == 0:  # plain cross-entropy, to the bit
        return add_hard_term(row, 0.0, s.hard_weight, np.int64(0))
    if s.standardize == 0 and row.count <= lanes(row.logits):
        return _row_in_registers(row, s)
    inverse, step = 1.0 / s.temperature, row.scale * s.soft_weight * s.temperature
    doublings = _doublings_of(s.temperature)
    hard = s.hard_weight if s.standardize == 0 and row.label != NO_LABEL and doublings >= 0 else 0.0
    if s.standardize != 0:
        kl, added = _standardized_row(row, step, s.temperature), 0.0
    else:
        kl, added = _row_in_memory(row, inverse, inverse, step, hard, doublings if hard != 0 else np.int64(0))
    value = kl * times_t_squared(s.soft_weight, s.temperature) + added
    return value if hard != 0 else add_hard_term(row, value, s.hard_weight, np.int64(1))


@jit
def _doublings_of(temperature):
    """k if T is 2^k for k in 0..3, else -1."""
    for k in range(4):
        if temperature == 1 << k:
            return k
    return -1


@jit
def _row_in_registers(row, s):
    stay_apart()
    logits, at, count, scale, temperature = row.logits, row.at, row.count, row.scale, s.temperature
    hard = 0.0 if row.label == NO_LABEL else s.hard_weight
    inverse = 1.0 / temperature
    z, v = load(logits, at, count, -np.inf), load(row.teacher, at, count, -np.inf)
    z_peak, v_peak = largest(z), largest(v)
    z = keep(z - z_peak, count)
    a, b = keep(v - v_peak, count) * inverse, z * inverse
    v_exp, z_exp = keep(exp_negative(a), count), keep(exp_negative(b), count)
    v_sum, z_sum = np.float64(total(v_exp)), np.float64(total(z_exp))
    ratio = np.float64(total(v_exp * (a - b)))
    kl = divergence(ratio, v_sum, z_sum)
    step = scale * s.soft_weight * temperature
    d = z_exp * (step / z_sum) - v_exp * (step / v_sum)
    if kl < CLOSE:
        center = ratio / v_sum
        x = _gap(row, np.int64(0), Exponents(z_peak, v_peak, inverse, inverse)) + center
        excess = np.float64(total(keep(_excess_terms(v_exp, z_exp, x, exp(center)), count))) / v_sum
        x = x - np.float64(total(v_exp * keep(x, count))) / v_sum
        d, kl = close_difference(d, v_exp, x, step / v_sum, excess), log1p_unit(excess)
    value = times_t_squared(s.soft_weight, temperature) * kl
    if hard != 0:
        q = keep(exp_negative(z), count)
        exp_sum = np.float64(total(q))
        mass, inner = 1.0, 0.0
        if row.label == ROW_OF_TARGETS:
            y = load(row.targets, at, count, 0.0)
            mass, inner = np.float64(total(y)), np.float64(total(y * z))
            d = d - y * (scale * hard)
        else:
            inner = np.float64(logits[at + row.label] - z_peak)
        d = d + q * (scale * hard * mass / exp_sum)
        if row.label != ROW_OF_TARGETS:
            d = d - in_lane(logits, row.label, scale * hard)
        value += hard * (mass * log(exp_sum) - inner)
    store(row.dlogits, at, row.written, d)
    return value


@jit
def _row_in_memory(row, z_inverse, v_inverse, step, hard, doublings):
    """KL(p || q) and the hard term, of logits scaled by the two factors; dlogits are step (q - p) and that of ``hard``.

    With hard 0 there is no hard term. Else the student's factor must be 2^-doublings.
    """
    stay_apart()
    exponents = Exponents(
        row_max(row.logits, row.at, row.count), row_max(row.teacher, row.at, row.count), z_inverse, v_inverse
    )
    v_sum, z_sum, ratio, _, exp_sum = relative_sums(row, exponents, doublings)
    mass, inner, value = 0.0, 0.0, 0.0
    if hard != 0:
        mass, inner = target_sums(row, exponents.z_peak, 0.0)
        value = hard * (mass * log(exp_sum) - inner)
    kl, center, excess = divergence(ratio, v_sum, z_sum), ratio / v_sum, NOT_CLOSE
    if kl < CLOSE:
        excess, drift = close_excess(row, exponents, center)
        excess, center = excess / v_sum, center - drift / v_sum
        kl = log1p_unit(excess)
    if row.written > 0:
        norms = Norms(step / z_sum, step / v_sum, row.scale * hard * mass / exp_sum, center, excess)
        write_difference(row, exponents, norms, doublings)
        if hard != 0:
            subtract_target(row, row.scale * hard, 0.0)
    return kl, value


@jit
def _mean_and_deviation(x, at, count):
    """The mean of a row and its standard deviation with ddof 1 (0 for a single class)."""
    stay_apart()
    mean = row_sum(x, at, count) / count
    return mean, math.sqrt(row_product(x, x, mean, mean, at, count) / (count - 1)) if count > 1 else 0.0


@jit
def _standardized_row(row, step, temperature):
    """KL, and dlogits = step (q - p), of (z - mean) / (std + 1e-7), student and teacher each by its own row.

    Softmax cancels the shift, so only the scale is applied. With s the standardized logits,
    c = z - mean, sigma = std and n = sigma + 1e-7: dz = (ds - c (sum ds c) / ((C - 1) sigma n)) / n;
    the term for the mean is absent since the ds sum to 0.
    """
    stay_apart()
    at, count, logits, dlogits = row.at, row.count, row.logits, row.dlogits
    mean, deviation = _mean_and_deviation(logits, at, count)
    _, v_deviation = _mean_and_deviation(row.teacher, at, count)
    divisor = deviation + _STANDARDIZE_EPSILON
    z_inverse = 1.0 / (temperature * divisor)
    v_inverse = 1.0 / (temperature * (v_deviation + _STANDARDIZE_EPSILON))
    value, _ = _row_in_memory(row, z_inverse, v_inverse, step / divisor, 0.0, np.int64(0))
    if row.written > 0 and deviation > 0:
        inner = row_product(dlogits, logits, 0.0, mean, at, count)
        slope = inner / ((count - 1) * deviation * divisor)
        for j in range(0, count, lanes(logits)):
            c = load(logits, at + j, count - j, mean) - mean
            store(dlogits, at + j, count - j, load(dlogits, at + j, count - j, 0.0) - c * slope)
    return value


MatchingSettings = namedtuple("MatchingSettings", "hard_weight soft_weight")


@loss("LOGIT_MATCHING", settings=MatchingSettings._fields)
def logit_matching(row, hyper):
    """hard_weight CE + soft_weight mean_i ((z - v) - mean(z - v))^2."""
    stay_apart()
    s = MatchingSettings(hyper[0], hyper[1])
    if s.soft_weight == 0:
        return add_hard_term(row, 0.0, s.hard_weight, np.int64(0))
    value = s.soft_weight * _matching_row(row, row.scale * s.soft_weight)
    return add_hard_term(row, value, s.hard_weight, np.int64(1))


@jit
def _matching_row(row, step):
    """mean_i ((z - v) - mean(z - v))^2; dlogits = step (2/C) times the same centred difference."""
    stay_apart()
    at, count, logits, teacher = row.at, row.count, row.logits, row.teacher
    mean = 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(logits)):
            part = part + (load(logits, at + j, count - j, 0.0) - load(teacher, at + j, count - j, 0.0))
        mean += np.float64(total(part))
    center, slope = mean / count, 2.0 * step / count
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(logits)):
            d = load(logits, at + j, count - j, 0.0) - load(teacher, at + j, count - j, 0.0) - center
            part = part + keep(d * d, count - j)
            store(row.dlogits, at + j, row.written - j, d * slope)
        value += np.float64(total(part))
    return value / count
