"""PyTorch: modules as teachers, models converted both ways, state dicts read. Needs ``minidl[torch]``.

::

    from minidl.interop.torch import from_torch, to_torch, torch_teacher
    minidl.distill(torch_teacher(module), student, x, y)

`from_state_dict` stands here too; given arrays, or a safetensors file, it needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..layers import (
    ELU,
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LayerNormalization,
    LeakyReLU,
    PReLU,
    ReLU,
)
from ..models import Sequential
from ..teachers import Teacher
from ..validation import describe
from . import check_same, import_extra
from .assembly import Place, assemble, check_model, teacher_of
from .state_dict import from_state_dict as from_state_dict
from .torch_form import ACTIVATIONS, ARRAYS, COUNTER, Module, modules_of, torch_array


def torch_teacher(module: object, device: object = None, from_probs: bool = False) -> Teacher:
    """A PyTorch module as a teacher.

    It runs in eval mode (dropout off, batch norm by its running means) without gradients, and each part is put back
    into the mode it was in.

    Parameters
    ----------
    module : gives logits. A ``torch.nn.Sequential`` that ends in Softmax or Sigmoid is refused unless ``from_probs`` is
        True. What another module ends with is not known: answers that look like probabilities are refused.
    device : where the inputs go; by default where the module's first parameter is.
    from_probs : the module gives probabilities, whose logarithms (or log-odds) teach, raised to 1e-7 before. Logits
        are better, for they have no floor.
    """
    torch = import_extra("torch", "torch", "torch")
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {describe(module)}")
    ending = {torch.nn.Softmax: "softmax", torch.nn.Sigmoid: "sigmoid"}
    run, called = _function_of(torch, module, device), f"module ({type(module).__name__})"
    return teacher_of(run, called, ending.get(_last_of(torch, module)), from_probs)


def _last_of(torch: Any, module: Any) -> type:
    """The class of the module's last part, as far as plain Sequentials go."""
    while type(module) is torch.nn.Sequential and len(module):
        module = module[-1]
    return type(module)


def _function_of(torch: Any, module: Any, device: object = None) -> Callable[[np.ndarray], np.ndarray]:
    """The module in eval mode, of NumPy arrays."""

    def run(x: np.ndarray) -> np.ndarray:
        modes = [(part, part.training) for part in module.modules()]
        first = next(module.parameters(), torch.empty(0))
        where = first.device if device is None else device
        module.eval()
        try:
            with torch.no_grad():
                answers = module(torch.from_numpy(x).to(where, first.dtype)).cpu()
        except RuntimeError as error:  # of shapes that do not fit
            raise ValueError(f"of shape {x.shape}: {error}") from error
        finally:
            for part, mode in modes:
                part.training = mode
        return (answers if answers.dtype == torch.float64 else answers.float()).numpy()

    run.__name__ = type(module).__name__
    return run


# ---- to PyTorch


def to_torch(model: Sequential) -> Any:
    """The same net as a ``torch.nn.Sequential`` with copies of the weights, for inference or training.

    Frozen layers stay frozen (``requires_grad=False``); put a frozen BatchNorm1d into eval mode as well, as in training
    mode its running means move. Regularizers, constraints and the optimizer stay behind: in PyTorch they are no part
    of a module.

    Raises ValueError for a layer that PyTorch has no plain counterpart of, a user's own among them, and if both sides
    give different numbers.
    """
    torch = import_extra("torch", "torch", "torch")
    check_model(model, "to_torch")
    result = torch.nn.Sequential(*(_made(torch, described) for described in modules_of(model)))
    check_same(model, _function_of(torch, result))
    return result


def _made(torch: Any, described: Module) -> Any:
    module = getattr(torch.nn, described.kind)(**described.settings)
    for name, array in described.arrays.items():
        theirs = getattr(module, name)
        theirs.data = torch.from_numpy(array)
        theirs.requires_grad_(name in described.learns)
    return module


# ---- from PyTorch


