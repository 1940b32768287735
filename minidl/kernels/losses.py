"""Losses and their gradients on the network's output, a row at a time: value and gradient together.

`loss_rows` is the entry. Rows are independent, so a caller may hand it any range of rows. In the
comments and docstrings z are the student's logits, v the teacher's, q and p their softmax at
temperature T; a hat leaves the labelled class t out. ``x[at : at + count]`` is a row in flat memory.
"""

from __future__ import annotations

import math

import numpy as np

from .elementary import exp_negative, log, log1p_unit, sigmoid
from .jit import jit
from .softmax import row_exp, row_exp_sum, row_max, row_sum
from .vectors import CHUNK, absolute, keep, lanes, largest, load, splat, stay_apart, store, total, where_le

(
    CATEGORICAL_CROSSENTROPY,
    SPARSE_CATEGORICAL_CROSSENTROPY,
    BINARY_CROSSENTROPY,
    MEAN_SQUARED_ERROR,
    HALF_MEAN_SQUARED_ERROR,
    MEAN_ABSOLUTE_ERROR,
    HUBER,
    KL_DIVERGENCE,
    CATEGORICAL_CROSSENTROPY_ON_PROBS,
    SPARSE_CATEGORICAL_CROSSENTROPY_ON_PROBS,
    BINARY_CROSSENTROPY_ON_PROBS,
    KNOWLEDGE_DISTILLATION,
    DECOUPLED_KD,
    NORMALIZED_KD,
    LOGIT_MATCHING,
    DIST,
) = range(16)

# Entries of ``hyper``. SOFT_WEIGHT is DecoupledKD's target weight and DIST's beta; SECOND_WEIGHT
# is DecoupledKD's non-target weight, and the gamma of NormalizedKD and DIST.
TEMPERATURE, HARD_WEIGHT, SOFT_WEIGHT, SECOND_WEIGHT, STANDARDIZE, LABEL_SMOOTHING, DELTA, UNUSED = range(8)

EPSILON = 1e-7
"""Keras's epsilon: probabilities are clipped to [EPSILON, 1 - EPSILON] under a logarithm."""

STANDARDIZE_EPSILON = 1e-7
DIST_EPSILON = 1e-8


@jit
def loss_rows(kind, row_loss, dlogits, logits, labels, targets, teacher_logits, row_scale, hyper):
    """row_loss[i] = row_scale[i] * loss_i and dlogits[i] = row_scale[i] * d loss_i / d logits_i.

    row_loss, row_scale (B,) float64; dlogits, logits (B, C); labels (B,) int64; targets and
    teacher_logits (B, C); hyper (8,) float64. An array that the kind does not need has size 0;
    so has dlogits where only the value is wanted. A label of -1 is a row without a label. DIST
    compares columns as well, so it needs the whole batch: see `dist_batch`.
    """
    rows, count = logits.shape
    smoothing = hyper[LABEL_SMOOTHING]
    overwrite = np.int64(0)  # a literal 0 would be a type of its own, and compile the callee again
    for i in range(rows):
        at = i * count
        scale = row_scale[i]
        label = labels[i] if labels.size > 0 else -1
        if kind <= SPARSE_CATEGORICAL_CROSSENTROPY:
            value = crossentropy_row(dlogits, logits, targets, at, count, label, scale, smoothing, overwrite)
        elif kind == BINARY_CROSSENTROPY:
            value = _binary_row(dlogits, logits, targets, at, count, scale, smoothing)
        elif kind <= HUBER:
            value = _regression_row(kind, dlogits, logits, targets, at, count, scale, hyper[DELTA])
        elif kind == KL_DIVERGENCE:
            value = _kl_divergence_row(dlogits, logits, targets, at, count, scale)
        elif kind <= SPARSE_CATEGORICAL_CROSSENTROPY_ON_PROBS:
            value = _crossentropy_on_probs_row(dlogits, logits, targets, at, count, label, scale, smoothing)
        elif kind == BINARY_CROSSENTROPY_ON_PROBS:
            value = _binary_on_probs_row(dlogits, logits, targets, at, count, scale, smoothing)
        else:
            hard = hyper[HARD_WEIGHT] if targets.size > 0 or label >= 0 else 0.0
            value = 0.0
            written = overwrite  # 1 once dlogits holds the soft term
            if kind == KNOWLEDGE_DISTILLATION:
                if hyper[SOFT_WEIGHT] != 0:  # else plain cross-entropy, to the bit
                    temperature = hyper[TEMPERATURE]
                    doublings = _doublings(temperature)
                    if hyper[STANDARDIZE] != 0:
                        value = _standardized_row(dlogits, logits, teacher_logits, at, count, scale, hyper)
                    elif count <= lanes(logits):
                        value = _short_row(
                            dlogits, logits, targets, teacher_logits, at, count, label, hard, scale, hyper
                        )
                        hard = 0.0
                    elif hard != 0 and doublings >= 0:
                        value = _hinton_row(
                            dlogits, logits, targets, teacher_logits, at, count, label, hard, scale, hyper,
                            doublings,
                        )  # fmt: skip
                        hard = 0.0
                    else:
                        step = scale * hyper[SOFT_WEIGHT] * temperature
                        inverse = 1.0 / temperature
                        value = _soft_row(dlogits, logits, teacher_logits, at, count, inverse, inverse, step)
                        value *= hyper[SOFT_WEIGHT] * temperature * temperature
                    written = overwrite + 1
            elif kind == LOGIT_MATCHING:
                if hyper[SOFT_WEIGHT] != 0:
                    value = _logit_matching_row(
                        dlogits, logits, teacher_logits, at, count, scale * hyper[SOFT_WEIGHT]
                    )
                    value *= hyper[SOFT_WEIGHT]
                    written = overwrite + 1
            else:
                target = _target_class(targets, at, count, label)
                if target >= 0 and count > 1:
                    value = _target_aware_row(
                        kind, dlogits, logits, teacher_logits, at, count, target, scale, hyper
                    )
                    written = overwrite + 1
            if hard != 0:
                value += hard * crossentropy_row(
                    dlogits, logits, targets, at, count, label, scale * hard, 0.0, written
                )
            elif written == 0:
                _clear_row(dlogits, at, count)
        row_loss[i] = value * scale


