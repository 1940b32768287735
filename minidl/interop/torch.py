"""PyTorch: modules as teachers, and models converted both ways. Needs torch.

::

    from minidl.interop.torch import torch_teacher
    minidl.distill(torch_teacher(module), student, x, y)
"""

from collections.abc import Callable

import numpy as np

from ..layers import (
    ELU,
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    Input,
    Layer,
    LayerNormalization,
    LeakyReLU,
    PReLU,
    Softmax,
)
from ..models import Sequential
from ..validation import describe
from . import activation_of, check_same, import_extra, normalization_arrays

_ARRAYS = {"gamma": "weight", "beta": "bias", "alpha": "weight"}
_ARRAYS |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
"""What PyTorch calls a layer's arrays, in the order of our weights."""
_MODULES = {kind.lower(): kind for kind in "ReLU Sigmoid Tanh GELU SiLU Softplus ELU Softmax".split()}


def torch_teacher(module: object, device: object = None) -> Callable[[np.ndarray], np.ndarray]:
    """A PyTorch module that returns logits, as a teacher: ``x -> logits`` in NumPy arrays.

    It runs in eval mode (dropout off, batch norm by its running means) without gradients, and each part is put back
    into the mode it was in. A module that ends in ``Softmax`` must be given without it: the teacher must give logits.
    """
    torch = import_extra("torch", "torch", "bench")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {describe(module)}")

    def teacher(x: np.ndarray) -> np.ndarray:
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        try:
            with torch.no_grad():
                answers = module(torch.from_numpy(x).to(device)).cpu()
        finally:
            for part, mode in modes:
                part.training = mode
        return (answers if answers.dtype == torch.float64 else answers.float()).numpy()

    return teacher


def to_torch(model: Sequential) -> object:
    """The same net as a ``torch.nn.Sequential`` with copies of the weights, for inference or training. Frozen layers
    stay frozen (``requires_grad=False``).

    Raises ValueError for a layer PyTorch has no plain counterpart of, a user's own among them.
    """
    torch = import_extra("torch", "torch", "bench")
    nn = torch.nn
    model.require_built("to_torch")
    modules: list = []
    for layer in model.layers:
        name, slope = activation_of(layer, "torch")
        if isinstance(layer, Dense):
            modules.append(nn.Linear(*layer.weight.shape, bias=layer.use_bias))
            for theirs, ours in zip(modules[-1].parameters(), layer.parameters, strict=True):
                theirs.data = torch.from_numpy(getattr(layer, ours.name).T.copy())
                theirs.requires_grad_(ours.trainable)
        elif isinstance(layer, (BatchNormalization, LayerNormalization, PReLU)):
            modules.append(_featurewise_module(torch, layer))
        elif isinstance(layer, Dropout):
            modules.append(nn.Dropout(layer.rate))
        elif isinstance(layer, Flatten):
            modules.append(nn.Flatten())
        elif not isinstance(layer, Activation):
            raise ValueError(f"layer {layer.name!r} ({type(layer).__name__}) has no counterpart in PyTorch")
        if name in ("leaky_relu", "elu"):
            modules.append((nn.LeakyReLU if name == "leaky_relu" else nn.ELU)(slope))
        elif name != "linear":
            modules.append(getattr(nn, _MODULES[name])(**({"dim": -1} if name == "softmax" else {})))
    result = nn.Sequential(*modules)
    check_same(model, torch_teacher(result))
    return result


def _featurewise_module(torch, layer: BatchNormalization | LayerNormalization | PReLU):
    """In training PyTorch's running variance follows the unbiased one of a batch; its momentum is 1 - momentum."""
    nn, size = torch.nn, layer.input_shape[-1]
    if len(layer.input_shape) > 1 and not isinstance(layer, LayerNormalization):
        raise ValueError(f"layer {layer.name!r} on samples of several axes has no counterpart in PyTorch")
    if isinstance(layer, PReLU):
        module, arrays = nn.PReLU(size), {"alpha": layer.alpha}
    elif isinstance(layer, BatchNormalization):
        module = nn.BatchNorm1d(size, layer.epsilon, 1 - layer.momentum)
        arrays = normalization_arrays(layer)
    else:
        module, arrays = nn.LayerNorm(size, layer.epsilon), normalization_arrays(layer)
    learns = {entry.name for entry in layer.parameters if entry.trainable}
    for name, array in arrays.items():
        theirs = getattr(module, _ARRAYS[name])
        theirs.data = torch.from_numpy(np.array(array, layer.dtype))
        theirs.requires_grad_(name in learns)
    return module


