"""The text of a C file that predicts: constants, the functions it needs, and loops for each layer, in order.

A layer is a function of the table `_LAYERS`, an activation one of `minidl.interop.c.templates.FUNCTIONS`.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ... import layers as kinds
from ...models import Sequential
from ...report import describe_layers
from .. import activation_of
from .templates import FUNCTIONS, HEAD, MAIN

_UNROLLED = 4
"""Inputs whose products are summed before they are added to an output: fewer loads and stores, and less rounding."""
_BLOCK = 1024
"""Inputs whose sum is made by itself, where there are as many: rounding grows with the length of a sum."""
_LARGEST_INT = 32767  # what an int of C holds on every processor


class Written(NamedTuple):
    """A C file, and what it takes in bytes: its constants, and its arrays on the stack."""

    text: str
    constants: int
    stack: int


def c_source(model: Sequential, name: str, quantize: bool = False) -> Written:
    """The file for a built model. ValueError for a layer, an activation or a number that has no C form, by its name."""
    writer = _Writer(model, name, quantize)
    for index, layer in enumerate(model.layers):
        writer.add(index, layer)
    return writer.finished(model)


def quantized(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``weight`` (in, out) as int8 q (in, out) and a scale of each column (out,): |weight - q scale| <= scale / 2.

    scale = max |weight| / 127 of the column, but at least the smallest normal number, which has all its digits.
    """
    smallest = np.finfo(weight.dtype).tiny
    scale = np.maximum(np.abs(weight).max(axis=0) / weight.dtype.type(127), smallest)
    q = np.rint(weight.astype(np.float64) / scale)
    return np.clip(q, -127, 127).astype(np.int8), scale


