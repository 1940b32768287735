"""Models written as ONNX files: what is in them, that each was run before it is kept, and what is refused."""

# ruff: noqa: E402 (what follows is imported where the packages are there)
from extras import needs

needs("onnx", "onnxruntime")

import json
import os
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import minidl
from minidl.activations import NAMES
from minidl.interop.onnx import export, exporting, load, to_onnx
from minidl.layers import (
    ELU,
    LAYERS,
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    LayerNormalization,
    LeakyReLU,
    Normalization,
    PReLU,
    RandomTranslation,
    ReLU,
    Rescaling,
    Softmax,
)
from minidl.models import Sequential

X = np.random.default_rng(3).normal(size=(90, 6)).astype(np.float32)
DTYPES = "float32", "float64"


def student(seed=1, **settings):
    layers = [Input((6,)), Dense(8, "relu"), Dense(3, "softmax")]
    return Sequential(layers, seed=seed, **settings)


def run(path, x):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]


def assert_runs(model, path, logits=False):
    """The file gives the model's numbers for any number of rows."""
    x = X.reshape(-1, *model.input_shape).astype(model.dtype)
    expected = model.predict_logits(x) if logits else model.predict(x, verbose=0)
    tolerance = 2e-6 if model.dtype == np.float32 else 1e-12
    for rows in (1, 7, len(x)):
        got = run(path, x[:rows])
        assert got.dtype == model.dtype
        np.testing.assert_allclose(
            got, expected[:rows], rtol=0, atol=tolerance * max(1, np.abs(expected).max())
        )


