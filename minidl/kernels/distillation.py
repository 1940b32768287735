"""Distillation losses on logits: value and gradient of a row, and DIST, which needs the whole batch.

z are the student's logits, v the teacher's, q and p their softmax at temperature T. A hat leaves
the labelled class t out. The sums over a row give KL(p || q) = sum p (log p - log q) without a
logarithm of an element, so nothing here overflows or rounds to infinity at any logits. The row
functions take pointers, as in supervised.py.
"""

from __future__ import annotations

import math

import numpy as np

from .elementary import exp_negative, log, sigmoid, softplus
from .jit import jit
from .softmax import row_exp_sum, row_max, row_sum, softmax_backward, softmax_forward
from .supervised import (
    DECOUPLED_KD,
    DENSE,
    HARD_WEIGHT,
    KNOWLEDGE_DISTILLATION,
    LOGIT_MATCHING,
    NORMALIZED_KD,
    SECOND_WEIGHT,
    SOFT_WEIGHT,
    TEMPERATURE,
    UNLABELLED,
    clear_row,
    crossentropy_row,
    in_lane,
    subtract_target,
    target_sums,
)
from .vectors import (
    CHUNK,
    get,
    keep,
    lanes,
    largest,
    load,
    pointer,
    put,
    splat,
    stay_apart,
    store,
    total,
)

STANDARDIZE_EPSILON = 1e-7
CORRELATION_EPSILON = 1e-8


@jit(inline=True)
def distillation_row(
    kind, dlogits, logits, targets, teacher, at, count, written, label, scale,
    temperature, hard, soft, second, standardize,
):  # fmt: skip
    """hard CE(y, q at T = 1) + the soft term of ``kind``; its gradient times ``scale`` in dlogits."""
    if label == UNLABELLED:
        hard = 0.0
    value = 0.0
    # np.int64: a literal would be a type of its own, and compile the callees once more.
    add = np.int64(0)  # 1 once dlogits holds the soft term
    if kind == KNOWLEDGE_DISTILLATION:
        if soft != 0:  # else plain cross-entropy, to the bit
            add = np.int64(1)
            doublings = np.int64(-1)
            for k in range(4):
                if temperature == 1 << k:
                    doublings = k
            if standardize != 0:
                value = _standardized_row(
                    dlogits, logits, teacher, at, count, written, scale * soft * temperature, temperature
                )
                value *= soft * temperature * temperature
            elif count <= lanes(logits):
                value = _short_row(
                    dlogits, logits, targets, teacher, at, count, written, label, scale,
                    temperature, hard, soft,
                )  # fmt: skip
                hard = 0.0
            elif hard != 0 and doublings >= 0:
                value = _hinton_row(
                    dlogits, logits, targets, teacher, at, count, written, label, scale,
                    temperature, hard, soft, doublings,
                )  # fmt: skip
                hard = 0.0
            else:
                inverse, step = 1.0 / temperature, scale * soft * temperature
                value = _soft_row(dlogits, logits, teacher, at, count, written, inverse, inverse, step)
                value *= soft * temperature * temperature
    elif kind == LOGIT_MATCHING:
        if soft != 0:
            add = np.int64(1)
            value = soft * _logit_matching_row(dlogits, logits, teacher, at, count, written, scale * soft)
    else:
        target = label
        if label == DENSE:  # the labelled class is the largest target
            target = np.int64(0)
            for j in range(1, count):
                if get(targets, at + j) > get(targets, at + target):
                    target = j
        if target >= 0 and count > 1:
            add = np.int64(1)
            value = _target_aware_row(
                kind, dlogits, logits, teacher, at, count, written, target, scale, temperature, soft, second
            )
    if hard != 0:
        value += hard * crossentropy_row(
            dlogits, logits, targets, at, count, written, label, scale * hard, 0.0, add
        )
    elif add == 0:
        clear_row(dlogits, at, written)
    return value


