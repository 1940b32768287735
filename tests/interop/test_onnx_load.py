"""ONNX files as models: of minidl's own, of other libraries' exporters, and written node by node."""

# ruff: noqa: E402 (what follows is imported where the packages are there)
from extras import needs

needs("onnx", "onnxruntime")

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from minidl import models
from minidl.interop.onnx import export, load, loading, onnx_teacher
from minidl.layers import (
    BatchNormalization,
    Dense,
    Dropout,
    Input,
    LayerNormalization,
    Normalization,
    Rescaling,
)
from minidl.models import Sequential
from minidl.teachers import cached_logits

FILES = Path(__file__).with_name("onnx_files")
RNG = np.random.default_rng(0)
W, V, B = RNG.normal(size=(6, 4)), RNG.normal(size=(4, 6)), RNG.normal(size=4)


def described(model):
    return " ".join(
        f"{type(layer).__name__}({layer.activation})"
        if hasattr(layer, "activation")
        else type(layer).__name__
        for layer in model.layers
    )


def run(source, x, output=None):
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return session.run(output and [output], {session.get_inputs()[0].name: x})[0]


# ---- files of other libraries


@pytest.mark.parametrize(
    "name, output, layers",
    [
        ("keras_image", None, "Rescaling Flatten Dense(leaky_relu)"),
        ("keras_normalised", None, "Dense(relu) Rescaling Dense(softmax)"),
        ("sklearn_classifier", "probabilities", "Normalization Dense(relu) Dense(relu) Dense(softmax)"),
        ("sklearn_regressor", None, "Rescaling Dense(relu) Dense(linear)"),
        ("torch_image_17", None, "Flatten Dense(relu)"),
        ("torch_image_20", None, "Flatten Dense(relu)"),
        (
            "torch_normalised_13",  # layer normalisation in nine nodes, and a fixed batch size
            None,
            "Dense(linear) BatchNormalization LeakyReLU(leaky_relu) Dense(linear) LayerNormalization Activation(silu) "
            "Dense(softmax)",
        ),
        (
            "torch_normalised_20",  # the batch normalisation is folded into the Gemm before it
            None,
            "Dense(linear) LeakyReLU(leaky_relu) Dense(linear) LayerNormalization Activation(silu) Dense(softmax)",
        ),
        *(
            (
                f"torch_curves_{opset}",
                None,
                "Dense(gelu) Dense(linear) ELU(elu) Dense(softplus) Dense(linear) PReLU Dense(linear) "
                "LeakyReLU(leaky_relu) Dense(linear) ReLU(relu) Dense(gelu_tanh) Activation(sigmoid) Activation(tanh)",
            )
            for opset in (17, 20)
        ),
    ],
)
def test_files_of_other_libraries(name, output, layers):
    model = load(FILES / f"{name}.onnx", output)
    assert described(model) == layers
    x = np.random.default_rng(1).normal(size=(2, *model.input_shape)).astype(model.dtype)
    np.testing.assert_allclose(model.predict(x), run(FILES / f"{name}.onnx", x, output), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "name, output, message",
    [
        (
            "torch_residual_17",
            None,
            r"node '/Add' \(Add\) has no counterpart in minidl: it does not end a known layer",
        ),
        ("torch_residual_20", None, r"\(Add\) has no counterpart"),
        ("torch_convolution_20", None, r"node 'node_conv1d' \(Conv\) has no counterpart in minidl"),
        ("sklearn_logistic", "probabilities", r"\(ai.onnx.ml.LinearClassifier\) has no counterpart"),
        ("sklearn_classifier", "label", r"\(ArgMax\) has no counterpart"),
        (
            "sklearn_classifier",
            None,
            r"output must name one of its outputs, \['label', 'probabilities'\], got None",
        ),
        ("sklearn_classifier", "classes", r"output must name one of its outputs, .*, got 'classes'"),
    ],
)
def test_what_is_no_chain_is_refused_before_anything_is_built(name, output, message, monkeypatch):
    monkeypatch.setattr(loading, "Sequential", None)
    with pytest.raises(ValueError, match=message) as caught:
        load(FILES / f"{name}.onnx", output)
    assert f"{name}.onnx: " in str(caught.value)


