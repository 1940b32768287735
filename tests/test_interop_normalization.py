"""Normalisation and PReLU in ONNX."""

import numpy as np
import pytest
from test_interop import has

from minidl.layers import BatchNormalization, Dense, LayerNormalization, PReLU
from minidl.models import Sequential

X = np.random.default_rng(0).standard_normal((40, 6)).astype("f4")
Y = X[:, :3].argmax(axis=1)


def trained(dtype="float32", **settings):
    layers = [
        Dense(8, input_dim=6, name="a"),
        BatchNormalization(momentum=0.8, epsilon=0.01, name="b", **settings),
        PReLU("ones", name="c"),
        Dense(5, name="d"),
        LayerNormalization(name="e", **settings),
        Dense(3, "softmax", name="f"),
    ]
    model = Sequential(layers, dtype=dtype, seed=1)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", [{}, {"center": False}, {"scale": False, "center": False}])
@pytest.mark.skipif(not has("onnx"), reason="needs onnx")
def test_to_onnx(dtype, settings):
    from minidl.interop.onnx import to_onnx

    model = trained(dtype, **settings)
    names = [node.op_type for node in to_onnx(model).graph.node]  # it compares the outputs
    assert "BatchNormalization" in names and "LayerNormalization" in names
