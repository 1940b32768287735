"""What layers are in PyTorch, as plain data: kinds of modules, their settings, their arrays. It needs no torch.

A minidl layer is one module or two, a Dense with an activation for example. In a ``torch.nn.Sequential`` they are
numbered, and the state dict names their arrays by these numbers: ``0.weight``, ``0.bias``, ``2.weight``. PyTorch's
``weight`` of a Linear is (out, in).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LayerNormalization,
    PReLU,
    ReLU,
)
from ..models import Sequential
from . import activation_of, normalization_arrays, refuse_own_parts

_AFFINE = {"gamma": "weight", "beta": "bias"}
ARRAYS: dict[type[Layer], dict[str, str]] = {
    Dense: {"weight": "weight", "bias": "bias"},
    BatchNormalization: _AFFINE | {"moving_mean": "running_mean", "moving_variance": "running_var"},
    LayerNormalization: _AFFINE,
    PReLU: {"alpha": "weight"},
}
"""What PyTorch calls each array of a layer."""
COUNTER = "num_batches_tracked"
"""What BatchNorm1d has in its state beside these, and computes nothing with."""
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("ReLU", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "silu": ("SiLU", {}),
    "gelu": ("GELU", {"approximate": "none"}),
    "gelu_tanh": ("GELU", {"approximate": "tanh"}),
    "softplus": ("Softplus", {"beta": 1.0, "threshold": 20.0}),
    "softmax": ("Softmax", {"dim": -1}),
}
"""Activations without a number of their own: the class in ``torch.nn``, and its settings."""


class Module(NamedTuple):
    """A module of ``torch.nn``: its class, its constructor's arguments, its arrays, and the layer that has these."""

    kind: str
    settings: dict[str, Any]
    arrays: dict[str, np.ndarray] = {}
    layer: Layer | None = None

    @property
    def learns(self) -> set[str]:
        """The names of the arrays that learn."""
        names = ARRAYS.get(type(self.layer), {})
        return {names[entry.name] for entry in self.layer.parameters if entry.trainable} if names else set()


def torch_array(array: np.ndarray) -> np.ndarray:
    """An array of a layer as PyTorch lays it out, or the other way: a matrix transposed, contiguous, a copy."""
    return np.array(array.T, order="C")


def modules_of(model: Sequential) -> list[Module]:
    """The modules that a ``torch.nn.Sequential`` of the same net has, in order.

    Raises ValueError, naming the layer, if PyTorch has no counterpart of it, or if the model has a ``forward`` of the
    user's own.
    """
    refuse_own_parts(model, "PyTorch")
    return [module for layer in model.layers for module in _modules_of(layer)]


def _modules_of(layer: Layer) -> Iterator[Module]:
    activation = _activation_modules(layer)  # refuses layers of the user's own
    names = ARRAYS.get(type(layer), {})
    arrays = {
        theirs: torch_array(getattr(layer, ours))
        for ours, theirs in names.items()
        if getattr(layer, ours) is not None
    }
    if isinstance(layer, Dense):
        size, units = layer.weight.shape
        yield Module(
            "Linear", {"in_features": size, "out_features": units, "bias": layer.use_bias}, arrays, layer
        )
    elif isinstance(layer, (BatchNormalization, LayerNormalization, PReLU)):
        yield _featurewise_module(layer, arrays)
    elif isinstance(layer, Dropout):
        yield Module("Dropout", {"p": layer.rate})
    elif isinstance(layer, Flatten):
        yield Module("Flatten", {})
    elif not isinstance(layer, Activation):
        raise ValueError(f"layer {layer.name!r} ({type(layer).__name__}) has no counterpart in PyTorch")
    yield from activation


def _activation_modules(layer: Layer) -> list[Module]:
    """What the layer ends with; none for linear."""
    if type(layer) is ReLU and (layer.max_value is not None or layer.threshold):
        return _clipped_relu(layer)
    name, slope = activation_of(layer, "PyTorch")
    if name == "leaky_relu":
        return [Module("LeakyReLU", {"negative_slope": slope})]
    if name == "elu":
        return [Module("ELU", {"alpha": slope})]
    if name != "linear" and name not in ACTIVATIONS:
        raise ValueError(f"layer {layer.name!r} ({name}) has no counterpart in PyTorch")
    return [Module(*ACTIVATIONS[name])] if name != "linear" else []


def _clipped_relu(layer: ReLU) -> list[Module]:
    if layer.negative_slope or layer.max_value == 0:
        settings = (
            f"max_value={layer.max_value}, negative_slope={layer.negative_slope}, threshold={layer.threshold}"
        )
        raise ValueError(f"layer {layer.name!r} (ReLU with {settings}) has no counterpart in PyTorch")
    found = [Module("Threshold", {"threshold": layer.threshold, "value": 0.0})] if layer.threshold else []
    if layer.max_value == 6:
        return [*found, Module("ReLU6", {})]
    if layer.max_value is not None:
        return [*found, Module("Hardtanh", {"min_val": 0.0, "max_val": layer.max_value})]
    return found


def _featurewise_module(layer: Layer, arrays: dict[str, np.ndarray]) -> Module:
    """In training PyTorch's running variance follows the unbiased one of a batch; its momentum is 1 - momentum."""
    size = layer.input_shape[-1]
    if len(layer.input_shape) > 1 and not isinstance(layer, LayerNormalization):
        raise ValueError(
            f"layer {layer.name!r} ({type(layer).__name__}) on samples of several axes has no counterpart in PyTorch"
        )
    if isinstance(layer, PReLU):
        return Module("PReLU", {"num_parameters": size}, arrays, layer)
    affine = layer.scale or layer.center
    if affine:  # PyTorch has both or neither: one that is missing is 1 or 0, and does not learn
        full, names = normalization_arrays(layer), ARRAYS[type(layer)]
        arrays = {names[name]: np.array(array, layer.dtype) for name, array in full.items()}
    if isinstance(layer, LayerNormalization):
        settings = {"normalized_shape": size, "eps": layer.epsilon, "elementwise_affine": affine}
        return Module("LayerNorm", settings, arrays, layer)
    settings = {
        "num_features": size,
        "eps": layer.epsilon,
        "momentum": round(1 - layer.momentum, 12),
        "affine": affine,
    }
    return Module("BatchNorm1d", settings, arrays, layer)
