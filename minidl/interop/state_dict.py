"""PyTorch's state dicts as models: layers are told by the names and shapes of their arrays."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..activations import ActivationFunction
from ..layers import (
    ELU,
    Activation,
    BatchNormalization,
    Dense,
    Layer,
    LayerNormalization,
    LeakyReLU,
    PReLU,
    ReLU,
    Softmax,
)
from ..models import Sequential
from ..validation import check_float, describe
from . import import_extra
from .assembly import Place, assemble
from .safetensors import read_arrays
from .torch_form import ARRAYS, COUNTER, torch_array

_ACTIVATION_LAYERS = (Activation, ELU, LeakyReLU, ReLU, Softmax)
_KINDS: dict[str, type[Layer]] = {
    "Linear": Dense,
    "BatchNorm1d": BatchNormalization,
    "LayerNorm": LayerNormalization,
    "PReLU": PReLU,
}
_MOMENTUM = 0.9
"""PyTorch's default, by its own name 0.1."""


def from_state_dict(
    state_dict: Any,
    activation: str | Layer | Mapping[str, str | Layer],
    final_activation: str | Layer | None = None,
    modules: Mapping[str, str] | None = None,
    epsilon: float = 1e-5,
) -> Sequential:
    """A PyTorch net as a model, from its state dict alone.

    The layers follow from names and shapes, in the order of their numbers or else of the state dict: a matrix
    ``weight`` is a Linear, arrays beside a ``running_mean`` are a BatchNorm1d. What is in no state dict is said here,
    and what is ambiguous is refused. That the modules follow one another is taken for granted: a net with branches
    cannot be told apart.
    The model takes rows of features: a Flatten before the first Linear, and Dropout, are left out.

    Parameters
    ----------
    state_dict : ``module.state_dict()``; the same with NumPy arrays; or the path of a file with it: ``.safetensors``
        (needs no torch), ``.pt``, ``.pth`` or ``.bin`` (read with ``weights_only=True``).
    activation : what stands between the Linear layers, such as "relu" or ``LeakyReLU(0.01)``: after each but the last,
        where the numbers of a ``torch.nn.Sequential`` leave room for it. Or what follows each module, by name:
        ``{"fc1": "relu", "bn2": "tanh"}``; the others are followed by none. "linear" is no activation.
    final_activation : after the last module; by default the net ends there, with logits.
    modules : the class of each module whose arrays fit several: ``{"1": "LayerNorm", "3": "PReLU"}``. If it names all
        modules, they stand in its order: a safetensors file keeps none, unless they are numbered.
    epsilon : of the normalisations; a state dict does not hold it. The default is PyTorch's.

    Raises ValueError, naming the array or the module, for what is unknown, ambiguous, or does not fit.
    """
    if modules is not None and not isinstance(modules, Mapping):
        raise TypeError(f"modules must be a dict of classes by name, got {describe(modules)}")
    is_ordered = not (isinstance(state_dict, (str, os.PathLike)) and _ending(state_dict) == ".safetensors")
    arrays = _arrays_of(state_dict)
    epsilon = check_float("epsilon", epsilon, minimum=0)
    groups = _in_order(_grouped(arrays), list(modules or {}), is_ordered)
    kinds = _kinds_of(groups, dict(modules or {}))
    after = _activations_after(kinds, activation)
    if final_activation is not None:
        last = list(kinds)[-1]
        if last in after:
            raise ValueError(
                f"final_activation is given, and activation has one after {last!r} too: say it once"
            )
        after[last] = _activation_layer("final_activation", final_activation)
    places = []
    for module, kind in kinds.items():
        layer = _layer_of(kind, groups[module], epsilon)
        names = ARRAYS[type(layer)].items()
        found = {
            ours: torch_array(groups[module][theirs]) for ours, theirs in names if theirs in groups[module]
        }
        places.append(Place(f"module {module!r}", layer, found))
        if module in after:
            places.append(Place(f"the activation after {module!r}", after[module], {}))
    dtype = next(iter(places[0].arrays.values())).dtype.name
    return assemble(places, (_features(kinds, groups),), dtype)


# ---- what was given