@jit
def _relative_sums(
    dlogits, logits, teacher, at, count, written, z_peak, v_peak, z_inverse, v_inverse, doublings
):
    """With a = (v - v_peak) v_inverse and b = (z - z_peak) z_inverse, the sums of exp(a), exp(b),
    exp(a) (a - b), exp(a) a, and exp(2^doublings b). The exp(a) are left in dlogits (if there is one)."""
    stay_apart()
    width = lanes(logits)
    v_sum, z_sum, ratio, weighted, power = 0.0, 0.0, 0.0, 0.0, 0.0
    for first in range(0, count, CHUNK):
        v_part = splat(logits, 0.0)
        z_part = splat(logits, 0.0)
        ratio_part = splat(logits, 0.0)
        weighted_part = splat(logits, 0.0)
        power_part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), width):
            a = (load(teacher, at + j, count - j, v_peak) - v_peak) * v_inverse
            b = (load(logits, at + j, count - j, z_peak) - z_peak) * z_inverse
            v_exp = keep(exp_negative(a), count - j)
            z_exp = keep(exp_negative(b), count - j)
            store(dlogits, at + j, written - j, v_exp)
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
def _difference(dlogits, logits, at, count, z_peak, z_inverse, z_norm, v_norm, power_norm, doublings):
    """dlogits = z_norm exp(b) + power_norm exp(2^doublings b) - v_norm exp(a), the last from dlogits."""
    stay_apart()
    width = lanes(logits)
    for j in range(0, count, width):
        z_exp = exp_negative((load(logits, at + j, count - j, z_peak) - z_peak) * z_inverse)
        d = z_exp * z_norm - load(dlogits, at + j, count - j, 0.0) * v_norm
        for _ in range(doublings):
            z_exp = z_exp * z_exp
        store(dlogits, at + j, count - j, d + z_exp * power_norm)


@jit(inline=True)
def _divergence(ratio, v_sum, z_sum):
    """KL(p || q) from the sums above; rounding must not make it negative."""
    value = ratio / v_sum + log(z_sum / v_sum)
    return 0.0 if value < 0.0 else value


@jit
def _short_row(
    dlogits, logits, targets, teacher, at, count, written, label, scale, temperature, hard, soft
):
    """KnowledgeDistillation of a row that fits one vector: all of it stays in registers."""
    stay_apart()
    inverse = 1.0 / temperature
    z, v = load(logits, at, count, -np.inf), load(teacher, at, count, -np.inf)
    z_peak, v_peak = largest(z), largest(v)
    z = keep(z - z_peak, count)
    a, b = keep(v - v_peak, count) * inverse, z * inverse
    v_exp, z_exp = keep(exp_negative(a), count), keep(exp_negative(b), count)
    v_sum, z_sum = np.float64(total(v_exp)), np.float64(total(z_exp))
    value = soft * temperature * temperature * _divergence(np.float64(total(v_exp * (a - b))), v_sum, z_sum)
    step = scale * soft * temperature
    d = z_exp * (step / z_sum) - v_exp * (step / v_sum)
    if hard != 0:
        q = keep(exp_negative(z), count)
        exp_sum = np.float64(total(q))
        mass, inner = 1.0, 0.0
        if label == DENSE:
            y = load(targets, at, count, 0.0)
            mass, inner = np.float64(total(y)), np.float64(total(y * z))
            d = d - y * (scale * hard)
        else:
            inner = np.float64(get(logits, at + label) - z_peak)
        d = d + q * (scale * hard * mass / exp_sum)
        if label != DENSE:
            d = d - in_lane(logits, label, scale * hard)
        value += hard * (mass * log(exp_sum) - inner)
    store(dlogits, at, written, d)
    return value


@jit
def _hinton_row(
    dlogits, logits, targets, teacher, at, count, written, label, scale, temperature, hard, soft, doublings
):
    """KnowledgeDistillation at T = 2^doublings: exp(z) is exp(z/T) squared a few times, which saves two
    of five exponentials an element."""
    stay_apart()
    inverse = 1.0 / temperature
    z_peak, v_peak = row_max(logits, at, count), row_max(teacher, at, count)
    v_sum, z_sum, ratio, _, exp_sum = _relative_sums(
        dlogits, logits, teacher, at, count, written, z_peak, v_peak, inverse, inverse, doublings
    )
    mass, inner = target_sums(logits, targets, at, count, label, z_peak, 0.0)
    if written > 0:
        step = scale * soft * temperature
        z_norm, v_norm, power_norm = step / z_sum, step / v_sum, scale * hard * mass / exp_sum
        _difference(dlogits, logits, at, count, z_peak, inverse, z_norm, v_norm, power_norm, doublings)
        subtract_target(dlogits, targets, at, count, label, scale * hard, 0.0)
    value = soft * temperature * temperature * _divergence(ratio, v_sum, z_sum)
    return value + hard * (mass * log(exp_sum) - inner)