# ---- files written node by node


def graph(*nodes, dtype="float32", opset=17, shape=(None, 6), as_constants=False, domain=(), **constants):
    """A file's bytes: each node is (type, inputs, attributes), on the output of the one before, which is "_"."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made, value, tensors = [], "x", []
    for name, array in constants.items():
        array = np.asarray(array)
        tensors.append(
            numpy_helper.from_array(array.astype(dtype) if array.dtype.kind == "f" else array, name)
        )
    if as_constants:
        made = [helper.make_node("Constant", [], [each.name], value=each) for each in tensors]
        tensors = []
    for number, (op, inputs, attributes) in enumerate(nodes):
        inputs = [value if each == "_" else each for each in inputs.split()]
        made.append(helper.make_node(op, inputs, [f"v{number}"], name=f"n{number}", **attributes))
        value = f"v{number}"
    given, gives = (
        helper.make_tensor_value_info(name, kind, size)
        for name, size in (("x", shape), (value, [None, None]))
    )
    body = helper.make_graph(made, "g", [given], [gives], tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*each) for each in domain)]
    return helper.make_model(body, opset_imports=opsets, ir_version=8).SerializeToString()


CHAINS = {
    "Gemm": ([("Gemm", "_ W B", {})], {"W": W, "B": B}, "Dense(linear)"),
    "Gemm turned": ([("Gemm", "_ W B", {"transB": 1})], {"W": W.T, "B": B}, "Dense(linear)"),
    "Gemm scaled": (
        [("Gemm", "_ W B", {"alpha": 0.5, "beta": -2.0})],
        {"W": W, "B": B[None]},
        "Dense(linear)",
    ),
    "Gemm of one bias": ([("Gemm", "_ W B", {"beta": 3.0})], {"W": W, "B": 0.5}, "Dense(linear)"),
    "Gemm, then Add": (
        [("Gemm", "_ W", {"beta": 2.0}), ("Add", "B _", {})],
        {"W": W, "B": B},
        "Dense(linear)",
    ),
    "MatMul": ([("MatMul", "_ W", {})], {"W": W}, "Dense(linear)"),
    "Transpose of a constant": (
        [("Transpose", "W", {}), ("MatMul", "x _", {}), ("Add", "_ B", {}), ("Relu", "_", {})],
        {"W": W.T, "B": B},
        "Dense(relu)",
    ),
    "Clip": ([("Clip", "_ low high", {})], {"low": 0.0, "high": 1.5}, "ReLU(relu)"),
    "Clip from 0": ([("Clip", "_ low", {})], {"low": 0.0}, "Activation(relu)"),
    "Min of Relu": ([("Relu", "_", {}), ("Min", "high _", {})], {"high": 6.0}, "ReLU(relu)"),
    "LeakyRelu": ([("LeakyRelu", "_", {})], {}, "LeakyReLU(leaky_relu)"),
    "negative slope": ([("LeakyRelu", "_", {"alpha": -0.3})], {}, "PReLU"),
    "PRelu of one": ([("PRelu", "_ a", {})], {"a": [0.3]}, "LeakyReLU(leaky_relu)"),
    "PRelu": ([("PRelu", "_ a", {})], {"a": W[:, 0]}, "PReLU"),
    "silu": ([("Sigmoid", "_", {}), ("Mul", "_ x", {})], {}, "Activation(silu)"),
    "Softmax": ([("Softmax", "_", {"axis": 1})], {}, "Activation(softmax)"),
    "LayerNormalization": (
        [("LayerNormalization", "_ g b", {"axis": 1})],
        {"g": W[:, 0], "b": W[:, 1]},
        "LayerNormalization",
    ),
    "BatchNormalization": (
        [("BatchNormalization", "_ g b m v", {"epsilon": 0.01})],
        {"g": W[:, 0], "b": W[:, 1], "m": W[:, 2], "v": W[:, 3] ** 2},
        "BatchNormalization",
    ),
    "standardised": (
        [("Sub", "_ m", {}), ("Div", "_ s", {})],
        {"m": W[:, 0], "s": W[:, 1] ** 2 + 1},
        "Normalization",
    ),
    "standardised, shifted": (
        [("Sub", "_ m", {}), ("Mul", "_ s", {}), ("Add", "o _", {})],
        {"m": W[:, 0], "s": W[:, 1] ** 2, "o": 0.5},
        "Normalization Rescaling",
    ),
    "turned over": (
        [("Sub", "_ m", {}), ("Mul", "_ s", {})],
        {"m": W[:, 0], "s": -1.5},
        "Rescaling Rescaling",
    ),
    "scaled": ([("Mul", "s _", {}), ("Sub", "_ o", {})], {"s": 1 / 255, "o": [[0.5]]}, "Rescaling"),
    "shifted": ([("Add", "_ o", {})], {"o": W[:, 0]}, "Rescaling"),
    "scaled twice": ([("Mul", "_ s", {}), ("Div", "_ s", {})], {"s": 3.0}, "Rescaling Rescaling"),
    "Dropout": (
        [("Dropout", "_ r t", {}), ("Identity", "_", {}), ("Tanh", "_", {})],
        {"r": 0.25, "t": np.array(False)},
        "Dropout Activation(tanh)",
    ),
    "Reshape": ([("Reshape", "_ s", {}), ("Relu", "_", {})], {"s": np.array([-1, 6])}, "Activation(relu)"),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("as_constants", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_chains(name, as_constants, dtype):
    nodes, constants, layers = CHAINS[name]
    source = graph(*nodes, dtype=dtype, as_constants=as_constants, **constants)
    model = load(source)
    assert described(model) == layers and model.dtype == dtype
    x = np.random.default_rng(1).normal(size=(5, 6)).astype(dtype)
    tolerance = 2e-6 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(model.predict(x), run(source, x), rtol=tolerance, atol=tolerance)


def test_settings_that_do_not_change_predictions_are_kept():
    source = graph(
        ("BatchNormalization", "_ g b b g", {"epsilon": 0.001, "momentum": 0.75}),
        ("Dropout", "_ r", {}),
        ("Clip", "_ low high", {}),
        g=np.ones(6), b=np.zeros(6), r=0.3, low=0.0, high=6.0,
    )  # fmt: skip
    normalization, dropout, relu = load(source).layers
    assert (normalization.epsilon, normalization.momentum, dropout.rate, relu.max_value) == (
        0.001,
        0.75,
        0.3,
        6.0,
    )


def test_a_loaded_model_is_a_model_like_any_other(tmp_path):
    layers = [Normalization(mean=3.0, variance=2.0), Dense(8, "relu"), BatchNormalization(), Dropout(0.1)]
    model = Sequential([Input((6,)), *layers, LayerNormalization(), Dense(3, "softmax")], seed=1)
    export(model, tmp_path / "model.onnx")
    loaded = load(tmp_path / "model.onnx")
    assert loaded.final_activation == "softmax" and loaded.count_params() == model.count_params()
    x, y = RNG.normal(size=(60, 6)), RNG.integers(0, 3, 60)
    loaded.compile("adam", "sparse_categorical_crossentropy")
    loaded.fit(x, y, epochs=2, verbose=0)
    loaded.save(tmp_path / "model.npz")
    assert np.array_equal(models.load_model(tmp_path / "model.npz").predict(x), loaded.predict(x))
    loaded.trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=1, verbose=0, target_model=loaded)


def test_a_file_that_gives_other_numbers_is_refused(monkeypatch):
    source = graph(("Gemm", "_ W B", {"alpha": 0.5}), W=W, B=B)
    monkeypatch.setattr(
        loading.Graph, "attributes", lambda self, node: ATTRIBUTES(self, node) | {"alpha": 0.501}
    )
    with pytest.raises(ValueError, match="different numbers for the same x"):
        load(source)


ATTRIBUTES = loading.Graph.attributes


# ---- what is refused


@pytest.mark.parametrize(
    "nodes, constants, message",
    [
        ([("Gemm", "_ W", {"transA": 1})], {"W": W}, r"node 'n0' \(Gemm\): its transA must be 0"),
        ([("Gemm", "W _", {})], {"W": W}, r"node 'n0' \(Gemm\) has no counterpart"),
        ([("MatMul", "W _", {})], {"W": W}, r"node 'n0' \(MatMul\) has no counterpart"),
        ([("Gemm", "_ W B", {})], {"W": W, "B": np.ones((2, 4))}, r"\(Gemm\): its bias must have 4 numbers"),
        ([("Gemm", "_ V", {})], {"V": V}, r"\(Gemm\): its weight \(4, 6\) must fit flat samples"),
        ([("Gemm", "_ W", {})], {"W": np.full((6, 4), np.nan)}, r"\(Gemm\): its weight holds NaN or infinity"),
        ([("Selu", "_", {})], {}, r"node 'n0' \(Selu\) has no counterpart in minidl$"),
        ([("LogSoftmax", "_", {}), ("Relu", "_", {})], {}, r"node 'n0' \(LogSoftmax\) has no counterpart"),
        ([("Softmax", "_", {"axis": 0})], {}, r"node 'n0' \(Softmax\): its axis must be the last, got 0"),
        ([("Elu", "_", {"alpha": -1.0})], {}, r"node 'n0' \(Elu\): alpha must be >= 0, got -1.0"),
        ([("Clip", "_ a b", {})], {"a": -1.0, "b": 1.0}, r"node 'n0' \(Clip\) has no counterpart"),
        ([("Sub", "c _", {})], {"c": 1.0}, r"node 'n0' \(Sub\) has no counterpart"),
        ([("Div", "_ c", {})], {"c": np.zeros(6)}, r"node 'n0' \(Div\): it divides by 0"),
        ([("Add", "_ c", {})], {"c": np.ones((2, 6))}, r"\(Add\): its offset must fit samples of shape \(6,\)"),
        ([("Mul", "_ _", {})], {}, r"node 'n0' \(Mul\) has no counterpart"),
        ([("Relu", "_", {}), ("Add", "_ x", {})], {}, r"node 'n1' \(Add\) has no counterpart"),
        ([("Reshape", "_ s", {})], {"s": np.array([-1, 3])}, r"\(Reshape\): it must make samples flat, \(batch, 6\)"),
        ([("Flatten", "_", {"axis": 0})], {}, r"\(Flatten\): its axis must be 1, got 0"),
        ([("Cast", "_", {"to": 11}), ("Cast", "_", {"to": 1})], {}, r"node 'n0' \(Cast\) has no counterpart"),
        ([("Dropout", "_ r t", {})], {"r": 0.5, "t": np.array(True)}, r"\(Dropout\): its training_mode must be false"),
        ([("Transpose", "W", {})], {"W": W}, "its output must depend on its input 'x'"),
    ],
)  # fmt: skip
def test_what_minidl_has_not_is_refused_by_the_nodes_name(nodes, constants, message, monkeypatch):
    monkeypatch.setattr(loading, "Sequential", None)  # nothing is built
    with pytest.raises(ValueError, match=message):
        load(graph(*nodes, **constants))


@pytest.mark.parametrize(
    "source, message",
    [
        (lambda: b"", "is not an ONNX file, or damaged"),
        (lambda: b"x" * 100, "is not an ONNX file, or damaged"),
        (lambda: graph(("Relu", "_", {}))[:-3], "is not an ONNX file, or damaged"),
        (
            lambda: graph(("Relu", "_", {}), dtype="float16"),
            "input 'x' must be of float or double, got float16",
        ),
        (lambda: graph(("Relu", "_", {}), opset=10), "must have opset 11 or later, got 10"),
        (
            lambda: graph(("Relu", "_", {}), shape=("batch", "size")),
            r"input 'x' must have shape \(batch, sizes",
        ),
        (lambda: graph(("Relu", "_", {}), shape=(None,)), r"input 'x' must have shape \(batch, sizes"),
        (
            lambda: graph(("BatchNormalization", "_ g g g g", {}), shape=(None, 3, 2), g=np.ones(3)),
            r"node 'n0' \(BatchNormalization\): it normalises the second axis, and minidl the last",
        ),
        (
            lambda: graph(("MatMul", "_ W", {}), shape=(None, 2, 6), W=W),
            r"\(MatMul\): its weight \(6, 4\) must fit flat samples, got samples of shape \(2, 6\)",
        ),
        (lambda: graph(("Softplus", "_", {}), dtype="float64"), "onnxruntime .* does not run it: .*Softplus"),
    ],
)
def test_files_that_are_refused(source, message, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "Sequential", None)
    (tmp_path / "given.onnx").write_bytes(source())
    with pytest.raises(ValueError, match=rf"given.onnx: .*{message}"):
        load(tmp_path / "given.onnx")


def test_numbers_in_another_file_are_refused(tmp_path):
    proto = onnx.load_model_from_string(graph(("Gemm", "_ W", {}), W=np.ones((6, 300))))
    onnx.save(proto, tmp_path / "split.onnx", save_as_external_data=True, location="W.bin", size_threshold=0)
    with pytest.raises(
        ValueError, match="split.onnx: initializer 'W' has its numbers in another file, which is not"
    ):
        load(tmp_path / "split.onnx")
    onnx.save(onnx.load(tmp_path / "split.onnx"), tmp_path / "whole.onnx")  # what the message says
    assert described(load(tmp_path / "whole.onnx")) == "Dense(linear)"
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.onnx")


# ---- teachers


def test_a_file_teaches(tmp_path):
    teacher = Sequential([Input((6,)), Dense(8, "relu"), Dense(3, "softmax")], seed=5)
    path, x = tmp_path / "t.onnx", RNG.normal(size=(40, 6)).astype("float32")
    export(teacher, path, logits=True)
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_allclose(
            cached_logits(onnx_teacher(source, threads=1), x), teacher.predict_logits(x), atol=1e-5
        )
    student = Sequential([Input((6,)), Dense(3, "softmax")], seed=1)
    student.compile("adam", "sparse_categorical_crossentropy")
    student.fit(x, target_model=onnx_teacher(path), hard_weight=0.0, soft_weight=1.0, verbose=0)
    with pytest.raises(ValueError, match=r"(?s)t.onnx: cannot take x of shape \(2, 5\): .*Expected: 6"):
        onnx_teacher(path)(np.zeros((2, 5)))
    with pytest.raises(TypeError, match="from_probs must be True or False"):
        onnx_teacher(path, from_probs="no")


@pytest.mark.parametrize("end, node", [("softmax", "Softmax"), ("sigmoid", "Sigmoid")])
def test_probabilities_teach_only_if_they_are_said_to_be_such(end, node, tmp_path):
    teacher = Sequential([Input((6,)), Dense(3, end)], seed=5)
    path, x = tmp_path / "t.onnx", RNG.normal(size=(40, 6)).astype("float32")
    export(teacher, path)
    with pytest.raises(
        ValueError, match=rf"t.onnx: ends in node 'dense\w*/{node}_2' \({node}\), so it gives prob"
    ):
        onnx_teacher(path)
    logits = onnx_teacher(path, from_probs=True)(x)
    expected = teacher.predict_logits(x)
    expected = expected if end == "sigmoid" else np.log(teacher.predict(x))
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_file_with_a_fixed_batch_size_teaches_any_number():
    source = FILES / "torch_image_17.onnx"  # made with a batch of 2
    x = RNG.normal(size=(5, 3, 4)).astype("float32")
    np.testing.assert_allclose(onnx_teacher(source)(x), load(source).predict(x), atol=1e-6)


def test_a_teacher_of_several_outputs_is_told_which():
    source = FILES / "sklearn_classifier.onnx"
    with pytest.raises(ValueError, match="output must name one of its outputs"):
        onnx_teacher(source)
    with pytest.raises(ValueError, match="ends in .*Softmax"):
        onnx_teacher(source, output="probabilities")
    logits = onnx_teacher(source, from_probs=True, output="probabilities")(np.zeros((4, 5), "float32"))
    assert logits.shape == (4, 3)
    assert isinstance(load(source, "probabilities").layers[0], Normalization | Rescaling)
