"""Layers with parameters of their own for each feature: their base, and PReLU."""

from typing import Any

import numpy as np

from .. import constraints, initializers, regularizers
from ..constraints import Constraint
from ..initializers import Initializer
from ..kernels import featurewise as kernel
from ..kernels.matmul import Block
from ..kernels.program import PRELU, Op, Operation
from ..registry import Unpack
from ..regularizers import Regularizer
from .base import LAYERS, Layer, LayerOptions


class FeaturewiseLayer(Layer):
    """Base of the layers that are a line of `kernels.featurewise.FEATUREWISE`.

    A subclass names its first and second parameter, "" for none, and its operation. ``_numbers`` are those that the
    kernels read as ``f``.
    """

    _names: tuple[str, str]
    _kind: Operation
    _numbers: tuple[float, float] = (0.0, 0.0)
    _x: np.ndarray | None = None

    def forward(self, x, training=False):
        self._x = x = self._checked_input(x)
        self._used = self._operation(training and len(x) > 0)
        rows, parameters = self._matrix(x), map(self._flat, self._names)
        self._kept = self._begin_to_keep(rows)
        self._forward_numbers, out = np.array(self._numbers), np.empty_like(x)
        forward = kernel.FORWARD[self._used.name]
        forward(self._matrix(out), rows, *parameters, self._kept, self._forward_numbers, whole_of(rows))
        return out

    def backward(self, dout):
        dout = self._checked_gradient(dout, self._x)
        dx, name = np.empty_like(dout), self._used.name
        given = self._matrix(dout), self._matrix(self._x)
        rest = self._kept, self._forward_numbers, whole_of(given[0])
        kernel.BACKWARD[name](self._matrix(dx), *given, self._flat(self._names[0]), *rest)
        if self.trainable:
            gradients = (self._flat(name, "d") for name in self._names)
            kernel.GRADIENTS[name](*gradients, np.empty(0, dout.dtype), *given, *rest)
        return dx

    def ops(self):
        offsets = {parameter.name: parameter.offset for parameter in self.parameters}
        first, second = (offsets.get(name, -1) for name in self._names)
        return [Op(self._operation(True), self._size, self._size, first, second, f=self._numbers)]

    def _operation(self, training: bool) -> Operation:
        """What the layer computes: in training, if so."""
        return self._kind

    def _begin_to_keep(self, rows: np.ndarray) -> np.ndarray:
        """The memory for what the operation keeps of a batch."""
        return np.empty(kernel.FEATUREWISE[self._used.name].kept(*rows.shape), rows.dtype)

    def _matrix(self, array: np.ndarray) -> np.ndarray:
        """A batch with the features that have parameters of their own as rows."""
        return array.reshape(-1, self._size)

    def _flat(self, name: str, prefix: str = "") -> np.ndarray:
        """A parameter as a vector, or its gradient; empty if the layer has none of that name."""
        known = [parameter.name for parameter in self.parameters]
        return getattr(self, prefix + name).reshape(-1) if name in known else np.empty(0, self.dtype)


def whole_of(rows: np.ndarray) -> Block:
    """All of a matrix."""
    return Block(0, rows.shape[0], 0, rows.shape[1])


@LAYERS.register()
class PReLU(FeaturewiseLayer):
    """x where x > 0, else alpha * x, with an ``alpha`` of each number of a sample (He et al. 2015).

    Arguments and defaults are those of Keras 3; ``shared_axes`` can only be None.

    Backward: dx = dout where x > 0, else alpha dout; dalpha = the sum over the batch of dout x where x <= 0. At 0, the
    kink, the derivative is the left one.
    """

    changeable = Layer.changeable | {"alpha_regularizer", "alpha_constraint"}
    not_in_config = Layer.not_in_config | {"shared_axes"}
    _names, _kind = ("alpha", ""), PRELU

    def __init__(
        self,
        alpha_initializer: str | Initializer = "zeros",
        alpha_regularizer: str | Regularizer | None = None,
        alpha_constraint: str | Constraint | None = None,
        shared_axes: None = None,
        *common: Any,
        **options: Unpack[LayerOptions],
    ):
        super().__init__(*common, **options)
        if shared_axes is not None:
            raise ValueError(
                f"shared_axes must be None, got {shared_axes!r}: each number has an alpha of its own"
            )
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)

    def build(self, input_shape):
        rules = self.alpha_initializer, self.alpha_regularizer, self.alpha_constraint
        self.add_weight("alpha", input_shape, *rules)
