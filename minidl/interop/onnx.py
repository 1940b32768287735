"""ONNX: models written as ONNX files, and ONNX files as teachers. Needs ``minidl[onnx]``."""

import importlib
import importlib.util
import os
from collections.abc import Callable

import numpy as np

from ..archive import replacing
from ..layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Layer,
    LayerNormalization,
    Normalization,
    PReLU,
    RandomTranslation,
    Rescaling,
)
from ..models import Sequential
from . import activation_of, check_same, import_extra, normalization_arrays

_OPSET, _GELU_OPSET = 17, 20  # opset 20 is the first with Gelu
_NODES = "relu leaky_relu sigmoid tanh softplus softmax elu gelu".split()
"""Activations that are a node of their own in ONNX."""
_NOT_FOR_DOUBLES = {"leaky_relu", "softplus", "elu"}
"""Nodes that onnxruntime has in single precision alone, gelu aside."""
_OFF_AT_INFERENCE = (Dropout, GaussianNoise, RandomTranslation)


def to_onnx(model: Sequential, path: str | os.PathLike | None = None, logits: bool = False) -> object:
    """The model for inference as an ``onnx.ModelProto``, with any batch size; written to ``path`` if given.

    Input ``x`` (batch, *input_shape), output ``y``: probabilities, or with ``logits`` what goes into
    a final softmax or sigmoid. Raises ValueError for a layer that has no ONNX form (a user's own).
    """
    onnx = import_extra("onnx", "onnx", "onnx")
    helper = onnx.helper
    model.require_built("to_onnx")
    graph = _Graph(onnx, model.dtype)
    for layer in model.layers:
        name, slope = activation_of(layer, "ONNX")
        if name == "gelu" and model.dtype == np.float64:
            raise ValueError(
                f"layer {layer.name!r} (gelu in float64) has no ONNX form that onnxruntime runs: make the model float32"
            )
        graph.add_layer(layer)
        if not (logits and layer is model.layers[-1] and name in ("softmax", "sigmoid")):
            graph.add_activation(name, slope)
    kind = helper.np_dtype_to_tensor_dtype(model.dtype)
    proto = helper.make_graph(
        [*graph.nodes, helper.make_node("Identity", [graph.output], ["y"])],
        model.name,
        [helper.make_tensor_value_info("x", kind, ["batch", *(model.input_shape or ())])],
        [helper.make_tensor_value_info("y", kind, ["batch", *(model.output_shape or ())])],
        graph.constants,
    )
    result = helper.make_model(proto, opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=9)
    onnx.checker.check_model(result)
    if importlib.util.find_spec("onnxruntime") is None:
        run = importlib.import_module("onnx.reference").ReferenceEvaluator(result)
        check_same(model, lambda x: run.run(None, {"x": x})[0], logits)
    else:
        check_same(model, onnx_teacher(result.SerializeToString(), threads=1), logits)
    if path is not None:
        with replacing(path) as file:
            onnx.save_model(result, file)
    return result