@jit
def _soft_row(dlogits, logits, teacher, at, count, written, z_inverse, v_inverse, step):
    """KL(p || q), and dlogits = step (q - p), with the logits scaled by the two factors."""
    stay_apart()
    z_peak, v_peak = row_max(logits, at, count), row_max(teacher, at, count)
    none = np.int64(0)
    v_sum, z_sum, ratio, _, _ = _relative_sums(
        dlogits, logits, teacher, at, count, written, z_peak, v_peak, z_inverse, v_inverse, none
    )
    if written > 0:
        _difference(dlogits, logits, at, count, z_peak, z_inverse, step / z_sum, step / v_sum, 0.0, none)
    return _divergence(ratio, v_sum, z_sum)


@jit
def _mean_and_deviation(x, at, count):
    """The mean of a row and its standard deviation with ddof 1 (0 for a single class)."""
    stay_apart()
    width = lanes(x)
    mean = row_sum(x, at, count) / count
    squares = 0.0
    for first in range(0, count, CHUNK):
        part = splat(x, 0.0)
        for j in range(first, min(first + CHUNK, count), width):
            d = load(x, at + j, count - j, mean) - mean
            part = part + d * d
        squares += np.float64(total(part))
    return mean, math.sqrt(squares / (count - 1)) if count > 1 else 0.0


@jit
def _standardized_row(dlogits, logits, teacher, at, count, written, step, temperature):
    """KL, and dlogits = step (q - p), of (z - mean) / (std + 1e-7), student and teacher each by its own row.

    Softmax cancels the shift, so only the scale is applied. With s the standardized logits,
    c = z - mean, sigma = std and n = sigma + 1e-7: dz = (ds - c (sum ds c) / ((C - 1) sigma n)) / n;
    the term for the mean is absent since the ds sum to 0.
    """
    stay_apart()
    width = lanes(logits)
    mean, deviation = _mean_and_deviation(logits, at, count)
    _, v_deviation = _mean_and_deviation(teacher, at, count)
    divisor = deviation + STANDARDIZE_EPSILON
    z_inverse = 1.0 / (temperature * divisor)
    v_inverse = 1.0 / (temperature * (v_deviation + STANDARDIZE_EPSILON))
    value = _soft_row(dlogits, logits, teacher, at, count, written, z_inverse, v_inverse, step / divisor)
    if written > 0 and deviation > 0:
        inner = 0.0
        for first in range(0, count, CHUNK):
            part = splat(logits, 0.0)
            for j in range(first, min(first + CHUNK, count), width):
                c = load(logits, at + j, count - j, mean) - mean
                part = part + load(dlogits, at + j, count - j, 0.0) * c
            inner += np.float64(total(part))
        slope = inner / ((count - 1) * deviation * divisor)
        for j in range(0, count, width):
            c = load(logits, at + j, count - j, mean) - mean
            store(dlogits, at + j, count - j, load(dlogits, at + j, count - j, 0.0) - c * slope)
    return value


@jit(inline=True)
def _peak_without(x, at, count, skip):
    left, right = row_max(x, at, skip), row_max(x, at + skip + 1, count - skip - 1)
    return right if right > left else left


