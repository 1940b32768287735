"""An ONNX file that is a chain of known layers, as a model."""

from __future__ import annotations

import os

from ...activations import ActivationFunction
from ...layers import ELU, Activation, Dense, LeakyReLU
from ...models import Sequential
from .. import check_same, import_extra
from .affine import Affine
from .forms import FORMS, KNOWN_KINDS, X
from .graphs import Graph
from .readers import Part, Reader, Step
from .running import Runner

_OLDEST_OPSET = 11
"""From here on Clip has its bounds as inputs."""


def load(path: str | os.PathLike | bytes, output: str | None = None) -> Sequential:
    """The model of an ONNX file (or of its bytes) whose nodes are a chain of layers that minidl has.

    Known are Gemm, and MatMul with Add; Relu, LeakyRelu, PRelu, Clip from 0, Elu, Sigmoid, Tanh, Softmax, Softplus,
    Gelu, and silu, gelu and others as exporters write them in several nodes; BatchNormalization, LayerNormalization;
    Sub, Add, Mul and Div by constants; Flatten and Reshape to (batch, features), Dropout, Identity. `forms.py` has the
    table. Weights are initializers or Constant nodes, of float or of double, which becomes the model's dtype. The model
    is compared with onnxruntime's run of the file, by `minidl.interop.check_same`.

    ``output`` names one of several outputs; what it does not depend on is not read.

    Raises ValueError, naming the node and its type, for what has no counterpart, and for numbers in other files,
    before anything is built; ImportError if onnx or onnxruntime is absent.
    """
    import_extra("onnxruntime", "onnx", "onnx")
    graph = Graph(path, output)
    graph.check()
    shape, dtype = _input_of(graph)
    parts = _parts(graph, shape, dtype)
    run = Runner(graph.source, graph.name, graph.output, threads=1)
    weights = [array for part in parts for array in part.weights]
    model = Sequential(dtype=dtype)
    model.fill([part.layer for part in parts], shape, sum(array.size for array in weights))
    model.set_weights(weights)
    check_same(model, run)
    return model


def _input_of(graph: Graph) -> tuple[tuple[int, ...], str]:
    """(shape of a sample, dtype) of the file's input."""
    if graph.opset < _OLDEST_OPSET:
        raise ValueError(f"{graph.name}: must have opset {_OLDEST_OPSET} or later, got {graph.opset}")
    types = import_extra("onnx", "onnx", "onnx").TensorProto
    dtype = {types.FLOAT: "float32", types.DOUBLE: "float64"}.get(graph.elem_type)
    what = f"{graph.name}: input {graph.input!r}"
    if dtype is None:
        found = types.DataType.Name(graph.elem_type).lower()
        raise ValueError(f"{what} must be of float or double, got {found}")
    sizes = graph.dims[1:]
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"{what} must have shape (batch, sizes of a sample), got {tuple(graph.dims)}")
    return tuple(sizes), dtype


def _parts(graph: Graph, shape: tuple[int, ...], dtype: str) -> list[Part]:
    """The layers of the chain with their weights; nothing is built yet."""
    found: list[Part | Affine] = []
    for step in _chain(graph):
        reader = Reader(graph, step, shape, dtype)
        part, last = reader.part(), found[-1] if found else None
        both = _joined(last, part)
        if both is not None:
            found[-1] = both
        elif part is not None:
            found.append(part)
        shape = reader.shape
    layers = [[part] if isinstance(part, Part) else map(Part, part.layers()) for part in found]
    return [part for each in layers for part in each]


def _joined(last: Part | Affine | None, part: Part | Affine | None) -> Part | Affine | None:
    """Two parts in one: of scales and shifts, and of a Dense and its activation. None if they are two."""
    if isinstance(last, Affine) and isinstance(part, Affine):
        return last.then(part)
    if isinstance(last, Part) and isinstance(part, Part) and type(last.layer) is Dense:
        dense, layer = last.layer, part.layer
        if dense.activation == "linear" and type(layer) in (Activation, LeakyReLU, ELU):
            usual = ActivationFunction(layer.activation).slope  # what the bare name means
            if layer._activation.slope == usual:
                return Part(Dense(dense.units, layer.activation, dense.use_bias), last.weights)
    return None


def _chain(graph: Graph) -> list[Step]:
    """The steps from the file's input to its output."""
    for node in graph.needed_nodes():
        if node.op_type not in KNOWN_KINDS or node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
            raise ValueError(f"{graph.name}: {graph.describe(node)} has no counterpart in minidl")
    steps: list[Step] = []
    value = graph.value(graph.output)
    while value != graph.input:
        steps.append(_step(graph, value))
        value = steps[-1].settings[X]
    return steps[::-1]


def _step(graph: Graph, value: str) -> Step:
    node = graph.producer(value)
    if node is None or graph.array(value) is not None:
        raise ValueError(f"{graph.name}: its output must depend on its input {graph.input!r}, got {value!r}")
    for kind, trees in FORMS.items():
        for tree in trees:
            if (settings := graph.match(tree, value, {})) is not None:
                return Step(node, kind, settings)
    raise ValueError(
        f"{graph.name}: {graph.describe(node)} has no counterpart in minidl: it does not end a known layer that begins "
        "with one computed value and constants"
    )
