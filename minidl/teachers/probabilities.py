"""Probabilities in place of logits: how they are recognized, refused or converted."""

from __future__ import annotations

import numpy as np

from ..losses import looks_like_probabilities

PROBABILITY_FLOOR = 1e-7
"""Smaller probabilities are raised to this one before their logarithm is taken, as in Keras."""


def are_probabilities(array: np.ndarray) -> bool:
    """Whether every row of ``array`` ``(N, C)`` lies in [0, 1] and sums to 1."""
    # `looks_like_probabilities` says False for a single row, so a single row is shown twice
    return looks_like_probabilities(array if len(array) > 1 else np.repeat(array, 2, axis=0))


def refuse_probabilities(argument: str, array: np.ndarray) -> None:
    """Refuse ``array`` if it holds probabilities: softened once more, they would teach next to nothing."""
    if are_probabilities(array):
        raise ValueError(
            f"{argument} looks like probabilities: every row lies in [0, 1] and sums to 1. Logits are wanted "
            "(before the softmax); if probabilities are all there is, write "
            "teacher=minidl.teachers.as_teacher(p, from_probs=True)"
        )


def log_probabilities(array: np.ndarray) -> np.ndarray:
    """The logarithms of probabilities, which are logits that give these probabilities."""
    if not are_probabilities(array):
        raise ValueError("from_probs=True wants rows in [0, 1] that sum to 1, and these are not")
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    return np.log(np.maximum(array, PROBABILITY_FLOOR), dtype=dtype)