def _arrays_of(state_dict: Any) -> dict[str, np.ndarray]:
    """The arrays by name, BatchNorm's counters left out, all of one dtype."""
    called = "state_dict"
    if isinstance(state_dict, (str, os.PathLike)):
        called, state_dict = os.fspath(state_dict), _read(state_dict)
    if hasattr(state_dict, "state_dict"):
        raise TypeError(
            f"state_dict must be a dict or a path, got {describe(state_dict)}: write its .state_dict()"
        )
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise TypeError(f"{called} must be a dict of arrays by name, got {describe(state_dict)}")
    found = {name: _array(called, name, value) for name, value in state_dict.items() if not _counts(name)}
    dtypes = {array.dtype.name: name for name, array in found.items()}
    if len(dtypes) > 1:
        (one, first), (other, second) = list(dtypes.items())[:2]
        raise ValueError(f"{called} must have one dtype, got {one} of {first!r} and {other} of {second!r}")
    return found


def _counts(name: object) -> bool:
    return isinstance(name, str) and name.rpartition(".")[2] == COUNTER


def _ending(path: str | os.PathLike) -> str:
    return os.path.splitext(os.fspath(path))[1]


def _read(path: str | os.PathLike) -> Any:
    ending = _ending(path)
    if ending == ".safetensors":
        return read_arrays(path)[0]
    if ending not in (".pt", ".pth", ".bin"):
        raise ValueError(f"{path}: a state dict's file ends with .pt, .pth, .bin or .safetensors")
    torch = import_extra("torch", "torch", "torch")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(
            f"{path}: not a state dict's file, or damaged ({type(error).__name__}). One with a whole module is not "
            "read, as it may run any code: write torch.save(module.state_dict(), path)"
        ) from error


def _array(called: str, name: object, value: Any) -> np.ndarray:
    if not isinstance(name, str):
        raise TypeError(f"{called} must have names as keys, got {describe(name)}")
    if isinstance(value, Mapping):
        raise ValueError(f"{called}[{name!r}] is a dict itself: if the arrays are in it, give that one")
    dtype = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"{called}[{name!r}] must be an array of float32 or float64, got {dtype}")
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


# ---- what it is


def _grouped(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of each module."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        module, _, array_name = name.rpartition(".")
        groups.setdefault(module, {})[array_name] = array
    return groups


def _in_order(
    groups: dict[str, dict[str, np.ndarray]], told: list[str], is_ordered: bool
) -> dict[str, dict[str, np.ndarray]]:
    """The modules in the order in which they follow one another: as told, by their numbers, or as they come.

    PyTorch gives a state dict in the order in which the modules were made, and of each the weight first.
    """
    if set(told) == set(groups):
        return {module: groups[module] for module in told}
    paths = {module: module.split(".") for module in groups}
    same = sum(
        1 for _ in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths.values(), strict=False))
    )
    numbers = {module: path[same:] for module, path in paths.items()}
    if all(part.isdigit() for path in numbers.values() for part in path):
        return {
            module: groups[module]
            for module in sorted(groups, key=lambda name: [int(n) for n in numbers[name]])
        }
    if (
        any("weight" in arrays and next(iter(arrays)) != "weight" for arrays in groups.values())
        or not is_ordered
    ):
        raise ValueError(
            f"the order of the modules is lost, as in any file of safetensors: {list(groups)}. Name all of them in "
            "order, with their classes: modules={'fc1': 'Linear', 'fc2': 'Linear'} for example"
        )
    return groups


def _kinds_of(groups: dict[str, dict[str, np.ndarray]], told: dict[str, str]) -> dict[str, str]:
    """The class of each module."""
    for module, kind in told.items():
        if module not in groups:
            raise ValueError(
                f"modules names {module!r}, which is not in the state dict: it has {list(groups)}"
            )
        if kind not in _KINDS:
            raise ValueError(f"modules[{module!r}] must be one of {list(_KINDS)}, got {kind!r}")
    kinds = {}
    for module, arrays in groups.items():
        fitting = [kind for kind in _KINDS if _fits(kind, arrays)]
        shapes = {name: array.shape for name, array in arrays.items()}
        if not fitting:
            raise ValueError(f"module {module!r} has arrays {shapes}: minidl has no layer of that kind")
        is_told = module in told
        if is_told and told[module] not in fitting:
            raise ValueError(
                f"modules[{module!r}] is {told[module]!r}, but its arrays {shapes} fit {fitting}"
            )
        if not is_told and fitting[0] not in ("Linear", "BatchNorm1d"):
            choice = {module: fitting[0]}
            raise ValueError(
                f"module {module!r} has arrays {shapes}, which fit {' and '.join(fitting)} and modules that minidl has "
                f"not: say which it is, modules={choice}"
            )
        kinds[module] = told.get(module, fitting[0])
    return kinds