class _Writer:
    """Writes layer after layer. ``at`` is where the numbers of a sample lie: x, then the arrays a and b by turns."""

    def __init__(self, model: Sequential, name: str, quantize: bool):
        shapes = [model.input_shape, *(layer.output_shape for layer in model.layers)]
        is_double = model.dtype == np.float64
        self.dtype, self.quantize, self.at = model.dtype, quantize, "x"
        self._words = {
            "NAME": name,
            "REAL": "double" if is_double else "float",
            "INT": "int" if max(map(math.prod, shapes)) <= _LARGEST_INT else "long",
            "F": "" if is_double else "f",
            "FORMAT_IN": "%lf" if is_double else "%f",
            "FORMAT_OUT": "%.17g" if is_double else "%.9g",
            "SQRT_HALF": _number(math.sqrt(0.5), model.dtype),
            "TWICE_SQRT_2_PI": _number(2 * math.sqrt(2 / math.pi), model.dtype),
            "CUBIC": _number(0.044715, model.dtype),
        }
        self._sizes = {"a": 0, "b": 0, "part": 0}
        self._constants: list[str] = []
        self._bytes = 0
        self._functions: dict[str, str] = {}
        self._body: list[str] = []

    def add(self, index: int, layer: kinds.Layer) -> None:
        """The layer as it is in inference, then its activation."""
        activation, settings = _activation_of(layer, self.dtype)
        write = _LAYERS.get(type(layer))
        if write is None or activation not in ("linear", *FUNCTIONS):
            lacking = type(layer).__name__ if write is None else activation
            raise ValueError(f"layer {layer.name!r} ({lacking}) has no C form")
        self._layer, self._index = layer, index
        self._rows, self._width = math.prod(layer.output_shape[:-1]), layer.output_shape[-1]
        self.emit("", f"/* {type(layer).__name__}: {self._rows * self._width} numbers */")
        with np.errstate(over="ignore", divide="ignore"):  # of what is then refused
            write(self, layer)
            if activation == "softmax":
                self.rowwise("softmax")
            elif activation != "linear":
                self.elementwise(self.call(activation, "{}", *(self.number("setting", s) for s in settings)))

    # -- for the functions of layers ------------------------------------------------------------------

    def emit(self, *lines: str) -> None:
        """Lines of the body."""
        self._body += [f"    {line}".rstrip() for line in lines]

    def each(self, index: str, end: int | str, step: int = 1, start: int | str = 0) -> str:
        """The head of a loop."""
        onward = f"{index}++" if step == 1 else f"{index} += {step}"
        return f"for ({self._words['INT']} {index} = {start}; {index} < {end}; {onward})"

    def array(self, name: str, size: int) -> str:
        """An array on the stack of at least ``size`` numbers."""
        self._sizes[name] = max(self._sizes[name], size)
        return name

    def turn(self, size: int) -> tuple[str, str]:
        """(where the numbers lie, where ``size`` others shall lie from now on)."""
        source, self.at = self.at, self.array("b" if self.at == "a" else "a", size)
        return source, self.at

    def elementwise(self, formula: str) -> None:
        """Each number of the sample becomes ``formula`` of it, in which j is its place in the last axis."""
        place = self._place
        source, target = self.turn(self._rows * self._width) if self.at == "x" else (self.at, self.at)
        change = f"{target}[{place}] = {formula.format(f'{source}[{place}]')};"
        if self._rows == 1:
            self.emit(self.each("j", self._width), f"    {change}")
        else:
            outer, inner = self.each("i", self._rows), self.each("j", self._width)
            self.emit(outer, f"    {inner}", f"        {change}")

    def rowwise(self, function: str, *arguments: str) -> None:
        """Call ``function`` with each row of the last axis, which it changes in place."""
        if self.at == "x":
            self.elementwise("{}")
        if self._rows == 1:
            self.emit(self.call(function, self.at, str(self._width), *arguments) + ";")
        else:
            row = f"{self.at} + i * {self._width}"
            call = self.call(function, row, str(self._width), *arguments)
            self.emit(self.each("i", self._rows), f"    {call};")

    def call(self, function: str, *arguments: str) -> str:
        """A call of one of `FUNCTIONS`, which the file then has."""
        self._functions.setdefault(function, self._filled(FUNCTIONS[function]))
        return f"{self._words['NAME']}_{function}({', '.join(arguments)})"

    def number(self, what: str, value: float) -> str:
        """A number in the model's precision."""
        self.check_finite(what, self.dtype.type(value))
        return _number(value, self.dtype)

    def operand(self, what: str, array: np.ndarray) -> str:
        """One number if all are equal, else an element of a constant array shaped as a sample."""
        if np.all(array == array.flat[0]):
            return self.number(what, array.flat[0])
        return f"{self.constant(what, array.ravel())}[{self._place}]"

    def constant(self, what: str, array: np.ndarray) -> str:
        """Declare a vector or a matrix; returns its name."""
        self.check_finite(what, array)
        name = f"{self._words['NAME']}_{what}_{self._index}"
        kind = "signed char" if array.dtype == np.int8 else self._words["REAL"]
        size = "".join(f"[{count}]" for count in array.shape)
        self._constants.append(f"\nstatic const {kind} {name}{size} = {_braces(array)};\n")
        self._bytes += array.nbytes
        return name

    def check_finite(self, what: str, array: np.ndarray) -> None:
        """C has no literal of NaN and infinity."""
        wrong = np.argwhere(~np.isfinite(array))
        if len(wrong):
            first = tuple(wrong[0].tolist())
            raise ValueError(
                f"layer {self._layer.name!r} ({type(self._layer).__name__}) has a {what} of {array[first]}"
                f"{f' at {first}' if first else ''}: only finite numbers of {self.dtype} have a C form"
            )

    @property
    def _place(self) -> str:
        return "j" if self._rows == 1 else f"i * {self._width} + j"

    # -- the whole ------------------------------------------------------------------------------------

    def finished(self, model: Sequential) -> Written:
        """The file."""
        stack = sum(self._sizes.values()) * self.dtype.itemsize
        self._words |= {
            "LAYERS": describe_layers(model),
            "WEIGHTS": "int8 with a scale a column" if self.quantize else self.dtype.name,
            "IN_SHAPE": ", ".join(map(str, model.input_shape)),
            "INPUTS": str(math.prod(model.input_shape)),
            "OUTPUTS": str(math.prod(model.output_shape)),
            "CONSTANTS": f"{self._bytes:,}",
            "STACK": f"{stack:,}",
        }
        real, name = self._words["REAL"], self._words["NAME"]
        self.emit("", self.each("j", self._rows * self._width), f"    out[j] = {self.at}[j];")
        parts = [
            self._filled(HEAD),
            *self._constants,
            *self._functions.values(),
            f"\nvoid {name}_predict(const {real} *x, {real} *out)\n{{\n",
            *(f"    {real} {array}[{size}];\n" for array, size in self._sizes.items() if size),
            "\n".join(self._body) + "\n}\n",
            self._filled(MAIN),
        ]
        return Written("".join(parts), self._bytes, stack)

    def _filled(self, template: str) -> str:
        words = "|".join(self._words)
        return re.sub(
            rf"\b(?:{words})(?=\b|_)|(?<=[a-z0-9])F(?=\()", lambda word: self._words[word[0]], template
        )


# ---- layers


def _activation_of(layer: kinds.Layer, dtype: np.dtype) -> tuple[str, list[float]]:
    """The name of the function that ends the layer, and its settings."""
    if type(layer) is kinds.ReLU and (layer.max_value is not None or layer.threshold):
        most = float(np.finfo(dtype).max) if layer.max_value is None else layer.max_value
        return "clipped_relu", [layer.negative_slope, layer.threshold, most]
    name, slope = activation_of(layer, "C")
    return name, [slope] if name in ("leaky_relu", "elu") else []