@jit
def _target_aware_row(
    kind, dlogits, logits, teacher, at, count, written, label, scale, temperature, target_weight, other_weight
):
    """DecoupledKD and NormalizedKD, which treat the labelled class t apart from the others.

    The odds z_t/T - logsumexp of the others carry all about t: q_t = sigmoid(odds), and
    log q_t = -softplus(-odds) and log(1 - q_t) = -softplus(odds) stay finite where q_t rounds to 0 or 1.
    """
    stay_apart()
    inverse, none = 1.0 / temperature, np.int64(0)
    z_peak, v_peak = _peak_without(logits, at, count, label), _peak_without(teacher, at, count, label)
    v_sum, z_sum, ratio, weighted = 0.0, 0.0, 0.0, 0.0
    for side in range(2):  # the classes before the label, and those after it
        start = at if side == 0 else at + label + 1
        size = label if side == 0 else count - label - 1
        sums = _relative_sums(
            dlogits, logits, teacher, start, size, size if written > 0 else none,
            z_peak, v_peak, inverse, inverse, none,
        )  # fmt: skip
        v_sum, z_sum, ratio, weighted = v_sum + sums[0], z_sum + sums[1], ratio + sums[2], weighted + sums[3]
    squared = temperature * temperature
    step = scale * temperature * other_weight
    value = other_weight * squared * _divergence(ratio, v_sum, z_sum)
    target_step = 0.0  # the derivative by the student's odds
    z_own, v_own = get(logits, at + label), get(teacher, at + label)
    if kind == DECOUPLED_KD:
        z_odds = np.float64(z_own - z_peak) / temperature - log(z_sum)
        v_odds = np.float64(v_own - v_peak) / temperature - log(v_sum)
        target = sigmoid(v_odds) * (softplus(-z_odds) - softplus(-v_odds))
        target += sigmoid(-v_odds) * (softplus(z_odds) - softplus(v_odds))
        value += target_weight * squared * (0.0 if target < 0.0 else target)
        # q_t - p_t, and without cancellation where both are near 1
        if z_odds < 0:
            gap = sigmoid(z_odds) - sigmoid(v_odds)
        else:
            gap = sigmoid(-v_odds) - sigmoid(-z_odds)
        target_step = scale * temperature * target_weight * gap
    else:  # cross-entropy over the others: their divergence plus the teacher's entropy
        value += other_weight * squared * (log(v_sum) - weighted / v_sum)
    if written > 0:
        z_norm, v_norm = (step - target_step) / z_sum, step / v_sum
        for side in range(2):
            start = at if side == 0 else at + label + 1
            size = label if side == 0 else count - label - 1
            _difference(dlogits, logits, start, size, z_peak, inverse, z_norm, v_norm, 0.0, none)
        put(dlogits, at + label, target_step)
    if kind == NORMALIZED_KD:  # -p_t log q_t, both at T = 1
        peak = v_own if v_own > v_peak else v_peak
        weight = target_weight * np.float64(exp_negative(v_own - peak))
        weight /= row_exp_sum(teacher, teacher, at, count, none, peak, 1.0)
        value += weight * crossentropy_row(
            dlogits, logits, logits, at, count, written, label, scale * weight, 0.0, none + 1
        )
    return value


@jit
def _logit_matching_row(dlogits, logits, teacher, at, count, written, step):
    """mean_i ((z - v) - mean(z - v))^2; dlogits = step (2/C) times the same centred difference."""
    stay_apart()
    width = lanes(logits)
    mean = 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), width):
            part = part + (load(logits, at + j, count - j, 0.0) - load(teacher, at + j, count - j, 0.0))
        mean += np.float64(total(part))
    center, slope = mean / count, 2.0 * step / count
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), width):
            d = load(logits, at + j, count - j, 0.0) - load(teacher, at + j, count - j, 0.0) - center
            part = part + keep(d * d, count - j)
            store(dlogits, at + j, written - j, d * slope)
        value += np.float64(total(part))
    return value / count


# ---- DIST: correlations of probabilities, along a sample's classes and along a class's samples ----


@jit
def _correlation(xy, xx, yy, size, mean, epsilon):
    """rho = xy / (|x| |y| + eps) for centred x and y, and the factors of y and x in d rho / dx.

    x that is constant to rounding has no direction: its correlation is 0 and so is the gradient.
    """
    if xx <= 16 * size * (epsilon * mean) ** 2 or yy <= 0:
        return 0.0, 0.0, 0.0
    x_norm, y_norm = math.sqrt(xx), math.sqrt(yy)
    bottom = x_norm * y_norm + CORRELATION_EPSILON
    return xy / bottom, 1.0 / bottom, -xy * y_norm / (x_norm * bottom * bottom)