def _fits(kind: str, arrays: dict[str, np.ndarray]) -> bool:
    """Whether a module of that class has these arrays."""
    names, axes = set(arrays), {name: array.ndim for name, array in arrays.items()}
    if kind == "Linear":
        return axes in ({"weight": 2}, {"weight": 2, "bias": 1})
    if kind == "BatchNorm1d":
        running = {"running_mean", "running_var"}
        return running <= names <= running | {"weight", "bias"} and set(axes.values()) == {1}
    if kind == "LayerNorm":
        return axes in ({"weight": 1}, {"weight": 1, "bias": 1})
    return axes == {"weight": 1} and len(arrays["weight"]) > 1


def _layer_of(kind: str, arrays: dict[str, np.ndarray], epsilon: float) -> Layer:
    if kind == "Linear":
        return Dense(len(arrays["weight"]), use_bias="bias" in arrays)
    if kind == "PReLU":
        return PReLU()
    settings = {"epsilon": epsilon, "scale": "weight" in arrays, "center": "bias" in arrays}
    return (
        BatchNormalization(momentum=_MOMENTUM, **settings)
        if kind == "BatchNorm1d"
        else LayerNormalization(**settings)
    )


def _features(kinds: dict[str, str], groups: dict[str, dict[str, np.ndarray]]) -> int:
    """How many features the first module takes."""
    arrays = groups[next(iter(kinds))]
    return arrays.get("weight", arrays.get("running_mean")).shape[-1]


# ---- where activations stand


def _activation_layer(argument: str, given: Any) -> Layer:
    """A new layer of an activation by name, or like a given one."""
    if isinstance(given, Layer):
        if type(given) not in _ACTIVATION_LAYERS:
            raise ValueError(f"{argument} must be an activation, got {describe(given)}")
        return type(given).from_config({**given.get_config(), "name": None})
    name = ActivationFunction(given).name
    if name == "leaky_relu":
        raise ValueError(
            f"{argument} 'leaky_relu' has the slope 0.01 in PyTorch and 0.2 in Keras: say which, LeakyReLU(0.01)"
        )
    return Activation(name)


def _activations_after(kinds: dict[str, str], activation: Any) -> dict[str, Layer]:
    """The activation that follows each module, where one does."""
    if isinstance(activation, Mapping):
        if unknown := [name for name in activation if name not in kinds]:
            raise ValueError(
                f"activation names {unknown[0]!r}, which is not in the state dict: it has {list(kinds)}"
            )
        made = {name: _activation_layer(f"activation[{name!r}]", each) for name, each in activation.items()}
    else:
        places = _between_linears(kinds) if not _is_linear(activation) else []
        made = {name: _activation_layer("activation", activation) for name in places}
    return {name: layer for name, layer in made.items() if layer.activation != "linear"}


def _is_linear(activation: Any) -> bool:
    return activation in (None, "linear")


def _between_linears(kinds: dict[str, str]) -> list[str]:
    """The modules that an activation follows, one on each way from a Linear to the next."""
    found, names = [], list(kinds)
    linears = [place for place, name in enumerate(names) if kinds[name] == "Linear"]
    for first, following in zip(linears, linears[1:], strict=False):
        stretch = names[first : following + 1]
        if "PReLU" in [kinds[name] for name in stretch]:
            continue
        free = [name for name, after in zip(stretch, stretch[1:], strict=False) if _has_room(name, after)]
        if len(free) != 1:
            where = "no room for an activation" if not free else f"room for one after each of {free}"
            raise ValueError(
                f"between {stretch[0]!r} and {stretch[-1]!r} there is {where}: say where it stands, "
                f"activation={ {stretch[-2]: 'relu'} } for example"
            )
        found.append(free[0])
    return found


def _has_room(name: str, after: str) -> bool:
    """Whether something without arrays may stand between two modules: by their numbers, or if they have none."""
    (parent, _, own), (other, _, following) = name.rpartition("."), after.rpartition(".")
    if parent == other and own.isdigit() and following.isdigit():
        return int(following) > int(own) + 1
    return True
