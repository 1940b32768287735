"""What a metric says about each row: one number a sample, averaged by the caller."""

from __future__ import annotations

import numpy as np

from .jit import jit

CATEGORICAL_ACCURACY = 0
SPARSE_CATEGORICAL_ACCURACY = 1
BINARY_ACCURACY = 2
TOP_K_CATEGORICAL_ACCURACY = 3
SPARSE_TOP_K_CATEGORICAL_ACCURACY = 4
MEAN_SQUARED_ERROR = 5
MEAN_ABSOLUTE_ERROR = 6


@jit
def _argmax(row):
    best = 0
    for j in range(1, row.shape[0]):
        if row[j] > row[best]:
            best = j
    return best


@jit
def _rank_errors(row, label):
    """Entries that argmax prefers to ``row[label]``: larger, NaN, or as large and earlier."""
    value = row[label]
    before = 0
    for j in range(label):
        if not row[j] < value:
            before += 1
    for j in range(label + 1, row.shape[0]):
        if not row[j] <= value:
            before += 1
    return before


@jit
def _larger(row, label):
    """Entries that are larger than ``row[label]`` or NaN. A tie is not larger: both are in the top k."""
    value = row[label]
    count = 0
    for j in range(row.shape[0]):
        if not row[j] <= value:
            count += 1
    return count


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


@jit
def metric_rows(kind, row_value, pred, labels, targets, k):
    """row_value (B,) float64 from pred (B, C) and either labels (B,) int64 or targets (B, C).

    Accuracies give 1 or 0. A NaN makes a row wrong, and so does a label outside 0..C-1 (-1 means
    unlabelled). Only the array the kind needs is read; the other may have size 0.
    """
    real = pred.dtype.type
    rows, columns = pred.shape
    if kind == BINARY_ACCURACY:
        threshold = real(0.5)
        for i in range(rows):
            hits = 0
            for j in range(columns):
                # targets may hold 0.5: compared as numbers, as Keras does; NaN > threshold is False
                predicted = real(1) if pred[i, j] > threshold else real(0)
                if predicted == targets[i, j] and pred[i, j] == pred[i, j]:
                    hits += 1
            row_value[i] = hits / columns
    elif kind == MEAN_SQUARED_ERROR or kind == MEAN_ABSOLUTE_ERROR:
        for i in range(rows):
            row_value[i] = _mean_error(pred[i], targets[i], kind == MEAN_SQUARED_ERROR)
    else:
        sparse = kind == SPARSE_CATEGORICAL_ACCURACY or kind == SPARSE_TOP_K_CATEGORICAL_ACCURACY
        top_k = kind == TOP_K_CATEGORICAL_ACCURACY or kind == SPARSE_TOP_K_CATEGORICAL_ACCURACY
        for i in range(rows):
            label = labels[i] if sparse else _argmax(targets[i])
            if label < 0 or label >= columns:
                row_value[i] = 0.0
            elif pred[i, label] != pred[i, label]:  # NaN
                row_value[i] = 0.0
            elif top_k:
                row_value[i] = 1.0 if _larger(pred[i], label) < k else 0.0
            else:
                row_value[i] = 1.0 if _rank_errors(pred[i], label) == 0 else 0.0