def from_torch(module: object, input_shape: tuple[int, ...] | None = None) -> Sequential:
    """A ``torch.nn.Sequential`` of Linear, BatchNorm1d, LayerNorm, activations, Dropout and Flatten, with copies of its
    weights.

    A part without ``requires_grad`` becomes a frozen layer.
    Raises ValueError for a part, or a setting of one, that minidl has no counterpart of: ``GELU("tanh")``.
    """
    torch = import_extra("torch", "torch", "bench")
    if type(module) is not torch.nn.Sequential:  # a subclass may have another forward
        raise TypeError(f"module must be a torch.nn.Sequential, got {describe(module)}")
    layers = [_layer_of(torch.nn, part) for part in module if type(part) is not torch.nn.Identity]
    linear = [part for part in module if type(part) is torch.nn.Linear]
    if not linear:
        raise ValueError("module must have a Linear layer")
    dtypes = {str(parameter.dtype).removeprefix("torch.") for parameter in module.parameters()}
    if len(dtypes) > 1 or not dtypes <= {"float32", "float64"}:
        raise ValueError(f"module must have parameters of float32 or of float64, got {sorted(dtypes)}")
    shape = (linear[0].in_features,) if input_shape is None else input_shape
    model = Sequential([Input(shape), *layers], dtype=dtypes.pop())
    model.set_weights([array.detach().cpu().numpy().T for part in module for array in _arrays_of(part)])
    check_same(model, torch_teacher(module, linear[0].weight.device))
    return model


def _arrays_of(part) -> list:
    names = ("weight", "bias", "running_mean", "running_var")
    return [array for array in (getattr(part, name, None) for name in names) if array is not None]


def _featurewise_layer(kind: str, part, trainable: bool) -> Layer | None:
    """The layer of a module with parameters of each feature; None if there is none."""
    if kind == "BatchNorm1d" and part.affine and part.track_running_stats and part.momentum is not None:
        return BatchNormalization(momentum=1 - part.momentum, epsilon=part.eps, trainable=trainable)
    if kind == "LayerNorm" and len(part.normalized_shape) == 1:
        arrays = {"scale": part.weight is not None, "center": part.bias is not None}
        return LayerNormalization(epsilon=part.eps, trainable=trainable, **arrays)
    if kind == "PReLU" and part.num_parameters > 1:  # one is shared by all features
        return PReLU(trainable=trainable)
    return None


def _layer_of(nn, part) -> Layer:
    kind = type(part).__name__
    if getattr(nn, kind, None) is not type(part):  # a subclass may have another forward
        kind = "class of your own"
    learns = {parameter.requires_grad for parameter in part.parameters()}
    if len(learns) > 1:
        raise ValueError(f"module has a {part} with one frozen parameter, which has no counterpart in minidl")
    trainable = learns != {False}
    if kind == "Linear":
        return Dense(part.out_features, use_bias=part.bias is not None, trainable=trainable)
    if (layer := _featurewise_layer(kind, part, trainable)) is not None:
        return layer
    if kind == "Dropout":
        return Dropout(part.p)
    if kind == "LeakyReLU":
        return LeakyReLU(part.negative_slope)
    if kind == "ELU" and part.alpha >= 0:
        return ELU(part.alpha)
    if kind == "Softmax" and part.dim in (None, 1, -1):  # of (B, C)
        return Softmax()
    if kind == "Flatten" or kind in _MODULES.values():
        for name, usual in vars(type(part)()).items():
            if name[0] != "_" and name not in ("training", "inplace") and getattr(part, name) != usual:
                raise ValueError(f"module has a {part}, whose {name} has no counterpart in minidl")
        return Flatten() if kind == "Flatten" else Activation(kind.lower())
    raise ValueError(f"module has a {part}, which has no counterpart in minidl")
