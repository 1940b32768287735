"""Models converted to PyTorch and from it, and modules as teachers."""

from __future__ import annotations

import numpy as np
import pytest
from extras import needs

needs("torch")

import torch  # noqa: E402
from torch import nn  # noqa: E402

from minidl.distillation import distill  # noqa: E402
from minidl.interop.torch import from_torch, to_torch, torch_teacher  # noqa: E402
from minidl.layers import BatchNormalization, Dense, Dropout, Input, LayerNormalization, PReLU  # noqa: E402
from minidl.models import Sequential  # noqa: E402
from minidl.teachers import cached_logits  # noqa: E402

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


def student(seed=1):
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dense(3, activation="softmax")], seed=seed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_torch_both_ways(activation, dtype):
    model = Sequential([Input((6,)), Dense(5, activation=activation), Dropout(0.5), Dense(3)], dtype=dtype)

    x = X.astype(dtype)
    module = to_torch(model).eval()
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), model.predict(x), atol=1e-5)
    back = from_torch(module)
    np.testing.assert_array_equal(back.params, model.params)
    np.testing.assert_allclose(back.predict(x), model.predict(x), atol=1e-5)


def test_frozen_layers_stay_frozen_both_ways():
    model = Sequential([Input((6,)), Dense(5, "relu", trainable=False), Dense(3)])
    module = to_torch(model)
    assert [parameter.requires_grad for parameter in module.parameters()] == [False, False, True, True]
    assert [layer.trainable for layer in from_torch(module).layers if layer.parameters] == [
        False,
        True,
    ]
    module[0].bias.requires_grad_(True)
    with pytest.raises(ValueError, match=r"Linear\(in_features=6, .* with one frozen parameter"):
        from_torch(module)


def test_a_torch_module_teaches():
    module = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 3))
    module.train()
    before = [p.detach().clone() for p in module.parameters()]
    teacher = torch_teacher(module)
    np.testing.assert_array_equal(cached_logits(teacher, X), cached_logits(teacher, X), "dropout is off")
    distill(teacher, student(), X, Y, epochs=2, verbose=0)
    assert module.training and all(
        torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)
    )
    with pytest.raises(TypeError, match="PyTorch module"):
        distill(module, student(), X, Y, epochs=1, verbose=0)
    with pytest.raises(TypeError, match="must be a torch.nn.Module"):
        torch_teacher(student())
    for wrong in (torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)), torch.nn.Sequential(torch.nn.ReLU())):
        with pytest.raises(ValueError, match="module"):
            from_torch(wrong)


def test_settings_that_torch_knows_and_minidl_does_not_are_refused_by_name():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    class Twice(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + super().forward(x)

    def convert(*parts):
        return from_torch(nn.Sequential(nn.Linear(6, 5), *parts))

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
        from_torch(Twice(nn.Linear(6, 5)))
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
        from_torch(hooked)


def test_a_module_is_put_back_into_the_mode_of_each_part():
    module = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)).train()
    module[1].eval()  # a frozen part, as in fine-tuning
    torch_teacher(module)(X)
    assert [part.training for part in module.modules()] == [True, True, False, True]


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
def test_to_torch_and_back(dtype, settings):
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


def test_what_torch_has_and_minidl_has_not_is_refused():
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


class Shifted(Dense):
    """A Dense of the user's own: its forward is another."""

    def forward(self, x, training=False):
        return super().forward(x, training) + 1


def test_a_layer_with_another_forward_is_not_exported_as_its_base_class():
    with pytest.raises(ValueError, match=r"'shifted\w*' \(Shifted\) is your own"):
        to_torch(Sequential([Input((6,)), Shifted(3)]))
    with pytest.raises(ValueError, match="give the first layer an input_shape"):
        to_torch(Sequential([Dense(3)]))
