"""Labels in the forms a user may give them."""

from __future__ import annotations

import numpy as np


def holds_rows(y: np.ndarray) -> bool:
    """Whether ``y`` holds a row of class probabilities per sample, (N, C), rather than class indices."""
    return np.ndim(y) == 2 and np.shape(y)[1] > 1


def as_labels(y: np.ndarray) -> np.ndarray:
    """Class indices (N,) of labels ``(N,)`` or ``(N, 1)``, or of rows of probabilities."""
    y = np.asarray(y)
    return y.argmax(axis=1) if holds_rows(y) else y.reshape(len(y)).astype(np.int64)


def has_labels(y: np.ndarray | None) -> bool:
    """Whether any sample has a label; -1 stands for none."""
    return y is not None and bool((as_labels(y) >= 0).any())
