"""A model as an ONNX file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ... import __version__
from ...archive import check_path, replacing
from ...layers import (
    BatchNormalization,
    Dense,
    Flatten,
    Layer,
    LayerNormalization,
    Normalization,
    PReLU,
    ReLU,
    Rescaling,
)
from ...models import Sequential
from ...validation import check_bool, check_int, describe
from .. import activation_of, check_same, import_extra, normalization_arrays, refuse_own_parts
from .forms import FORMS, NOT_IN_DOUBLE, Tree, X, nodes_of, settings_of
from .running import Runner

OLDEST_OPSET = 13
"""From here on Softmax is over one axis."""
_LARGEST = 2**31 - 1
"""Bytes in one message of protobuf, which an ONNX file is."""


def export(
    model: Sequential,
    path: str | os.PathLike,
    opset: int = 17,
    logits: bool = False,
    class_names: Sequence[str] | None = None,
) -> None:
    """Write ``model`` for inference to an ONNX file, after onnxruntime has run it and given the model's numbers.

    The file has one input ``x`` (batch, *input_shape) and one output ``y`` (batch, *output_shape), of any batch size,
    in the model's dtype. Dropout, noise and translation, which are off in inference, are not in it. The comparison is
    `minidl.interop.check_same`'s: on 64 random samples each output is within 1e-6 of its size (float64: 1e-9), and
    what the rounding of a last bit explains. If it fails, nothing is written, and a file that was there stays.

    Parameters
    ----------
    opset : int from 13 on, the version of ONNX's operators. The file has the lowest IR version that knows it.
    logits : write what goes into a final softmax or sigmoid, as a teacher must give.
    class_names : a name of each output, kept in the metadata under "class_names" as JSON.

    Raises ValueError, naming it, for a layer or model class of the user's own, gelu in float64, and an opset that
    onnx or onnxruntime does not have; OSError if the file cannot be written; ImportError if onnx or onnxruntime is
    absent, for what was not run is not kept.
    """
    check_path(path)
    _write(_verified(model, opset, logits, class_names), path)


def to_onnx(model: Sequential, path: str | os.PathLike | None = None, logits: bool = False) -> object:
    """`export` at its default opset, which returns the ``onnx.ModelProto``, and writes it if ``path`` is given."""
    proto = _verified(model, 17, logits, None)
    if path is not None:
        _write(proto, path)
    return proto


def _write(proto: Any, path: str | os.PathLike) -> None:
    with replacing(path) as file:
        file.write(proto.SerializeToString())


def _verified(model: Sequential, opset: int, logits: bool, class_names: Sequence[str] | None) -> Any:
    """The model as a ``ModelProto`` that onnxruntime has run."""
    onnx = import_extra("onnx", "onnx", "onnx")
    import_extra("onnxruntime", "onnx", "onnx")
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be a Sequential, got {describe(model)}")
    model.require_built("export")
    refuse_own_parts(model, "ONNX")
    check_bool("logits", logits)
    opset = check_int("opset", opset, OLDEST_OPSET, onnx.defs.onnx_opset_version())
    if model.params.nbytes > _LARGEST - 2**20:
        raise ValueError(
            f"model {model.name!r} has {model.params.nbytes} bytes of weights; an ONNX file holds 2 GB"
        )
    graph = _Graph(onnx, model.dtype, opset)
    for layer in model.layers:
        is_left_out = (
            logits and layer is model.layers[-1] and model.final_activation in ("softmax", "sigmoid")
        )
        for kind, settings in _parts(layer, is_left_out):
            graph.add(layer.name, kind, settings)
    proto = graph.finished(model, _checked_names(class_names, model.output_shape))
    onnx.checker.check_model(proto)
    runner = Runner(proto.SerializeToString(), f"model {model.name!r} with opset {opset}", threads=1)
    check_same(model, runner, logits)
    return proto


def _checked_names(names: Sequence[str] | None, output_shape: tuple[int, ...]) -> list[str] | None:
    if names is None:
        return None
    outputs = output_shape[-1]
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"class_names must be a list of strings, got {describe(names)}")
    if len(names) not in (outputs, 2 if outputs == 1 else outputs):
        raise ValueError(f"class_names must be one for each of {outputs} outputs, got {len(names)}")
    if len(set(names)) < len(names):
        raise ValueError(f"class_names must differ, got {list(names)}")
    return list(names)


# ---- what each layer is


def _parts(layer: Layer, is_left_out: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key of `FORMS`, settings) of all that a layer does in inference; its activation only if not ``is_left_out``."""
    if isinstance(layer, ReLU) and (layer.max_value is not None or layer.threshold):
        yield "clipped_relu", _clipping(layer)
        return
    if isinstance(layer, Dense):
        yield "dense", {"weight": layer.weight} | ({"bias": layer.bias} if layer.use_bias else {})
    elif isinstance(layer, Flatten):
        yield "flatten", {}
    elif isinstance(layer, (Normalization, Rescaling)):
        yield from _affine(*layer.affine())
    elif isinstance(layer, BatchNormalization):
        yield from _batch_normalization(layer)
    elif isinstance(layer, LayerNormalization):
        yield "layer_normalization", {**normalization_arrays(layer), "epsilon": layer.epsilon}
    elif isinstance(layer, PReLU):
        yield "prelu", {"alpha": layer.alpha}
    name, slope = activation_of(layer, "ONNX")
    if name != "linear" and not is_left_out:
        yield name, {"alpha": slope} if name in ("leaky_relu", "elu") else {}