@jit
def _clear_row(dlogits, at, count):
    if dlogits.size > 0:
        flat = dlogits.reshape(-1)
        for j in range(at, at + count):
            flat[j] = 0


# ---- Cross-entropies on logits ----


@jit
def crossentropy_row(dlogits, logits, targets, at, count, label, scale, smoothing, add):
    """-sum_i y_i log q_i; its gradient q sum(y) - y, times ``scale``, written to dlogits or added.

    y is the row of targets, smoothed as in Keras, or with no targets the one-hot of ``label``.
    """
    stay_apart()
    if targets.size == 0 and label < 0:
        if add == 0:
            _clear_row(dlogits, at, count)
        return 0.0
    real = logits.dtype.type
    width = lanes(logits)
    zero, one, step = real(0), real(1), real(scale)
    peak = row_max(logits, at, count)
    kept = dlogits.size > 0 and add == 0  # dlogits then holds the exponentials for the second pass
    if kept:
        exp_sum = row_exp(dlogits, logits, at, count, peak, one)
    else:
        exp_sum = row_exp_sum(logits, at, count, peak, one)
    norm = real(1.0 / exp_sum)
    z = logits.reshape(-1)
    if targets.size == 0:
        value = math.log(exp_sum) - np.float64(z[at + label] - peak)
        if dlogits.size > 0:
            dz = dlogits.reshape(-1)
            if kept:
                e = dz[at + label]
                for j in range(0, count, width):
                    store(dlogits, at + j, count - j, load(dlogits, at + j, count - j, zero) * norm * step)
                dz[at + label] = (e * norm - one) * step
            else:
                for j in range(0, count, width):
                    e = exp_negative(load(logits, at + j, count - j, peak) - peak)
                    d = e * norm * step
                    store(dlogits, at + j, count - j, load(dlogits, at + j, count - j, zero) + d)
                dz[at + label] -= step
        return value
    spread, share = real(1.0 - smoothing), real(smoothing / count)
    value, weight = 0.0, 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, zero)
        weights = splat(logits, zero)
        for j in range(first, min(first + CHUNK, count), width):
            y = keep(load(targets, at + j, count - j, zero) * spread + share, count - j)
            part = part + y * (load(logits, at + j, count - j, peak) - peak)
            weights = weights + y
        value -= np.float64(total(part))
        weight += np.float64(total(weights))
    value += weight * math.log(exp_sum)
    if dlogits.size > 0:
        norm = real(weight / exp_sum)
        for j in range(0, count, width):
            y = load(targets, at + j, count - j, zero) * spread + share
            if kept:
                e = load(dlogits, at + j, count - j, zero)
                store(dlogits, at + j, count - j, (e * norm - y) * step)
            else:
                e = exp_negative(load(logits, at + j, count - j, peak) - peak)
                d = (e * norm - y) * step
                store(dlogits, at + j, count - j, load(dlogits, at + j, count - j, zero) + d)
    return value


