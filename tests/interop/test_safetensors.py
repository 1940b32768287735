"""Weights in safetensors files, with PyTorch's names or with those of minidl's earlier files."""

import importlib.util
import json
import struct

import numpy as np
import pytest
from extras import needs

needs("safetensors")

from nets import random_net  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from minidl.interop.safetensors import load_safetensors, save_safetensors  # noqa: E402
from minidl.layers import BatchNormalization, Dense, GaussianNoise, Input, LayerNormalization, PReLU  # noqa: E402
from minidl.models import Sequential, clone_model  # noqa: E402

TORCH = importlib.util.find_spec("torch") is not None


def student(seed=1):
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dense(3, activation="softmax")], seed=seed)


def header(path):
    """What a file says of its arrays, read without the package: its first eight bytes are the header's length."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


def test_names_and_layout_are_pytorchs(tmp_path):
    path, model = tmp_path / "w.safetensors", student()
    save_safetensors(model, path, {"trained on": "digits"})
    found = header(path)
    assert found.pop("__metadata__") == {"format": "pt", "trained on": "digits"}
    assert {name: each["shape"] for name, each in found.items()} == {
        "0.bias": [8],
        "0.weight": [8, 6],
        "2.bias": [3],
        "2.weight": [3, 8],
    }
    first, last = found["0.weight"]["data_offsets"]
    data = path.read_bytes()[-sum(each.nbytes for each in model.get_weights()) :]
    values = np.frombuffer(data[first:last], "<f4").reshape(8, 6)
    assert np.array_equal(values, model.layers[0].weight.T), "a transposed view would be written as (in, out)"


@pytest.mark.skipif(not TORCH, reason="needs torch")
def test_pytorch_reads_what_minidl_writes_and_the_other_way(tmp_path):
    import safetensors.torch
    import torch

    from minidl.interop.torch import to_torch

    path = tmp_path / "w.safetensors"
    for seed in range(40):
        model = random_net(seed)
        save_safetensors(model, path)
        module, state = to_torch(clone_model(model)), safetensors.torch.load_file(path)
        assert state.keys() == module.state_dict().keys()
        module.load_state_dict(state)
        want = to_torch(model).state_dict()
        assert all(torch.equal(want[name], array) for name, array in module.state_dict().items())
        other = clone_model(model)
        safetensors.torch.save_file(module.state_dict(), path)  # it has no metadata
        load_safetensors(other, path)
        assert np.array_equal(other.params, model.params)
    assert state, "the last net has arrays"


def test_a_file_is_whole_or_refused(tmp_path):
    path, model = tmp_path / "w.safetensors", student(1)
    other = clone_model(model)
    before = other.params.copy()
    save_safetensors(model, path)
    load_safetensors(other, path)
    assert np.array_equal(other.params, model.params)
    assert not np.array_equal(before, model.params) and [p.name for p in tmp_path.iterdir()] == [path.name]
    whole = path.read_bytes()
    for bad in (b"", whole[:20], whole[:-1], b"\xff" * 100):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="w.safetensors"):
            load_safetensors(other, path)
    with pytest.raises(FileNotFoundError):
        load_safetensors(other, tmp_path / "absent.safetensors")
    assert np.array_equal(other.params, model.params)


@pytest.mark.parametrize(
    "settings", [{}, {"center": False}, {"scale": False, "center": False}, {"trainable": False}]
)
def test_normalization(tmp_path, settings):
    def net(seed):
        layers = [Input((6,)), Dense(8), BatchNormalization(**settings), PReLU("ones")]
        return Sequential([*layers, LayerNormalization(**settings)], seed=seed)

    model, other = net(1), net(2)
    model.layers[1].moving_mean[...] = 3
    save_safetensors(model, tmp_path / "w.safetensors")
    load_safetensors(other, tmp_path / "w.safetensors")
    assert np.array_equal(other.params, model.params)


def old_names(model):
    """The arrays as minidl 0.1 wrote them."""
    return {
        f"{layer.name}.{each.name}": getattr(layer, each.name)
        for layer in model.layers
        for each in layer.parameters
    }


def test_files_of_earlier_versions_are_read(tmp_path):
    path = tmp_path / "w.safetensors"
    for square in (True, False):  # where shapes tell nothing, too
        width = 6 if square else 8
        model = Sequential([Input((6,)), Dense(width, name="a"), BatchNormalization(name="b")], seed=1)
        save_file(old_names(model), path)
        other = clone_model(model)
        load_safetensors(other, path)
        assert np.array_equal(other.params, model.params)
        save_safetensors(model, path)
        load_safetensors(other, path)
        assert np.array_equal(other.params, model.params)


def test_names_that_fit_both_layouts_are_refused(tmp_path):
    path, layers = tmp_path / "w.safetensors", [Input((6,)), Dense(6, name="0")]
    model = Sequential(layers, seed=1)
    save_file(old_names(model), path)
    with pytest.raises(ValueError, match="named as PyTorch's modules: rename them to tell the layouts apart"):
        load_safetensors(model, path)
    save_safetensors(model, path)
    other = clone_model(model)
    load_safetensors(other, path)
    assert np.array_equal(other.params, model.params)


class Doubled(Sequential):
    """A model of the user's own: its forward is another."""

    def forward(self, x, training=False, logits=False):
        return 2 * super().forward(x, training, logits)


