"""All losses, value and gradient together: their codes, and the kernels that run one on a batch or a part of it.

In most losses rows are independent of each other, so a caller may hand over any range of them; their functions take
one row (see `rows`). The files imported here hold them, each under a decorator that names it; the code, the kernels
and the parametrized tests follow.
"""

from numba.core import types

from . import (  # noqa: F401  (they fill LOSSES)
    distillation,
    errors,
    focal,
    supervised,
    target_aware,
    taught_outputs,
)
from .barrier import meet, share, start_together
from .dist import DistSettings, dist_batch
from .jit import jit
from .rows import LOSSES, Batch, row_of
from .rows import sum_of_rows as sum_of_rows
from .units import Code, Units, array
from .vectors import pointer

WHOLE_BATCH = {"DIST": (dist_batch, DistSettings._fields)}
"""Losses whose rows depend on each other: a function of the batch, and its settings."""

Loss = Code("Loss", [*LOSSES, *WHOLE_BATCH], start=0)
globals().update(Loss.constants())

SETTINGS = {Loss[name]: settings for name, (_, settings) in {**LOSSES, **WHOLE_BATCH}.items()}
"""What stands in ``hyper`` (float64, 8), place by place."""


def _of_rows(function):
    """The loss of any range of rows, from that of one row: the arguments are those of `loss_batch`."""
    function = jit(function, inline=True)

    def loss_rows(row_loss, dlogits, logits, labels, targets, teacher_logits, row_scale, hyper):
        batch, settings = Batch(logits, labels, targets, teacher_logits, row_scale), pointer(hyper)
        for i in range(logits.shape[0]):
            row = row_of(batch, dlogits, i)
            row_loss[i] = function(row, settings) * row.scale

    return loss_rows


def _arguments(real):
    vector, matrix = array(types.float64), array(real, 2)
    return vector, matrix, matrix, array(types.int64), matrix, matrix, vector, vector


UNITS = Units(
    "loss",
    {Loss[name]: _of_rows(function) for name, (function, _) in LOSSES.items()},
    _arguments,
    has_entry=True,
)
call_loss = UNITS.caller
_loss_of_batch = {Loss[name]: function for name, (function, _) in WHOLE_BATCH.items()}


def loss_batch(kind, row_loss, dlogits, batch, hyper):
    """row_loss[i] = row_scale[i] * loss_i and dlogits[i] = row_scale[i] * d loss_i / d logits_i, for any kind.

    row_loss (B,) float64; dlogits (B, C), or of size 0 where only the value is wanted; hyper float64 (8,), filled as
    SETTINGS says. Not compiled itself, so that a whole-batch loss is compiled only where it is used.
    """
    if kind not in SETTINGS:
        raise ValueError(f"kind must be a member of Loss, got {kind!r}")
    loss = _loss_of_batch[kind] if kind in _loss_of_batch else UNITS[kind]
    loss(row_loss, dlogits, *batch, hyper)


@jit
def loss_rows_on_threads(team, loss, row_loss, dlogits, batch, hyper):
    """The loss at an address, one of `UNITS`, with the rows shared among threads."""
    start_together(team)
    low, high = share(row_loss.size, team, 1)
    logits, labels, targets, teacher, scale = batch
    call_loss(
        loss,
        row_loss[low:high],
        dlogits[low:high],
        logits[low:high],
        labels[low:high],
        targets[low:high],
        teacher[low:high],
        scale[low:high],
        hyper,
    )
    meet(team)


@jit
def are_labels_and_logits(labels, teacher_logits):
    """Whether each label is -1 or a class, and the teacher's first row is not of probabilities: an entry lies outside
    [0, 1]."""
    rows, count = teacher_logits.shape
    for i in range(rows):
        if not -1 <= labels[i] < count:
            return False
    for j in range(count):
        if not 0 <= teacher_logits[0, j] <= 1:
            return True
    return False