@jit
def _binary_row(dlogits, logits, targets, at, count, scale, smoothing):
    """mean_i [max(z, 0) - z y + log(1 + exp(-|z|))], gradient (sigmoid(z) - y) / C."""
    stay_apart()
    real = logits.dtype.type
    width = lanes(logits)
    zero = real(0)
    spread, share, step = real(1.0 - smoothing), real(0.5 * smoothing), real(scale / count)
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, zero)
        for j in range(first, min(first + CHUNK, count), width):
            z = load(logits, at + j, count - j, zero)
            y = load(targets, at + j, count - j, zero) * spread + share
            loss = where_le(z, zero, zero, z) - z * y + log1p_unit(exp_negative(zero - absolute(z)))
            part = part + keep(loss, count - j)
            if dlogits.size > 0:
                store(dlogits, at + j, count - j, (sigmoid(z) - y) * step)
        value += np.float64(total(part))
    return value / count


# ---- Regression ----


@jit
def _regression_row(kind, dlogits, logits, targets, at, count, scale, delta):
    """With e = prediction - y: the mean of e^2, of |e|, or Huber's; half the sum of e^2."""
    stay_apart()
    real = logits.dtype.type
    width = lanes(logits)
    zero, one, half = real(0), real(1), real(0.5)
    limit = real(delta)
    share = 1.0 if kind == HALF_MEAN_SQUARED_ERROR else 1.0 / count
    step = real(scale * share)
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, zero)
        for j in range(first, min(first + CHUNK, count), width):
            e = load(logits, at + j, count - j, zero) - load(targets, at + j, count - j, zero)
            size = absolute(e)
            sign = where_le(size, zero, e, where_le(e, zero, zero - one, one))
            if kind == MEAN_SQUARED_ERROR:
                loss = e * e
                slope = e + e
            elif kind == HALF_MEAN_SQUARED_ERROR:
                loss = half * e * e
                slope = e
            elif kind == MEAN_ABSOLUTE_ERROR:
                loss = size
                slope = sign + (e - e)  # a NaN has no sign
            else:
                loss = where_le(size, limit, half * e * e, limit * size - half * limit * limit)
                slope = where_le(size, limit, e, limit * sign + (e - e))
            part = part + loss
            if dlogits.size > 0:
                store(dlogits, at + j, count - j, slope * step)
        value += np.float64(total(part))
    return value * share


# ---- Losses on probabilities, clipped as Keras clips them: the gradient outside the clip is 0 ----


@jit
def _kl_divergence_row(dlogits, logits, targets, at, count, scale):
    """sum_i y log(y / q), both clipped to [1e-7, 1]."""
    stay_apart()
    real = logits.dtype.type
    width = lanes(logits)
    zero, one, low, step = real(0), real(1), real(EPSILON), real(scale)
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, zero)
        for j in range(first, min(first + CHUNK, count), width):
            q = load(logits, at + j, count - j, one)
            y = load(targets, at + j, count - j, one)
            y = where_le(y, low, low, where_le(one, y, one, y))
            clipped = where_le(q, low, low, where_le(one, q, one, q))
            part = part + keep(y * log(y / clipped), count - j)
            if dlogits.size > 0:
                slope = where_le(q, one, where_le(low, q, zero - y / clipped, zero * y), zero * y) + (q - q)
                store(dlogits, at + j, count - j, slope * step)
        value += np.float64(total(part))
    return value


