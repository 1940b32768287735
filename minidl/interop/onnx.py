"""ONNX: models written as ONNX files, and ONNX files as teachers. Needs ``minidl[onnx]``."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from ..layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    LeakyReLU,
    RandomTranslation,
    ReLU,
    Rescaling,
    Softmax,
)
from ..models import Sequential

# Opset 20 is the first with Gelu.
_OPSET, _GELU_OPSET = 17, 20
_NODES = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softplus": "Softplus"}


def to_onnx(model: Sequential, path: str | os.PathLike | None = None, logits: bool = False) -> object:
    """The model for inference as an ``onnx.ModelProto``, with any batch size; written to ``path`` if given.

    Input ``x`` (batch, *input_shape), output ``y``: probabilities, or with ``logits`` what stands before
    a final softmax or sigmoid. Raises ValueError for a layer that has no ONNX form (a user's own).
    """
    onnx = _import("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    nodes, constants = [], []
    value, opset = "x", _OPSET

    def node(kind, *inputs, **attributes):
        nonlocal value
        out = f"v{len(nodes)}"
        nodes.append(helper.make_node(kind, [value, *inputs], [out], **attributes))
        value = out

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=model.dtype), name))
        return name

    def activation(name, slope=None):
        nonlocal opset
        if name == "linear":
            return
        if name in _NODES:
            node(_NODES[name])
        elif name == "softmax":
            node("Softmax", axis=-1)
        elif name == "leaky_relu":
            node("LeakyRelu", alpha=0.2 if slope is None else slope)
        elif name == "elu":
            node("Elu", alpha=1.0)
        elif name == "gelu":
            opset = _GELU_OPSET
            node("Gelu")
        elif name == "silu":
            before = value
            node("Sigmoid")
            node("Mul", before)
        else:
            raise ValueError(f"activation {name!r} has no ONNX form")

    layers = model.layers
    for layer in layers:
        last = logits and layer is layers[-1]
        if isinstance(layer, Dense):
            inputs = [constant(f"{layer.name}.weight", layer.weight)]
            node("MatMul", *inputs)
            if layer.use_bias:
                node("Add", constant(f"{layer.name}.bias", layer.bias))
            if not (last and layer.activation in ("softmax", "sigmoid")):
                activation(layer.activation)
        elif isinstance(layer, ReLU):
            if layer.max_value is not None or layer.threshold:
                raise ValueError(f"layer {layer.name!r} (ReLU with max_value or threshold) has no ONNX form")
            activation("leaky_relu" if layer.negative_slope else "relu", layer.negative_slope)
        elif isinstance(layer, LeakyReLU):
            activation("leaky_relu", layer.negative_slope)
        elif isinstance(layer, (Softmax, Activation)):
            name = "softmax" if isinstance(layer, Softmax) else layer.activation
            if not (last and name in ("softmax", "sigmoid")):
                activation(name)
        elif isinstance(layer, Flatten):
            node("Flatten")
        elif isinstance(layer, Rescaling):
            node("Mul", constant(f"{layer.name}.scale", layer.scale))
            node("Add", constant(f"{layer.name}.offset", layer.offset))
        elif not isinstance(layer, (Dropout, GaussianNoise, RandomTranslation)):
            raise ValueError(f"layer {layer.name!r} ({type(layer).__name__}) has no ONNX form")
    kind = helper.np_dtype_to_tensor_dtype(model.dtype)
    graph = helper.make_graph(
        [*nodes, helper.make_node("Identity", [value], ["y"])],
        model.name,
        [helper.make_tensor_value_info("x", kind, ["batch", *model.input_shape])],
        [helper.make_tensor_value_info("y", kind, ["batch", *model.output_shape])],
        constants,
    )
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(result)
    if path is not None:
        temporary = f"{os.fspath(path)}.part"
        try:
            onnx.save_model(result, temporary)
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
    return result


def onnx_teacher(path: str | os.PathLike, threads: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """An ONNX file with one input and logits as its first output, as a teacher: ``x -> logits``."""
    runtime = _import("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ValueError(f"{path}: must have one input, got {[i.name for i in inputs]}")

    def teacher(x: np.ndarray) -> np.ndarray:
        return session.run(None, {inputs[0].name: x})[0]

    return teacher


def _import(name: str):
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError(f'minidl.interop.onnx needs {name}: pip install "minidl[onnx]"') from error
