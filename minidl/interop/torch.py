"""PyTorch: modules as teachers, and models carried over both ways. Needs torch.

::

    from minidl.interop.torch import torch_teacher
    minidl.distill(torch_teacher(module), student, x, y)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..layers import Activation, Dense, Dropout, Flatten, Input, LeakyReLU, ReLU, Softmax
from ..models import Sequential
from ..validation import describe

_MODULES = {
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "gelu": "GELU",
    "silu": "SiLU",
    "softplus": "Softplus",
}
_MODULES |= {"elu": "ELU"}


def _torch():
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            'minidl.interop.torch needs PyTorch: pip install "minidl[bench]" or torch'
        ) from error
    return torch


def torch_teacher(module: object, device: str | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """A PyTorch module that returns logits, as a teacher: ``x -> logits`` in NumPy arrays.

    It runs in eval mode (dropout off, batch norm by its running means) without gradients, and is left in the
    mode it was in. A module that ends in ``Softmax`` is to be given without it: the teacher must give logits.
    """
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {describe(module)}")

    def teacher(x: np.ndarray) -> np.ndarray:
        was_training = module.training
        module.eval()
        try:
            with torch.no_grad():
                return module(torch.from_numpy(x).to(device)).float().cpu().numpy()
        finally:
            module.train(was_training)

    return teacher


def to_torch(model: Sequential) -> object:
    """The same net as a ``torch.nn.Sequential`` with copies of the weights, for inference or training.

    Raises ValueError for a layer PyTorch has no plain counterpart of.
    """
    nn = _torch().nn
    modules = []
    for layer in model.layers:
        if isinstance(layer, Dense):
            linear = nn.Linear(*layer.weight.shape, bias=layer.use_bias)
            _copy(linear.weight, layer.weight.T)
            if layer.use_bias:
                _copy(linear.bias, layer.bias)
            modules += [linear, *_activation(nn, layer.activation)]
        elif isinstance(layer, ReLU):
            if layer.max_value is not None or layer.threshold:
                raise ValueError(f"layer {layer.name!r} (ReLU with max_value or threshold) has no torch form")
            modules.append(nn.LeakyReLU(layer.negative_slope) if layer.negative_slope else nn.ReLU())
        elif isinstance(layer, LeakyReLU):
            modules.append(nn.LeakyReLU(layer.negative_slope))
        elif isinstance(layer, Softmax):
            modules.append(nn.Softmax(dim=-1))
        elif isinstance(layer, Activation):
            modules += _activation(nn, layer.activation)
        elif isinstance(layer, Dropout):
            modules.append(nn.Dropout(layer.rate))
        elif isinstance(layer, Flatten):
            modules.append(nn.Flatten())
        else:
            raise ValueError(f"layer {layer.name!r} ({type(layer).__name__}) has no counterpart in PyTorch")
    result = nn.Sequential(*modules)
    return result.double() if model.dtype == np.float64 else result


def from_torch(module: object, input_shape: tuple[int, ...] | None = None) -> Sequential:
    """A ``torch.nn.Sequential`` of Linear, activations, Dropout and Flatten, with copies of its weights."""
    nn = _torch().nn
    if not isinstance(module, nn.Sequential):
        raise TypeError(f"module must be a torch.nn.Sequential, got {describe(module)}")
    names = {kind: name for name, kind in _MODULES.items()}
    layers, weights = [], []
    for part in module:
        kind = type(part).__name__
        if kind == "Linear":
            if input_shape is None:
                input_shape = (part.in_features,)
            layers.append(Dense(part.out_features, use_bias=part.bias is not None))
            weights.append(part.weight.detach().cpu().numpy().T)
            if part.bias is not None:
                weights.append(part.bias.detach().cpu().numpy())
        elif kind == "Flatten" and input_shape is not None:
            layers.append(Flatten())
        elif kind == "Dropout":
            layers.append(Dropout(part.p))
        elif kind == "LeakyReLU":
            layers.append(LeakyReLU(part.negative_slope))
        elif kind == "Softmax":
            layers.append(Softmax())
        elif kind in names and getattr(part, "approximate", "none") == "none":
            layers.append(Activation(names[kind]))
        elif kind != "Identity":
            raise ValueError(f"module has a {part}, which has no counterpart in minidl")
    if input_shape is None:
        raise ValueError("module must have a Linear layer")
    dtype = str(weights[0].dtype)
    model = Sequential([Input(input_shape), *layers], dtype=dtype)
    model.set_weights(weights)
    return model


def _activation(nn, name: str) -> list:
    if name == "linear":
        return []
    if name == "softmax":
        return [nn.Softmax(dim=-1)]
    if name == "leaky_relu":
        return [nn.LeakyReLU(0.2)]
    return [getattr(nn, _MODULES[name])()]


def _copy(parameter, values: np.ndarray) -> None:
    torch = _torch()
    with torch.no_grad():
        parameter.data = torch.from_numpy(np.array(values))