@jit
def _crossentropy_on_probs_row(dlogits, probs, targets, at, count, label, scale, smoothing):
    """-sum_i y_i log o_i, o = probs / sum(probs) clipped to [1e-7, 1 - 1e-7]."""
    stay_apart()
    real = probs.dtype.type
    low, high = real(EPSILON), real(1.0 - EPSILON)
    mass = row_sum(probs, at, count)
    norm = real(1.0 / mass)
    flat = probs.reshape(-1)
    y = real(0)
    if targets.size == 0:
        if label < 0:
            _clear_row(dlogits, at, count)
            return 0.0
    goal = targets.reshape(-1)
    spread, share = real(1.0 - smoothing), real(smoothing / count)
    value, inner = 0.0, 0.0
    for j in range(count):
        if targets.size > 0:
            y = goal[at + j] * spread + share
        else:
            y = real(1.0 if j == label else 0.0)
        o = flat[at + j] * norm
        clipped = low if o < low else (high if o > high else o)
        slope = real(0)
        if y != 0 or o != o:
            value -= np.float64(y) * math.log(np.float64(clipped))
        if o == clipped or o != o:
            slope = -y / clipped
        inner += np.float64(slope) * np.float64(o)
        if dlogits.size > 0:
            dlogits.reshape(-1)[at + j] = slope
    if dlogits.size > 0:
        dz = dlogits.reshape(-1)
        center, step = real(inner), real(scale / mass)
        for j in range(at, at + count):
            dz[j] = (dz[j] - center) * step
    return value


@jit
def _binary_on_probs_row(dlogits, probs, targets, at, count, scale, smoothing):
    """-mean_i [y log o + (1 - y) log(1 - o)], o = probs clipped to [1e-7, 1 - 1e-7]."""
    stay_apart()
    real = probs.dtype.type
    width = lanes(probs)
    zero, one, low, high = real(0), real(1), real(EPSILON), real(1.0 - EPSILON)
    spread, share, step = real(1.0 - smoothing), real(0.5 * smoothing), real(scale / count)
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(probs, zero)
        for j in range(first, min(first + CHUNK, count), width):
            o = load(probs, at + j, count - j, low)
            y = load(targets, at + j, count - j, zero) * spread + share
            clipped = where_le(o, low, low, where_le(high, o, high, o))
            loss = zero - y * log(clipped) - (one - y) * log(one - clipped)
            part = part + keep(loss, count - j)
            if dlogits.size > 0:
                slope = (clipped - y) / (clipped * (one - clipped))
                inside = where_le(low, o, where_le(o, high, slope, zero * y), zero * y) + (o - o)
                store(dlogits, at + j, count - j, inside * step)
        value += np.float64(total(part))
    return value / count


# ---- Distillation ----


@jit
def _relative_sums(dlogits, logits, teacher, at, count, z_peak, v_peak, z_inverse, v_inverse, doublings):
    """With a = (v - v_peak) v_inverse and b = (z - z_peak) z_inverse, the sums of exp(a), exp(b),
    exp(a) (a - b), exp(a) a, and exp(2^doublings b). The exp(a) are left in dlogits (if there is one)."""
    stay_apart()
    real = logits.dtype.type
    width = lanes(logits)
    zero = real(0)
    v_sum, z_sum, ratio, weighted, power = 0.0, 0.0, 0.0, 0.0, 0.0
    for first in range(0, count, CHUNK):
        v_part = splat(logits, zero)
        z_part = splat(logits, zero)
        ratio_part = splat(logits, zero)
        weighted_part = splat(logits, zero)
        power_part = splat(logits, zero)
        for j in range(first, min(first + CHUNK, count), width):
            a = (load(teacher, at + j, count - j, v_peak) - v_peak) * v_inverse
            b = (load(logits, at + j, count - j, z_peak) - z_peak) * z_inverse
            v_exp = keep(exp_negative(a), count - j)
            z_exp = keep(exp_negative(b), count - j)
            v_part = v_part + v_exp
            z_part = z_part + z_exp
            ratio_part = ratio_part + v_exp * (a - b)
            weighted_part = weighted_part + v_exp * a
            for _ in range(doublings):
                z_exp = z_exp * z_exp
            power_part = power_part + z_exp
            if dlogits.size > 0:
                store(dlogits, at + j, count - j, v_exp)
        v_sum += np.float64(total(v_part))
        z_sum += np.float64(total(z_part))
        ratio += np.float64(total(ratio_part))
        weighted += np.float64(total(weighted_part))
        power += np.float64(total(power_part))
    return v_sum, z_sum, ratio, weighted, power


@jit
def _difference(dlogits, logits, at, count, z_peak, z_inverse, z_norm, v_norm, power_norm, doublings):
    """dlogits = z_norm exp(b) + power_norm exp(2^doublings b) - v_norm exp(a), the last from dlogits."""
    stay_apart()
    real = logits.dtype.type
    width = lanes(logits)
    zero, z_norm, v_norm, power_norm = real(0), real(z_norm), real(v_norm), real(power_norm)
    for j in range(0, count, width):
        z_exp = exp_negative((load(logits, at + j, count - j, z_peak) - z_peak) * z_inverse)
        d = z_exp * z_norm - load(dlogits, at + j, count - j, zero) * v_norm
        for _ in range(doublings):
            z_exp = z_exp * z_exp
        store(dlogits, at + j, count - j, d + z_exp * power_norm)


