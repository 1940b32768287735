"""Dense: the matrix product, the bias and the activation."""

import numpy as np

from .. import constraints, initializers, regularizers
from ..activations import ActivationFunction
from ..constraints import Constraint
from ..initializers import Initializer
from ..kernels.matmul import dense_backward, dense_forward
from ..kernels.program import DENSE, Op
from ..regularizers import Regularizer
from ..validation import check_bool, check_int
from .base import LAYERS, Layer


@LAYERS.register()
class Dense(Layer):
    """out = activation(x weight + bias), weight (in, units), bias (units,).

    Arguments, defaults and initial distribution are those of Keras 3. ``activation`` is one of
    ``minidl.activations.NAMES`` ("relu", "softmax", ...); None is linear. Input must be (B, in): put a Flatten
    before it otherwise.
    """

    fixed_once_built = Layer.fixed_once_built | {"units", "activation", "use_bias"}

    def __init__(
        self,
        units: int,
        activation: str | None = None,
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
    ):
        super().__init__(name=name, input_shape=input_shape, input_dim=input_dim)
        self.units = check_int("units", units, minimum=1)
        self._activation = ActivationFunction(activation)
        self.activation = self._activation.name
        self.use_bias = check_bool("use_bias", use_bias)
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
        dx = np.empty_like(self._x)
        dense_backward(dx, self.dweight, self._bias_view("dbias"), dpre, self._x, self.weight)
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
