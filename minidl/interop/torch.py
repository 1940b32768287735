"""PyTorch: modules as teachers, and models converted both ways. Needs torch.

::

    from minidl.interop.torch import torch_teacher
    minidl.distill(torch_teacher(module), student, x, y)
"""

from collections.abc import Callable

import numpy as np

from ..layers import Activation, Dense, Dropout, Flatten, Input, Layer, LeakyReLU, Softmax
from ..models import Sequential
from ..validation import describe
from . import activation_of, import_extra

_MODULES = {kind.lower(): kind for kind in "ReLU Sigmoid Tanh GELU SiLU Softplus ELU Softmax".split()}


def torch_teacher(module: object, device: str | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """A PyTorch module that returns logits, as a teacher: ``x -> logits`` in NumPy arrays.

    It runs in eval mode (dropout off, batch norm by its running means) without gradients, and is put back into
    the mode it was in. A module that ends in ``Softmax`` must be given without it: the teacher must give logits.
    """
    torch = import_extra("torch", "torch", "bench")
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
    torch = import_extra("torch", "torch", "bench")
    nn = torch.nn
    modules: list = []
    for layer in model.layers:
        if isinstance(layer, Dense):
            modules.append(nn.Linear(*layer.weight.shape, bias=layer.use_bias))
            for theirs, ours in zip(modules[-1].parameters(), layer.parameters, strict=True):
                theirs.data = torch.from_numpy(getattr(layer, ours.name).T.copy())
        elif isinstance(layer, Dropout):
            modules.append(nn.Dropout(layer.rate))
        elif isinstance(layer, Flatten):
            modules.append(nn.Flatten())
        elif not isinstance(layer, Activation):
            raise ValueError(f"layer {layer.name!r} ({type(layer).__name__}) has no counterpart in PyTorch")
        name, slope = activation_of(layer, "torch")
        if name == "leaky_relu":
            modules.append(nn.LeakyReLU(slope))
        elif name != "linear":
            modules.append(getattr(nn, _MODULES[name])(**({"dim": -1} if name == "softmax" else {})))
    result = nn.Sequential(*modules)
    return result.double() if model.dtype == np.float64 else result


def from_torch(module: object, input_shape: tuple[int, ...] | None = None) -> Sequential:
    """A ``torch.nn.Sequential`` of Linear, activations, Dropout and Flatten, with copies of its weights."""
    nn = import_extra("torch", "torch", "bench").nn
    if not isinstance(module, nn.Sequential):
        raise TypeError(f"module must be a torch.nn.Sequential, got {describe(module)}")
    names = {kind: name for name, kind in _MODULES.items()}
    layers: list[Layer] = []
    weights: list[np.ndarray] = []
    for part in module:
        kind = type(part).__name__
        if kind == "Linear":
            if input_shape is None:
                input_shape = (part.in_features,)
            layers.append(Dense(part.out_features, use_bias=part.bias is not None))
            weights += [parameter.detach().cpu().numpy().T for parameter in part.parameters()]
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
    model = Sequential([Input(input_shape), *layers], dtype=str(weights[0].dtype))
    model.set_weights(weights)
    return model
