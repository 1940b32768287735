"""Bridges to other libraries, each an optional extra: ``sklearn``, ``onnx``, ``torch``, ``safetensors``.

What has no exact counterpart is refused by name; what was converted is run on both sides and compared.
"""

import importlib
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ..layers import LAYERS, Activation, BatchNormalization, Dense, Layer, LayerNormalization, ReLU
from ..models import Sequential
from ..teachers import Teacher, as_teacher
from ..validation import check_bool


def import_extra(package: str, bridge: str, extra: str) -> Any:
    """An optional package; if it is missing, the error says which extra installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f'minidl.interop.{bridge} needs {package}: pip install "minidl[{extra}]"'
        ) from error


def activation_of(layer: Layer, library: str) -> tuple[str, float]:
    """(name, slope) of the activation ``layer`` ends with; the slope counts for leaky_relu and elu only.

    "linear" for a layer without an activation. ValueError for one that ``library`` has no counterpart of.
    """
    if LAYERS.classes.get(type(layer).__name__) is not type(layer):  # a subclass may have another forward
        raise ValueError(
            f"layer {layer.name!r} ({type(layer).__name__}) is your own and has no {library} form"
        )
    if isinstance(layer, ReLU) and (layer.max_value is not None or layer.threshold):
        raise ValueError(f"layer {layer.name!r} (ReLU with max_value or threshold) has no {library} form")
    name = layer.activation if isinstance(layer, (Activation, Dense)) else "linear"
    return name, layer._activation.slope if isinstance(layer, (Activation, Dense)) else 0.0


def normalization_arrays(layer: BatchNormalization | LayerNormalization) -> dict[str, np.ndarray]:
    """gamma, beta and moving averages by name; what the layer has none of is 1 or 0."""
    found = {"gamma": np.ones(layer.input_shape[-1:]), "beta": np.zeros(layer.input_shape[-1:])}
    return found | {entry.name: getattr(layer, entry.name) for entry in layer.parameters}


def check_same(model: Sequential, other: Callable[[np.ndarray], np.ndarray], logits: bool = False) -> None:
    """Refuse a conversion that gives other numbers than ``model``, on random samples, than rounding explains."""
    x = np.random.default_rng(0).normal(size=(16, *model.input_shape)).astype(model.dtype)
    x[8:] *= 10
    ours, theirs = model.predict_logits(x) if logits else model.predict(x, verbose=0), other(x)
    tolerance = 1e-3 if model.dtype == np.float32 else 1e-8
    scale = np.maximum(1, np.abs(ours).max(axis=-1, keepdims=True))
    if ours.shape != theirs.shape or not np.allclose(
        ours / scale, theirs / scale, 0, tolerance, equal_nan=True
    ):
        raise ValueError(
            f"model {model.name!r} and its conversion give different numbers for the same x, such as "
            f"{ours.flat[0]} and {theirs.flat[0]}: a part was changed in a way that cannot be converted"
        )


class Place(NamedTuple):
    """A layer of a model that is to be made, with its arrays by their names in minidl."""

    called: str
    """What error messages call it: its name where it comes from."""
    layer: Layer
    arrays: dict[str, np.ndarray]


def assemble(
    places: Iterable[Place], input_shape: tuple[int, ...], dtype: str, name: str | None = None
) -> Sequential:
    """A model of these layers with these arrays. All shapes are checked before any memory is taken.

    Raises ValueError, naming the place and both sides, if arrays do not fit.
    """
    places, shape = list(places), input_shape
    for place in places:
        try:
            place.layer.build(shape)
        except ValueError as error:
            raise ValueError(f"{place.called}: {error}") from error
        wanted = {parameter.name: parameter.shape for parameter in place.layer.parameters}
        found = {key: np.shape(array) for key, array in place.arrays.items()}
        if wanted != found:
            raise ValueError(
                f"{place.called} has arrays of shapes {found}, and a {type(place.layer).__name__} whose input has "
                f"shape {shape} needs {wanted}"
            )
        shape = place.layer.output_shape
    model = Sequential(name=name, dtype=dtype)
    size = sum(math.prod(np.shape(array)) for place in places for array in place.arrays.values())
    model.fill([place.layer for place in places], input_shape, size)
    for place in places:
        for key, array in place.arrays.items():
            getattr(place.layer, key)[...] = array
    return model


def teacher_of(
    function: Callable[[np.ndarray], np.ndarray], called: str, ending: str | None, from_probs: bool
) -> Teacher:
    """``function`` as a teacher. ``ending`` is the activation that it is known to end with, None where it is not known.

    After a softmax or sigmoid it gives probabilities, and is refused unless ``from_probs`` says so: then their
    logarithms (or log-odds) teach. Where the ending is not known, what looks like probabilities is refused when it is
    asked.
    """
    if ending not in ("softmax", "sigmoid"):
        return as_teacher(function, from_probs=from_probs)
    if not check_bool("from_probs", from_probs):
        raise ValueError(
            f"{called} ends in {ending}, so it gives probabilities, and logits are wanted: give it without its "
            f"{ending}, or say from_probs=True"
        )
    return as_teacher(function, from_probs=True, activation=ending)
