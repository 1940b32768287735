"""State dicts of PyTorch, read as models."""

import numpy as np
import pytest
from extras import needs

needs("torch", "safetensors")

import torch  # noqa: E402
from nets import check_equal, samples  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from minidl.interop.torch import from_state_dict  # noqa: E402
from minidl.layers import Dense, LeakyReLU, ReLU  # noqa: E402


def linear(*sizes):
    return [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]


def check(module, *args, **settings):
    """The model of a module's state dict gives the module's numbers."""
    state = module.state_dict()
    model = from_state_dict(state, *args, **settings)
    x = samples(model)
    check_equal(model.predict(x), module.eval()(torch.from_numpy(x)).detach().numpy())
    return model


a, b, c = linear(6, 5, 4, 3)
SEQUENTIALS = {
    "plain": ([a, nn.Tanh(), b, nn.Tanh(), c], "tanh", {}),
    "no activations": ([a, b, c], "linear", {}),
    "dropout": ([nn.Flatten(), a, nn.ReLU(), nn.Dropout(0.1), b], "relu", {}),
    "normalised before": ([a, nn.BatchNorm1d(5), nn.ReLU(), b], "relu", {}),
    "normalised after": ([a, nn.ReLU(), nn.BatchNorm1d(5), b], "relu", {}),
    "first": ([nn.BatchNorm1d(6, affine=False), a, nn.ReLU(), b], "relu", {}),
    "last": ([a, nn.GELU(), b, nn.BatchNorm1d(4), nn.Softmax(1)], "gelu", {"final_activation": "softmax"}),
    "layer norm": (
        [a, nn.LayerNorm(5, bias=False), nn.SiLU(), b],
        "silu",
        {"modules": {"1": "LayerNorm"}},
    ),
    "other epsilon": ([a, nn.BatchNorm1d(5, eps=0.5), nn.ReLU(), b], "relu", {"epsilon": 0.5}),
    "prelu": ([a, nn.PReLU(5), b], "relu", {"modules": {"1": "PReLU"}}),
    "slope": ([a, nn.LeakyReLU(), b], LeakyReLU(0.01), {}),
    "bounded": ([a, nn.ReLU6(), b, nn.Sigmoid()], ReLU(6.0), {"final_activation": "sigmoid"}),
    "nested": ([nn.Sequential(a, nn.ReLU()), nn.Sequential(b, nn.ReLU()), c], "relu", {}),
    "each its own": ([a, nn.ReLU(), b, nn.Tanh(), c], {"0": "relu", "2": "tanh"}, {}),
    "more than ten": ([a, *[nn.Dropout(0.1)] * 9, nn.ReLU(), b], "relu", {}),
}


@pytest.mark.parametrize("name", SEQUENTIALS)
@pytest.mark.parametrize("ending", [None, ".pt", ".safetensors"])
def test_sequentials(name, ending, tmp_path):
    parts, activation, settings = SEQUENTIALS[name]
    torch.manual_seed(1)
    module = nn.Sequential(*parts)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean += 0.5
            part.running_var *= 3
    model = check(module, activation, **settings)
    if ending is None:
        as_arrays = {key: value.numpy() for key, value in module.state_dict().items()}
        assert np.array_equal(from_state_dict(as_arrays, activation, **settings).params, model.params)
        return
    path = tmp_path / f"w{ending}"
    (torch.save if ending == ".pt" else save_file)(module.state_dict(), path)
    again = from_state_dict(path, activation, **settings)
    assert np.array_equal(again.params, model.params)
    x = samples(model)
    assert np.array_equal(again.predict(x), model.predict(x))


def test_the_check_sees_another_activation():
    with pytest.raises(AssertionError):
        check(nn.Sequential(a, nn.Tanh(), b), "relu")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)
        self.final = nn.Linear(5, 5)

    def forward(self, x):
        return self.final(torch.relu(self.norm(self.hidden(x))))


ORDER = {"hidden": "Linear", "norm": "BatchNorm1d", "final": "Linear"}


def test_a_module_with_names(tmp_path):
    module = Net()
    check(module, {"norm": "relu"})
    check(module, {"norm": "relu"}, modules=ORDER)
    assert from_state_dict({"weight": np.ones((3, 2), "f4")}, None).output_shape == (3,)
    with pytest.raises(
        ValueError, match=r"between 'hidden' and 'final' there is room for one after each of .*'norm'"
    ):
        from_state_dict(module.state_dict(), "relu")
    save_file(module.state_dict(), tmp_path / "w.safetensors")  # which sorts the names
    with pytest.raises(ValueError, match="the order of the modules is lost"):
        from_state_dict(tmp_path / "w.safetensors", {"norm": "relu"})
    mixed = dict(sorted(module.state_dict().items()))
    with pytest.raises(ValueError, match="the order of the modules is lost"):
        from_state_dict(mixed, {"norm": "relu"})
    one = from_state_dict(module.state_dict(), {"norm": "relu"})
    for state in (tmp_path / "w.safetensors", mixed):
        two = from_state_dict(state, {"norm": "relu"}, modules=ORDER)
        assert np.array_equal(one.predict(samples(one)), two.predict(samples(one)))


