"""Models written as ONNX files, and ONNX files as teachers."""

# ruff: noqa: E402 (what follows is imported where the packages are there)
from extras import needs

needs("onnx", "onnxruntime")

import numpy as np
import pytest

from minidl.activations import NAMES as ACTIVATIONS
from minidl.interop.onnx import onnx_teacher, to_onnx
from minidl.layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    LeakyReLU,
    RandomTranslation,
    ReLU,
    Rescaling,
    Softmax,
)
from minidl.models import Sequential
from minidl.teachers import cached_logits

rng = np.random.default_rng(3)
X = rng.normal(size=(90, 6)).astype(np.float32)


def student(seed=1):
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dense(3, activation="softmax")], seed=seed)


def onnx_models():
    yield student()
    for activation in ACTIVATIONS:
        yield Sequential(
            [Input((6,)), Dense(5, activation=activation), Dropout(0.3), Dense(3, use_bias=False)]
        )
    yield Sequential([Input((6,)), GaussianNoise(0.1), Dense(5), LeakyReLU(), Dense(3), ReLU(), Softmax()])
    image = [Input((3, 2)), Rescaling(0.5, 1.0), RandomTranslation(0.3, 0.3), Flatten(), Dense(3)]
    yield Sequential([*image, Activation("sigmoid")], dtype="float64")
    for activation in set(ACTIVATIONS) - {"gelu"}:
        layers = [Input((6,)), Dense(5), Activation(activation), LeakyReLU(0.4), Dense(3)]
        yield Sequential(layers, dtype="float64")


@pytest.mark.parametrize("logits", [False, True])
def test_onnx(tmp_path, logits):
    for number, model in enumerate(onnx_models()):
        path = tmp_path / f"{number}.onnx"
        to_onnx(model, path, logits=logits)
        x = X.reshape(90, *model.input_shape).astype(model.dtype)
        expected = model.predict_logits(x) if logits else model.predict(x)
        for rows in (1, 90):
            got = onnx_teacher(path, threads=1)(x[:rows])
            single = model.dtype == np.float32
            assert got.dtype == model.dtype
            np.testing.assert_allclose(
                got, expected[:rows], rtol=1e-4 if single else 1e-12, atol=1e-5 if single else 1e-13
            )
    with pytest.raises(ValueError, match="'mine' .*gelu in float64"):
        layers = [Input((6,)), Dense(3, activation="gelu", name="mine")]
        to_onnx(Sequential(layers, dtype="float64"))
    assert len(list(tmp_path.iterdir())) == number + 1


def test_an_onnx_file_teaches(tmp_path):
    teacher = student(5)
    to_onnx(teacher, tmp_path / "t.onnx", logits=True)
    logits = cached_logits(onnx_teacher(tmp_path / "t.onnx", threads=1), X)
    np.testing.assert_allclose(logits, teacher.predict_logits(X), atol=1e-5)
    to_onnx(teacher, tmp_path / "p.onnx")
    with pytest.raises(ValueError, match="looks like probabilities"):
        cached_logits(onnx_teacher(tmp_path / "p.onnx", threads=1), X)
