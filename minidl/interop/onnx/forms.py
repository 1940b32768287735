"""What each layer is in ONNX: the trees of nodes that compute it. Both directions read this one table.

`export` writes a layer as the first of its forms that the file's opset has, and that onnxruntime runs in the model's
dtype. `load` takes any of them for the layer.
"""

from __future__ import annotations

import math
from typing import NamedTuple

X = "x"
"""The layer's input."""


class Tree(NamedTuple):
    """A node: its inputs are other nodes, `X`, settings of the layer by name, numbers, or lists of integers.

    A node may have other settings of the layer as attributes of their names; ``attributes`` are those it must have.
    """

    kind: str
    inputs: tuple[Tree | str | float | tuple[int, ...], ...]
    attributes: tuple[tuple[str, object], ...] = ()


def node(kind: str, *inputs: Tree | str | float | tuple[int, ...]) -> Tree:
    return Tree(kind, inputs)


def _halves(factor: Tree) -> list[Tree]:
    """x factor / 2, in each order that exporters are known to write."""
    half_of_product = node("Mul", node("Mul", X, factor), 0.5)
    return [
        half_of_product,
        node("Mul", node("Mul", X, 0.5), factor),
        node("Mul", X, node("Mul", factor, 0.5)),
    ]


def _gelu(approximate: str) -> tuple[Tree, ...]:
    """x (1 + erf(x / sqrt(2))) / 2, or x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    if approximate == "none":
        scaled = node("Div", X, math.sqrt(2)), node("Mul", X, math.sqrt(0.5))
        curves = [node("Erf", each) for each in scaled]
    else:
        cubes = node("Pow", X, 3.0), node("Mul", X, node("Mul", X, X))
        sums = [node("Add", X, node("Mul", cube, 0.044715)) for cube in cubes]
        curves = [node("Tanh", node("Mul", each, math.sqrt(2 / math.pi))) for each in sums]
    by_parts = [each for curve in curves for each in _halves(node("Add", curve, 1.0))]
    return Tree("Gelu", (X,), (("approximate", approximate),)), *by_parts


def _layer_normalization_by_parts() -> tuple[Tree, ...]:
    """ReduceMean has its axes as an attribute, and from opset 18 on as an input."""
    found = []
    kept = ("keepdims", 1)
    for mean in (
        lambda x: Tree("ReduceMean", (x,), (("axes", (-1,)), kept)),
        lambda x: Tree("ReduceMean", (x, (-1,)), (kept,)),
    ):
        apart = node("Sub", X, mean(X))
        deviation = node("Sqrt", node("Add", mean(node("Pow", apart, 2.0)), "epsilon"))
        found.append(node("Add", node("Mul", node("Div", apart, deviation), "gamma"), "beta"))
    return tuple(found)


_ROWS_AND_SIZES = node("Concat", node("Unsqueeze", node("Gather", node("Shape", X), 0.0), (0,)), "sizes")
_POSITIVE = node("Relu", X)
_NEGATIVE = node("Min", X, 0.0)
_SLOPE_BELOW = node("PRelu", X, "alpha"), node("Add", _POSITIVE, node("Mul", "alpha", _NEGATIVE))
_LINEAR = node("MatMul", X, "weight"), node("Gemm", X, "weight")

FORMS: dict[str, tuple[Tree, ...]] = {
    "dense": (
        *(node("Add", product, "bias") for product in _LINEAR),
        node("Gemm", X, "weight", "bias"),
        *_LINEAR,
    ),
    "relu": (_POSITIVE, node("Clip", X, 0.0)),
    "clipped_relu": (
        node("Clip", X, 0.0, "high"),
        node("Min", _POSITIVE, "high"),
        *(
            node(
                "Where",
                node("LessOrEqual", X, "threshold"),
                node("Mul", node("Sub", X, "threshold"), "slope"),
                above,
            )
            for above in (node("Min", X, "high"), X)
        ),
    ),
    "leaky_relu": (node("LeakyRelu", X), *_SLOPE_BELOW),
    "prelu": _SLOPE_BELOW,
    "elu": (
        node("Elu", X),
        node("Add", _POSITIVE, node("Mul", "alpha", node("Sub", node("Exp", _NEGATIVE), 1.0))),
    ),
    "softplus": (
        node("Softplus", X),
        node("Where", node("Greater", X, 20.0), X, node("Softplus", X)),  # PyTorch's, which is the same
        node("Add", _POSITIVE, node("Log", node("Add", node("Exp", node("Neg", node("Abs", X))), 1.0))),
    ),
    "sigmoid": (node("Sigmoid", X),),
    "tanh": (node("Tanh", X),),
    "softmax": (node("Softmax", X),),
    "silu": (node("Mul", X, node("Sigmoid", X)),),
    "gelu": _gelu("none"),
    "gelu_tanh": _gelu("tanh"),
    "batch_normalization": (node("BatchNormalization", X, "gamma", "beta", "mean", "variance"),),
    "layer_normalization": (
        node("LayerNormalization", X, "gamma", "beta"),
        node("LayerNormalization", X, "gamma"),
        *_layer_normalization_by_parts(),
    ),
    "shift": (node("Sub", X, "center"), node("Add", X, "offset")),
    "scale": (node("Mul", X, "scale"), node("Div", X, "divisor")),
    "scaler": (node("Scaler", X),),
    "flatten": (node("Flatten", X),),
    "reshape": (node("Reshape", X, "shape"), node("Reshape", X, _ROWS_AND_SIZES)),
    "dropout": (node("Dropout", X), node("Dropout", X, "rate"), node("Dropout", X, "rate", "training")),
}

COMMUTATIVE = {"Add", "Mul", "Min"}
NOT_IN_DOUBLE = {"Clip", "Erf", "Gelu", "PRelu", "Softplus"}
"""Nodes that onnxruntime runs in single precision alone: PRelu before opset 16, Clip where Relu stands before it."""


def nodes_of(tree: Tree | str | float | tuple) -> list[Tree]:
    """All nodes of a tree."""
    if not isinstance(tree, Tree):
        return []
    return [tree, *(inner for each in tree.inputs for inner in nodes_of(each))]


def settings_of(tree: Tree) -> set[str]:
    """The names of the layer's settings among the inputs of a tree's nodes."""
    return {each for inner in nodes_of(tree) for each in inner.inputs if isinstance(each, str)} - {X}


KNOWN_KINDS = {"Cast", "Identity"}
KNOWN_KINDS |= {inner.kind for trees in FORMS.values() for tree in trees for inner in nodes_of(tree)}
