"""What distillation losses share: sums over softened probabilities, and the T squared of their soft terms.

z are the student's logits, v the teacher's, q and p their softmax at temperature T. The sums over a row give
KL(p || q) = sum p (log p - log q) without a logarithm of an element, so nothing here overflows or rounds to
infinity at any logits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .elementary import exp_negative, log
from .jit import jit
from .vectors import CHUNK, keep, lanes, load, splat, stay_apart, store, total


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
    """Factors of exp(b), exp(a) and exp(2^doublings b) in a gradient."""

    z: float
    v: float
    power: float


@jit
def relative_sums(row, exponents, doublings):
    """The sums of exp(a), exp(b), exp(a) (a - b), exp(a) a, and exp(2^doublings b).

    The exp(a) are left in dlogits, if the gradient is wanted, for `write_difference`.
    """
    stay_apart()
    at, count, logits = row.at, row.count, row.logits
    z_peak, v_peak, z_inverse, v_inverse = exponents
    v_sum, z_sum, ratio, weighted, power = 0.0, 0.0, 0.0, 0.0, 0.0
    for first in range(0, count, CHUNK):
        v_part = splat(logits, 0.0)
        z_part = splat(logits, 0.0)
        ratio_part = splat(logits, 0.0)
        weighted_part = splat(logits, 0.0)
        power_part = splat(logits, 0.0)
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
        z_exp = exp_negative((load(logits, at + j, count - j, z_peak) - z_peak) * z_inverse)
        d = z_exp * norms.z - load(dlogits, at + j, count - j, 0.0) * norms.v
        for _ in range(doublings):
            z_exp = z_exp * z_exp
        store(dlogits, at + j, count - j, d + z_exp * norms.power)


@jit(inline=True)
def divergence(ratio, v_sum, z_sum):
    """KL(p || q) from the sums above; rounding must not make it negative."""
    value = ratio / v_sum + log(z_sum / v_sum)
    return 0.0 if value < 0.0 else value