W = {"0.weight": np.ones((5, 6), "f4"), "0.bias": np.ones(5, "f4"), "2.weight": np.ones((3, 5), "f4")}
REFUSED = [
    ({}, "relu", {}, "state_dict must be a dict of arrays by name, got"),
    ([1], "relu", {}, "state_dict must be a dict of arrays by name"),
    (nn.Linear(2, 2), "relu", {}, "write its .state_dict"),
    ({"model": W, "epoch": 3}, "relu", {}, r"state_dict\['model'\] is a dict itself"),
    ({**W, "epoch": 3}, "relu", {}, r"state_dict\['epoch'\] must be an array of float32 or float64, got int"),
    ({**W, 7: W["0.bias"]}, "relu", {}, "must have names as keys, got 7"),
    (
        {**W, "0.bias": torch.ones(5, dtype=torch.bfloat16)},
        "relu",
        {},
        r"state_dict\['0.bias'\] must be an array of float32 or float64, got bfloat16",
    ),
    (
        {**W, "0.bias": np.ones(5)},
        "relu",
        {},
        r"one dtype, got float32 of '2.weight' and float64 of '0.bias'",
    ),
    (
        {**W, "4.weight": np.ones((2, 3, 3, 3), "f4")},
        "relu",
        {},
        r"module '4' has arrays .*\(2, 3, 3, 3\).*: minidl has no layer of that kind",
    ),
    ({**W, "2.weight_g": np.ones(3, "f4")}, "relu", {}, "module '2' has arrays .*weight_g"),
    (
        {**W, "0.bias": np.ones(4, "f4")},
        "relu",
        {},
        r"module '0' has arrays .*'bias': \(4,\).* needs .*\(5,\)",
    ),
    (
        {**W, "2.weight": np.ones((3, 4), "f4")},
        "relu",
        {},
        r"module '2' has .*\(4, 3\).* \(5,\) needs .*\(5, 3\)",
    ),
    (
        {**W, "1.weight": np.ones(5, "f4")},
        "relu",
        {},
        "module '1' has arrays .*fit LayerNorm and PReLU and modules that minidl has not: say which it is",
    ),
    (
        {**W, "1.weight": np.ones(1, "f4")},
        "relu",
        {"modules": {"1": "PReLU"}},
        "but its arrays .* fit .'LayerNorm'.",
    ),
    (W, "relu", {"modules": {"1": "LayerNorm"}}, "modules names '1', which is not in the state dict"),
    (W, "relu", {"modules": {"0": "Conv1d"}}, r"modules\['0'\] must be one of .*, got 'Conv1d'"),
    (
        {"0.weight": W["0.weight"], "1.weight": W["2.weight"]},
        "relu",
        {},
        "between '0' and '1' there is no room for an activation",
    ),
    (W, "leaky_relu", {}, "slope 0.01 in PyTorch and 0.2 in Keras: say which"),
    (W, "rlu", {}, "unknown activation 'rlu': did you mean"),
    (W, Dense(3), {}, "activation must be an activation, got"),
    (W, {"1": "relu"}, {}, "activation names '1', which is not in the state dict"),
    (W, {"2": "relu"}, {"final_activation": "relu"}, "say it once"),
    (W, "relu", {"modules": ["Linear"]}, "modules must be a dict of classes by name, got"),
    ({**W, "0.bias": np.full(5, np.nan, "f4")}, "relu", {}, "module '0' has NaN or infinity in its bias"),
    (W, "relu", {"epsilon": -1}, "epsilon must be >= 0, got -1"),
    ("weights.npz", "relu", {}, "weights.npz: a state dict's file ends with .pt, .pth, .bin or .safetensors"),
]


@pytest.mark.parametrize("state, activation, settings, message", REFUSED)
def test_what_is_unknown_or_ambiguous_is_refused_by_name(state, activation, settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        from_state_dict(state, activation, **settings)


def test_files_that_are_no_state_dict(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(
        ValueError, match=r"w.pt: not a state dict's file.*torch.save\(module.state_dict\(\), path\)"
    ):
        from_state_dict(path, "relu")
    path.write_bytes(b"abc")
    with pytest.raises(ValueError, match="w.pt: not a state dict's file, or damaged"):
        from_state_dict(path, "relu")
    for name in ("absent.pt", "absent.safetensors"):
        with pytest.raises(FileNotFoundError):
            from_state_dict(tmp_path / name, "relu")
