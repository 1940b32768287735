"""Weights in safetensors files, with PyTorch's names and layout. Needs ``minidl[safetensors]``.

A file of `save_safetensors` holds what ``to_torch(model).state_dict()`` does: ``0.weight`` as (out, in). So PyTorch
reads it without minidl, ``to_torch(model).load_state_dict(safetensors.torch.load_file(path))``, and minidl reads what
PyTorch has written.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..archive import check_path, replacing
from ..models import Sequential
from ..validation import describe
from . import import_extra
from .assembly import check_model
from .torch_form import ARRAYS, COUNTER, modules_of, torch_array

_EXTRA = "safetensors", "safetensors"  # the bridge and what installs its package


_NUMPY = {"F32": "float32", "F64": "float64", "I64": "int64"}
"""Dtypes by their names in a file; others are refused."""


def save_safetensors(
    model: Sequential, path: str | os.PathLike, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the weights as PyTorch has them. At any moment the file is the old one or the new one.

    ``metadata`` are texts by name, kept in the file beside ``format``, which is "pt" as in PyTorch's own files.
    Raises ValueError, naming the layer, for a model that PyTorch has no counterpart of: ``model.save`` and
    ``save_weights`` keep any.
    """
    check_model(model, "save_safetensors")
    metadata = dict(metadata or {})
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str) or key == "format":
            raise ValueError(
                f"metadata must be texts by name, and not 'format', got {key!r}: {describe(value)}"
            )
    arrays = {}
    for number, module in enumerate(modules_of(model)):
        arrays |= {f"{number}.{name}": array for name, array in module.arrays.items()}
        if module.kind == "BatchNorm1d":
            arrays[f"{number}.{COUNTER}"] = np.array(0)
    data = import_extra("safetensors.numpy", *_EXTRA).save(arrays, {"format": "pt"} | metadata)
    with replacing(path) as file:
        file.write(data)


def load_safetensors(model: Sequential, path: str | os.PathLike) -> None:
    """Read weights into a built model, all or none.

    The file's names tell its layout: PyTorch's, as `save_safetensors` and PyTorch write it, or ``<layer>.weight`` as
    (in, out), as minidl 0.1 wrote it. Raises ValueError, naming the file, if it is damaged, or if its
    names, shapes or dtypes are not the model's.
    """
    check_model(model, "load_safetensors")
    arrays, metadata = read_arrays(path)
    arrays = {name: array for name, array in arrays.items() if name.rpartition(".")[2] != COUNTER}
    of_layers, of_torch = _by_layer(model), _by_module(model)
    if of_layers.keys() == of_torch.keys() and metadata.get("format") != "pt":
        raise ValueError(
            f"{path}: the layers are named as PyTorch's modules: rename them to tell the layouts apart"
        )
    is_torch = arrays.keys() == of_torch.keys()
    is_old = arrays.keys() == of_layers.keys() and not is_torch
    targets = of_layers if is_old or not of_torch else of_torch
    found = {name: _kind(arrays[name]) for name in sorted(arrays)}
    wanted = {name: _kind(targets[name].like) for name in sorted(targets)}
    if found != wanted:
        raise ValueError(f"{path}: holds {found}, and the model has {wanted}")
    for name, (like, view) in targets.items():
        if view is None and not np.array_equal(arrays[name], like):
            raise ValueError(
                f"{path}: {name!r} must be {like.flat[0]:g} everywhere, as its layer has no such array"
            )
    for name, (_, view) in targets.items():
        if view is not None:
            view[...] = torch_array(arrays[name]) if is_torch else arrays[name]


class _Target(NamedTuple):
    """Where an array of a file goes: what it must be like, and the view it is written to; None if there is none."""

    like: np.ndarray
    view: np.ndarray | None


def _by_layer(model: Sequential) -> dict[str, _Target]:
    """By the names of the layers, as in files of minidl 0.1."""
    views = {
        f"{layer.name}.{entry.name}": getattr(layer, entry.name)
        for layer in model.layers
        for entry in layer.parameters
    }
    return {name: _Target(view, view) for name, view in views.items()}


def _by_module(model: Sequential) -> dict[str, _Target]:
    """By PyTorch's names; empty if the model has no form in PyTorch."""
    try:
        modules = modules_of(model)
    except ValueError:
        return {}
    return {
        f"{number}.{theirs}": _Target(module.arrays[theirs], getattr(module.layer, ours))
        for number, module in enumerate(modules)
        for ours, theirs in ARRAYS.get(type(module.layer), {}).items()
        if theirs in module.arrays
    }


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"


def read_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a file. ValueError, naming the file, for a damaged one, and for other dtypes."""
    package, path = import_extra("safetensors", *_EXTRA), check_path(path)
    try:
        with package.safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            for name in names:
                if (kind := file.get_slice(name).get_dtype()) not in _NUMPY:
                    raise ValueError(f"{path}: {name!r} must be of float32 or float64, got {kind}")
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except package.SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged ({error})") from error
