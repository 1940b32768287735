"""What makes a teacher useless: probabilities in place of logits, dropout left on, weights never trained."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..losses.softmax import looks_like_probabilities

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


def package_of(thing: object) -> str:
    """torch, keras or onnxruntime, if it defines the class of ``thing`` or else an ancestor of it; else ""."""
    packages = (
        kind.__module__.split(".")[0] for kind in type(thing).__mro__
    )  # Keras layers may be torch modules
    return next((package for package in packages if package in ("torch", "keras", "onnxruntime")), "")


def objects_used_by(function: Callable) -> dict[str, object]:
    """The global and enclosing variables a function names, and the object it is or is bound to."""
    names = _closure_variables(function)
    found = {"module": getattr(function, "__self__", function)}
    return found if names is None else {**found, **names.globals, **names.nonlocals}


def _closure_variables(function: Callable):
    """The variables a function names; None for a callable that is no function or has a variable not yet set."""
    try:
        return inspect.getclosurevars(inspect.unwrap(function))
    except (TypeError, ValueError):
        return None


def refuse_active_dropout(function: Callable) -> None:
    """Refuse a function that calls a PyTorch module whose dropout or batch norm is in training mode."""
    names = _closure_variables(function)
    if names is not None and {"eval", "train"} & {*names.unbound, *names.builtins}:
        return  # the function sets the mode itself
    for name, thing in objects_used_by(function).items():
        if package_of(thing) != "torch" or not hasattr(thing, "modules"):
            continue
        for part in thing.modules():
            kind = type(part).__name__
            if part.training and ("Dropout" in kind or "BatchNorm" in kind):
                raise ValueError(
                    f"teacher calls the PyTorch module {name!r}, whose {kind} is in training mode: "
                    f"write {name}.eval() first"
                )


def has_initial_weights(model: Any) -> bool:
    """Whether ``model`` is known to have its initial weights still."""
    if getattr(model, "epoch", 0) or getattr(getattr(model, "optimizer", None), "iterations", 0):
        return False
    for layer in getattr(model, "layers", ()):  # biases start at 0, so a look at them is often enough
        for parameter in getattr(layer, "parameters", ()):
            if type(parameter.initializer).__name__ == "Zeros" and getattr(layer, parameter.name).any():
                return False
    try:
        fresh = type(model).from_config(model.get_config())
        fresh.build(model.input_shape)
    except Exception:  # a user's own layer may not be rebuilt from its config; then nothing is known
        return False
    return bool(model.params.size) and np.array_equal(fresh.params, model.params)