@jit
def _divergence(ratio, v_sum, z_sum):
    """KL(p || q) from the sums above; rounding must not make it negative."""
    value = ratio / v_sum + math.log(z_sum / v_sum)
    return 0.0 if value < 0.0 else value


@jit
def _doublings(temperature):
    """k where T = 2^k is 1, 2, 4 or 8, else -1."""
    for k in range(4):
        if temperature == 1 << k:
            return k
    return -1


@jit
def _short_row(dlogits, logits, targets, teacher, at, count, label, hard, scale, hyper):
    """KnowledgeDistillation of a row that fits one vector: all of it stays in registers."""
    stay_apart()
    real = logits.dtype.type
    zero = real(0)
    temperature = hyper[TEMPERATURE]
    inverse = real(1.0 / temperature)
    lowest = real(-np.inf)
    z_peak = largest(load(logits, at, count, lowest))
    v_peak = largest(load(teacher, at, count, lowest))
    z = load(logits, at, count, z_peak) - z_peak
    a = (load(teacher, at, count, v_peak) - v_peak) * inverse
    b = z * inverse
    v_exp = keep(exp_negative(a), count)
    z_exp = keep(exp_negative(b), count)
    v_sum, z_sum = np.float64(total(v_exp)), np.float64(total(z_exp))
    value = _divergence(np.float64(total(v_exp * (a - b))), v_sum, z_sum)
    value *= hyper[SOFT_WEIGHT] * temperature * temperature
    step = scale * hyper[SOFT_WEIGHT] * temperature
    d = z_exp * real(step / z_sum) - v_exp * real(step / v_sum)
    if hard != 0:
        q = keep(exp_negative(z), count)
        exp_sum = np.float64(total(q))
        norm = real(1.0 / exp_sum)
        if targets.size > 0:
            y = load(targets, at, count, zero)
            mass = np.float64(total(y))
            value += hard * (mass * math.log(exp_sum) - np.float64(total(y * z)))
            d = d + (q * real(mass / exp_sum) - y) * real(scale * hard)
        else:
            value += hard * (math.log(exp_sum) - np.float64(logits.reshape(-1)[at + label] - z_peak))
            d = d + q * norm * real(scale * hard)
    if dlogits.size > 0:
        store(dlogits, at, count, d)
        if hard != 0 and targets.size == 0:
            dlogits.reshape(-1)[at + label] -= real(scale * hard)
    return value


@jit
def _hinton_row(
    dlogits, logits, targets, teacher, at, count, label, hard, scale, hyper, doublings
):  # fmt: skip
    """KnowledgeDistillation at T = 2^doublings, where exp(z) is exp(z/T) squared a few times: that saves
    two of five exponentials an element."""
    stay_apart()
    real = logits.dtype.type
    width = lanes(logits)
    zero = real(0)
    temperature = hyper[TEMPERATURE]
    inverse = real(1.0 / temperature)
    z_peak, v_peak = row_max(logits, at, count), row_max(teacher, at, count)
    v_sum, z_sum, ratio, _, exp_sum = _relative_sums(
        dlogits, logits, teacher, at, count, z_peak, v_peak, inverse, inverse, doublings
    )
    step, hard_step = scale * hyper[SOFT_WEIGHT] * temperature, scale * hard
    flat = logits.reshape(-1)
    mass, inner = 1.0, 0.0
    if targets.size > 0:
        mass = row_sum(targets, at, count)
        for first in range(0, count, CHUNK):
            part = splat(logits, zero)
            for j in range(first, min(first + CHUNK, count), width):
                z = load(logits, at + j, count - j, z_peak) - z_peak
                part = part + load(targets, at + j, count - j, zero) * z
            inner += np.float64(total(part))
    else:
        inner = np.float64(flat[at + label] - z_peak)
    if dlogits.size > 0:
        _difference(
            dlogits, logits, at, count, z_peak, inverse, step / z_sum, step / v_sum,
            hard_step * mass / exp_sum, doublings,
        )  # fmt: skip
        if targets.size > 0:
            for j in range(0, count, width):
                y = load(targets, at + j, count - j, zero)
                d = load(dlogits, at + j, count - j, zero) - y * real(hard_step)
                store(dlogits, at + j, count - j, d)
        else:
            dlogits.reshape(-1)[at + label] -= real(hard_step)
    soft = hyper[SOFT_WEIGHT] * temperature * temperature * _divergence(ratio, v_sum, z_sum)
    return soft + hard * (mass * math.log(exp_sum) - inner)


