"""The plain student: the same model, trained on labels alone."""

from __future__ import annotations

import copy

import numpy as np

from .. import losses, optimizers
from ..callbacks import EarlyStopping, History, LearningRateScheduler, ReduceLROnPlateau, TerminateOnNaN
from ..models import Sequential
from .labels import as_labels, has_labels, holds_rows
from .report_data import split_rows

_STEERING = (EarlyStopping, LearningRateScheduler, ReduceLROnPlateau, TerminateOnNaN)


class PlainStudent:
    """A copy of a student that is not trained yet, to be trained on labels alone, in the same way otherwise."""

    def __init__(self, student: Sequential, optimizer: object, fit_arguments: dict):
        self.model = copy.deepcopy(student)
        self._optimizer = fresh_optimizer(optimizer)
        callbacks = fit_arguments.get("callbacks") or ()
        callbacks = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        # not the callbacks that write files, nor the user's own
        steering = [copy.deepcopy(callback) for callback in callbacks if type(callback) in _STEERING]
        self._fit_arguments = {**fit_arguments, "callbacks": steering}

    def train(self) -> History:
        return train_on_labels(self.model, self._optimizer, self._fit_arguments)


def check_some_labels(y: np.ndarray | None) -> None:
    if not has_labels(y):
        raise ValueError("plain_student=True needs labels, got y without any")


def fresh_optimizer(optimizer: object) -> object:
    """The same kind of optimizer, without state."""
    if isinstance(optimizer, (str, dict, type)):
        return optimizer
    optimizer = optimizers.get(optimizer)
    return type(optimizer).from_config(optimizer.get_config())


def train_on_labels(model: Sequential, optimizer: object, fit_arguments: dict) -> History:
    """Fit ``model`` to the samples that have labels; the samples held out for validation are the distilled one's."""
    arguments = _labelled_only(fit_arguments)
    y, validation_data = arguments["y"], arguments.get("validation_data")
    soft = holds_rows(y)
    kind = losses.CategoricalCrossentropy if soft else losses.SparseCategoricalCrossentropy
    loss = kind(from_logits=model.final_activation != "softmax")
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    if validation_data is not None and np.ndim(validation_data[1]) != np.ndim(y):
        x_val, y_val, *rest = validation_data
        y_val = np.eye(np.shape(y)[1])[as_labels(y_val)] if soft else as_labels(y_val)
        arguments["validation_data"] = (x_val, y_val, *rest)
    return model.fit(**arguments)


def _labelled_only(fit_arguments: dict) -> dict:
    """``fit_arguments`` without the samples that have no label (-1)."""
    x, y, weight = fit_arguments["x"], fit_arguments["y"], fit_arguments.get("sample_weight")
    labels = as_labels(y)
    known = labels >= 0
    arguments = dict(fit_arguments)
    if known.all():
        return arguments
    seen, held_out = split_rows(len(x), arguments.pop("validation_split", 0.0))
    if held_out is not None:
        kept = np.arange(len(x))[held_out][known[held_out]]
        arguments["validation_data"] = (x[kept], labels[kept])
    rows = np.flatnonzero(known[seen])
    if not len(rows):
        raise ValueError(
            f"y must hold labels to learn from without a teacher, got -1 for all {len(known[seen])}"
        )
    weight = None if weight is None else np.asarray(weight)[rows]
    return {**arguments, "x": x[rows], "y": labels[rows], "sample_weight": weight}
