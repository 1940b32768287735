"""int8 weights in C files: how far they are from the model's, how far outputs can be, and what is told of both."""

import re

import numpy as np
import pytest
from c_nets import call, gcc, load

from minidl.interop.c import export, exporting, source
from minidl.layers import Dense, Input
from minidl.models import Sequential

__all__ = ["gcc"]  # the fixture
rng = np.random.default_rng(1)


def net(*layers, inputs=6) -> Sequential:
    return Sequential([Input((inputs,)), *layers], name="student", seed=1)


def test_each_int8_weight_is_within_half_a_scale():
    for dtype in ("float32", "float64"):
        weight = (rng.normal(size=(50, 30)) * 10.0 ** rng.integers(-30, 30, 30)).astype(dtype)
        weight[:, 0] = 0
        weight[:, 1] = np.finfo(dtype).smallest_subnormal
        q, scale = source.quantized(weight)
        assert q.dtype == np.int8 and q.min() >= -127 and scale.dtype == dtype and scale.shape == (30,)
        off = np.abs(weight - q * scale.astype(np.float64))
        assert (off <= scale / 2 * (1 + 4 * np.finfo(dtype).eps)).all()
        assert (np.abs(q).max(axis=0)[2:] == 127).all()
        q[3, 4] += 1 if q[3, 4] < 127 else -1
        assert (np.abs(weight - q * scale.astype(np.float64)) > scale / 2).any(), "another step is further"


def bound(model: Sequential, x: np.ndarray) -> np.ndarray:
    """How far int8 weights can move the outputs of Dense layers whose activations move by no more than their inputs.

    An output moves by sum |a| scale / 2, for each weight moves by scale / 2 at most, and by what a has moved times
    the weights that the C file has. Softmax moves by half of the largest move of a logit at most.
    """
    a, moved = x.astype(np.float64), np.zeros_like(x, np.float64)
    for layer in model.layers:
        q, scale = source.quantized(layer.weight)
        moved = moved @ np.abs(q * scale.astype(np.float64)) + np.abs(a).sum(axis=1)[:, None] * scale / 2
        a = layer.forward(a.astype(model.dtype)).astype(np.float64)
        if layer.activation == "softmax":
            moved = np.broadcast_to(moved.max(axis=1, keepdims=True) / 2, a.shape)
    return moved + 1e-6 * np.maximum(1, np.abs(a))


@pytest.mark.parametrize("activation", ["relu", "tanh", "leaky_relu", "softplus", "elu", "sigmoid", "linear"])
def test_int8_outputs_are_within_the_bound(activation, gcc, tmp_path):
    x = rng.normal(size=(40, 20)).astype(np.float32)
    for last in ("linear", "softmax"):
        model = net(Dense(30, activation), Dense(20, activation), Dense(4, last), inputs=20)
        text = source.c_source(model, f"net_{last}", quantize=True).text
        found = call(load(gcc, tmp_path, {last: text}), f"net_{last}", x, (4,))
        off = np.abs(found - model.predict(x))
        assert (off <= bound(model, x)).all() and off.max() > 1e-4
    model = net(Dense(4), inputs=20)
    head, first, rest = re.split(
        r"(student_weight_0\[20\]\[4\] = \{\n\{)", source.c_source(model, "student", True).text
    )
    wrong = (
        f"{head}{first}{re.sub('^[^,]+', '-128', rest) if model.layers[0].weight[0, 0] > 0 else '127' + rest}"
    )
    x[:, 0] = 3
    off = np.abs(call(load(gcc, tmp_path, {"wrong": wrong}), "student", x, (4,)) - model.predict(x))
    assert (off > bound(model, x)).any()


def test_what_int8_saves_and_costs_is_told(tmp_path, capsys):
    x, y = rng.normal(size=(200, 6)), rng.integers(0, 3, 200)
    model = net(Dense(64, "relu"), Dense(3, "softmax"))
    before = model.params.copy()
    whole = export(model, tmp_path / "a.c", verify=False)
    assert whole.lost == {} and capsys.readouterr().out == ""
    told = export(model, tmp_path / "a.c", quantize=True, verify=False)
    assert told.constants == (6 * 64 + 64 * 3) + 2 * 4 * (64 + 3) < whole.constants == model.params.nbytes
    assert set(told.lost) == {"largest_difference", "agreement"}
    shown = capsys.readouterr().out
    assert shown == f"{told}\n" and "on 1,000 random samples, as no data were given" in shown
    assert (
        f"{told.constants:,} bytes of constants" in shown and "float32 parameters take 2,572 bytes" in shown
    )
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    told = export(model, tmp_path / "a.c", quantize=True, data=(x, y), verify=False)
    rounded = exporting._rounded(model)
    assert told.lost["agreement"] == (model.predict(x).argmax(1) == rounded.predict(x).argmax(1)).mean()
    assert told.lost["largest_difference"] == np.abs(model.predict(x) - rounded.predict(x)).max() > 0
    losses, accuracies = zip(*(each.evaluate(x, y, verbose=0) for each in (model, rounded)), strict=True)
    assert told.lost["loss"] == losses[1] - losses[0] and told.lost["accuracy"] == np.subtract(
        *accuracies[::-1]
    )
    assert "on 200 samples: " in str(
        told
    ) and f"accuracy {accuracies[0]:.4f} becomes {accuracies[1]:.4f}" in str(told)
    np.testing.assert_array_equal(model.params, before)
    sparse = pytest.importorskip("scipy.sparse")
    again = export(model, tmp_path / "a.c", quantize=True, data=(sparse.csr_array(x), y), verify=False)
    assert again.lost == told.lost
    regression = export(net(Dense(4, "relu"), Dense(1)), tmp_path / "a.c", True, data=x, verify=False)
    assert set(regression.lost) == {"largest_difference"}
    binary = export(net(Dense(2, "sigmoid")), tmp_path / "a.c", True, data=x, verify=False)
    assert set(binary.lost) == {"largest_difference", "agreement"}