class _Graph:
    """Nodes in a row, each on the output of the one before."""

    def __init__(self, onnx, dtype: np.dtype):
        self.nodes: list = []
        self.constants: list = []
        self.output, self.opset = "x", _OPSET
        self._onnx, self._dtype = onnx, dtype

    def node(self, kind: str, *inputs: str, **attributes) -> str:
        self.output = f"v{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [self.output], **attributes))
        return self.output

    def constant(self, name: str, array: np.ndarray | float) -> str:
        array = np.ascontiguousarray(array, dtype=self._dtype)
        self.constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def add_layer(self, layer: Layer) -> None:
        """What the layer does before its activation."""
        if isinstance(layer, Dense):
            self.node("MatMul", self.output, self.constant(f"{layer.name}.weight", layer.weight))
            if layer.use_bias:
                self.node("Add", self.output, self.constant(f"{layer.name}.bias", layer.bias))
        elif isinstance(layer, Flatten):
            self.node("Flatten", self.output)
        elif isinstance(layer, (Normalization, Rescaling)):
            center, scale, offset = layer.affine()
            if np.any(center):
                self.node("Sub", self.output, self.constant(f"{layer.name}.center", center))
            self.node("Mul", self.output, self.constant(f"{layer.name}.scale", scale))
            self.node("Add", self.output, self.constant(f"{layer.name}.offset", offset))
        elif isinstance(layer, (BatchNormalization, LayerNormalization)):
            self._add_normalization(layer)
        elif isinstance(layer, PReLU):
            # x is the difference of these two; onnxruntime has no PRelu for doubles
            x, alpha = self.output, self.constant(f"{layer.name}.alpha", layer.alpha)
            positive, negative = self.node("Relu", x), self.node("Relu", self.node("Neg", x))
            self.node("Sub", positive, self.node("Mul", alpha, negative))
        elif not isinstance(layer, (Activation, *_OFF_AT_INFERENCE)):
            raise ValueError(f"layer {layer.name!r} ({type(layer).__name__}) has no ONNX form")

    def _add_normalization(self, layer: BatchNormalization | LayerNormalization) -> None:
        if isinstance(layer, BatchNormalization) and len(layer.input_shape) > 1:
            raise ValueError(
                f"layer {layer.name!r} (BatchNormalization of the last of several axes) has no ONNX form"
            )
        arrays = normalization_arrays(layer)
        inputs = [self.constant(f"{layer.name}.{name}", array) for name, array in arrays.items()]
        more = {} if isinstance(layer, BatchNormalization) else {"axis": -1}
        self.node(type(layer).__name__, self.output, *inputs, epsilon=layer.epsilon, **more)

    def add_activation(self, name: str, slope: float) -> None:
        x = self.output
        if name == "linear":
            return
        if name == "silu":
            self.node("Mul", x, self.node("Sigmoid", x))
        elif self._dtype == np.float64 and name in _NOT_FOR_DOUBLES:
            self._add_for_doubles(name, x, slope)
        elif name in _NODES:
            attributes: dict = {
                "softmax": {"axis": -1},
                "leaky_relu": {"alpha": slope},
                "elu": {"alpha": slope},
            }
            self.node(name.title().replace("_", ""), x, **attributes.get(name, {}))
            self.opset = max(self.opset, _GELU_OPSET if name == "gelu" else 0)
        else:
            raise ValueError(f"activation {name!r} has no ONNX form")

    def _add_for_doubles(self, name: str, x: str, slope: float) -> None:
        """The activation of nodes that onnxruntime has in double precision too."""
        number = self.constant(f"number{len(self.constants)}", slope if name == "leaky_relu" else 1.0)
        # x is the difference of these two
        positive = self.node("Relu", x)
        negative = self.node("Relu", self.node("Neg", x))
        if name == "leaky_relu":
            self.node("Sub", positive, self.node("Mul", number, negative))
        elif name == "elu":
            below = self.node("Exp", self.node("Neg", negative))  # 1 where x > 0
            below = self.node(
                "Mul", self.constant(f"number{len(self.constants)}", slope), self.node("Sub", below, number)
            )
            self.node("Add", positive, below)
        else:  # softplus is max(x, 0) + log(1 + exp(-|x|))
            power = self.node("Exp", self.node("Neg", self.node("Abs", x)))
            self.node("Add", positive, self.node("Log", self.node("Add", power, number)))


def onnx_teacher(path: str | os.PathLike | bytes, threads: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """An ONNX file (or its bytes) with one input and logits as its first output, as a teacher: ``x -> logits``."""
    runtime = import_extra("onnxruntime", "onnx", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ValueError(f"{path!r}: must have one input, got {[i.name for i in inputs]}")

    def teacher(x: np.ndarray) -> np.ndarray:
        return session.run(None, {inputs[0].name: x})[0]

    return teacher
