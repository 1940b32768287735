"""Metrics: one number for each row, averaged by the caller. A metric is one function and one row of `ROWS`."""

from __future__ import annotations

import numpy as np

from .choose import Code, choose
from .jit import jit

# ---- one row: ``pred`` and ``target`` (C,), ``label`` an int64, -1 for none; ``k`` is the top-k metrics'


def categorical_accuracy(pred, label, target, k):
    return _hit(pred, _argmax(target))


def sparse_categorical_accuracy(pred, label, target, k):
    return _hit(pred, label)


def binary_accuracy(pred, label, target, k):
    hits = 0
    threshold = pred.dtype.type(0.5)
    for j in range(pred.shape[0]):
        # Compared as numbers, as Keras does, since a target may be 0.5. A NaN exceeds no threshold.
        predicted = pred.dtype.type(1) if pred[j] > threshold else pred.dtype.type(0)
        if predicted == target[j] and pred[j] == pred[j]:
            hits += 1
    return hits / pred.shape[0]


def top_k_categorical_accuracy(pred, label, target, k):
    return _top_k_hit(pred, _argmax(target), k)


def sparse_top_k_categorical_accuracy(pred, label, target, k):
    return _top_k_hit(pred, label, k)


def mean_squared_error(pred, label, target, k):
    return _mean_error(pred, target, True)


def mean_absolute_error(pred, label, target, k):
    return _mean_error(pred, target, False)


# ---- what they share


@jit
def _argmax(row):
    best = 0
    for j in range(1, row.shape[0]):
        if row[j] > row[best]:
            best = j
    return best


@jit
def _is_possible(pred, label):
    """False for a label outside 0..C-1 (-1 means unlabelled) and for a NaN at the label: such a row is wrong."""
    return 0 <= label < pred.shape[0] and pred[label] == pred[label]


@jit
def _hit(pred, label):
    """1.0 where ``label`` is the argmax of the row, else 0.0: no entry is NaN, larger, or as large and earlier."""
    if not _is_possible(pred, label):
        return 0.0
    value = pred[label]
    preferred = 0
    for j in range(label):
        if not pred[j] < value:
            preferred += 1
    for j in range(label + 1, pred.shape[0]):
        if not pred[j] <= value:
            preferred += 1
    return 1.0 if preferred == 0 else 0.0


@jit
def _top_k_hit(pred, label, k):
    """1.0 where fewer than k entries are NaN or larger than the one at ``label``. A tie is not larger."""
    if not _is_possible(pred, label):
        return 0.0
    value = pred[label]
    larger = 0
    for j in range(pred.shape[0]):
        if not pred[j] <= value:
            larger += 1
    return 1.0 if larger < k else 0.0


@jit
def _mean_error(pred, target, squared):
    """Mean of (pred - target)^2 or |pred - target|, in float64, four sums side by side."""
    columns = pred.shape[0]
    a = b = c = d = 0.0
    for j in range(0, columns - 3, 4):
        e = np.float64(pred[j]) - np.float64(target[j])
        f = np.float64(pred[j + 1]) - np.float64(target[j + 1])
        g = np.float64(pred[j + 2]) - np.float64(target[j + 2])
        h = np.float64(pred[j + 3]) - np.float64(target[j + 3])
        a += e * e if squared else abs(e)
        b += f * f if squared else abs(f)
        c += g * g if squared else abs(g)
        d += h * h if squared else abs(h)
    for j in range(columns - columns % 4, columns):
        e = np.float64(pred[j]) - np.float64(target[j])
        a += e * e if squared else abs(e)
    return ((a + b) + (c + d)) / columns


# ---- the table: a metric of labels is named SPARSE_...

ROWS = (
    categorical_accuracy,
    sparse_categorical_accuracy,
    binary_accuracy,
    top_k_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    mean_squared_error,
    mean_absolute_error,
)

Metric = Code("Metric", [function.__name__.upper() for function in ROWS], start=0)
SPARSE = tuple(metric for metric in Metric if metric.name.startswith("SPARSE_"))
"""The metrics that read ``labels``; the others read ``targets``."""
globals().update(Metric.__members__)

_value_of_row = choose(dict(zip(Metric, ROWS, strict=True)), gives_value=True)


@jit
def metric_rows(kind, row_value, pred, labels, targets, k):
    """row_value (B,) float64 from pred (B, C) and either labels (B,) int64 or targets (B, C).

    Accuracies give 1 or 0. A NaN makes a row wrong, and so does a label outside 0..C-1 (-1 means
    unlabelled). Only the array the kind needs is read; the other may have size 0.
    """
    for i in range(pred.shape[0]):
        label = labels[i] if labels.size > 0 else np.int64(-1)
        target = targets[i] if targets.size > 0 else pred[i]
        row_value[i] = _value_of_row(kind, pred[i], label, target, k)
