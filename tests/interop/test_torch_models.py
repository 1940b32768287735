"""Models converted to PyTorch and from it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from extras import needs

needs("torch")

import torch  # noqa: E402
from nets import check_equal, random_net, samples  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

from minidl.interop.torch import from_torch, to_torch  # noqa: E402
from minidl.layers import (  # noqa: E402
    BatchNormalization,
    Dense,
    GaussianNoise,
    Input,
    LayerNormalization,
    PReLU,
    RandomTranslation,
    ReLU,
    Rescaling,
)
from minidl.losses import SparseCategoricalCrossentropy  # noqa: E402
from minidl.models import Sequential  # noqa: E402
from minidl.optimizers import SGD  # noqa: E402


def run(module, x):
    return module.eval()(torch.from_numpy(x)).detach().numpy()


def settings(model):
    """What the layers are, apart from their names; activations of Dense stand for themselves."""
    found = []
    for layer in model.layers:
        config = {**layer.get_config(), "name": None}
        activation = config.pop("activation", "linear")
        kind = type(layer).__name__
        if kind not in ("Activation", "Softmax"):
            kept = {
                key: config[key]
                for key in config
                if not re.search("_(initializer|regularizer|constraint)$", key)
            }
            found.append((kind, kept))
        if activation not in ("linear", None) or kind == "Softmax":
            found.append(("Activation", activation if kind != "Softmax" else "softmax"))
    return found


@pytest.mark.parametrize("part", range(10))
def test_random_nets_both_ways(part):
    for seed in range(30 * part, 30 * part + 30):
        model = random_net(seed)
        x = samples(model)
        module = to_torch(model)
        check_equal(model.predict(x), run(module, x))
        module.train()
        back = from_torch(module)
        assert module.training and len(back.params) == len(model.params)
        assert np.array_equal(back.params, model.params)
        check_equal(back.predict(x), run(module, x))
        again = to_torch(back)
        assert repr(again) == repr(module)
        learn = [[parameter.requires_grad for parameter in each.parameters()] for each in (module, again)]
        assert learn[0] == learn[1]


def test_the_comparison_sees_small_changes():
    model = Sequential([Input((6,)), Dense(5, "tanh"), Dense(3)], seed=1)
    x, module = samples(model), to_torch(model)
    with torch.no_grad():
        module[2].weight[1, 2] += 2e-5
    with pytest.raises(AssertionError):
        check_equal(model.predict(x), run(module, x))


NETS = {
    "both forms of gelu": [nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 5), nn.GELU("tanh")],
    "nested": [nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.ReLU(), nn.Dropout(0.2))), nn.Linear(5, 2)],
    "relu6": [nn.Linear(4, 9), nn.ReLU6(), nn.Linear(9, 2)],
    "bounded": [nn.Linear(4, 9), nn.Hardtanh(0, 0.5), nn.Threshold(0.1, 0), nn.Linear(9, 2)],
    "no affine": [
        nn.BatchNorm1d(4, affine=False),
        nn.Linear(4, 5),
        nn.LayerNorm(5, elementwise_affine=False),
    ],
    "no bias": [nn.Linear(4, 5, bias=False), nn.LayerNorm(5, bias=False), nn.Identity()],
    "an activation that is used twice": (lambda relu: [nn.Linear(4, 5), relu, nn.Linear(5, 5), relu])(
        nn.ReLU()
    ),
    "softmax": [nn.Linear(4, 5), nn.SiLU(), nn.Softplus(), nn.LeakyReLU(0.3), nn.ELU(0.5), nn.Softmax(dim=1)],
    "prelu": [nn.Linear(4, 5), nn.PReLU(5), nn.Flatten(), nn.Linear(5, 2), nn.Sigmoid(), nn.Tanh()],
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nets_of_pytorch(name, dtype):
    torch.manual_seed(1)
    module = nn.Sequential(*NETS[name]).to(dtype)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean += 0.5
            part.running_var *= 3
    model = from_torch(module)
    assert model.dtype == str(dtype).removeprefix("torch.")
    x = 3 * samples(model)
    check_equal(model.predict(x), run(module, x))
    check_equal(model.predict(x), run(to_torch(model), x))


def test_images_are_flattened():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    for shape in ((3, 4), (2, 2, 3)):
        model = from_torch(module, input_shape=shape)
        x = samples(model)
        check_equal(model.predict(x), run(module, x))
    with pytest.raises(
        ValueError, match=r"module\[1\] has arrays of shapes .*\(12, 3\).* input has shape \(8,\) needs"
    ):
        from_torch(module, input_shape=(2, 4))
    with pytest.raises(ValueError, match=r"module\[0\]: layer dense.* needs input of shape \(B, features\)"):
        from_torch(nn.Sequential(nn.Linear(12, 3)), input_shape=(3, 12))


def test_frozen_layers_stay_frozen_both_ways():
    model = Sequential([Input((6,)), Dense(5, "relu", trainable=False), Dense(3)])
    module = to_torch(model)
    assert [parameter.requires_grad for parameter in module.parameters()] == [False, False, True, True]
    assert [layer.trainable for layer in from_torch(module).layers if layer.parameters] == [False, True]
    module[0].bias.requires_grad_(True)
    with pytest.raises(
        ValueError, match=r"module\[0\] is Linear\(in_features=6, .* with one frozen parameter"
    ):
        from_torch(module)


def test_a_frozen_weight_of_ones_is_none():
    model = Sequential([Input((6,)), BatchNormalization(scale=False), LayerNormalization(center=False)])
    module = to_torch(model)
    assert settings(from_torch(module)) == settings(model)
    with torch.no_grad():
        module[0].weight[2] = 0.5
    with pytest.raises(ValueError, match=r"module\[0\] is BatchNorm1d.* with one frozen parameter"):
        from_torch(module)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Twice(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + super().forward(x)


UNKNOWN = [
    (nn.ELU(-2.0), r"module\[1\] is ELU\(alpha=-2.0\), whose alpha has no counterpart in minidl"),
    (nn.LeakyReLU(-1.0), "whose negative_slope"),
    (nn.Softplus(beta=2.0), "whose beta"),
    (nn.Softplus(threshold=5.0), "whose threshold"),
    (nn.Softmax(dim=0), r"Softmax\(dim=0\), whose dim"),
    (nn.Flatten(0), "whose start_dim"),
    (nn.Hardtanh(), "whose min_val"),
    (nn.Threshold(0.1, 20), "whose value"),
    (nn.Threshold(-1, 0), "whose threshold"),
    (nn.Dropout(1.0), "whose p"),
    (nn.BatchNorm1d(5, momentum=None), "whose momentum"),
    (nn.BatchNorm1d(5, track_running_stats=False), "whose track_running_stats"),
    (nn.LayerNorm((5, 5)), "whose normalized_shape"),
    (nn.PReLU(), "whose num_parameters"),
    (nn.LogSoftmax(1), "no counterpart in minidl. What stands before it are logits, too: leave it out"),
    (nn.RMSNorm(5), "which has no counterpart in minidl"),
    (nn.AlphaDropout(0.5), "AlphaDropout"),
    (nn.Hardswish(), "Hardswish"),
    (nn.Sequential(nn.ReLU(), nn.Conv1d(5, 5, 1)), r"module\[1\]\[1\] is Conv1d"),
    (Doubled(5, 5), "Doubled, a class of your own, which has no counterpart"),
    (Twice(nn.ReLU()), "Twice, a class of your own"),
    (nn.Linear(5, 5).half(), r"float32 or of float64, got float16: weight of module\[1\]"),
    (nn.Linear(5, 5).double(), r"float32 or of float64, got \['float32', 'float64'\]"),
    (nn.utils.parametrizations.weight_norm(nn.Linear(5, 5)), "ParametrizedLinear, a class of your own"),
    (prune.identity(nn.Linear(5, 5), "weight"), "whose weight_mask has no counterpart"),
]


@pytest.mark.parametrize("part, message", UNKNOWN, ids=[type(part).__name__ for part, _ in UNKNOWN])
def test_what_pytorch_has_and_minidl_has_not_is_refused(part, message):
    with pytest.raises(ValueError, match=message):
        from_torch(nn.Sequential(nn.Linear(6, 5), part))


def test_other_modules_are_refused():
    with pytest.raises(TypeError, match=r"(?s)must be a torch.nn.Sequential, got .*Twice.*from_state_dict"):
        from_torch(Twice(nn.Linear(6, 5)))
    with pytest.raises(ValueError, match="must have a part with weights"):
        from_torch(nn.Sequential(nn.ReLU()))
    shared = nn.Linear(5, 5)
    with pytest.raises(ValueError, match=r"module\[1\]\[1\] shares parameters with module\[0\]"):
        from_torch(nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared)))
    # a hook changes the numbers and no name: running both sides sees it
    hooked = nn.Sequential(nn.Linear(6, 5))
    hooked[0].register_forward_hook(lambda module, given, out: out + 1)
    with pytest.raises(ValueError, match="different numbers"):
        from_torch(hooked)


class Shifted(Dense):
    """A Dense of the user's own: its forward is another."""

    def forward(self, x, training=False):
        return super().forward(x, training) + 1


