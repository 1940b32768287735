"""What stands between the raw samples and the first Dense: shapes, scales and random shifts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..kernels import random
from ..kernels.elementwise import rescale
from ..kernels.ops import RANDOM_TRANSLATION, RESCALING, Op
from ..validation import check_choice, check_float, check_int, check_shape
from .base import LAYERS, Layer, LayerOptions, as_matrix

if TYPE_CHECKING:
    from typing_extensions import Unpack


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

    def __init__(self, scale: float, offset: float = 0.0, **options: Unpack[LayerOptions]):
        super().__init__(**options)
        self.scale = check_float("scale", scale)
        self.offset = check_float("offset", offset)

    def forward(self, x, training=False):
        x = self._checked_input(x)
        out = np.empty_like(x)
        rescale(as_matrix(out), as_matrix(x), self.scale, self.offset)
        return out

    def backward(self, dout):
        dout = self._checked_batch("dout", dout, self.output_shape)
        dx = np.empty_like(dout)
        rescale(as_matrix(dx), as_matrix(dout), self.scale, 0.0)
        return dx

    def ops(self):
        return [Op(RESCALING, self._size, self._size, f=(self.scale, self.offset))]


@LAYERS.register()
class RandomTranslation(Layer):
    """In training, each image (H, W) or (H, W, C) is shifted by its own whole number of pixels.

    A factor is a fraction of the height (positive: down) or width (positive: right), in [-1, 1]. One number allows
    that much either way, a pair is (lowest, highest). ``RandomTranslation(2 / 28, 2 / 28)`` shifts digits by up to
    two pixels. Pixels that move in from outside are ``fill_value``. Keras shifts by fractions of a pixel and
    reflects by default; here the shift is whole and the only ``fill_mode`` is "constant". ``seed``: see `Dropout`.
    """

    fixed_once_built = Layer.fixed_once_built | {"height_factor", "width_factor"}

    def __init__(
        self,
        height_factor: float | tuple[float, float],
        width_factor: float | tuple[float, float],
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        seed: int | None = None,
        **options: Unpack[LayerOptions],
    ):
        super().__init__(**options)
        self.height_factor, self._height_range = _checked_factor("height_factor", height_factor)
        self.width_factor, self._width_range = _checked_factor("width_factor", width_factor)
        self.fill_mode = check_choice("fill_mode", fill_mode, ("constant",))
        self.fill_value = check_float("fill_value", fill_value)
        self.seed = None if seed is None else check_int("seed", seed)
        self._x = None

    def build(self, input_shape):
        if len(input_shape) not in (2, 3):
            raise ValueError(
                f"layer {self.name} needs images (H, W) or (H, W, C), got samples of shape {input_shape}"
            )
        height, width, channels = (*input_shape, 1)[:3]
        self._image = random.Image(height, width, channels)
        low_dy, high_dy = (round(bound * height) for bound in self._height_range)
        low_dx, high_dx = (round(bound * width) for bound in self._width_range)
        self._reach = random.Reach(low_dy, high_dy, low_dx, high_dx)

    def forward(self, x, training=False):
        self._x = self._checked_input(x)
        self._shifts, self._forward_key = training and any(self._reach), np.uint64(self.key)
        return self._shift(self._x, self.fill_value, 1)

    def backward(self, dout):
        return self._shift(self._checked_gradient(dout, self._x), 0.0, -1)

    def _shift(self, array: np.ndarray, fill_value: float, direction: int) -> np.ndarray:
        if not self._shifts:
            return array
        out = np.empty_like(array)
        matrices = as_matrix(out), as_matrix(array)
        random.translate(*matrices, self._image, self._reach, fill_value, self._forward_key, 0, direction)
        return out

    def ops(self):
        if not any(self._reach):
            return []
        numbers = (*self._image, *self._reach)
        return [Op(RANDOM_TRANSLATION, self._size, self._size, i=numbers, f=(self.fill_value, 0.0))]


def _checked_factor(argument, factor):
    """A factor in the form that is saved, and as (lowest, highest)."""
    if isinstance(factor, (tuple, list)):
        if len(factor) != 2:
            raise ValueError(f"{argument} must be a number or (lowest, highest), got {factor!r}")
        low, high = sorted(check_float(argument, bound, minimum=-1, maximum=1) for bound in factor)
        return [low, high], (low, high)
    factor = check_float(argument, factor, minimum=-1, maximum=1)
    return factor, (-abs(factor), abs(factor))
