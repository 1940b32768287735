"""Bridges to other libraries, each an optional extra: ``sklearn``, ``onnx``, ``torch``, ``safetensors``.

What has no exact counterpart is refused by name; what was converted is run on both sides and compared.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..layers import LAYERS, Activation, BatchNormalization, Dense, Layer, LayerNormalization, ReLU
from ..models import Sequential


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