def from_torch(module: object, input_shape: tuple[int, ...] | None = None) -> Sequential:
    """A ``torch.nn.Sequential``, nested ones included, as a model with copies of its weights.

    It may hold Linear, BatchNorm1d, LayerNorm, PReLU, ReLU, ReLU6, LeakyReLU, ELU, GELU (both forms), SiLU, Sigmoid,
    Tanh, Softplus, Softmax, ``Hardtanh(0, m)``, ``Threshold(t, 0)``, Dropout, Flatten and Identity. A part without
    ``requires_grad`` becomes a frozen layer. For a module of another class see `from_state_dict`.

    Parameters
    ----------
    input_shape : of one sample; by default the features of the first part that tells them.

    Raises ValueError, naming the part, for one that minidl has no counterpart of, or a setting of it, before
    anything is built; and if both sides give different numbers.
    """
    torch = import_extra("torch", "torch", "torch")
    if type(module) is not torch.nn.Sequential:  # a subclass may have another forward
        raise TypeError(
            f"module must be a torch.nn.Sequential, got {describe(module)}. Of another module the state dict can be "
            "read: from_state_dict(module.state_dict(), activation=...)"
        )
    parts = list(_parts_of(torch.nn, module))
    _refuse_shared(parts)
    places = [_place_of(torch.nn, called, part) for called, part in parts]
    arrays = [array for place in places for array in place.arrays.values()]
    if not arrays:
        raise ValueError("module must have a part with weights")
    dtypes = sorted({array.dtype.name for array in arrays})
    if dtypes not in (["float32"], ["float64"]):
        raise ValueError(f"module must have parameters of float32 or of float64, got {dtypes}")
    shape = _features_of(parts) if input_shape is None else input_shape
    model = assemble(places, shape, dtypes[0])
    check_same(model, _function_of(torch, module))
    return model


def _parts_of(nn: Any, module: Any, path: str = "module") -> Iterator[tuple[str, Any]]:
    """The parts in order, of nested Sequentials too, with what error messages call them."""
    for name, part in module._modules.items():
        if type(part) is nn.Sequential:
            yield from _parts_of(nn, part, f"{path}[{name}]")
        elif type(part) is not nn.Identity:
            yield f"{path}[{name}]", part


def _refuse_shared(parts: list[tuple[str, Any]]) -> None:
    """Refuse parameters that two parts share: as two layers they would be trained apart."""
    seen: dict[int, str] = {}
    for called, part in parts:
        for parameter in part.parameters():
            if seen.setdefault(id(parameter), called) != called:
                raise ValueError(
                    f"{called} shares parameters with {seen[id(parameter)]}: minidl's layers share none"
                )


def _features_of(parts: list[tuple[str, Any]]) -> tuple[int, ...]:
    """How many features the first part that tells it takes."""
    for _, part in parts:
        for name in ("in_features", "num_features"):
            if hasattr(part, name):
                return (getattr(part, name),)
        if hasattr(part, "normalized_shape"):
            return tuple(part.normalized_shape)
    raise ValueError("input_shape must be given: no part of the module tells how many features it takes")


def _place_of(nn: Any, called: str, part: Any) -> Place:
    kind = type(part).__name__
    if getattr(nn, kind, None) is not type(part):  # a subclass may have another forward
        raise ValueError(f"{called} is a {kind}, a class of your own, which has no counterpart in minidl")
    if kind not in _LAYERS:
        hint = ". What stands before it are logits, too: leave it out" if kind == "LogSoftmax" else ""
        raise ValueError(f"{called} is {part}, which has no counterpart in minidl{hint}")
    layer = _LAYERS[kind](part)
    if isinstance(layer, str):
        raise ValueError(f"{called} is {part}, whose {layer} has no counterpart in minidl")
    state = {name: array for name, array in part.state_dict().items() if name != COUNTER}
    if unknown := state.keys() - set(ARRAYS.get(type(layer), {}).values()):
        raise ValueError(f"{called} is {part}, whose {min(unknown)} has no counterpart in minidl")
    return Place(called, *_with_arrays(called, part, layer, state))


