"""A functional chain: ``Dense(10)(Dense(64)(inputs))`` remembers, from its end, the layers on the way from its Input.

Nothing is computed. `minidl.Model` walks back from the outputs and puts the layers in a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ONE_PATH = "a model is one path from one Input to one output"


class Symbol:
    """What a layer will give: a place in a chain, with a shape and a dtype, and without numbers.

    ``shape`` begins with None, for the batch. ``layer`` gives it, from what ``before`` it stands.
    """

    def __init__(self, layer: Any, shape: tuple[int, ...], dtype: Any, before: Symbol | None = None):
        self.layer, self.before = layer, before
        self.shape, self.dtype = (None, *shape), np.dtype(dtype).name

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def name(self) -> str:
        return self.layer.name

    def __array__(self, *_args, **_options):
        raise TypeError(f"{self} has no numbers: it is a place in a chain, for minidl.Model(inputs, outputs)")

    def __repr__(self) -> str:
        return f"<Symbol of layer {self.name}: {self.shape}, {self.dtype}>"


def _refuse(sign: str):
    def operator(self, *_):
        raise TypeError(f"the output of layer {self.name!r} is an operand of {sign!r}: {ONE_PATH}")

    return operator


for _names, _sign in {
    "add radd": "+", "sub rsub": "-", "mul rmul": "*", "truediv rtruediv": "/", "matmul rmatmul": "@",
    "pow rpow": "**", "neg": "-", "getitem": "[]",
}.items():  # fmt: skip
    for _name in _names.split():
        setattr(Symbol, f"__{_name}__", _refuse(_sign))


def extended(layer: Any, x: Any) -> Symbol:
    """The chain ``x`` with ``layer`` at its end. The layer is built for it, and belongs to this chain from then on."""
    if isinstance(x, (list, tuple)):
        if len(x) != 1:
            raise ValueError(f"layer {layer.name!r} was called on {len(x)} inputs: {ONE_PATH}")
        x = x[0]
    before = x if isinstance(x, Symbol) else x.symbol()
    if layer._in_chain or getattr(layer, "_in_model", False):
        raise ValueError(f"layer {layer.name!r} is used twice: {ONE_PATH}; make a second layer of its class")
    layer.build(before.shape[1:])
    layer._in_chain = True
    return Symbol(layer, layer.output_shape, before.dtype, before)


def path(inputs: Any, outputs: Any) -> list[Any]:
    """The layers from the Input ``inputs`` to ``outputs``, both included."""
    first, last = _only("inputs", inputs), _only("outputs", outputs)
    found, place = [], last
    while place is not None:
        found.append(place.layer)
        place = place.before
    if first.before is not None:
        raise ValueError(f"inputs must be an Input, got the output of layer {first.name!r}")
    if found[-1] is not first.layer:
        raise ValueError(
            f"outputs must come from inputs {first.name!r}, but layer {last.name!r} comes from {found[-1].name!r}"
        )
    for layer in found[:-1]:
        if getattr(layer, "_in_model", False):
            raise ValueError(f"layer {layer.name!r} already belongs to a model: make a new one of its class")
    return found[::-1]


def _only(argument: str, given: Any) -> Symbol:
    """The one symbol that ``inputs`` or ``outputs`` is."""
    if isinstance(given, dict):
        given = list(given.values())
    if isinstance(given, (list, tuple)):
        if len(given) != 1:
            names = [getattr(each, "name", each) for each in given]
            raise ValueError(f"{argument} must be one, got {len(given)}, {names}: {ONE_PATH}")
        given = given[0]
    if hasattr(given, "symbol"):
        given = given.symbol()
    if not isinstance(given, Symbol):
        raise TypeError(
            f"{argument} must be an Input, or what a layer gave when it was called on one, got {given!r}"
        )
    return given