EVERY_LAYER = {
    "Activation": lambda: [Dense(5), Activation("tanh")],
    "BatchNormalization": lambda: [Dense(5), BatchNormalization(scale=False, moving_mean_initializer="ones")],
    "Dense": lambda: [Dense(5, use_bias=False), Dense(4)],
    "Dropout": lambda: [Dense(5), Dropout(0.5)],
    "ELU": lambda: [Dense(5), ELU(0.3)],
    "Flatten": lambda: [Flatten()],
    "GaussianNoise": lambda: [Dense(5), GaussianNoise(0.5)],
    "LayerNormalization": lambda: [Dense(5), LayerNormalization(center=False)],
    "LeakyReLU": lambda: [Dense(5), LeakyReLU(0.4)],
    "Normalization": lambda: [Normalization(mean=X.mean(axis=0) + 3, variance=X.var(axis=0))],
    "PReLU": lambda: [Dense(5), PReLU("ones"), PReLU("random_normal")],
    "RandomTranslation": lambda: [Input((3, 2)), RandomTranslation(0.5, 0.5)],
    "ReLU": lambda: [Dense(5), ReLU(), ReLU(6.0), ReLU(1.0, 0.2, 0.3), ReLU(None, 0.0, 0.1)],
    "Rescaling": lambda: [Rescaling(3.0, -1.0), Rescaling([1, 2, 3, 4, 5, -6.0])],
    "Softmax": lambda: [Dense(5), Softmax()],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", EVERY_LAYER)
def test_every_layer(kind, dtype, tmp_path):
    layers = EVERY_LAYER[kind]()
    shape = [] if isinstance(layers[0], Input) else [Input((6,))]
    model = Sequential([*shape, *layers], dtype=dtype, seed=1)
    for opset in (13, 17, 20):
        export(model, tmp_path / "model.onnx", opset=opset)
        assert_runs(model, tmp_path / "model.onnx")


def test_there_is_a_case_for_every_layer():
    assert EVERY_LAYER.keys() == LAYERS.classes.keys()


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_activation(name, dtype, logits, tmp_path):
    model = Sequential([Input((6,)), Dense(5, name), Dense(4), Activation(name)], dtype=dtype, seed=1)
    if (name, dtype) == ("gelu", "float64"):
        with pytest.raises(ValueError, match=r"'dense\w*' \(gelu\) has no form in opset 17 in float64"):
            export(model, tmp_path / "model.onnx")
        assert list(tmp_path.iterdir()) == []
        return
    for opset in (13, 20):
        export(model, tmp_path / "model.onnx", opset=opset, logits=logits)
        assert_runs(model, tmp_path / "model.onnx", logits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_of_several_axes(dtype, tmp_path):
    numbers = {"mean": [1.0, -2.0], "variance": [0.5, 4.0]}
    layers = [
        Input((3, 2)),
        Normalization(**numbers),
        BatchNormalization(),
        PReLU("ones"),
        LayerNormalization(),
    ]
    layers[2].moving_mean_initializer = minidl.initializers.get("ones")
    model = Sequential([*layers, Softmax(), Flatten(), Dense(3, "sigmoid")], dtype=dtype, seed=1)
    export(model, tmp_path / "model.onnx")
    assert_runs(model, tmp_path / "model.onnx")


def test_a_trained_model_with_normalisation(tmp_path):
    layers = [Dense(8, "relu"), BatchNormalization(), Dropout(0.2), Dense(5, "gelu"), LayerNormalization()]
    model = Sequential([Input((6,)), *layers, Dense(3, "softmax")], seed=1)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, X[:, :3].argmax(axis=1), epochs=20, verbose=0)
    before = model.params.copy()
    export(model, tmp_path / "model.onnx")
    assert np.array_equal(before, model.params)
    assert_runs(model, tmp_path / "model.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert {"BatchNormalization", "LayerNormalization", "Softmax"} <= kinds and "Dropout" not in kinds
    model.fit(X, X[:, :3].argmax(axis=1), epochs=21, initial_epoch=20, verbose=0)  # it can go on


# ---- the file


@pytest.mark.parametrize(
    "opset, ir_version", [(13, 7), (14, 7), (15, 8), (17, 8), (18, 8), (19, 9), (21, 10)]
)
def test_the_ir_version_is_the_lowest_that_knows_the_opset(opset, ir_version, tmp_path):
    export(student(), tmp_path / "model.onnx", opset=opset)
    proto = onnx.load(tmp_path / "model.onnx")
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", opset)]
    assert proto.ir_version == ir_version


def test_what_is_said_of_the_model(tmp_path):
    names = ["cat", "dog", "émeu"]
    export(student(name="pets"), tmp_path / "model.onnx", class_names=names)
    proto = onnx.load(tmp_path / "model.onnx")
    assert (proto.producer_name, proto.producer_version) == ("minidl", minidl.__version__)
    assert proto.graph.name == "pets"
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == names
    assert [(each.name, each.shape) for each in session.get_inputs()] == [("x", ["batch", 6])]
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("y", ["batch", 3])]
    export(Sequential([Input((6,)), Dense(1, "sigmoid")]), tmp_path / "one.onnx", class_names=["no", "yes"])


def test_to_onnx_is_export_at_its_defaults(tmp_path):
    model = student()
    proto = to_onnx(model, tmp_path / "a.onnx")
    export(model, tmp_path / "b.onnx")
    written = [(tmp_path / name).read_bytes() for name in ("a.onnx", "b.onnx")]
    assert proto.SerializeToString() == written[0] == written[1] == to_onnx(model).SerializeToString()
    assert [node.op_type for node in to_onnx(model, logits=True).graph.node][-2:] == ["Add", "Identity"]


# ---- nothing is kept that was not run and found to be the same


def changed(kind, name, change):
    """`exporting._parts` with one setting changed."""

    def parts(layer, is_left_out):
        for found, settings in PARTS(layer, is_left_out):
            if found == kind:
                found, settings = (
                    (name, settings)
                    if change is None
                    else (found, {**settings, name: change(settings[name])})
                )
            yield found, settings

    return parts


PARTS = exporting._parts


def one_weight(weight):
    weight = weight.copy()
    weight[1, 1] *= 1.001
    return weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "fault",
    [
        changed("dense", "weight", one_weight),
        changed("dense", "bias", lambda bias: bias + 1e-4 * np.arange(len(bias))),
        changed("silu", "gelu_tanh", None),
        changed("elu", "alpha", lambda alpha: alpha * 1.0001),
        changed("tanh", "sigmoid", None),
        changed("leaky_relu", "alpha", lambda alpha: alpha + 1e-3),
        changed("layer_normalization", "epsilon", lambda epsilon: 1e-5),
        changed("layer_normalization", "gamma", lambda gamma: gamma[::-1].copy() * 2),
        changed("clipped_relu", "high", lambda high: 6.01),
        changed("softmax", "sigmoid", None),
    ],
)
def test_a_fault_is_found_and_the_old_file_stays(fault, dtype, tmp_path, monkeypatch):
    layers = [
        Dense(9, "silu"),
        Dense(9, "tanh"),
        LayerNormalization(),
        Dense(8, "elu"),
        Dense(8),
        LeakyReLU(),
    ]
    layers += [Dense(8), Rescaling(5.0), ReLU(6.0), Dense(3, "softmax")]
    model = Sequential([Input((6,)), *layers], dtype=dtype, seed=1)
    path = tmp_path / "model.onnx"
    export(model, path)
    before = path.read_bytes()
    monkeypatch.setattr(exporting, "_parts", fault)
    with pytest.raises(ValueError, match="different numbers for the same x"):
        export(model, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["model.onnx"]


def test_a_wrong_epsilon_of_batch_normalisation_is_found(tmp_path, monkeypatch):
    model = Sequential([Input((6,)), Dense(9), BatchNormalization(), Dense(3)], seed=1)
    monkeypatch.setattr(exporting, "_parts", changed("batch_normalization", "epsilon", lambda epsilon: 1e-5))
    with pytest.raises(ValueError, match="different numbers for the same x"):
        export(model, tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == []


# ---- what is refused


class Shifted(Dense):
    """A Dense of the user's own: its forward is another."""

    def forward(self, x, training=False):
        return super().forward(x, training) + 1


class Halved(Sequential):
    """A model of the user's own."""

    def forward(self, x, training=False, logits=False):
        return super().forward(x, training, logits) / 2


@pytest.mark.parametrize(
    "model, settings, error, message",
    [
        (
            lambda: Sequential([Input((6,)), Shifted(3, name="mine")]),
            {},
            ValueError,
            r"'mine' \(Shifted\) is your own",
        ),
        (lambda: Halved([Input((6,)), Dense(3)]), {}, ValueError, r"\(Halved\) has a forward of your own"),
        (lambda: Sequential([Dense(3)]), {}, ValueError, "give the first layer an input_shape"),
        (
            lambda: Sequential([Input((6,)), Normalization(name="n"), Dense(3)]),
            {},
            ValueError,
            "layer n has no mean",
        ),
        (lambda: "student.npz", {}, TypeError, "model must be a Sequential, got"),
        (student, {"opset": 12}, ValueError, "opset must be .*13.*, got 12"),
        (student, {"opset": 1000}, ValueError, "opset must be .*, got 1000"),
        (student, {"opset": 17.5}, TypeError, "opset must be an integer"),
        (student, {"logits": "yes"}, TypeError, "logits must be True or False"),
        (
            student,
            {"class_names": ["a", "b"]},
            ValueError,
            "class_names must be one for each of 3 outputs, got 2",
        ),
        (student, {"class_names": ["a", "b", "a"]}, ValueError, "class_names must differ, got"),
        (student, {"class_names": "abc"}, TypeError, "class_names must be a list of strings"),
        (student, {"class_names": [1, 2, 3]}, TypeError, "class_names must be a list of strings"),
    ],
)
def test_what_is_refused_leaves_nothing(model, settings, error, message, tmp_path):
    with pytest.raises(error, match=message):
        export(model(), tmp_path / "model.onnx", **settings)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["absent/model.onnx", "."])
def test_a_path_that_cannot_be_written(path, tmp_path):
    with pytest.raises(OSError, match="cannot save"):
        export(student(), tmp_path / path)
    assert os.listdir(tmp_path) == []
    for wrong in (None, 3, ""):
        with pytest.raises((TypeError, ValueError), match="path must"):
            export(student(), wrong)


# ---- the page


def test_the_listings_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text(encoding="utf-8")
    listings = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(listings) >= 4
    names: dict = {}
    for listing in listings:
        exec(compile(listing, "docs/onnx.md", "exec"), names)
    assert isinstance(load("student.onnx"), Sequential)
    assert "labels" in names
