"""Losses, value and gradient together: each is one function and one row of a table here.

In most losses rows are independent of each other, so a caller may hand over any range of them; their functions take
one row (see `rows`). To add one, write the function (for a function of the error alone, its formula: see
`supervised.of_error`) and name it in the table. The code, the kernels and the parametrized tests follow from it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .barrier import meet, share, start_together
from .choose import Code, choose
from .dist import DistSettings, dist_batch
from .distillation import KDSettings, MatchingSettings, knowledge_distillation, logit_matching
from .jit import jit
from .rows import LossOfRows, row_of
from .supervised import (
    absolute_error,
    binary_crossentropy,
    binary_crossentropy_on_probs,
    crossentropy,
    crossentropy_on_probs,
    half_squared_error,
    huber,
    kl_divergence,
    of_error,
    squared_error,
)
from .target_aware import DecoupledSettings, NormalizedSettings, decoupled, normalized
from .vectors import pointer

_SMOOTHING = ("label_smoothing",)

LOSSES = {
    "CATEGORICAL_CROSSENTROPY": LossOfRows(crossentropy, _SMOOTHING),
    "SPARSE_CATEGORICAL_CROSSENTROPY": LossOfRows(crossentropy, _SMOOTHING),
    "BINARY_CROSSENTROPY": LossOfRows(binary_crossentropy, _SMOOTHING),
    "MEAN_SQUARED_ERROR": LossOfRows(of_error(squared_error)),
    "HALF_MEAN_SQUARED_ERROR": LossOfRows(of_error(half_squared_error, mean=False)),
    "MEAN_ABSOLUTE_ERROR": LossOfRows(of_error(absolute_error)),
    "HUBER": LossOfRows(of_error(huber), ("delta",)),
    "KL_DIVERGENCE": LossOfRows(kl_divergence),
    "CATEGORICAL_CROSSENTROPY_ON_PROBS": LossOfRows(crossentropy_on_probs, _SMOOTHING),
    "SPARSE_CATEGORICAL_CROSSENTROPY_ON_PROBS": LossOfRows(crossentropy_on_probs, _SMOOTHING),
    "BINARY_CROSSENTROPY_ON_PROBS": LossOfRows(binary_crossentropy_on_probs, _SMOOTHING),
    "KNOWLEDGE_DISTILLATION": LossOfRows(knowledge_distillation, KDSettings._fields),
    "DECOUPLED_KD": LossOfRows(decoupled, DecoupledSettings._fields),
    "NORMALIZED_KD": LossOfRows(normalized, NormalizedSettings._fields),
    "LOGIT_MATCHING": LossOfRows(logit_matching, MatchingSettings._fields),
}
WHOLE_BATCH = {"DIST": (dist_batch, DistSettings._fields)}
"""Losses whose rows depend on each other: a function of the batch, and its settings."""

Loss = Code("Loss", [*LOSSES, *WHOLE_BATCH], start=0)
globals().update(Loss.__members__)

SETTINGS = {Loss[name]: row.settings for name, row in LOSSES.items()}
SETTINGS |= {Loss[name]: settings for name, (_, settings) in WHOLE_BATCH.items()}
"""What stands in ``hyper`` (float64, 8), place by place."""

# The same places by name, for who fills ``hyper`` without `SETTINGS`.
LABEL_SMOOTHING = DELTA = 0
TEMPERATURE, HARD_WEIGHT, SOFT_WEIGHT, STANDARDIZE = range(4)
SECOND_WEIGHT = 3

_loss_of_row = choose({Loss[name]: row.function for name, row in LOSSES.items()}, gives_value=True)
_loss_of_batch = {Loss[name]: function for name, (function, _) in WHOLE_BATCH.items()}


class Batch(NamedTuple):
    """What a loss reads. An array that it does not need has size 0."""

    logits: np.ndarray  # (B, C)
    labels: np.ndarray  # int64 (B,); -1 for a row without a label
    targets: np.ndarray  # (B, C)
    teacher_logits: np.ndarray  # (B, C)
    row_scale: np.ndarray  # float64 (B,)


def loss_batch(kind, row_loss, dlogits, batch, hyper):
    """row_loss[i] = row_scale[i] * loss_i and dlogits[i] = row_scale[i] * d loss_i / d logits_i, for any kind.

    row_loss (B,) float64; dlogits (B, C), or of size 0 where only the value is wanted; hyper float64 (8,), filled as
    SETTINGS says. Not compiled itself, so that a whole-batch loss is compiled only where it is used.
    """
    if kind not in SETTINGS:
        raise ValueError(f"kind must be a member of Loss, got {kind!r}")
    if kind in _loss_of_batch:
        _loss_of_batch[kind](row_loss, dlogits, *batch, hyper)
    else:
        loss_rows_for_python(int(kind), row_loss, dlogits, *batch, hyper)


@jit(inline=True)
def loss_rows(kind, row_loss, dlogits, batch, hyper):
    """`loss_batch` for kernels, on any range of rows of a loss whose rows are independent."""
    settings = pointer(hyper)
    for i in range(batch.logits.shape[0]):
        row = row_of(
            i, dlogits, batch.logits, batch.labels, batch.targets, batch.teacher_logits, batch.row_scale
        )
        row_loss[i] = _loss_of_row(kind, row, settings) * row.scale


@jit
def loss_rows_for_python(kind, row_loss, dlogits, logits, labels, targets, teacher_logits, row_scale, hyper):
    """`loss_rows` with all arrays side by side: from Python a NamedTuple takes 7 us longer to hand over."""
    loss_rows(kind, row_loss, dlogits, Batch(logits, labels, targets, teacher_logits, row_scale), hyper)


@jit
def loss_rows_on_threads(team, kind, row_loss, dlogits, batch, hyper):
    """`loss_rows` with the rows shared among threads."""
    start_together(team)
    low, high = share(batch.logits.shape[0], team, np.int64(1))
    part = Batch(
        batch.logits[low:high],
        batch.labels[low:high] if batch.labels.size else batch.labels,
        batch.targets[low:high] if batch.targets.size else batch.targets,
        batch.teacher_logits[low:high] if batch.teacher_logits.size else batch.teacher_logits,
        batch.row_scale[low:high],
    )
    loss_rows(kind, row_loss[low:high], dlogits[low:high] if dlogits.size else dlogits, part, hyper)
    meet(team)


@jit
def are_usable(labels, teacher_logits):
    """Whether each label is -1 or a class, and some entry of the teacher's first row lies outside [0, 1]: then its
    rows cannot be probabilities."""
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
