"""What stands between the raw samples and the first Dense: shapes and scales."""

import math
from typing import Any

import numpy as np

from ..kernels.elementwise import rescale
from ..kernels.program import RESCALING, Op
from ..registry import Unpack
from ..validation import check_float, check_shape
from .base import LAYERS, Layer, LayerOptions, as_matrix


class Input(Layer):
    """Declares the shape of one sample; data pass through unchanged.

    ``Input(shape=(784,))``. ``batch_size`` and ``dtype`` are accepted for compatibility with Keras and have no
    effect: any batch size fits, and inputs are converted to the model's dtype.

    It is not in the registry: a model saves its input's shape, not this layer.
    """

    not_in_config = Layer.not_in_config | {"batch_size", "dtype"}

    def __init__(
        self,
        shape: int | tuple[int, ...] | None = None,
        batch_size: int | None = None,
        dtype: str | None = None,
        name: str | None = None,
    ):
        if shape is None:
            raise ValueError("shape must be given: Input(shape=(784,))")
        self.shape = list(check_shape("shape", shape))
        super().__init__(name=name, input_shape=tuple(self.shape))

    def forward(self, x, training=False):
        return self._checked_input(x)

    def backward(self, dout):
        return self._checked_batch("dout", dout, self.output_shape)

    def ops(self):
        return []


@LAYERS.register()
class Flatten(Layer):
    """(B, *shape) to (B, product of shape), in C order."""

    def build(self, input_shape):
        self.output_shape = (math.prod(input_shape),)

    def forward(self, x, training=False):
        return as_matrix(self._checked_input(x))

    def backward(self, dout):
        dout = self._checked_batch("dout", dout, self.output_shape)
        return dout.reshape(len(dout), *self.input_shape)

    def ops(self):
        return []


@LAYERS.register()
class Rescaling(Layer):
    """out = x * scale + offset: ``Rescaling(1 / 255)`` takes bytes to [0, 1]."""

    fixed_once_built = Layer.fixed_once_built | {"scale", "offset"}

    def __init__(self, scale: float, offset: float = 0.0, *common: Any, **options: Unpack[LayerOptions]):
        super().__init__(*common, **options)
        self.scale = check_float("scale", scale)
        self.offset = check_float("offset", offset)

    def forward(self, x, training=False):
        return self._rescaled(self._checked_input(x), self.offset)

    def backward(self, dout):
        return self._rescaled(self._checked_batch("dout", dout, self.output_shape), 0.0)

    def _rescaled(self, array: np.ndarray, offset: float) -> np.ndarray:
        out = np.empty_like(array)
        rescale(as_matrix(out), as_matrix(array), self.scale, offset)
        return out

    def ops(self):
        return [Op(RESCALING, self._size, self._size, f=(self.scale, self.offset))]
