"""``class_weight``: a dict of class: weight, or "balanced", as a weight of each sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..validation import check_float, check_int, describe


def check_class_weight(class_weight: object, classes: int | None) -> dict[int, float]:
    """``{class: weight}``, of classes below ``classes`` or any whole numbers; one not named weighs 1, as in Keras.

    Keys may be floats that are whole numbers, as a CSV reader gives them.
    """
    if not isinstance(class_weight, Mapping):
        wanted = 'a dict of class: weight, or "balanced"'
        raise TypeError(f"class_weight must be {wanted}, got {describe(class_weight)}")
    lowest, highest = (None, None) if classes is None else (0, classes - 1)
    checked = {}
    for key, value in class_weight.items():
        is_whole = isinstance(key, (float, np.floating)) and float(key).is_integer()
        index = check_int("class_weight key", int(key) if is_whole else key, lowest, highest)
        checked[index] = check_float(f"class_weight[{key}]", value, minimum=0)
    return checked


def balanced(classes: np.ndarray) -> dict[int, float]:
    """``{class: n_samples / (n_classes * count)}`` over the classes that occur: scikit-learn's "balanced"."""
    present, counts = np.unique(classes, return_counts=True)
    weights = len(classes) / (len(present) * counts)
    return {int(each): float(weight) for each, weight in zip(present, weights, strict=True)}


def sample_weights(
    class_weight: object, labels: np.ndarray, targets: np.ndarray | None, outputs: int, count: int | None
) -> np.ndarray:
    """float64 (N,): the weight of each sample's class; of one without a label 1.

    "balanced" counts the classes of the first ``count`` samples, those trained on, that have a label.
    """
    one = outputs == 1 and targets is not None
    if targets is not None:  # as in Keras: the nearest whole number, or the largest, is the class
        classes = np.rint(targets[:, 0]) if one else np.argmax(targets, axis=1)
    elif labels.size:
        classes = labels
    else:
        raise ValueError("class_weight needs y, got y=None")
    is_class = np.ones(len(classes), bool) if targets is not None else classes < outputs  # others are ignored
    if labels.size:
        is_class &= labels >= 0
    if isinstance(class_weight, str) and class_weight == "balanced":
        if one and not np.array_equal(classes, targets[:, 0]):
            wanted = "class_weight='balanced' needs y of whole numbers, the classes"
            raise ValueError(f"{wanted}, got {targets[classes != targets[:, 0]][0, 0]}")
        by_class = balanced(classes[:count][is_class[:count]])
    else:
        by_class = check_class_weight(class_weight, None if one else outputs)
    present, of = np.unique(classes, return_inverse=True)
    return np.where(is_class, np.array([by_class.get(float(each), 1.0) for each in present])[of], 1.0)