def test_a_model_with_another_forward_is_not_written_as_its_base_class(tmp_path):
    with pytest.raises(ValueError, match=r"\(Doubled\) has a forward of your own and no PyTorch form"):
        save_safetensors(Doubled([Input((6,)), Dense(3)]), tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_layers_of_your_own_keep_their_old_files(tmp_path):
    path = tmp_path / "w.safetensors"
    model = Sequential([Input((6,)), GaussianNoise(0.1, name="noise"), Dense(3, name="a")], seed=1)
    with pytest.raises(ValueError, match=r"'noise' \(GaussianNoise\) has no counterpart in PyTorch"):
        save_safetensors(model, path)
    assert not path.exists()
    save_file(old_names(model), path)
    other = clone_model(model)
    load_safetensors(other, path)
    assert np.array_equal(other.params, model.params)


def test_what_does_not_fit_is_refused_with_both_sides(tmp_path):
    path, model = tmp_path / "w.safetensors", student()
    save_safetensors(Sequential([Input((6,)), Dense(8, "relu"), Dense(4)]), path)
    before = model.params.copy()
    with pytest.raises(ValueError, match=r"holds .*'2.weight': 'float32 \(4, 8\)'.*the model has .*\(3, 8\)"):
        load_safetensors(model, path)
    save_safetensors(Sequential([Input((6,)), Dense(8), Dense(3)]), path)
    with pytest.raises(ValueError, match="holds .*'1.weight'.* and the model has .*'2.weight'"):
        load_safetensors(model, path)
    save_safetensors(Sequential([Input((6,)), Dense(8, "relu"), Dense(3)], dtype="float64"), path)
    with pytest.raises(ValueError, match=r"holds .*'float64 \(8,\)'.* the model has .*'float32 \(8,\)'"):
        load_safetensors(model, path)
    save_file({"0.weight": np.ones((8, 6), "f2")}, path)
    with pytest.raises(ValueError, match="'0.weight' must be of float32 or float64, got F16"):
        load_safetensors(model, path)
    save_file({name.replace("0.", "dense."): array for name, array in old_names(model).items()}, path)
    with pytest.raises(ValueError, match="and the model has .*'2.weight'"):
        load_safetensors(
            clone_model(Sequential([Input((6,)), Dense(8, "relu", name="q"), Dense(3, name="r")])), path
        )
    normal = Sequential([Input((6,)), BatchNormalization(center=False)])
    wrong = {f"0.{name}": np.full(6, 2, "f4") for name in ("weight", "bias", "running_mean", "running_var")}
    save_file(wrong, path)
    with pytest.raises(ValueError, match="'0.bias' must be 0 everywhere, as its layer has no such array"):
        load_safetensors(normal, path)
    assert np.array_equal(model.params, before)
    for metadata in ({"format": "np"}, {"epochs": 3}, {1: "a"}):
        with pytest.raises(ValueError, match="metadata must be texts by name"):
            save_safetensors(model, path, metadata)
    with pytest.raises(ValueError, match="give the first layer an input_shape"):
        save_safetensors(Sequential([Dense(3)]), path)