@jit
def _soft_row(dlogits, logits, teacher, at, count, z_inverse, v_inverse, step):
    """KL(p || q), and dlogits = step (q - p), with the logits scaled by the two factors."""
    stay_apart()
    real = logits.dtype.type
    z_peak, v_peak = row_max(logits, at, count), row_max(teacher, at, count)
    z_inverse, v_inverse = real(z_inverse), real(v_inverse)
    v_sum, z_sum, ratio, _, _ = _relative_sums(
        dlogits, logits, teacher, at, count, z_peak, v_peak, z_inverse, v_inverse, np.int64(0)
    )
    if dlogits.size > 0:
        _difference(dlogits, logits, at, count, z_peak, z_inverse, step / z_sum, step / v_sum, 0.0, np.int64(0))
    return _divergence(ratio, v_sum, z_sum)


@jit
def _mean_and_deviation(x, at, count):
    """The mean of a row and its standard deviation with ddof 1 (0 for a single class)."""
    stay_apart()
    real = x.dtype.type
    width = lanes(x)
    mean = row_sum(x, at, count) / count
    center = real(mean)
    squares = 0.0
    for first in range(0, count, CHUNK):
        part = splat(x, real(0))
        for j in range(first, min(first + CHUNK, count), width):
            d = load(x, at + j, count - j, center) - center
            part = part + d * d
        squares += np.float64(total(part))
    return mean, math.sqrt(squares / (count - 1)) if count > 1 else 0.0


@jit
def _standardized_row(dlogits, logits, teacher, at, count, scale, hyper):
    """soft_weight T^2 KL of (z - mean) / (std + 1e-7), student and teacher each by its own row.

    Softmax cancels the shift, so only the scale is applied. With s the standardized logits,
    c = z - mean, sigma = std and n = sigma + 1e-7: dz = (ds - c (sum ds c) / ((C - 1) sigma n)) / n;
    the term for the mean is absent since the ds sum to 0.
    """
    stay_apart()
    real = logits.dtype.type
    width = lanes(logits)
    zero = real(0)
    temperature = hyper[TEMPERATURE]
    mean, deviation = _mean_and_deviation(logits, at, count)
    _, v_deviation = _mean_and_deviation(teacher, at, count)
    divisor = deviation + STANDARDIZE_EPSILON
    z_inverse = 1.0 / (temperature * divisor)
    v_inverse = 1.0 / (temperature * (v_deviation + STANDARDIZE_EPSILON))
    step = scale * hyper[SOFT_WEIGHT] * temperature / divisor
    value = _soft_row(dlogits, logits, teacher, at, count, z_inverse, v_inverse, step)
    if dlogits.size > 0 and deviation > 0:
        center = real(mean)
        inner = 0.0
        for first in range(0, count, CHUNK):
            part = splat(logits, zero)
            for j in range(first, min(first + CHUNK, count), width):
                c = load(logits, at + j, count - j, center) - center
                part = part + load(dlogits, at + j, count - j, zero) * c
            inner += np.float64(total(part))
        slope = real(inner / ((count - 1) * deviation * divisor))
        for j in range(0, count, width):
            c = load(logits, at + j, count - j, center) - center
            store(dlogits, at + j, count - j, load(dlogits, at + j, count - j, zero) - c * slope)
    return value * hyper[SOFT_WEIGHT] * temperature * temperature


@jit
def _peak_without(x, at, count, skip):
    left, right = row_max(x, at, skip), row_max(x, at + skip + 1, count - skip - 1)
    return right if right > left else left


@jit
def _softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@jit
def _sigmoid(x):
    small = math.exp(-abs(x))
    return (small if x < 0 else 1.0) / (1.0 + small)


@jit
def _target_class(targets, at, count, label):
    """The label, or with targets the largest entry of their row (-1: neither is there)."""
    if targets.size == 0:
        return label
    flat = targets.reshape(-1)
    best = 0
    for j in range(1, count):
        if flat[at + j] > flat[at + best]:
            best = j
    return best


