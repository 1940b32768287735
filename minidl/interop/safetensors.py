"""Weights in safetensors files, named ``<layer>.weight``, ``<layer>.bias``. Needs ``minidl[safetensors]``."""

import os

import numpy as np

from ..archive import replacing
from ..models import Sequential
from . import import_extra

_EXTRA = "safetensors", "safetensors"  # the bridge and what installs its package


def _views(model: Sequential) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}.{parameter.name}": getattr(layer, parameter.name)
        for layer in model.layers
        for parameter in layer.parameters
    }


def save_safetensors(model: Sequential, path: str | os.PathLike) -> None:
    """Write the parameters, ``weight`` as (in, out). At any moment the file is the old one or the new one."""
    arrays = {name: np.ascontiguousarray(view) for name, view in _views(model).items()}
    data = import_extra("safetensors.numpy", *_EXTRA).save(arrays)
    with replacing(path) as file:
        file.write(data)


def load_safetensors(model: Sequential, path: str | os.PathLike) -> None:
    """Read parameters into a built model, all or none.

    Raises ValueError, naming the file, if it is damaged or its names or shapes are not the model's.
    """
    try:
        arrays = import_extra("safetensors.numpy", *_EXTRA).load_file(path)
    except import_extra("safetensors", *_EXTRA).SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged ({error})") from error
    views = _views(model)
    found, wanted = ({name: each[name].shape for name in sorted(each)} for each in (arrays, views))
    if found != wanted:
        raise ValueError(f"{path}: holds {found}, and the model has {wanted}")
    for name, view in views.items():
        view[...] = arrays[name]
