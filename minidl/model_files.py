"""A model's weights, and its files: the format is minidl's own, whatever the name says."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import archive
from .layers.stack import Stack
from .training.interrupts import Turns, taken, uninterrupted
from .training.saving import SLOTS, slot_arrays, training_config
from .validation import describe, warn

ARRAYS = ("params", *SLOTS)
_OF_OTHERS = (".h5", ".hdf5", ".keras", ".tf", ".pb", ".pt", ".pth", ".onnx")
_HDF5 = b"\x89HDF\r\n\x1a\n"


class ModelFiles(Stack):
    """Weights and files of a model."""

    optimizer: Any
    turns: Turns
    unfinished: Any
    epoch: int
    draw_epoch: int
    best_logs: dict[str, float]

    @taken
    def set_weights(self, weights: Iterable) -> None:
        """Overwrite all parameters with arrays shaped as those of ``get_weights``, or change nothing."""
        super().set_weights(weights)
        self._begin_with_weights()

    @taken
    def get_weights(self) -> list[np.ndarray]:
        """Copies of all parameters, as [weight, bias, weight, bias, ...]."""
        return super().get_weights()

    def _begin_with_weights(self) -> None:
        """A model that is given its weights and a new optimizer, in either order, draws as a new one."""
        if self.turns.trained:  # as by a callback: the epoch goes on with them
            return
        self.leave_epoch()
        self.best_logs = {}
        self._weights_given_at = 0 if self.optimizer is None else self.optimizer.batches
        if self._weights_given_at == 0:
            self.draw_epoch = 0

    def leave_epoch(self) -> None:
        """Never go on in the epoch that was begun, if one was: the next draws anew."""
        self.draw_epoch += self.unfinished is not None
        self.unfinished = None

    @taken
    def save(self, path, overwrite: bool = True) -> None:
        """Write the model with its optimizer's state and all that is needed to train on.

        The file is an .npz of minidl's own, which Keras cannot read. Another ending is kept, with a warning.
        """
        self.require_built("save")
        config = {**self._file_config("model"), "model": self.get_config(), **training_config(self)}
        self._write(path, config, {"params": self.params, **slot_arrays(self)}, overwrite)

    @taken
    def save_weights(self, path, overwrite: bool = True) -> None:
        """Write the parameters alone."""
        self.require_built("save_weights")
        self._write(path, self._file_config("weights"), {"params": self.params}, overwrite)

    @uninterrupted  # Python ignores what a handler raises in a destructor, and a zip file's runs at each save
    def _write(self, path, config: dict, arrays: dict, overwrite: bool) -> None:
        archive.write(path, config, arrays, overwrite)
        shown = archive.check_path(path)
        if shown.lower().endswith(_OF_OTHERS):
            warn(
                f"{shown} is a file of minidl's own format, .npz, which other libraries cannot read: minidl.load_model "
                "and load_weights read it under any name, but an honest one ends with .npz"
            )

    def _file_config(self, kind: str) -> dict:
        shapes = [list(parameter.shape) for parameter in self.parameters]
        return {"kind": kind, "dtype": self.dtype.name, "shapes": shapes}

    @taken
    def load_weights(self, path) -> None:
        """Take the parameters from a file of ``save_weights`` or ``save`` of a model with the same shapes."""
        self.require_built("load_weights")
        config, arrays = read(path)
        shown, shapes = archive.check_path(path), config.get("shapes")
        wanted = [list(parameter.shape) for parameter in self.parameters]
        if shapes != wanted:
            raise ValueError(f"{shown} holds weights of shapes {describe(shapes)}, the model has {wanted}")
        found, size = len(arrays["params"]), self.params.size
        if found != size:
            raise ValueError(f"cannot read {shown}: it holds {found} parameters, the model has {size}")
        self.params[...] = arrays["params"]
        self._begin_with_weights()


def read(path) -> tuple[dict, dict]:
    """(config, arrays) of a model's file. A file of Keras is refused as what it is."""
    shown = archive.check_path(path)
    with open(shown, "rb") as file:
        is_keras = file.read(len(_HDF5)) == _HDF5
        if not is_keras and zipfile.is_zipfile(file):
            with archive.naming(shown), zipfile.ZipFile(file) as members:
                is_keras = "model.weights.h5" in members.namelist()
    if is_keras:
        raise ValueError(
            f"cannot read {shown}: it is a file of Keras, not of minidl. minidl.interop.keras.from_keras(path) reads "
            "those that end with .keras"
        )
    return archive.read(path, ARRAYS)
