"""What teachers answer: logits or outputs (N, C); probabilities are converted where they are said to be such.

``activation`` tells what makes answers of logits: "softmax", "sigmoid", or None for the outputs of a regression.
"""

import numpy as np

from ..losses.softmax import looks_like_probabilities
from ..validation import check_range

PROBABILITY_FLOOR = 1e-7
"""Smaller probabilities are raised to this one before their logarithm is taken, as in Keras."""
OF_ONE = "; of one output say what it is: as_teacher(..., activation='sigmoid'), or None for a regression"


def hint_of_two(got: int | None, wanted: int | None) -> str:
    """What to write where a teacher tells of both classes, and the student has one output."""
    if (got, wanted) != (2, 1):
        return ""
    return "; of two classes give what speaks for the second: of probabilities p[:, 1], of logits v[:, 1] - v[:, 0]"


def as_answers(array: np.ndarray, activation: str | None) -> np.ndarray | None:
    """``array`` as (N, C); None if it has another shape, or one column where several classes are meant."""
    if array.ndim == 1 and activation != "softmax":
        array = array[:, None]
    return array if array.ndim == 2 and (array.shape[1] > 1 or activation != "softmax") else None


def logits_of(argument: str, array: np.ndarray, from_probs: bool, activation: str | None) -> np.ndarray:
    """Answers (N, C) as logits; probabilities are converted if they are said to be such, and else refused."""
    if activation is None:
        if from_probs:
            raise ValueError(
                "from_probs=True is for classes: a regression learns from a teacher's outputs as they are"
            )
        return array
    if activation == "sigmoid":
        if from_probs:
            return _log_odds(array)
        _refuse_sigmoids(argument, array)
        return array
    if from_probs:
        return _log_probabilities(array)
    refuse_probabilities(argument, array)
    return array


def _refuse_sigmoids(argument: str, array: np.ndarray) -> None:
    """Refuse what sigmoids give, where their logits are wanted: numbers that fill [0, 1] and never leave it."""
    low, high = array.min(), array.max()
    if low >= 0 and high <= 1 and high - low > 0.9 and array.size >= 10:
        raise ValueError(
            f"{argument} looks like probabilities: all {array.size} numbers lie in [0, 1], from {low:g} to {high:g}. "
            "Logits are wanted (before the sigmoid); if probabilities are all there is, say from_probs=True"
        )


def refuse_probabilities(argument: str, array: np.ndarray) -> None:
    """Refuse ``array`` if it holds probabilities: softened once more, they would teach next to nothing."""
    if looks_like_probabilities(array):
        raise ValueError(
            f"{argument} looks like probabilities: every row lies in [0, 1] and sums to 1. Logits are wanted "
            "(before the softmax); if probabilities are all there is, write "
            "teacher=minidl.teachers.as_teacher(p, from_probs=True)"
        )


def _log_probabilities(array: np.ndarray) -> np.ndarray:
    """The logarithms of probabilities, which are logits that give these probabilities."""
    if not looks_like_probabilities(array):
        raise ValueError(
            "from_probs=True wants rows in [0, 1] that sum to 1, and these are not; of sigmoids say "
            "as_teacher(..., from_probs=True, activation='sigmoid')"
        )
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    return np.log(np.maximum(array, PROBABILITY_FLOOR), dtype=dtype)


def _log_odds(array: np.ndarray) -> np.ndarray:
    """The logits of sigmoids with these outputs, which are first brought to [1e-7, 1 - 1e-7]."""
    check_range("teacher", array, 0.0, 1.0, why=" (probabilities, with from_probs=True)")
    p = np.clip(array.astype(np.float64), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return (np.log(p) - np.log1p(-p)).astype(np.float64 if array.dtype == np.float64 else np.float32)