@jit(allocates=True)
def dist_batch(row_loss, dlogits, logits, labels, targets, teacher_logits, row_scale, hyper):
    """hard_weight CE + T^2 [beta (1 - rho of each row) + gamma (1 - mean rho of the columns)], whole batch.

    rho is Pearson's correlation of the student's and the teacher's probabilities at T. Arguments as
    in `loss_rows`. The columns are correlated with the rows weighted by row_scale, and their term,
    weighted by the sum of row_scale, is spread over row_loss in proportion to it.
    """
    stay_apart()
    rows, count = logits.shape
    epsilon = 2.3e-16 if logits.itemsize == 8 else 1.2e-7
    temperature = hyper[TEMPERATURE]
    q, p = np.empty_like(logits), np.empty_like(logits)
    softmax_forward(q, logits, temperature)
    softmax_forward(p, teacher_logits, temperature)
    dq = np.zeros((rows, count), np.float64)
    mass = 0.0
    for i in range(rows):
        mass += row_scale[i]
    squared = temperature * temperature
    beta, gamma = hyper[SOFT_WEIGHT] * squared, hyper[SECOND_WEIGHT] * squared

    center = 1.0 / count
    for i in range(rows):
        xy, xx, yy = 0.0, 0.0, 0.0
        for c in range(count):
            x, y = np.float64(q[i, c]) - center, np.float64(p[i, c]) - center
            xy += x * y
            xx += x * x
            yy += y * y
        rho, y_factor, x_factor = _correlation(xy, xx, yy, count, center, epsilon)
        row_loss[i] = row_scale[i] * beta * (1.0 - rho)
        step = -row_scale[i] * beta
        for c in range(count):
            x, y = np.float64(q[i, c]) - center, np.float64(p[i, c]) - center
            dq[i, c] = step * (y_factor * y + x_factor * x)

    if mass > 0:
        sums = np.zeros((5, count), np.float64)
        for i in range(rows):
            weight = row_scale[i] / mass
            for c in range(count):
                sums[0, c] += weight * np.float64(q[i, c])
                sums[1, c] += weight * np.float64(p[i, c])
        for i in range(rows):
            weight = row_scale[i] / mass * rows
            for c in range(count):
                x, y = np.float64(q[i, c]) - sums[0, c], np.float64(p[i, c]) - sums[1, c]
                sums[2, c] += weight * x * y
                sums[3, c] += weight * x * x
                sums[4, c] += weight * y * y
        mean_rho = 0.0
        for c in range(count):
            xy, xx, yy = sums[2, c], sums[3, c], sums[4, c]
            rho, y_factor, x_factor = _correlation(xy, xx, yy, rows, sums[0, c], epsilon)
            mean_rho += rho / count
            sums[2, c], sums[3, c] = y_factor, x_factor
        for i in range(rows):
            row_loss[i] += row_scale[i] * gamma * (1.0 - mean_rho)
            step = -row_scale[i] * rows * gamma / count  # mass times the row's normalised weight
            for c in range(count):
                x, y = np.float64(q[i, c]) - sums[0, c], np.float64(p[i, c]) - sums[1, c]
                dq[i, c] += step * (sums[2, c] * y + sums[3, c] * x)

    if dlogits.size > 0:
        for i in range(rows):
            for c in range(count):
                dlogits[i, c] = dq[i, c]
        softmax_backward(dlogits, dlogits, q, temperature)
    if hyper[HARD_WEIGHT] != 0:
        d, z, y = pointer(dlogits), pointer(logits), pointer(targets)
        add, written = np.int64(1), count if dlogits.size > 0 else 0
        for i in range(rows):
            label = labels[i] if labels.size > 0 else UNLABELLED
            if targets.size > 0:
                label = DENSE
            hard = row_scale[i] * hyper[HARD_WEIGHT]
            row_loss[i] += hard * crossentropy_row(d, z, y, i * count, count, written, label, hard, 0.0, add)
