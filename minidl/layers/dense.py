"""Dense: the matrix product, the bias and the activation; and activations as layers of their own."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import constraints, initializers, regularizers
from ..activations import ActivationFunction, clipped_relu
from ..constraints import Constraint
from ..initializers import Initializer
from ..kernels.matmul import dense_backward, dense_forward
from ..kernels.program import DENSE, Op
from ..registry import Unpack
from ..regularizers import Regularizer
from ..validation import check_bool, check_float, check_int
from .base import LAYERS, Layer, LayerOptions


@LAYERS.register()
class Dense(Layer):
    """out = activation(x weight + bias), weight (in, units), bias (units,).

    Arguments, defaults and initial distribution are those of Keras 3. ``activation`` is one of
    ``minidl.activations.NAMES`` ("relu", "softmax", ...) or a function of ``minidl.activations``; None is linear. It is
    kept, and saved, by its name. Input must be (B, in): put a Flatten before it otherwise.
    """

    changeable = Layer.changeable | {"kernel_regularizer", "kernel_constraint"}
    changeable |= {"bias_regularizer", "bias_constraint"}

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = None,
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
        kernel_regularizer: str | Regularizer | None = None,
        kernel_constraint: str | Constraint | None = None,
        input_dim: int | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        name: str | None = None,
        bias_regularizer: str | Regularizer | None = None,
        bias_constraint: str | Constraint | None = None,
        trainable: bool = True,
    ):
        super().__init__(name, input_shape, input_dim, trainable)
        self.units = check_int("units", units, minimum=1)
        self._activation = ActivationFunction(activation)
        self.activation = self._activation.name
        self.use_bias = check_bool("use_bias", use_bias)
        if not use_bias:
            self.bias = None  # as in Keras
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self._x = self._pre = self._out = None

    def build(self, input_shape):
        if len(input_shape) != 1:
            raise ValueError(
                f"layer {self.name} needs input of shape (B, features), got (B, {str(input_shape)[1:]}: "
                "put a Flatten layer before it"
            )
        shape = (input_shape[0], self.units)
        self.add_weight(
            "weight", shape, self.kernel_initializer, self.kernel_regularizer, self.kernel_constraint
        )
        if self.use_bias:
            shape = (self.units,)
            self.add_weight("bias", shape, self.bias_initializer, self.bias_regularizer, self.bias_constraint)
        self.output_shape = (self.units,)

    def forward(self, x, training=False):
        self._x = self._checked_input(x)
        self._pre = np.empty((len(self._x), self.units), self.dtype)
        dense_forward(self._pre, self._x, self.weight, self._bias_view("bias"))
        self._out = self._activation.forward(self._pre, overwrite=True)
        return self._out

    def backward(self, dout):
        dpre = self._activation.backward(self._checked_gradient(dout, self._out), self._out, self._pre)
        dx, dweight, dbias = np.empty_like(self._x), self.dweight, self._bias_view("dbias")
        if not self.parameters[0].trainable:
            dweight, dbias = dweight[:0], dbias[:0]  # the kernel skips what is empty
        dense_backward(dx, dweight, dbias, dpre, self._x, self.weight)
        return dx

    def ops(self):
        offsets = {parameter.name: parameter.offset for parameter in self.parameters}
        dense = Op(DENSE, self._size, self.units, weight=offsets["weight"], bias=offsets.get("bias", -1))
        return [dense, *self._activation.ops(self.units)]

    @property
    def kernel(self) -> np.ndarray:
        """Keras's name of ``weight``."""
        return self.weight

    def _bias_view(self, name: str) -> np.ndarray:
        return getattr(self, name) if self.use_bias else np.empty(0, self.dtype)