def _dense(writer: _Writer, layer: kinds.Dense) -> None:
    inputs, outputs = layer.weight.shape
    writer.check_finite("weight", layer.weight)
    weight, scale = quantized(layer.weight) if writer.quantize else (layer.weight, None)
    name = writer.constant("weight", weight)
    bias = f"{writer.constant('bias', layer.bias)}[j]" if layer.use_bias else "0"
    source, target = writer.turn(outputs)
    each = writer.each("j", outputs)

    def add(to: str, first: str, count: int, depth: int) -> None:
        """To each output, add the products of ``count`` inputs from ``first`` on."""
        places = [f"{first} + {k}" if k else first for k in range(count)]
        terms = [f"{source}[{place}] * {name}[{place}][j]" for place in places]
        terms[-1] += ";"
        lines = [each, f"    {to}[j] += {terms[0]}", *(f"        + {term}" for term in terms[1:])]
        writer.emit(*("    " * depth + line for line in lines))

    writer.emit(each, f"    {target}[j] = {bias if scale is None else '0'};")
    blocks, whole = inputs - inputs % _BLOCK, inputs - inputs % _UNROLLED
    if blocks:
        part = writer.array("part", outputs)
        writer.emit(f"{writer.each('k', blocks, _BLOCK)} {{", f"    {each}", f"        {part}[j] = 0;")
        writer.emit(f"    {writer.each('i', f'k + {_BLOCK}', _UNROLLED, 'k')}")
        add(part, "i", _UNROLLED, 2)
        writer.emit(f"    {each}", f"        {target}[j] += {part}[j];", "}")
    if blocks < whole:
        writer.emit(writer.each("i", whole, _UNROLLED, blocks))
        add(target, "i", _UNROLLED, 1)
    if whole < inputs:
        add(target, str(whole), inputs - whole, 0)
    if scale is not None:
        scaled = f"{target}[j] * {writer.constant('scale', scale)}[j]"
        writer.emit(each, f"    {target}[j] = {scaled} + {bias};")


def _affine(writer: _Writer, layer: Any) -> None:
    center, scale, offset = (np.asarray(each, writer.dtype) for each in layer.affine())
    formula = f"({{}} - {writer.operand('center', center)})" if np.any(center) else "{}"
    formula += f" * {writer.operand('scale', scale)}"
    writer.elementwise(formula + (f" + {writer.operand('offset', offset)}" if np.any(offset) else ""))


def _batch_normalization(writer: _Writer, layer: kinds.BatchNormalization) -> None:
    gamma = layer.gamma if layer.scale else writer.dtype.type(1)
    scale = gamma / np.sqrt(layer.moving_variance + writer.dtype.type(layer.epsilon))
    mean, scale = writer.constant("mean", layer.moving_mean), writer.constant("scale", scale)
    offset = f" + {writer.constant('beta', layer.beta)}[j]" if layer.center else ""
    writer.elementwise(f"({{}} - {mean}[j]) * {scale}[j]{offset}")


def _layer_normalization(writer: _Writer, layer: kinds.LayerNormalization) -> None:
    writer.rowwise("standardize", _number(layer.epsilon, np.dtype(np.float64)))
    scale = f" * {writer.constant('gamma', layer.gamma)}[j]" if layer.scale else ""
    offset = f" + {writer.constant('beta', layer.beta)}[j]" if layer.center else ""
    if scale or offset:
        writer.elementwise(f"{{}}{scale}{offset}")


def _prelu(writer: _Writer, layer: kinds.PReLU) -> None:
    writer.elementwise(writer.call("leaky_relu", "{}", writer.operand("alpha", layer.alpha)))


def _nothing(writer: _Writer, layer: kinds.Layer) -> None:
    """Of a layer that is its activation, or changes the shape alone, or is off in inference."""


_LAYERS: dict[type, Callable] = {
    kinds.Dense: _dense,
    kinds.Normalization: _affine,
    kinds.Rescaling: _affine,
    kinds.BatchNormalization: _batch_normalization,
    kinds.LayerNormalization: _layer_normalization,
    kinds.PReLU: _prelu,
}
for _kind in "Activation ELU LeakyReLU ReLU Softmax Flatten Dropout GaussianNoise RandomTranslation".split():
    _LAYERS[getattr(kinds, _kind)] = _nothing


# ---- numbers


def _number(value: float, dtype: np.dtype) -> str:
    """A literal that any C99 compiler reads as the same bits; decimal digits may be read one bit off."""
    return _literals([float(dtype.type(value))], dtype)[0]


def _literals(values: list, dtype: np.dtype) -> list[str]:
    if dtype == np.int8:
        return list(map(str, values))
    suffix = "f" if dtype == np.float32 else ""
    return re.sub(r"\.?0*p([+-]\d+)", rf"p\1{suffix}", " ".join(map(float.hex, values))).split()


def _braces(array: np.ndarray) -> str:
    """The initializer of an array; a matrix has each row on lines of its own."""
    if array.ndim == 2:
        return "{\n" + ",\n".join(map(_braces, array)) + "}"
    words, width = _literals(array.tolist(), array.dtype), 24 if array.dtype == np.int8 else 6
    lines = [", ".join(words[first : first + width]) for first in range(0, len(words), width)]
    return "{" + ",\n ".join(lines) + "}"