def _with_arrays(
    called: str, part: Any, layer: Layer, state: dict[str, Any]
) -> tuple[Layer, dict[str, np.ndarray]]:
    """The layer, frozen if the part is, and its arrays by minidl's names."""
    learns = {name: parameter.requires_grad for name, parameter in part.named_parameters()}
    arrays = {name: torch_array(_numbers(called, name, tensor)) for name, tensor in state.items()}
    if isinstance(layer, (BatchNormalization, LayerNormalization)):
        # a weight of ones or a bias of zeros that does not learn is none
        for setting, name, neutral in (("scale", "weight", 1), ("center", "bias", 0)):
            frozen = (
                learns.get(name) is False and any(learns.values()) and bool(np.all(arrays[name] == neutral))
            )
            if name not in arrays or frozen:
                layer = type(layer).from_config({**layer.get_config(), setting: False})
                arrays.pop(name, None)
                learns.pop(name, None)
    if len(set(learns.values())) > 1:
        raise ValueError(f"{called} is {part} with one frozen parameter, which has no counterpart in minidl")
    if False in learns.values():
        layer = type(layer).from_config({**layer.get_config(), "trainable": False})
    names = ARRAYS.get(type(layer), {})
    return layer, {ours: arrays[theirs] for ours, theirs in names.items() if theirs in arrays}


def _numbers(called: str, name: str, tensor: Any) -> np.ndarray:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in ("float32", "float64"):
        raise ValueError(
            f"module must have parameters of float32 or of float64, got {dtype}: {name} of {called}"
        )
    return tensor.detach().cpu().numpy()


def _batch_normalization(part: Any) -> Layer | str:
    if not part.track_running_stats:
        return "track_running_stats"
    if part.momentum is None:
        return "momentum"
    return BatchNormalization(momentum=round(1 - part.momentum, 12), epsilon=part.eps)


def _activation(part: Any) -> Layer | str:
    """The activation of that class with these settings, or the name of a setting that none has."""
    kind, unlike = type(part).__name__, ""
    for name, (their_kind, settings) in ACTIVATIONS.items():
        if their_kind == kind:
            differ = [key for key, value in settings.items() if getattr(part, key) != value]
            if not differ or (kind == "Softmax" and part.dim in (None, 1)):  # 1 is the last of (B, C)
                return Activation(name)
            unlike = differ[0]
    return unlike


_LAYERS: dict[str, Callable[[Any], Layer | str]] = {
    **{kind: _activation for kind, _ in ACTIVATIONS.values()},
    "Linear": lambda part: Dense(part.out_features, use_bias=part.bias is not None),
    "BatchNorm1d": _batch_normalization,
    "LayerNorm": lambda part: (
        LayerNormalization(epsilon=part.eps) if len(part.normalized_shape) == 1 else "normalized_shape"
    ),
    "PReLU": lambda part: (
        PReLU() if part.num_parameters > 1 else "num_parameters"
    ),  # one is shared by all features
    "Dropout": lambda part: Dropout(part.p) if part.p < 1 else "p",
    "Flatten": lambda part: (
        Flatten() if (part.start_dim, part.end_dim) == (1, -1) else "start_dim or end_dim"
    ),
    "LeakyReLU": lambda part: (
        LeakyReLU(part.negative_slope) if part.negative_slope >= 0 else "negative_slope"
    ),
    "ELU": lambda part: ELU(part.alpha) if part.alpha >= 0 else "alpha",
    "ReLU6": lambda part: ReLU(max_value=6.0),
    "Hardtanh": lambda part: ReLU(max_value=part.max_val) if part.min_val == 0 else "min_val",
    "Threshold": lambda part: (
        "value" if part.value != 0 else "threshold" if part.threshold < 0 else ReLU(threshold=part.threshold)
    ),
}
"""The layer of a module of each class, or the name of its setting that minidl has no counterpart of."""