@pytest.mark.parametrize(
    "layer, message",
    [
        (Shifted(3, name="mine"), r"'mine' \(Shifted\) is your own"),
        (GaussianNoise(0.1, name="noise"), r"'noise' \(GaussianNoise\) has no counterpart in PyTorch"),
        (Rescaling(2.0, name="scale"), r"'scale' \(Rescaling\) has no counterpart"),
        (
            ReLU(2.0, 0.1, name="leak"),
            r"'leak' \(ReLU with max_value=2.0, negative_slope=0.1, threshold=0.0\)",
        ),
    ],
)
def test_what_minidl_has_and_pytorch_has_not_is_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        to_torch(Sequential([Input((6,)), layer]))


def test_more_that_is_refused():
    for layer in (BatchNormalization(), PReLU()):
        with pytest.raises(ValueError, match="on samples of several axes has no counterpart"):
            to_torch(Sequential([Input((3, 4)), layer]))
    with pytest.raises(ValueError, match="RandomTranslation"):
        to_torch(Sequential([Input((3, 4)), RandomTranslation(0.1, 0.1)]))
    with pytest.raises(ValueError, match="give the first layer an input_shape"):
        to_torch(Sequential([Dense(3)]))
    with pytest.raises(TypeError, match="model must be a minidl.Sequential, got"):
        to_torch(nn.Linear(2, 2))


def test_layer_normalization_of_several_axes():
    model = Sequential([Input((3, 4)), LayerNormalization()])
    x = samples(model)
    check_equal(model.predict(x), run(to_torch(model), x))
    check_equal(model.predict(x), from_torch(to_torch(model), input_shape=(3, 4)).predict(x))


def test_both_train_alike():
    """The same steps of gradient descent on both sides end with the same weights."""
    model = Sequential([Input((6,)), Dense(8, "gelu_tanh"), Dense(3)], dtype="float64", seed=1)
    module, before = to_torch(model), model.params.copy()
    x = np.random.default_rng(0).normal(size=(16, 6))
    y = np.arange(16) % 3
    model.compile(SGD(0.1), SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=16, epochs=5, shuffle=False, verbose=0)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    trained = from_torch(module).params
    np.testing.assert_allclose(trained, model.params, atol=1e-12)
    assert abs(trained - before).max() > 1e-3
