"""Weights in safetensors files, named ``<layer>.weight``, ``<layer>.bias``. Needs ``minidl[safetensors]``."""

from __future__ import annotations

import os

import numpy as np

from ..models import Sequential


def _library():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            'minidl.interop.safetensors needs safetensors: pip install "minidl[safetensors]"'
        ) from error
    return safetensors


def _views(model: Sequential) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}.{parameter.name}": getattr(layer, parameter.name)
        for layer in model.layers
        for parameter in layer.parameters
    }


def save_safetensors(model: Sequential, path: str | os.PathLike) -> None:
    """Write the parameters, ``weight`` as (in, out). Written beside ``path`` and renamed."""
    library = _library()
    data = library.numpy.save({name: np.ascontiguousarray(view) for name, view in _views(model).items()})
    temporary = f"{os.fspath(path)}.part"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def load_safetensors(model: Sequential, path: str | os.PathLike) -> None:
    """Read parameters into a built model, all or none.

    Raises ValueError, naming the file, if it is damaged or its names or shapes are not the model's.
    """
    library = _library()
    try:
        arrays = library.numpy.load_file(path)
    except library.SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged ({error})") from error
    views = _views(model)
    if set(arrays) != set(views):
        raise ValueError(f"{path}: holds {sorted(arrays)}, and the model has {sorted(views)}")
    for name, view in views.items():
        if arrays[name].shape != view.shape:
            raise ValueError(
                f"{path}: {name} has shape {arrays[name].shape}, and the model's is {view.shape}"
            )
    for name, view in views.items():
        view[...] = arrays[name]