def _clipping(layer: ReLU) -> dict[str, float]:
    settings = {} if layer.max_value is None else {"high": layer.max_value}
    if layer.threshold or layer.negative_slope:
        settings |= {"threshold": layer.threshold, "slope": layer.negative_slope}
    return settings


def _affine(center: Any, scale: Any, offset: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(x - center) * scale + offset."""
    if np.any(center):
        yield "shift", {"center": center}
    yield "scale", {"scale": scale}
    if np.any(offset):
        yield "shift", {"offset": offset}


def _batch_normalization(layer: BatchNormalization) -> Iterator[tuple[str, dict[str, Any]]]:
    """ONNX normalises the second axis, by an epsilon in single precision: else by constants that say the same."""
    arrays = normalization_arrays(layer)
    gamma, beta, mean, variance = (
        arrays[name] for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    if len(layer.input_shape) == 1 and layer.dtype == np.float32:
        moments = {"mean": mean, "variance": variance, "epsilon": layer.epsilon, "momentum": layer.momentum}
        yield "batch_normalization", {"gamma": gamma, "beta": beta, **moments}
    else:
        yield from _affine(mean, gamma / np.sqrt(np.float64(variance) + layer.epsilon), beta)


# ---- the graph


class _Graph:
    """Nodes in a row, each on the output of the one before."""

    def __init__(self, onnx: Any, dtype: np.dtype, opset: int):
        self._onnx, self._dtype, self._opset = onnx, dtype, opset
        self._nodes: list = []
        self._constants: dict[str, Any] = {}
        self._output = X

    def add(self, layer: str, kind: str, settings: dict[str, Any]) -> None:
        """The nodes of one part of a layer: its first form that the opset has, and that onnxruntime runs."""
        for tree in FORMS[kind]:
            if self._can_write(tree, settings):
                self._output = self._write(tree, layer, {X: self._output, **settings}, {})
                return
        where = f"opset {self._opset} in {self._dtype}"
        raise ValueError(f"layer {layer!r} ({kind}) has no form in {where} that onnxruntime runs")

    def _schema(self, kind: str) -> Any:
        """What the opset says of a node type; None if it has none."""
        try:
            return self._onnx.defs.get_schema(kind, self._opset, "")
        except self._onnx.defs.SchemaError:
            return None

    def _can_write(self, tree: Tree, settings: dict[str, Any]) -> bool:
        """Whether a tree says all of the settings, exactly, in nodes that there are."""
        is_double = self._dtype == np.float64
        said = settings_of(tree)
        for node in nodes_of(tree):
            schema = self._schema(node.kind)
            if (
                schema is None
                or len(node.inputs) > schema.max_input
                or (is_double and node.kind in NOT_IN_DOUBLE)
            ):
                return False
            if any(name not in schema.attributes for name, _ in node.attributes):
                return False
            if not is_double:  # attributes are in single precision
                said |= settings.keys() & schema.attributes.keys()
        return said == settings.keys()

    def _write(self, tree: Any, layer: str, settings: dict[str, Any], written: dict) -> str:
        """The name of the value that a tree gives. ``written``: the values of this part's trees, each written once."""
        if tree == X:
            return settings[X]
        if tree in written:
            return written[tree]
        if not isinstance(tree, Tree):
            given = settings[tree] if isinstance(tree, str) else tree
            found = self._constant(f"{layer}.{tree}" if isinstance(tree, str) else f"number_{tree}", given)
        else:
            inputs = [self._write(each, layer, settings, written) for each in tree.inputs]
            names = self._schema(tree.kind).attributes.keys() & settings.keys() - settings_of(tree)
            attributes = {name: settings[name] for name in sorted(names)} | dict(tree.attributes)
            found = f"{layer}/{tree.kind}_{len(self._nodes)}"
            make = self._onnx.helper.make_node
            self._nodes.append(make(tree.kind, inputs, [found], name=found, **attributes))
        written[tree] = found
        return found

    def _constant(self, name: str, value: Any) -> str:
        dtype = np.int64 if isinstance(value, tuple) else self._dtype
        array = np.ascontiguousarray(value, dtype=dtype).reshape(np.shape(value))
        while name in self._constants and not np.array_equal(array, self._constants[name]):
            name += "'"  # a layer has two of that name, as the scale of two layers with one name
        self._constants[name] = array
        return name

    def finished(self, model: Sequential, class_names: list[str] | None) -> Any:
        """The ``ModelProto``, with output ``y``."""
        helper = self._onnx.helper
        kind = helper.np_dtype_to_tensor_dtype(self._dtype)
        graph = helper.make_graph(
            [*self._nodes, helper.make_node("Identity", [self._output], ["y"], name="y")],
            model.name,
            [helper.make_tensor_value_info(X, kind, ["batch", *model.input_shape])],
            [helper.make_tensor_value_info("y", kind, ["batch", *model.output_shape])],
            [self._onnx.numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        opset = helper.make_opsetid("", self._opset)
        proto = helper.make_model(
            graph,
            opset_imports=[opset],
            ir_version=helper.find_min_ir_version_for([opset]),
            producer_name="minidl",
            producer_version=__version__,
        )
        if class_names is not None:
            helper.set_model_props(proto, {"class_names": json.dumps(class_names)})
        return proto
