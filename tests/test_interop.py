"""Bridges to other libraries: each is used if it is installed, else its error must name the extra."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest

import minidl.interop.safetensors as bridge_safetensors
import minidl.interop.torch as bridge_torch
from minidl.distillation import distill
from minidl.layers import (
    Dense,
    Dropout,
    Input,
)
from minidl.models import Sequential
from minidl.teachers import cached_logits

rng = np.random.default_rng(3)
X = rng.normal(size=(90, 6)).astype(np.float32)
Y = rng.integers(0, 3, 90)
ACTIVATIONS = (
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "gelu",
    "silu",
    "softplus",
    "elu",
    "softmax",
    "linear",
)


def has(*names) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def absent(extra):
    return pytest.raises(ImportError, match=rf"minidl\[{extra}\]")


def student(seed=1):
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dense(3, activation="softmax")], seed=seed)


# ---------------------------------------------------------------- torch


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_torch_both_ways(activation, dtype):
    model = Sequential([Input((6,)), Dense(5, activation=activation), Dropout(0.5), Dense(3)], dtype=dtype)
    if not has("torch"):
        with absent("bench"):
            bridge_torch.to_torch(model)
        return
    import torch

    x = X.astype(dtype)
    module = bridge_torch.to_torch(model).eval()
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), model.predict(x), atol=1e-5)
    back = bridge_torch.from_torch(module)
    np.testing.assert_array_equal(back.params, model.params)
    np.testing.assert_allclose(back.predict(x), model.predict(x), atol=1e-5)


def test_frozen_layers_stay_frozen_both_ways():
    if not has("torch"):
        with pytest.raises(ImportError, match="bench"):
            bridge_torch.from_torch(None)
        return
    model = Sequential([Input((6,)), Dense(5, "relu", trainable=False), Dense(3)])
    module = bridge_torch.to_torch(model)
    assert [parameter.requires_grad for parameter in module.parameters()] == [False, False, True, True]
    assert [layer.trainable for layer in bridge_torch.from_torch(module).layers if layer.parameters] == [
        False,
        True,
    ]
    module[0].bias.requires_grad_(True)
    with pytest.raises(ValueError, match=r"Linear\(in_features=6, .* with one frozen parameter"):
        bridge_torch.from_torch(module)


def test_a_torch_module_teaches():
    if not has("torch"):
        with absent("bench"):
            bridge_torch.torch_teacher(None)
        return
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 3))
    module.train()
    before = [p.detach().clone() for p in module.parameters()]
    teacher = bridge_torch.torch_teacher(module)
    np.testing.assert_array_equal(cached_logits(teacher, X), cached_logits(teacher, X), "dropout is off")
    distill(teacher, student(), X, Y, epochs=2, verbose=0)
    assert module.training and all(
        torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)
    )
    with pytest.raises(TypeError, match="PyTorch module"):
        distill(module, student(), X, Y, epochs=1, verbose=0)
    with pytest.raises(TypeError, match="must be a torch.nn.Module"):
        bridge_torch.torch_teacher(student())
    for wrong in (torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)), torch.nn.Sequential(torch.nn.ReLU())):
        with pytest.raises(ValueError, match="module"):
            bridge_torch.from_torch(wrong)


def test_settings_that_torch_knows_and_minidl_does_not_are_refused_by_name():
    if not has("torch"):
        with absent("bench"):
            bridge_torch.from_torch(None)
        return
    from torch import nn

    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    class Twice(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + super().forward(x)

    def convert(*parts):
        return bridge_torch.from_torch(nn.Sequential(nn.Linear(6, 5), *parts))

    for part, message in (
        (nn.ELU(-2.0), r"ELU\(alpha=-2.0\), whose alpha"),
        (nn.Softplus(beta=2.0), "whose beta"),
        (nn.Softplus(threshold=5.0), "whose threshold"),
        (nn.Softmax(dim=0), r"Softmax\(dim=0\), whose dim"),
        (nn.GELU("tanh"), "whose approximate"),
        (nn.Flatten(0), "whose start_dim"),
        (nn.BatchNorm1d(5, affine=False), "BatchNorm1d"),
        (nn.AlphaDropout(0.5), "AlphaDropout"),
        (nn.Hardswish(), "Hardswish"),
        (Doubled(5, 5), "Doubled.*no counterpart"),
        (nn.Linear(5, 5).half(), "float32 or of float64, got .'float16', 'float32'"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(5, 5)), "no counterpart"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(part)
    with pytest.raises(TypeError, match="must be a torch.nn.Sequential"):
        bridge_torch.from_torch(Twice(nn.Linear(6, 5)))
    # what is the same by another name is taken
    slopes = convert(nn.LeakyReLU(0.3), nn.Identity(), nn.Dropout(0.2, inplace=True), nn.ReLU(inplace=True))
    assert slopes.layers[1].negative_slope == pytest.approx(0.3) and slopes.layers[2].rate == pytest.approx(
        0.2
    )
    for dim in (1, -1):
        convert(nn.Softmax(dim))
    # a hook changes the numbers and no name: running both sides sees it
    hooked = nn.Sequential(nn.Linear(6, 5))
    hooked[0].register_forward_hook(lambda module, given, out: out + 1)
    with pytest.raises(ValueError, match="different numbers"):
        bridge_torch.from_torch(hooked)


def test_a_module_is_put_back_into_the_mode_of_each_part():
    if not has("torch"):
        with absent("bench"):
            bridge_torch.torch_teacher(None)
        return
    from torch import nn

    module = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)).train()
    module[1].eval()  # a frozen part, as in fine-tuning
    bridge_torch.torch_teacher(module)(X)
    assert [part.training for part in module.modules()] == [True, True, False, True]


class Shifted(Dense):
    """A Dense of the user's own: its forward is another."""

    def forward(self, x, training=False):
        return super().forward(x, training) + 1


def test_a_layer_with_another_forward_is_not_exported_as_its_base_class():
    if not has("torch"):
        with absent("bench"):
            bridge_torch.to_torch(student())
        return
    with pytest.raises(ValueError, match=r"'shifted\w*' \(Shifted\) is your own"):
        bridge_torch.to_torch(Sequential([Input((6,)), Shifted(3)]))
    with pytest.raises(ValueError, match="give the first layer an input_shape"):
        bridge_torch.to_torch(Sequential([Dense(3)]))


# ---------------------------------------------------------------- safetensors


def test_safetensors(tmp_path):
    path, model, other = tmp_path / "w.safetensors", student(1), student(2)
    if not has("safetensors"):
        with absent("safetensors"):
            bridge_safetensors.save_safetensors(model, path)
        return
    other = Sequential.from_config({**model.get_config(), "seed": 2})
    before = other.params.copy()
    bridge_safetensors.save_safetensors(model, path)
    bridge_safetensors.load_safetensors(other, path)
    np.testing.assert_array_equal(other.params, model.params)
    assert not np.array_equal(before, model.params) and [p.name for p in tmp_path.iterdir()] == [path.name]
    whole = path.read_bytes()
    for bad in (b"", whole[:20], whole[:-1], b"\xff" * 100):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="w.safetensors"):
            bridge_safetensors.load_safetensors(other, path)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="the model has"):
        bridge_safetensors.load_safetensors(student(), path)
    np.testing.assert_array_equal(other.params, model.params)
