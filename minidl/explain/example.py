"""The tiny net of ``python -m minidl explain``: 2 inputs, 3 hidden units, 3 outputs, 2 samples."""

from __future__ import annotations

import numpy as np

from ..layers import Dense, Input
from ..losses import KLDivergence, Loss, MeanSquaredLogarithmicError, Poisson
from ..models import Sequential

X = np.array([[1.0, 2.0], [0.5, -1.0]])
CLASSES = np.array([1, 0])
TEACHER_LOGITS = np.array([[1.0, 3.0, 2.0], [2.0, 0.0, -1.0]])
NUMBERS = np.array([[0.5, 1.0, 0.2], [1.5, 0.1, 0.4]])
"""The targets of a loss of numbers."""
_ENDINGS = {KLDivergence: "softmax", MeanSquaredLogarithmicError: "softplus", Poisson: "softplus"}
"""Of losses of numbers that must not be negative."""
WEIGHTS = (
    np.array([[0.5, -0.3, 0.8], [0.2, 0.6, -0.4]]),
    np.array([0.1, 0.0, -0.2]),
    np.array([[0.3, -0.5, 0.2], [-0.4, 0.7, 0.1], [0.6, 0.2, -0.3]]),
    np.array([0.0, 0.1, -0.1]),
)


def make_model(loss: Loss, activation: str) -> Sequential:
    """It ends in the activation that the loss is fused with, if in any."""
    ending = _ENDINGS.get(type(loss), loss.fused_activation)
    layers = [Dense(3, activation, name="hidden"), Dense(3, ending, name="output")]
    model = Sequential([Input((2,)), *layers], name="tiny", dtype="float64", seed=0)
    model.set_weights(WEIGHTS)
    return model


def targets_for(loss: Loss) -> np.ndarray:
    """Labels where the loss is one of classes, answers of yes and no for sigmoids, else numbers."""
    if loss.sparse:
        return CLASSES
    if loss.fused_activation is None and not loss.is_of_rows:
        return NUMBERS / NUMBERS.sum(axis=1, keepdims=True) if type(loss) is KLDivergence else NUMBERS
    return np.eye(3)[CLASSES]
