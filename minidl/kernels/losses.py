"""All losses, value and gradient together: their codes, and the kernels that run one on a batch or a part of it.

In most losses rows are independent of each other, so a caller may hand over any range of them; their functions take
one row (see `rows`). The files imported here hold them, each under a decorator that names it; the code, the kernels
and the parametrized tests follow.
"""

from . import distillation, supervised, target_aware  # noqa: F401  (they fill LOSSES)
from .barrier import meet, share, start_together
from .choose import Code, choose
from .dist import DistSettings, dist_batch
from .jit import jit
from .rows import LOSSES, Batch, row_of
from .rows import sum_of_rows as sum_of_rows
from .vectors import pointer, stay_apart

WHOLE_BATCH = {"DIST": (dist_batch, DistSettings._fields)}
"""Losses whose rows depend on each other: a function of the batch, and its settings."""

Loss = Code("Loss", [*LOSSES, *WHOLE_BATCH], start=0)
globals().update(Loss.constants())

SETTINGS = {Loss[name]: settings for name, (_, settings) in {**LOSSES, **WHOLE_BATCH}.items()}
"""What stands in ``hyper`` (float64, 8), place by place."""


_loss_of_row = choose({Loss[name]: function for name, (function, _) in LOSSES.items()}, gives_value=True)
_loss_of_batch = {Loss[name]: function for name, (function, _) in WHOLE_BATCH.items()}


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
        loss_rows_for_python(kind, row_loss, dlogits, *batch, hyper)


@jit
def loss_rows(kind, row_loss, dlogits, batch, hyper):
    """`loss_batch` for kernels, on any range of rows of a loss whose rows are independent."""
    stay_apart()
    settings = pointer(hyper)
    for i in range(batch.logits.shape[0]):
        row = row_of(batch, dlogits, i)
        row_loss[i] = _loss_of_row(kind, row, settings) * row.scale


@jit
def loss_rows_for_python(kind, row_loss, dlogits, logits, labels, targets, teacher_logits, row_scale, hyper):
    """`loss_rows` with all arrays side by side: from Python a NamedTuple takes 7 us longer to hand over."""
    loss_rows(kind, row_loss, dlogits, Batch(logits, labels, targets, teacher_logits, row_scale), hyper)


@jit
def loss_rows_on_threads(team, kind, row_loss, dlogits, batch, hyper):
    """`loss_rows` with the rows shared among threads."""
    start_together(team)
    low, high = share(row_loss.size, team, 1)
    logits, labels, targets, teacher, scale = batch
    part = Batch(logits[low:high], labels[low:high], targets[low:high], teacher[low:high], scale[low:high])
    loss_rows(kind, row_loss[low:high], dlogits[low:high], part, hyper)
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