@jit
def _target_aware_row(kind, dlogits, logits, teacher, at, count, label, scale, hyper):
    """DecoupledKD and NormalizedKD, which treat the labelled class t apart from the others.

    The odds z_t/T - logsumexp of the others carry all about t: q_t = sigmoid(odds), and log q_t
    and log(1 - q_t) stay finite where q_t rounds to 0 or 1.
    """
    stay_apart()
    real = logits.dtype.type
    temperature = hyper[TEMPERATURE]
    inverse = real(1.0 / temperature)
    z_peak, v_peak = _peak_without(logits, at, count, label), _peak_without(teacher, at, count, label)
    after, rest = at + label + 1, count - label - 1
    none = np.int64(0)
    v_sum, z_sum, ratio, weighted, _ = _relative_sums(
        dlogits, logits, teacher, at, label, z_peak, v_peak, inverse, inverse, none
    )
    v_right, z_right, ratio_right, weighted_right, _ = _relative_sums(
        dlogits, logits, teacher, after, rest, z_peak, v_peak, inverse, inverse, none
    )
    v_sum, z_sum = v_sum + v_right, z_sum + z_right
    ratio, weighted = ratio + ratio_right, weighted + weighted_right
    squared = temperature * temperature
    step = scale * temperature * hyper[SECOND_WEIGHT]
    value = hyper[SECOND_WEIGHT] * squared * _divergence(ratio, v_sum, z_sum)
    target_step = 0.0  # the derivative by the odds
    z_own, v_own = logits.reshape(-1)[at + label], teacher.reshape(-1)[at + label]
    if kind == DECOUPLED_KD:
        z_odds = np.float64(z_own - z_peak) / temperature - math.log(z_sum)
        v_odds = np.float64(v_own - v_peak) / temperature - math.log(v_sum)
        target = _sigmoid(v_odds) * (_softplus(-z_odds) - _softplus(-v_odds))
        target += _sigmoid(-v_odds) * (_softplus(z_odds) - _softplus(v_odds))
        value += hyper[SOFT_WEIGHT] * squared * max(target, 0.0)
        # q_t - p_t, and without cancellation where both are near 1
        gap = _sigmoid(z_odds) - _sigmoid(v_odds) if z_odds < 0 else _sigmoid(-v_odds) - _sigmoid(-z_odds)
        target_step = scale * temperature * hyper[SOFT_WEIGHT] * gap
    else:  # cross-entropy of the others: their divergence plus the teacher's entropy
        value += hyper[SECOND_WEIGHT] * squared * (math.log(v_sum) - weighted / v_sum)
    if dlogits.size > 0:
        z_norm, v_norm = (step - target_step) / z_sum, step / v_sum
        _difference(dlogits, logits, at, label, z_peak, inverse, z_norm, v_norm, 0.0, none)
        _difference(dlogits, logits, after, rest, z_peak, inverse, z_norm, v_norm, 0.0, none)
        dlogits.reshape(-1)[at + label] = target_step
    if kind == NORMALIZED_KD:  # -p_t log q_t, both at T = 1
        peak = max(v_peak, v_own)
        p = math.exp(np.float64(v_own - peak)) / row_exp_sum(teacher, at, count, peak, real(1))
        weight = hyper[SOFT_WEIGHT] * p
        nothing = teacher[:0]
        value += weight * crossentropy_row(dlogits, logits, nothing, at, count, label, scale * weight, 0.0, none + 1)
    return value


@jit
def _logit_matching_row(dlogits, logits, teacher, at, count, step):
    """mean_i ((z - v) - mean(z - v))^2; dlogits = step (2/C) times the same centred difference."""
    stay_apart()
    real = logits.dtype.type
    width = lanes(logits)
    zero = real(0)
    mean = 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, zero)
        for j in range(first, min(first + CHUNK, count), width):
            part = part + (load(logits, at + j, count - j, zero) - load(teacher, at + j, count - j, zero))
        mean += np.float64(total(part))
    center, slope = real(mean / count), real(2.0 * step / count)
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, zero)
        for j in range(first, min(first + CHUNK, count), width):
            d = load(logits, at + j, count - j, zero) - load(teacher, at + j, count - j, zero) - center
            part = part + keep(d * d, count - j)
            if dlogits.size > 0:
                store(dlogits, at + j, count - j, d * slope)
        value += np.float64(total(part))
    return value / count
