"""Nets of random layers, and a C compiler, for the tests of minidl.interop.c."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minidl import layers
from minidl.activations import NAMES
from minidl.models import Sequential

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")


@pytest.fixture(scope="session")
def gcc() -> str:
    """gcc's path. Without it the test is skipped, but where all extras must be there (MINIDL_EXTRAS) it fails."""
    found = shutil.which("gcc")
    if found is None and os.environ.get("MINIDL_EXTRAS"):
        raise FileNotFoundError("MINIDL_EXTRAS is set, and gcc is not on PATH")
    return found or pytest.skip("needs gcc")


def build(gcc: str, folder: Path, sources: dict[str, str], *flags: str) -> Path:
    """Compile each text of C by itself, strictly, and link them all."""
    for name, text in sources.items():
        (folder / f"{name}.c").write_text(text)
    out = folder / f"built_{len(list(folder.iterdir()))}"  # a library that was loaded keeps its file
    files = [str(folder / f"{name}.c") for name in sources]
    done = subprocess.run(
        [gcc, *STRICT, *flags, *files, "-o", str(out), "-lm"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def load(gcc: str, folder: Path, sources: dict[str, str], *flags: str) -> ctypes.CDLL:
    """The same as a library of this process."""
    return ctypes.CDLL(str(build(gcc, folder, sources, "-O1", "-shared", "-fPIC", *flags)))


def call(library: ctypes.CDLL, name: str, x: np.ndarray, output_shape: tuple[int, ...]) -> np.ndarray:
    """The outputs of NAME_predict for each sample, as it is in a file of x's dtype."""
    predict, out = library[f"{name}_predict"], np.full((len(x), *output_shape), np.nan, x.dtype)
    for sample, place in zip(np.ascontiguousarray(x), out, strict=True):
        predict(ctypes.c_void_p(sample.ctypes.data), ctypes.c_void_p(place.ctypes.data))
    return out


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, of a sample's largest output if that is more than 1. NaN where one is NaN."""
    rows = found.astype(np.float64).reshape(len(found), -1), wanted.astype(np.float64).reshape(len(found), -1)
    return float(
        (np.abs(rows[0] - rows[1]) / np.maximum(1, np.abs(rows[1]).max(axis=1, keepdims=True))).max()
    )


def random_net(seed: int) -> Sequential:
    """Up to two hidden layers of any activation, among any of the other layers; every number random."""
    rng = np.random.default_rng(seed)

    def any_size() -> int:
        return int(rng.integers(1, 16))

    def other(shape: tuple[int, ...]) -> layers.Layer:
        mean, variance = rng.normal(size=shape[-1]), rng.uniform(0.5, 2, shape[-1])
        makers = (
            lambda: layers.Activation(rng.choice(NAMES)),
            lambda: layers.LeakyReLU(rng.uniform()),
            lambda: layers.ELU(rng.uniform()),
            lambda: layers.ReLU(rng.choice([None, 1.5]), rng.choice([0.0, 0.1]), rng.choice([0.0, 0.25])),
            lambda: layers.Softmax(),
            lambda: layers.PReLU("random_normal"),
            lambda: layers.BatchNormalization(center=rng.random() < 0.5, scale=rng.random() < 0.5),
            lambda: layers.LayerNormalization(center=rng.random() < 0.5, scale=rng.random() < 0.5),
            lambda: layers.Normalization(mean=mean, variance=variance, invert=rng.random() < 0.3),
            lambda: layers.Normalization(axis=None, mean=0.3, variance=2.0),
            lambda: layers.Rescaling(rng.uniform(), rng.choice([0.0, 0.5])),
            lambda: layers.Rescaling(mean, variance),
            lambda: layers.Dropout(0.5),
            lambda: layers.GaussianNoise(1.0),
            lambda: layers.RandomTranslation(0.5, 0.5) if len(shape) > 1 else layers.Dropout(0.1),
        )
        return makers[rng.integers(len(makers))]()

    shape = (any_size(),) if rng.random() < 0.7 else tuple(rng.integers(1, 5, rng.integers(2, 4)).tolist())
    net = [layers.Input(shape), *(other(shape) for _ in range(rng.integers(0, 3))), layers.Flatten()]
    for _ in range(rng.integers(0, 3)):
        units = any_size()
        net.append(layers.Dense(units, str(rng.choice(NAMES)), use_bias=rng.random() < 0.8))
        net += [other((units,)) for _ in range(rng.integers(0, 2))]
    net.append(layers.Dense(any_size(), str(rng.choice(NAMES))))
    model = Sequential(net, dtype=str(rng.choice(["float32"] * 4 + ["float64"])), seed=seed)
    for layer in model.layers:
        for parameter in layer.parameters:
            view = getattr(layer, parameter.name)
            if parameter.name == "moving_variance":
                view[...] = rng.uniform(0.5, 2, view.shape)
            elif parameter.name != "weight":
                view[...] = rng.normal(size=view.shape)
    return model
