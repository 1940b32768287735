"""What all bridges to other libraries share: how a conversion is compared, and what is refused by name."""

import sys

import numpy as np
import pytest

from minidl.interop import activation_of, check_same, refuse_own_parts
from minidl.interop.onnx import export, load, onnx_teacher, to_onnx
from minidl.layers import (
    BatchNormalization,
    Dense,
    Flatten,
    Input,
    LayerNormalization,
    Normalization,
    Rescaling,
)
from minidl.models import Sequential


def student(seed=1, dtype="float32", end="softmax"):
    return Sequential([Input((6,)), Dense(8, "relu"), Dense(3, end)], seed=seed, dtype=dtype)


def test_a_conversion_with_other_numbers_is_refused():
    model = student()
    check_same(model, lambda x: model.predict(x, verbose=0))
    check_same(model, model.predict_logits, logits=True)
    for wrong, what in (
        (model.predict_logits, "where rounding explains"),
        (lambda x: model.predict(x, verbose=0)[:, :2], r"shape \(64, 3\) and \(64, 2\)"),
        (lambda x: model.predict(x, verbose=0) + 0.01, "where rounding explains"),
        (lambda x: np.nan * x[:, :3], "and nan, where"),
    ):
        with pytest.raises(ValueError, match=f"different numbers for the same x.*{what}"):
            check_same(model, wrong)


@pytest.mark.parametrize("dtype, smallest", [("float32", 1e-4), ("float64", 1e-7)])
@pytest.mark.parametrize("end", [None, "softmax", "sigmoid"])
def test_one_weight_that_is_a_little_off_is_seen(dtype, smallest, end):
    model, other = student(dtype=dtype, end=end), student(dtype=dtype, end=end)
    check_same(model, lambda x: other.predict(x, verbose=0))
    for layer in other.layers:
        before = layer.weight[2, 1]
        layer.weight[2, 1] *= 1 + smallest
        with pytest.raises(ValueError, match="different numbers"):
            check_same(model, lambda x: other.predict(x, verbose=0))
        layer.weight[2, 1] = before


def test_outputs_of_any_size_are_compared_by_their_size():
    """A house price beside an interest rate: what is 1e-3 of the smaller one is nothing to the larger."""
    model = Sequential([Input((4,)), Dense(2), Rescaling([1e6, 1e-6], 0)], seed=1)
    check_same(model, lambda x: model.predict(x, verbose=0))
    for scale in ([1 + 1e-5, 1], [1, 1 + 1e-5]):
        with pytest.raises(ValueError, match="different numbers"):
            check_same(model, lambda x, scale=scale: model.predict(x, verbose=0) * np.float32(scale))


@pytest.mark.parametrize(
    "first",
    [
        Normalization(mean=np.full(6, 1e4), variance=np.full(6, 4.0)),
        Rescaling(1 / 255, -0.5),
        BatchNormalization(moving_mean_initializer="ones"),
    ],
)
def test_samples_are_spread_as_the_first_layer_expects(first):
    """Samples of another size would hide the weights behind it."""
    model = Sequential([Input((2, 3)), Flatten(), first, Dense(8, "tanh"), Dense(2)], seed=1)
    if isinstance(first, BatchNormalization):
        first.moving_mean[...], first.moving_variance[...] = 1e3, 9.0
    other = Sequential.from_config(model.get_config())
    other.set_weights(model.get_weights())
    check_same(model, lambda x: other.predict(x, verbose=0))
    other.layers[2].weight[0, 0] += 1e-3
    with pytest.raises(ValueError, match="different numbers"):
        check_same(model, lambda x: other.predict(x, verbose=0))


def test_a_net_that_makes_much_of_rounding_is_still_compared():
    """Rows that are all but constant are divided by next to nothing: float32 has few digits left."""
    layers = [Input((6,)), Dense(8, "sigmoid"), LayerNormalization(epsilon=1e-12), Dense(3)]
    model = Sequential(layers, seed=1)
    model.layers[0].weight[...] *= 1e-3
    exact = Sequential.from_config({**model.get_config(), "dtype": "float64"})
    exact.set_weights(model.get_weights())
    check_same(model, lambda x: exact.predict(x, verbose=0))
    exact.layers[-1].weight[...] *= 1.5
    with pytest.raises(ValueError, match="different numbers"):
        check_same(model, lambda x: exact.predict(x, verbose=0))


def test_a_model_that_gives_nan_cannot_be_compared():
    model = student()
    model.layers[0].weight[0, 0] = np.nan
    with pytest.raises(ValueError, match="gives NaN or infinity"):
        check_same(model, lambda x: model.predict(x, verbose=0))


class Shifted(Dense):
    """A Dense of the user's own: its forward is another."""

    def forward(self, x, training=False):
        return super().forward(x, training) + 1


class Halved(Sequential):
    """A model of the user's own."""

    def forward(self, x, training=False, logits=False):
        return super().forward(x, training, logits) / 2


def test_parts_of_the_users_own_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'mine' \(Shifted\) is your own and has no ONNX form"):
        refuse_own_parts(Sequential([Input((6,)), Shifted(3, name="mine")]), "ONNX")
    with pytest.raises(ValueError, match=r"'mine' \(Shifted\) is your own and has no ONNX form"):
        activation_of(Shifted(3, name="mine"), "ONNX")
    with pytest.raises(ValueError, match=r"model 'half' \(Halved\) has a forward of your own"):
        refuse_own_parts(Halved([Input((6,)), Dense(3)], name="half"), "ONNX")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_packages_nothing_is_kept(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / "model.onnx"
    for use in (lambda: export(student(), path), lambda: to_onnx(student(), path), lambda: load(path)):
        with pytest.raises(ImportError, match=r'pip install "minidl\[onnx\]"'):
            use()
    with pytest.raises((ImportError, FileNotFoundError)):
        onnx_teacher(path)
    assert list(tmp_path.iterdir()) == []
