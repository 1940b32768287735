"""Metrics: one number for each row, averaged by the caller. A metric is one entry of `METRICS`."""

import numpy as np
from numba.core import types

from .jit import jit
from .units import Code, Units, array


@jit
def _argmax(row):
    best = 0
    for j in range(1, row.shape[0]):
        if row[j] > row[best]:
            best = j
    return best


@jit
def _hit(pred, label, k, as_argmax):
    """1.0 where fewer than k entries come before the one at ``label``, else 0.0.

    NaN and larger entries come before it, and with ``as_argmax`` equal ones to its left. A label outside 0..C-1 (-1
    means unlabelled) is wrong, and so is a NaN at the label.
    """
    if not 0 <= label < pred.shape[0] or pred[label] != pred[label]:
        return 0.0
    value = pred[label]
    before = 0
    for j in range(pred.shape[0]):
        if not pred[j] <= value:
            before += 1
    for j in range(label if as_argmax else 0):
        if pred[j] == value:
            before += 1
    return 1.0 if before < k else 0.0


@jit(inline=True)
def _error(pred, target, j, squared):
    e = np.float64(pred[j]) - np.float64(target[j])
    return e * e if squared else abs(e)


@jit
def _mean_error(pred, target, squared):
    """Mean of (pred - target)^2 or |pred - target|, in float64, four sums side by side."""
    columns = pred.shape[0]
    a = b = c = d = 0.0
    for j in range(0, columns - 3, 4):
        a += _error(pred, target, j, squared)
        b += _error(pred, target, j + 1, squared)
        c += _error(pred, target, j + 2, squared)
        d += _error(pred, target, j + 3, squared)
    for j in range(columns - columns % 4, columns):
        a += _error(pred, target, j, squared)
    return ((a + b) + (c + d)) / columns


def binary_accuracy(pred, label, target, k):
    hits = 0
    threshold = pred.dtype.type(0.5)
    for j in range(pred.shape[0]):
        # Compared as numbers, as Keras does, since a target may be 0.5. A NaN exceeds no threshold.
        predicted = pred.dtype.type(1) if pred[j] > threshold else pred.dtype.type(0)
        if predicted == target[j] and pred[j] == pred[j]:
            hits += 1
    return hits / pred.shape[0]


# Of one row: ``pred`` and ``target`` (C,), ``label`` an int64, -1 for none; ``k`` is the top-k metrics'.
# A metric of labels is named SPARSE_...
METRICS = {
    "CATEGORICAL_ACCURACY": lambda pred, label, target, k: _hit(pred, _argmax(target), 1, True),
    "SPARSE_CATEGORICAL_ACCURACY": lambda pred, label, target, k: _hit(pred, label, 1, True),
    "BINARY_ACCURACY": binary_accuracy,
    "TOP_K_CATEGORICAL_ACCURACY": lambda pred, label, target, k: _hit(pred, _argmax(target), k, False),
    "SPARSE_TOP_K_CATEGORICAL_ACCURACY": lambda pred, label, target, k: _hit(pred, label, k, False),
    "MEAN_SQUARED_ERROR": lambda pred, label, target, k: _mean_error(pred, target, True),
    "MEAN_ABSOLUTE_ERROR": lambda pred, label, target, k: _mean_error(pred, target, False),
}

Metric = Code("Metric", list(METRICS), start=0)
SPARSE = tuple(metric for metric in Metric if metric.name.startswith("SPARSE_"))
"""The metrics that read ``labels``; the others read ``targets``."""
OF_CLASSES = tuple(metric for metric in Metric if "CATEGORICAL" in metric.name)
"""The metrics that look for the largest of a row."""
globals().update(Metric.constants())


def _of_rows(metric):
    """The metric of any range of rows, from that of one row."""
    metric = jit(metric, inline=True)

    def rows(row_value, pred, labels, targets, k):
        for i in range(pred.shape[0]):
            label = labels[i] if labels.size > 0 else np.int64(-1)
            target = targets[i] if targets.size > 0 else pred[i]
            row_value[i] = metric(pred[i], label, target, k)

    return rows


def _arguments(real):
    return array(types.float64), array(real, 2), array(types.int64), array(real, 2), types.int64


UNITS = Units(
    "metric", {Metric[name]: _of_rows(metric) for name, metric in METRICS.items()}, _arguments, has_entry=True
)
call_metric = UNITS.caller


def metric_rows(kind, row_value, pred, labels, targets, k):
    """row_value (B,) float64 from pred (B, C) and either labels (B,) int64 or targets (B, C).

    Accuracies give 1 or 0. A NaN makes a row wrong, and so does a label outside 0..C-1 (-1 means
    unlabelled). Only the array the kind needs is read; the other may have size 0.
    """
    UNITS[kind](row_value, pred, labels, targets, k)
