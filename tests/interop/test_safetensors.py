"""Weights in safetensors files."""

import numpy as np
import pytest
from extras import needs

needs("safetensors")

from minidl.interop.safetensors import load_safetensors, save_safetensors  # noqa: E402
from minidl.layers import BatchNormalization, Dense, Input, LayerNormalization, PReLU  # noqa: E402
from minidl.models import Sequential  # noqa: E402


def student(seed=1):
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dense(3, activation="softmax")], seed=seed)


def normalized(seed, **settings):
    layers = [
        Input((6,)),
        Dense(8, name="a"),
        BatchNormalization(name="b", **settings),
        PReLU("ones", name="c"),
    ]
    return Sequential([*layers, LayerNormalization(name="d", **settings)], seed=seed)


def test_safetensors(tmp_path):
    path, model, other = tmp_path / "w.safetensors", student(1), student(2)
    other = Sequential.from_config({**model.get_config(), "seed": 2})
    before = other.params.copy()
    save_safetensors(model, path)
    load_safetensors(other, path)
    np.testing.assert_array_equal(other.params, model.params)
    assert not np.array_equal(before, model.params) and [p.name for p in tmp_path.iterdir()] == [path.name]
    whole = path.read_bytes()
    for bad in (b"", whole[:20], whole[:-1], b"\xff" * 100):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="w.safetensors"):
            load_safetensors(other, path)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="the model has"):
        load_safetensors(student(), path)
    np.testing.assert_array_equal(other.params, model.params)


def test_normalization(tmp_path):
    model, other = normalized(1), normalized(2, trainable=False)
    save_safetensors(model, tmp_path / "w.safetensors")
    load_safetensors(other, tmp_path / "w.safetensors")
    assert np.array_equal(other.params, model.params)
