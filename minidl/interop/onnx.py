"""ONNX: models written as ONNX files, and ONNX files as teachers. Needs ``minidl[onnx]``."""

import os
from collections.abc import Callable

import numpy as np

from ..archive import replacing
from ..layers import Activation, Dense, Dropout, Flatten, GaussianNoise, Layer, RandomTranslation, Rescaling
from ..models import Sequential
from . import activation_of, import_extra

_OPSET, _GELU_OPSET = 17, 20  # opset 20 is the first with Gelu
_NODES = {
    name: name.title().replace("_", "")
    for name in "relu leaky_relu sigmoid tanh softplus softmax elu gelu".split()
}
"""The ONNX node that is an activation; for silu there is none."""
_OFF_AT_INFERENCE = (Dropout, GaussianNoise, RandomTranslation)


def to_onnx(model: Sequential, path: str | os.PathLike | None = None, logits: bool = False) -> object:
    """The model for inference as an ``onnx.ModelProto``, with any batch size; written to ``path`` if given.

    Input ``x`` (batch, *input_shape), output ``y``: probabilities, or with ``logits`` what goes into
    a final softmax or sigmoid. Raises ValueError for a layer that has no ONNX form (a user's own).
    """
    onnx = import_extra("onnx", "onnx", "onnx")
    helper = onnx.helper
    graph = _Graph(onnx, model.dtype)
    for layer in model.layers:
        graph.add_layer(layer)
        name, slope = activation_of(layer, "ONNX")
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

    def node(self, kind: str, *inputs: str, **attributes) -> None:
        output = f"v{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, [self.output, *inputs], [output], **attributes))
        self.output = output

    def constant(self, name: str, array: np.ndarray | float) -> str:
        array = np.ascontiguousarray(array, dtype=self._dtype)
        self.constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def add_layer(self, layer: Layer) -> None:
        """What the layer does before its activation."""
        if isinstance(layer, Dense):
            self.node("MatMul", self.constant(f"{layer.name}.weight", layer.weight))
            if layer.use_bias:
                self.node("Add", self.constant(f"{layer.name}.bias", layer.bias))
        elif isinstance(layer, Flatten):
            self.node("Flatten")
        elif isinstance(layer, Rescaling):
            self.node("Mul", self.constant(f"{layer.name}.scale", layer.scale))
            self.node("Add", self.constant(f"{layer.name}.offset", layer.offset))
        elif not isinstance(layer, (Activation, *_OFF_AT_INFERENCE)):
            raise ValueError(f"layer {layer.name!r} ({type(layer).__name__}) has no ONNX form")

    def add_activation(self, name: str, slope: float) -> None:
        attributes: dict = {"softmax": {"axis": -1}, "leaky_relu": {"alpha": slope}, "elu": {"alpha": 1.0}}
        if name == "silu":
            before = self.output
            self.node("Sigmoid")
            self.node("Mul", before)
        elif name in _NODES:
            self.node(_NODES[name], **attributes.get(name, {}))
        elif name != "linear":
            raise ValueError(f"activation {name!r} has no ONNX form")
        if name == "gelu":
            self.opset = _GELU_OPSET


def onnx_teacher(path: str | os.PathLike, threads: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """An ONNX file with one input and logits as its first output, as a teacher: ``x -> logits``."""
    runtime = import_extra("onnxruntime", "onnx", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ValueError(f"{path}: must have one input, got {[i.name for i in inputs]}")

    def teacher(x: np.ndarray) -> np.ndarray:
        return session.run(None, {inputs[0].name: x})[0]

    return teacher
