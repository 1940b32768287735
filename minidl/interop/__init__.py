"""Bridges to other libraries, each an optional extra: ``sklearn``, ``onnx``, ``torch``, ``safetensors``."""

import importlib
from typing import Any

from ..layers import Activation, Dense, Layer, ReLU


def import_extra(package: str, bridge: str, extra: str) -> Any:
    """An optional package; if it is missing, the error says which extra installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f'minidl.interop.{bridge} needs {package}: pip install "minidl[{extra}]"'
        ) from error


def activation_of(layer: Layer, library: str) -> tuple[str, float]:
    """(name, slope) of the activation ``layer`` ends with; the slope counts for leaky_relu only.

    "linear" for a layer without an activation. ValueError for one that ``library`` has no counterpart of.
    """
    if isinstance(layer, ReLU) and (layer.max_value is not None or layer.threshold):
        raise ValueError(f"layer {layer.name!r} (ReLU with max_value or threshold) has no {library} form")
    name = layer.activation if isinstance(layer, (Activation, Dense)) else "linear"
    return name, getattr(layer, "negative_slope", 0.2)
