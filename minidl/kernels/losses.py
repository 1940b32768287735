"""Every loss by number, value and gradient together: the entry the training loop calls.

Except in DIST rows are independent, so a caller may hand over any range of them. The rows themselves are in
supervised.py and distillation.py, with the numbers (kinds) and the meaning of ``hyper``.
"""

from __future__ import annotations

import numpy as np

from .distillation import dist_batch, distillation_row
from .jit import jit
from .supervised import (
    BINARY_CROSSENTROPY,
    BINARY_CROSSENTROPY_ON_PROBS,
    CATEGORICAL_CROSSENTROPY,
    CATEGORICAL_CROSSENTROPY_ON_PROBS,
    DECOUPLED_KD,
    DELTA,
    DENSE,
    DIST,
    HALF_MEAN_SQUARED_ERROR,
    HARD_WEIGHT,
    HUBER,
    KL_DIVERGENCE,
    KNOWLEDGE_DISTILLATION,
    LABEL_SMOOTHING,
    LOGIT_MATCHING,
    MEAN_ABSOLUTE_ERROR,
    MEAN_SQUARED_ERROR,
    NORMALIZED_KD,
    SECOND_WEIGHT,
    SOFT_WEIGHT,
    SPARSE_CATEGORICAL_CROSSENTROPY,
    SPARSE_CATEGORICAL_CROSSENTROPY_ON_PROBS,
    STANDARDIZE,
    TEMPERATURE,
    UNLABELLED,
    binary_on_probs_row,
    binary_row,
    crossentropy_on_probs_row,
    crossentropy_row,
    kl_divergence_row,
    regression_row,
)
from .threads import meet, share, start_together
from .vectors import pointer

__all__ = [
    "BINARY_CROSSENTROPY",
    "BINARY_CROSSENTROPY_ON_PROBS",
    "CATEGORICAL_CROSSENTROPY",
    "CATEGORICAL_CROSSENTROPY_ON_PROBS",
    "DECOUPLED_KD",
    "DELTA",
    "DIST",
    "HALF_MEAN_SQUARED_ERROR",
    "HARD_WEIGHT",
    "HUBER",
    "KL_DIVERGENCE",
    "KNOWLEDGE_DISTILLATION",
    "LABEL_SMOOTHING",
    "LOGIT_MATCHING",
    "MEAN_ABSOLUTE_ERROR",
    "MEAN_SQUARED_ERROR",
    "NORMALIZED_KD",
    "SECOND_WEIGHT",
    "SOFT_WEIGHT",
    "SPARSE_CATEGORICAL_CROSSENTROPY",
    "SPARSE_CATEGORICAL_CROSSENTROPY_ON_PROBS",
    "STANDARDIZE",
    "TEMPERATURE",
    "dist_batch",
    "are_usable",
    "loss_batch",
    "loss_rows",
    "loss_rows_on_threads",
    "sum_of_rows",
]


@jit
def loss_rows(kind, row_loss, dlogits, logits, labels, targets, teacher_logits, row_scale, hyper):
    """row_loss[i] = row_scale[i] * loss_i and dlogits[i] = row_scale[i] * d loss_i / d logits_i.

    row_loss, row_scale (B,) float64; dlogits, logits (B, C); labels (B,) int64; targets and
    teacher_logits (B, C); hyper (8,) float64. An array that the kind does not need has size 0;
    so has dlogits where only the value is wanted. A label of -1 is a row without a label. Rows are
    independent of each other; DIST's are not, and it has `dist_batch` with the same arguments.
    """
    rows, count = logits.shape
    d, z, y, v = pointer(dlogits), pointer(logits), pointer(targets), pointer(teacher_logits)
    written = count if dlogits.size > 0 else 0
    smoothing = hyper[LABEL_SMOOTHING]
    temperature, hard = hyper[TEMPERATURE], hyper[HARD_WEIGHT]
    soft, second = hyper[SOFT_WEIGHT], hyper[SECOND_WEIGHT]
    for i in range(rows):
        at = i * count
        scale = row_scale[i]
        label = labels[i] if labels.size > 0 else UNLABELLED
        if targets.size > 0:
            label = DENSE
        if kind <= SPARSE_CATEGORICAL_CROSSENTROPY:
            value = crossentropy_row(d, z, y, at, count, written, label, scale, smoothing, np.int64(0))
        elif kind == BINARY_CROSSENTROPY:
            value = binary_row(d, z, y, at, count, written, scale, smoothing)
        elif kind <= HUBER:
            value = regression_row(kind, d, z, y, at, count, written, scale, hyper[DELTA])
        elif kind == KL_DIVERGENCE:
            value = kl_divergence_row(d, z, y, at, count, written, scale)
        elif kind <= SPARSE_CATEGORICAL_CROSSENTROPY_ON_PROBS:
            value = crossentropy_on_probs_row(d, z, y, at, count, written, label, scale, smoothing)
        elif kind == BINARY_CROSSENTROPY_ON_PROBS:
            value = binary_on_probs_row(d, z, y, at, count, written, scale, smoothing)
        else:
            value = distillation_row(
                kind, d, z, y, v, at, count, written, label, scale,
                temperature, hard, soft, second, hyper[STANDARDIZE],
            )  # fmt: skip
        row_loss[i] = value * scale


@jit
def loss_rows_on_threads(
    team, kind, row_loss, dlogits, logits, labels, targets, teacher_logits, row_scale, hyper
):
    """`loss_rows` with the rows shared among threads."""
    start_together(team)
    low, high = share(logits.shape[0], team, np.int64(1))
    loss_rows(
        kind,
        row_loss[low:high],
        dlogits[low:high] if dlogits.size else dlogits,
        logits[low:high],
        labels[low:high] if labels.size else labels,
        targets[low:high] if targets.size else targets,
        teacher_logits[low:high] if teacher_logits.size else teacher_logits,
        row_scale[low:high],
        hyper,
    )
    meet(team)


@jit
def are_usable(labels, teacher_logits):
    """Whether each label is -1 or a class, and the first row of the teacher's has an entry no probability could be."""
    rows, count = teacher_logits.shape
    outside = False
    for i in range(rows):
        outside |= labels[i] < -1 or labels[i] >= count
    inside = True
    for j in range(count):
        inside &= 0 <= teacher_logits[0, j] <= 1
    return not (outside or inside)


@jit
def sum_of_rows(row_loss):
    """The sum of ``row_loss``, one after the other: the same bits from `fit` and from a loss by itself."""
    result = 0.0
    for i in range(row_loss.size):
        result += row_loss[i]
    return result


def loss_batch(kind, *arguments):
    """`loss_rows` for any kind, on a whole batch. Not compiled, so that DIST is only where it is used."""
    if kind == DIST:
        dist_batch(*arguments)
    else:
        loss_rows(kind, *arguments)
