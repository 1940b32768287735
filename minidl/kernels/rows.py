"""The rows of a batch: ``function(row, hyper)`` gives a loss's value of one and writes its gradient.

``hyper`` is a pointer there: one register to pass on, where an array is seven.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .jit import jit
from .vectors import keep, lanes, pointer, splat, store

NO_LABEL, ROW_OF_TARGETS = np.int64(-1), np.int64(-2)
"""In place of a row's class: the row has no label; the label is the row of targets."""


class Batch(NamedTuple):
    """What a loss reads. An array that it does not need has size 0."""

    logits: np.ndarray  # (B, C)
    labels: np.ndarray  # int64 (B,); -1 for a row without a label
    targets: np.ndarray  # (B, C)
    teacher_logits: np.ndarray  # (B, C)
    row_scale: np.ndarray  # float64 (B,)


class Row(NamedTuple):
    """One row: ``x[at : at + count]`` of each of the four, which are pointers (see `vectors.pointer`)."""

    dlogits: np.ndarray
    logits: np.ndarray
    targets: np.ndarray
    teacher: np.ndarray
    at: int
    count: int
    written: int  # count where the gradient is wanted; else 0, and nothing is written to dlogits
    label: int  # a class, NO_LABEL or ROW_OF_TARGETS
    scale: float  # the gradient is multiplied by it, the value is not


LOSSES: dict[str, tuple[Callable, tuple[str, ...]]] = {}
"""By name, the function of a row and the names of the settings in its ``hyper``; the decorator `loss` fills it."""


def loss(*names, settings=()):
    return lambda function: LOSSES.update(dict.fromkeys(names, (function, settings)))


@jit(inline=True)
def row_of(batch, dlogits, i):
    """Row i of a `Batch`."""
    count = batch.logits.shape[1]
    label = batch.labels[i] if batch.labels.size > 0 else NO_LABEL
    if batch.targets.size > 0:
        label = ROW_OF_TARGETS
    return Row(
        pointer(dlogits),
        pointer(batch.logits),
        pointer(batch.targets),
        pointer(batch.teacher_logits),
        i * count,
        count,
        count if dlogits.size > 0 else 0,
        label,
        batch.row_scale[i],
    )


@jit(inline=True)
def in_lane(like, lane, value):
    """A vector of ``like``'s elements with ``value`` in one lane and 0 in the others."""
    everywhere = splat(like, value)
    return keep(everywhere, lane + 1) - keep(everywhere, lane)


@jit
def clear_gradient(row):
    """dlogits = 0."""
    for j in range(0, row.written, lanes(row.dlogits)):
        store(row.dlogits, row.at + j, row.written - j, splat(row.dlogits, 0.0))


@jit
def sum_of_rows(row_loss):
    """The sum of ``row_loss``, in order, so that `fit` and a loss that is called alone give the same bits."""
    result = 0.0
    for i in range(row_loss.size):
        result += row_loss[i]
    return result