@LAYERS.register()
class Activation(Layer):
    """out = activation(x), by a name of ``minidl.activations.NAMES`` ("relu", "softmax", ...) or a function of
    ``minidl.activations``; None is linear.

    Softmax is over the last axis, and its backward is the true Jacobian, p * (dp - sum(dp * p)).
    """

    def __init__(self, activation: str | Callable | None, *common: Any, **options: Unpack[LayerOptions]):
        super().__init__(*common, **options)
        self._activation = ActivationFunction(activation)
        self.activation = self._activation.name
        self._x = self._out = None

    def forward(self, x, training=False):
        self._x = x = self._checked_input(x)
        self._out = self._activation.forward(self._matrix(x)).reshape(x.shape)
        return self._out

    def backward(self, dout):
        dout = self._checked_gradient(dout, self._out)
        matrices = (self._matrix(array) for array in (dout, self._out, self._x))
        return self._activation.backward(*matrices).reshape(dout.shape)

    def _matrix(self, array):
        """``array`` with the last axis as rows: softmax needs them, elementwise formulas take any matrix."""
        return array.reshape(-1, self.input_shape[-1])

    def ops(self):
        if self.activation == "softmax" and len(self.input_shape) > 1:
            return None  # in the compiled loop a row is a whole sample
        return self._activation.ops(self._size)


@LAYERS.register()
class Softmax(Activation):
    """softmax over the last axis; backward: p * (dp - sum(dp * p))."""

    not_in_config = Activation.not_in_config | {"activation", "axis"}

    def __init__(self, axis: int = -1, *common: Any, **options: Unpack[LayerOptions]):
        if axis != -1:
            raise ValueError(f"axis must be -1 (the last), got {axis!r}")
        super().__init__("softmax", *common, **options)


@LAYERS.register()
class LeakyReLU(Activation):
    """x where x > 0, else negative_slope * x."""

    not_in_config = Activation.not_in_config | {"activation"}

    def __init__(self, negative_slope: float = 0.3, *common: Any, **options: Unpack[LayerOptions]):
        super().__init__("leaky_relu", *common, **options)
        self.negative_slope = check_float("negative_slope", negative_slope, minimum=0)
        self._activation = ActivationFunction("leaky_relu", self.negative_slope)


@LAYERS.register()
class ELU(Activation):
    """x where x > 0, else alpha * (exp(x) - 1), for an alpha >= 0."""

    not_in_config = Activation.not_in_config | {"activation"}

    def __init__(self, alpha: float = 1.0, *common: Any, **options: Unpack[LayerOptions]):
        super().__init__("elu", *common, **options)
        self.alpha = check_float("alpha", alpha, minimum=0)
        self._activation = ActivationFunction("elu", self.alpha)


@LAYERS.register()
class ReLU(Activation):
    """x where x > threshold, at most max_value; else negative_slope * (x - threshold).

    With ``max_value`` or ``threshold`` set, the layer runs in NumPy, outside the compiled loop.
    """

    not_in_config = Activation.not_in_config | {"activation"}

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        *common: Any,
        **options: Unpack[LayerOptions],
    ):
        negative_slope = check_float("negative_slope", negative_slope, minimum=0)
        super().__init__("leaky_relu" if negative_slope else "relu", *common, **options)
        self.max_value = None if max_value is None else check_float("max_value", max_value, minimum=0)
        self.negative_slope = negative_slope
        self.threshold = check_float("threshold", threshold, minimum=0)
        self._has_kernel = self.max_value is None and self.threshold == 0
        self._activation = ActivationFunction(self.activation, negative_slope)

    def forward(self, x, training=False):
        if self._has_kernel:
            return super().forward(x, training)
        self._x = x = self._checked_input(x)
        self._out = clipped_relu(x, self.negative_slope, self.max_value, self.threshold)
        return self._out

    def backward(self, dout):
        if self._has_kernel:
            return super().backward(dout)
        dout, x = self._checked_gradient(dout, self._out), self._x
        slope = np.where(x <= self.threshold, self.negative_slope, 1.0)
        if self.max_value is not None:
            slope[(x > self.threshold) & (x >= self.max_value)] = 0.0
        return dout * slope.astype(dout.dtype)

    def ops(self):
        return super().ops() if self._has_kernel else None
