"""Layers without parameters: shapes, and what is random in training and else changes nothing.

A random layer stores no mask. Each draw follows from ``key``, which the model derives from its seed, the layer's place
and the step. So a backward can repeat its forward's draws, and two layers never share them.
"""

import math
from typing import Any

import numpy as np

from ..kernels import random
from ..kernels.program import DROPOUT, GAUSSIAN_NOISE, RANDOM_TRANSLATION, Op
from ..registry import Unpack
from ..validation import check_choice, check_dtype, check_float, check_int, check_shape
from .base import LAYERS, Layer, LayerOptions
from .chain import Symbol


class _Reshaping(Layer):
    """Base of the layers that leave all numbers as they are; ``build`` says in which shape."""

    def forward(self, x, training=False):
        return self._checked_input(x).reshape(len(x), *self.output_shape)

    def backward(self, dout):
        dout = self._checked_batch("dout", dout, self.output_shape)
        return dout.reshape(len(dout), *self.input_shape)

    def ops(self):
        return []


class Input(_Reshaping):
    """Declares the shape of one sample; data pass through unchanged.

    ``Input(shape=(784,))``. A ``batch_size`` is refused: any fits. ``dtype`` can only be the model's, to which inputs
    of any real dtype are converted.

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
        if batch_size is not None:
            raise ValueError(
                f"batch_size of an Input must be left out, got {batch_size!r}: every size of batch fits"
            )
        self._dtype = None if dtype is None else check_dtype(dtype)
        self.shape = list(check_shape("shape", shape))
        super().__init__(name=name, input_shape=tuple(self.shape))

    def symbol(self) -> Symbol:
        return Symbol(self, tuple(self.shape), self._dtype or np.float32)


@LAYERS.register()
class Flatten(_Reshaping):
    """(B, *shape) to (B, product of shape), in C order: ``data_format`` can only be "channels_last"."""

    not_in_config = Layer.not_in_config | {"data_format"}

    def __init__(self, data_format: str | None = None, *common: Any, **options: Unpack[LayerOptions]):
        check_choice("data_format", data_format, (None, "channels_last"))
        super().__init__(*common, **options)

    def build(self, input_shape):
        self.output_shape = (math.prod(input_shape),)


class RandomLayer(Layer):
    """Base of the random layers, which define ``ops`` (empty if the layer changes nothing) and ``_fill``.

    ``_fill(out, array, direction)`` fills ``out`` (B, D), forward if ``direction`` is 1, backward if it is -1.
    """

    changeable = Layer.changeable | {"rate", "stddev", "fill_value", "seed"}
    first_row = 0
    """Where the rows of a forward begin in their batch: draws follow from a row's place in it."""

    def __init__(self, seed: int | None = None, *common: Any, **options: Unpack[LayerOptions]):
        super().__init__(*common, **options)
        self.seed = None if seed is None else check_int("seed", seed, minimum=0, maximum=2**63 - 1)
        self._x = None

    def forward(self, x, training=False):
        self._x = self._checked_input(x)
        self._is_random = training and bool(self.ops())
        self._key_and_row = np.uint64(self.key), self.first_row
        return self._apply(self._x, 1)

    def backward(self, dout):
        return self._apply(self._checked_gradient(dout, self._x), -1)

    def _apply(self, array: np.ndarray, direction: int) -> np.ndarray:
        if not self._is_random:
            return array
        out = np.empty_like(array)
        self._fill(as_matrix(out), as_matrix(array), direction)
        return out


@LAYERS.register()
class Dropout(RandomLayer):
    """In training each number is dropped with probability ``rate``, the others are divided by 1 - rate.

    Draws follow from the model's seed and the layer's place in it; a ``seed`` of the layer's own takes the place of
    the model's.
    """

    def __init__(self, rate: float, seed: int | None = None, *common: Any, **options: Unpack[LayerOptions]):
        super().__init__(seed, *common, **options)
        self.rate = check_float("rate", rate, minimum=0, below=1)

    def _fill(self, out, array, direction):  # the mask is its own derivative
        random.dropout(out, array, self.rate, *self._key_and_row)

    def ops(self):
        return [Op(DROPOUT, self._size, self._size, f=(self.rate, 0.0))] if self.rate else []


@LAYERS.register()
class GaussianNoise(RandomLayer):
    """In training, out = x + stddev * normal; the gradient passes unchanged. ``seed``: see `Dropout`."""

    def __init__(self, stddev: float, seed: int | None = None, *common: Any, **options: Unpack[LayerOptions]):
        super().__init__(seed, *common, **options)
        self.stddev = check_float("stddev", stddev, minimum=0)

    def _fill(self, out, array, direction):
        random.gaussian_noise(out, array, self.stddev, *self._key_and_row)

    def backward(self, dout):
        return self._checked_batch("dout", dout, self.output_shape)

    def ops(self):
        return [Op(GAUSSIAN_NOISE, self._size, self._size, f=(self.stddev, 0.0))] if self.stddev else []


@LAYERS.register()
class RandomTranslation(RandomLayer):
    """In training, each image (H, W) or (H, W, C) is shifted by its own whole number of pixels.

    A factor is a fraction of the height (positive: down) or width (positive: right), in [-1, 1]. One number allows
    that much either way, a pair is (lowest, highest). ``RandomTranslation(2 / 28, 2 / 28)`` shifts digits by up to
    two pixels. Pixels that move in from outside are ``fill_value``. Keras shifts by fractions of a pixel and
    reflects by default; here the shift is whole and the only ``fill_mode`` is "constant". ``seed``: see `Dropout`.

    Put it first, before `Rescaling` too: then a teacher can be shown what the student sees.
    """

    def __init__(
        self,
        height_factor: float | tuple[float, float],
        width_factor: float | tuple[float, float],
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        seed: int | None = None,
        *common: Any,
        **options: Unpack[LayerOptions],
    ):
        super().__init__(seed, *common, **options)
        self.height_factor, self._height_range = _checked_factor("height_factor", height_factor)
        self.width_factor, self._width_range = _checked_factor("width_factor", width_factor)
        self.fill_mode = check_choice("fill_mode", fill_mode, ("constant",))
        self.fill_value = check_float("fill_value", fill_value)

    def build(self, input_shape):
        if len(input_shape) not in (2, 3):
            raise ValueError(
                f"layer {self.name} needs images (H, W) or (H, W, C), got samples of shape {input_shape}"
            )
        self._image = random.Image(*(*input_shape, 1)[:3])
        vertical = (round(bound * self._image.height) for bound in self._height_range)
        horizontal = (round(bound * self._image.width) for bound in self._width_range)
        self._reach = random.Reach(*vertical, *horizontal)

    def _fill(self, out, array, direction):
        fill_value = self.fill_value if direction == 1 else 0.0
        random.translate(out, array, self._image, self._reach, fill_value, *self._key_and_row, direction)

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


def as_matrix(array: np.ndarray) -> np.ndarray:
    """A batch as a matrix (B, D)."""
    return array.reshape(len(array), -1)
