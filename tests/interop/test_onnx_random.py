"""1,000 random nets: each is exported, run by onnxruntime, and loaded back, with the same predictions everywhere."""

# ruff: noqa: E402 (what follows is imported where the packages are there)
from extras import needs

needs("onnx", "onnxruntime")

import numpy as np
import onnxruntime
import pytest

from minidl import archive
from minidl.activations import NAMES
from minidl.interop.onnx import export, load
from minidl.layers import (
    ELU,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    LayerNormalization,
    LeakyReLU,
    Normalization,
    PReLU,
    ReLU,
    Rescaling,
)
from minidl.models import Sequential

NETS, A_TEST = 1000, 100
CHANCES = {
    "float32": NAMES,
    "float64": [name for name in NAMES if name != "gelu"],
}  # onnxruntime has no Erf of doubles
BETWEEN = (
    lambda rng: BatchNormalization(epsilon=rng.choice([1e-5, 1e-3]), scale=coin(rng), center=coin(rng)),
    lambda rng: LayerNormalization(epsilon=rng.choice([1e-5, 1e-3]), scale=coin(rng), center=coin(rng)),
    lambda rng: PReLU(alpha_initializer="random_normal"),
    lambda rng: ReLU(6.0),
    lambda rng: ReLU(max_value=2.0, negative_slope=0.1, threshold=0.5),
    lambda rng: LeakyReLU(rng.uniform(0, 1)),
    lambda rng: ELU(rng.uniform(0, 2)),
    lambda rng: Dropout(0.5),
    lambda rng: GaussianNoise(0.5),
    lambda rng: Rescaling(rng.uniform(-2, 2), rng.normal()),
)


def coin(rng, chance=0.5) -> bool:
    return bool(rng.random() < chance)


def random_net(rng) -> Sequential:
    """1 to 6 dense layers of 1 to 16 units, all that may stand around them, and weights that are not all small."""
    dtype = str(rng.choice(list(CHANCES)))
    shape = (int(rng.integers(1, 9)),) if coin(rng, 0.8) else (3, int(rng.integers(1, 4)))
    layers = [Input(shape)]
    if coin(rng, 0.3):
        size = shape[-1:] if coin(rng) else ()
        numbers = {"mean": rng.normal(size=size) * 10, "variance": rng.uniform(0.1, 9, size)}
        layers.append(Normalization(axis=-1 if size else None, **numbers))
    if coin(rng, 0.2):
        layers.append(Rescaling(rng.uniform(0.01, 3, shape[-1:]), rng.normal()))
    if len(shape) > 1:
        layers += [BatchNormalization(), Flatten()] if coin(rng) else [Flatten()]
    for _ in range(rng.integers(1, 6)):
        units, activation = int(rng.integers(1, 17)), str(rng.choice(CHANCES[dtype]))
        layers.append(Dense(units, activation, use_bias=coin(rng, 0.8), bias_initializer="random_normal"))
        if coin(rng, 0.6):
            layers.append(BETWEEN[rng.integers(len(BETWEEN))](rng))
    if coin(rng, 0.7):
        layers.append(Dense(int(rng.integers(1, 6)), (None, "softmax", "sigmoid")[rng.integers(3)]))
    model = Sequential(layers, dtype=dtype, seed=int(rng.integers(2**31)))
    for layer in model.layers:
        if isinstance(layer, BatchNormalization):
            layer.moving_mean[...] = rng.normal(size=layer.moving_mean.shape)
            layer.moving_variance[...] = rng.uniform(0.1, 4, layer.moving_variance.shape)
    model.params[...] *= rng.uniform(0.5, 2)
    return model


def is_within_1e_6(model, path, rng) -> bool:
    """Whether onnxruntime's and minidl's outputs differ by less than 1e-6 of their size, on samples of its own."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = rng.normal(size=(8, *model.input_shape)).astype(model.dtype)
    ours = model.predict(x, verbose=0)
    theirs = np.concatenate([session.run(["y"], {"x": rows})[0] for rows in (x[:1], x[1:])])
    assert ours.dtype == theirs.dtype == model.dtype
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-3 * max(1, np.abs(ours).max()))
    return bool(np.abs(theirs - ours).max() <= 1e-6 * max(1, np.abs(ours).max()))


@pytest.mark.parametrize("first", range(0, NETS, A_TEST))
def test_random_nets(first, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_sync", lambda handle: None)  # what is tested is not the disk
    monkeypatch.setattr(archive, "_sync_folder", lambda folder: None)
    path, within = tmp_path / "net.onnx", 0
    for number in range(first, first + A_TEST):
        rng = np.random.default_rng(number)
        model = random_net(rng)
        export(
            model, path, opset=int(rng.choice([13, 17, 18, 20, 22]))
        )  # refuses what onnxruntime gives otherwise
        within += is_within_1e_6(model, path, rng)
        loaded = load(path)
        assert loaded.dtype == model.dtype and loaded.input_shape == model.input_shape
        x = rng.normal(size=(8, *model.input_shape)).astype(model.dtype)
        ours, back = model.predict(x, verbose=0), loaded.predict(x, verbose=0)
        np.testing.assert_allclose(back, ours, rtol=1e-3, atol=1e-3 * max(1, np.abs(ours).max()))
    assert (
        within > 0.9 * A_TEST
    )  # the others make so much of a last bit that no two ways to compute them are closer
