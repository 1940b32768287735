"""What a part of an ONNX graph is in minidl: a layer with its weights, or numbers that scale and shift."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...layers import (
    ELU,
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LayerNormalization,
    LeakyReLU,
    PReLU,
    ReLU,
)
from .affine import Affine, scaling, shift
from .graphs import Graph


class Step(NamedTuple):
    """A part of the chain: the node that ends it, a key of `forms.FORMS`, and what `Graph.match` found."""

    node: Any
    kind: str
    settings: dict[str, Any]


class Part(NamedTuple):
    """A layer, not built, and its weights in its order."""

    layer: Layer
    weights: Sequence[np.ndarray] = ()


class Reader:
    """Reads one step, whose input are samples of ``shape``; of what it gives, that is then the shape.

    ``part`` is a layer, or an `Affine`, or None for what changes nothing. Whatever minidl has not is a ValueError that
    names the node.
    """

    def __init__(self, graph: Graph, step: Step, shape: tuple[int, ...], dtype: str):
        self._graph, self._step, self._given, self._dtype = graph, step, step.settings, np.dtype(dtype)
        self.shape = shape

    def part(self) -> Part | Affine | None:
        try:
            return _READERS.get(self._step.kind, Reader._activation)(self)
        except ValueError as error:
            raise ValueError(
                f"{self._graph.name}: {self._graph.describe(self._step.node)}: {error}"
            ) from error

    # -- what was found

    def _array(self, name: str) -> np.ndarray:
        array = self._given[name]
        if array.dtype != self._dtype:
            raise ValueError(f"its {name} must be of the input's dtype {self._dtype}, got {array.dtype}")
        if not np.isfinite(array).all():
            raise ValueError(f"its {name} holds NaN or infinity")
        return array

    def _vector(self, name: str, size: int) -> np.ndarray:
        """A constant with a number for each of ``size`` features."""
        array = self._array(name)
        if array.size not in (1, size) or array.ndim and array.shape[-1] != array.size:
            raise ValueError(f"its {name} must have {size} numbers, got shape {array.shape}")
        return np.broadcast_to(array.reshape(-1), (size,))

    def _number(self, name: str, default: float | None = None) -> float | None:
        """A setting that is a constant of one number or an attribute."""
        value = self._given.get(name, self._given.get(f".{name}", default))
        if value is None:
            return None
        if np.size(value) != 1:
            raise ValueError(f"its {name} must be one number, got shape {np.shape(value)}")
        value = np.asarray(value, self._dtype).reshape(())
        return float(str(value))  # 0.001, where its nearest float32 is meant

    def _last_axis(self) -> None:
        axis = self._given.get(".axis", -1)
        if axis not in (-1, len(self.shape)):
            raise ValueError(f"its axis must be the last, got {axis}")

    # -- layers

    def _dense(self) -> Part:
        weight, is_gemm = self._array("weight"), ".transB" in self._given
        if self._given.get(".transA"):
            raise ValueError("its transA must be 0: a sample is a row")
        if is_gemm:
            weight = self._given[".alpha"] * (weight.T if self._given[".transB"] else weight)
        if weight.ndim != 2 or self.shape != weight.shape[:1]:
            raise ValueError(
                f"its weight {weight.shape} must fit flat samples, got samples of shape {self.shape}"
            )
        self.shape = weight.shape[1:]
        weights = [weight.astype(self._dtype)]
        if "bias" in self._given:
            beta = self._given[".beta"] if self._step.node.op_type == "Gemm" else 1.0
            weights.append((beta * self._vector("bias", *self.shape)).astype(self._dtype))
        return Part(Dense(*self.shape, use_bias=len(weights) == 2), weights)

    def _activation(self) -> Part:
        self._last_axis()
        return Part(Activation(self._step.kind))

    def _clipped_relu(self) -> Part:
        high, slope, threshold = (self._number(name) for name in ("high", "slope", "threshold"))
        return Part(ReLU(high, slope or 0.0, threshold or 0.0))

    def _leaky_relu(self) -> Part:
        alpha = self._array("alpha") if "alpha" in self._given else np.asarray(self._given[".alpha"])
        if alpha.size == 1 and alpha.min() >= 0:
            return Part(LeakyReLU(self._number("alpha")))
        return Part(
            PReLU(), [np.broadcast_to(self._of_sample("alpha", alpha), self.shape).astype(self._dtype)]
        )

    def _elu(self) -> Part:
        return Part(ELU(self._number("alpha")))

    def _batch_normalization(self) -> Part:
        if self._given.get(".training_mode"):
            raise ValueError("its training_mode must be 0")
        if len(self.shape) > 1:
            raise ValueError(
                f"it normalises the second axis, and minidl the last, of samples of shape {self.shape}"
            )
        layer = BatchNormalization(momentum=self._number("momentum"), epsilon=self._number("epsilon"))
        return Part(
            layer, [self._vector(name, *self.shape) for name in ("gamma", "beta", "mean", "variance")]
        )

    def _layer_normalization(self) -> Part:
        self._last_axis()
        names = [name for name in ("gamma", "beta") if name in self._given]
        layer = LayerNormalization(epsilon=self._number("epsilon"), center="beta" in names)
        return Part(layer, [self._vector(name, self.shape[-1]) for name in names])

    # -- shapes

    def _flatten(self) -> Part | None:
        if self._given[".axis"] != 1:
            raise ValueError(f"its axis must be 1, got {self._given['.axis']}")
        return self._flat()

    def _reshape(self) -> Part | None:
        if "sizes" in self._given:
            rows, sizes = 0, self._given["sizes"].tolist()
        else:
            rows, *sizes = self._given["shape"].tolist() or [0]
        total = math.prod(self.shape)
        keeps_rows = rows in (0, self._graph.dims[0]) or (rows == -1 and sizes == [total])
        if not keeps_rows or sizes not in ([-1], [total]):
            raise ValueError(f"it must make samples flat, (batch, {total}), got {(rows, *sizes)}")
        return self._flat()

    def _flat(self) -> Part | None:
        is_flat = len(self.shape) == 1
        self.shape = (math.prod(self.shape),)
        return None if is_flat else Part(Flatten())

    # -- what does nothing in inference

    def _dropout(self) -> Part | None:
        if np.any(self._given.get("training", False)):
            raise ValueError("its training_mode must be false")
        rate = self._number("rate", self._given.get(".ratio", 0.5))
        return Part(Dropout(rate)) if 0 < rate < 1 else None

    # -- numbers that scale and shift

    def _of_sample(self, name: str, array: np.ndarray) -> np.ndarray:
        """A constant that is broadcast to a sample, without the axis of the batch, in float64."""
        if array.ndim > len(self.shape) and array.shape[0] == 1:
            array = array[0]
        if array.ndim > len(self.shape) or np.broadcast_shapes(array.shape, self.shape) != self.shape:
            raise ValueError(
                f"its {name} must fit samples of shape {self.shape}, got shape {np.shape(array)}"
            )
        return array.astype(np.float64)

    def _constant(self, name: str) -> np.ndarray:
        return self._of_sample(name, self._array(name))

    def _shift(self) -> Affine:
        return shift(self._constant("center") if "center" in self._given else -self._constant("offset"))

    def _scale(self) -> Affine:
        if "scale" in self._given:
            return scaling(self._constant("scale"))
        divisor = self._constant("divisor")
        if not np.all(divisor):
            raise ValueError("it divides by 0")
        return scaling(1 / divisor)

    def _scaler(self) -> Affine:
        numbers = (np.asarray(self._given[name]) for name in (".offset", ".scale"))
        return Affine(*(self._of_sample("offset and scale", each) for each in numbers), np.float64(0))


_READERS: dict[str, Callable[[Reader], Part | Affine | None]] = {
    "dense": Reader._dense,
    "clipped_relu": Reader._clipped_relu,
    "leaky_relu": Reader._leaky_relu,
    "elu": Reader._elu,
    "batch_normalization": Reader._batch_normalization,
    "layer_normalization": Reader._layer_normalization,
    "shift": Reader._shift,
    "scale": Reader._scale,
    "scaler": Reader._scaler,
    "flatten": Reader._flatten,
    "reshape": Reader._reshape,
    "dropout": Reader._dropout,
}
"""The others are activations without settings."""
