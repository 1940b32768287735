"""Normalisation and PReLU in PyTorch and safetensors."""

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
@pytest.mark.parametrize("settings", [{}, {"center": False}, {"trainable": False}])
@pytest.mark.skipif(not has("torch"), reason="needs torch")
def test_to_torch_and_back(dtype, settings):
    from minidl.interop.torch import from_torch, to_torch

    model = trained(dtype, **settings)
    module = to_torch(model)  # it compares the outputs
    if settings == {"center": False}:
        with pytest.raises(ValueError, match="one frozen parameter"):
            from_torch(module)
        return
    back = from_torch(module)
    for ours, theirs in zip(model.get_weights(), back.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    assert [layer.trainable for layer in back.layers[:3]] == [layer.trainable for layer in model.layers[:3]]
    assert back.layers[1].momentum == pytest.approx(0.8) and back.layers[1].epsilon == 0.01


@pytest.mark.skipif(not has("torch"), reason="needs torch")
def test_what_torch_has_and_minidl_has_not_is_refused():
    from torch import nn

    from minidl.interop.torch import from_torch, to_torch

    for part in (
        nn.BatchNorm1d(5, affine=False),
        nn.BatchNorm1d(5, momentum=None),
        nn.PReLU(),
        nn.RMSNorm(5),
    ):
        with pytest.raises(ValueError, match="which has no counterpart in minidl"):
            from_torch(nn.Sequential(nn.Linear(6, 5), part))
    model = Sequential([BatchNormalization(input_shape=(3, 4))])
    with pytest.raises(ValueError, match="several axes has no counterpart"):
        to_torch(model)


@pytest.mark.skipif(not has("safetensors"), reason="needs safetensors")
def test_safetensors(tmp_path):
    from minidl.interop.safetensors import load_safetensors, save_safetensors

    model, other = trained(), trained(trainable=False)
    save_safetensors(model, tmp_path / "w.safetensors")
    load_safetensors(other, tmp_path / "w.safetensors")
    assert np.array_equal(other.params, model.params)
