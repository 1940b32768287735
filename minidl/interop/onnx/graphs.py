"""The graph of an ONNX file, to be read: its nodes by what they give, and its constants as arrays."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ...archive import check_path
from .. import import_extra
from .forms import COMMUTATIVE, Tree, X

_HANDED_ON = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
"""Nodes that leave numbers as they are."""
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}


class Graph:
    """The graph of a file, given by its path or its bytes.

    Attributes
    ----------
    name : what errors call the file.
    source : the path, or the bytes.
    input, elem_type, dims : name, ONNX's dtype and shape of its one input; an axis of any size is a string.
    output : the name of its one output, or of the one that was chosen.
    opset : the version of ONNX's operators.
    """

    def __init__(self, source: str | os.PathLike | bytes, output: str | None = None):
        self._onnx = import_extra("onnx", "onnx", "onnx")
        self.source = source if isinstance(source, bytes) else check_path(source)
        self.name = "the ONNX file" if isinstance(source, bytes) else str(self.source)
        self.proto = _parsed(self._onnx, self.source, self.name)
        graph = self.proto.graph
        self.constants = {each.name: each for each in graph.initializer}
        inputs = [each for each in graph.input if each.name not in self.constants]
        if len(inputs) != 1:
            raise ValueError(f"{self.name}: must have one input, got {[each.name for each in inputs]}")
        self.input, given = inputs[0].name, inputs[0].type.tensor_type
        self.elem_type = given.elem_type
        self.dims = [
            each.dim_value if each.HasField("dim_value") else each.dim_param for each in given.shape.dim
        ]
        self.output = chosen_output(self.name, [each.name for each in graph.output], output)
        self.opset = next(
            (each.version for each in self.proto.opset_import if each.domain in ("", "ai.onnx")), 1
        )
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._arrays: dict[str, np.ndarray | None] = {}

    def describe(self, node: Any) -> str:
        """A node by name, or what it gives, and type."""
        shown = node.name or (node.output[0] if node.output else "")
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        return f"node {shown!r} ({kind})"

    def needed_nodes(self) -> list[Any]:
        """The nodes that the output depends on, constants left out, in the file's order."""
        needed, open_names = set(), [self.output]
        while open_names:
            name = open_names.pop()
            node = self._producers.get(name)
            if node is not None and id(node) not in needed and self.array(name) is None:
                needed.add(id(node))
                open_names += node.input
        return [node for node in self.proto.graph.node if id(node) in needed]

    def producer(self, name: str) -> Any:
        """The node that gives a value, and None for the input and for constants."""
        return self._producers.get(name)

    def value(self, name: str) -> str:
        """A value by its first name: Identity, and Cast to the input's dtype, only hand it on."""
        while (node := self._producers.get(name)) is not None:
            if node.op_type != "Identity" and (
                node.op_type != "Cast" or self.attributes(node).get("to") != self.elem_type
            ):
                break
            name = node.input[0]
        return name

    def last_node(self) -> Any:
        """The last node that changes numbers; None if there is none."""
        node = self._producers.get(self.output)
        while node is not None and node.op_type in _HANDED_ON:
            node = self._producers.get(node.input[0])
        return node

    def array(self, name: str) -> np.ndarray | None:
        """A constant; None for what depends on the input."""
        if name not in self._arrays:
            self._arrays[name] = None  # should it depend on itself
            self._arrays[name] = self._constant(name)
        return self._arrays[name]

    def _constant(self, name: str) -> np.ndarray | None:
        if name in self.constants:
            return self._read(self.constants[name], f"initializer {name!r}")
        node = self._producers.get(name)
        if node is None:
            return None
        given = self.attributes(node)
        if node.op_type == "Constant":
            if "value" in given:
                return self._read(given["value"], self.describe(node))
            kinds = {
                "value_float": np.float32,
                "value_floats": np.float32,
                "value_int": int,
                "value_ints": int,
            }
            found = [np.asarray(given[key], kind) for key, kind in kinds.items() if key in given]
            return found[0] if found else None
        if node.op_type in ("Identity", "Transpose"):
            inner = self.array(node.input[0])
            if inner is None or node.op_type == "Identity":
                return inner
            return np.transpose(inner, given.get("perm"))
        return None

    def _read(self, tensor: Any, where: str) -> np.ndarray:
        self._refuse_external(tensor, where)
        return self._onnx.numpy_helper.to_array(tensor)

    def _refuse_external(self, tensor: Any, where: str) -> None:
        if tensor.data_location == self._onnx.TensorProto.EXTERNAL:
            raise ValueError(
                f"{self.name}: {where} has its numbers in another file, which is not read: make it one file, "
                "onnx.save(onnx.load(path), new_path)"
            )

    def check(self) -> None:
        """ValueError for numbers in other files, and for nodes that are not as ONNX says, or not in their order."""
        for name, tensor in self.constants.items():
            self._refuse_external(tensor, f"initializer {name!r}")
        try:
            self._onnx.checker.check_model(self.proto)
        except Exception as error:  # of onnx's own types
            raise ValueError(f"{self.name}: is not a valid ONNX file: {error}") from error

    def attributes(self, node: Any) -> dict[str, Any]:
        """A node's attributes, with the opset's defaults of those it leaves out."""
        helper, defs = self._onnx.helper, self._onnx.defs
        found = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        domain = "" if node.domain == "ai.onnx" else node.domain
        versions = {each.domain: each.version for each in self.proto.opset_import} | {"": self.opset}
        try:
            schema = defs.get_schema(node.op_type, versions.get(domain, 1), domain)
        except defs.SchemaError:
            return found
        for name, attribute in schema.attributes.items():
            if name not in found and attribute.default_value.name:
                found[name] = helper.get_attribute_value(attribute.default_value)
        return {name: _plain(value) for name, value in found.items()}

    def match(self, tree: Any, name: str, found: dict[str, Any]) -> dict[str, Any] | None:
        """``found`` with the settings by which a tree gives the value ``name``; None if it does not.

        Under `X` stands the name of the tree's input, under a setting's name a constant, and under ``.name`` the
        attribute of any of its nodes.
        """
        name = self.value(name)
        if tree == X:
            return found | {X: name} if self.array(name) is None and found.get(X, name) == name else None
        if not isinstance(tree, Tree):
            array = self.array(name)
            if array is None:
                return None
            if isinstance(tree, str):
                is_new = tree not in found or np.array_equal(found[tree], array)
                return found | {tree: array} if is_new else None
            shape = (len(tree),) if isinstance(tree, tuple) else array.shape
            same = array.size and array.shape == shape and np.allclose(array, tree, rtol=1e-6)
            return found if same else None
        node = self._producers.get(name)
        if node is None or node.op_type != tree.kind or node.domain not in _DOMAINS or node.output[0] != name:
            return None
        attributes = {f".{key}": value for key, value in self.attributes(node).items()}
        if any(attributes.get(f".{key}") != value for key, value in tree.attributes):
            return None
        inputs = list(node.input)
        while inputs and not inputs[-1]:
            inputs.pop()
        if len(inputs) != len(tree.inputs) or not all(inputs):
            return None
        for order in (inputs, inputs[::-1]) if tree.kind in COMMUTATIVE else (inputs,):
            matched: dict[str, Any] | None = found | attributes
            for each, value in zip(tree.inputs, order, strict=True):
                matched = self.match(each, value, matched) if matched is not None else None
            if matched is not None:
                return matched
        return None


def _plain(value: Any) -> Any:
    """An attribute's value, as text and tuples compare."""
    return value.decode() if isinstance(value, bytes) else tuple(value) if isinstance(value, list) else value


def chosen_output(name: str, outputs: list[str], output: str | None) -> str:
    """The name of the one output, or of the one that was chosen."""
    if output is None and len(outputs) == 1:
        return outputs[0]
    if output not in outputs:
        raise ValueError(f"{name}: output must name one of its outputs, {outputs}, got {output!r}")
    return output


def _parsed(onnx: Any, source: str | bytes, name: str) -> Any:
    """The ``ModelProto`` of a file; numbers in other files are not read."""
    if isinstance(source, bytes):
        data = source
    else:
        with open(source, "rb") as file:
            data = file.read()
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:  # of protobuf's own types
        raise ValueError(f"{name}: is not an ONNX file, or damaged ({error})") from error
    if not proto.graph.output or not proto.opset_import:
        raise ValueError(f"{name}: is not an ONNX file, or damaged (it has no graph)")
    return proto
