"""Layers that are random in training and the identity otherwise.

No mask is stored. Each draw follows from ``key``, which the model derives from its seed, the layer's place and the
step. So a backward can repeat its forward's draws, and two layers never share them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..kernels import random
from ..kernels.ops import DROPOUT, GAUSSIAN_NOISE, Op
from ..validation import check_float, check_int
from .base import LAYERS, Layer, LayerOptions, as_matrix

if TYPE_CHECKING:
    from typing_extensions import Unpack


@LAYERS.register()
class Dropout(Layer):
    """In training each number is dropped with probability ``rate``, the others are divided by 1 - rate.

    ``seed`` is accepted for compatibility with Keras and has no effect: draws follow from the model's seed and the
    layer's place in it.
    """

    def __init__(self, rate: float, seed: int | None = None, **options: Unpack[LayerOptions]):
        super().__init__(**options)
        self.rate = check_float("rate", rate, minimum=0, below=1)
        self.seed = None if seed is None else check_int("seed", seed)
        self._x = None

    def forward(self, x, training=False):
        self._x = self._checked_input(x)
        self._drops, self._forward_key = training and self.rate > 0, np.uint64(self.key)
        return self._drop(self._x)

    def backward(self, dout):
        return self._drop(self._checked_gradient(dout, self._x))

    def _drop(self, array: np.ndarray) -> np.ndarray:
        if not self._drops:
            return array
        out = np.empty_like(array)
        random.dropout(as_matrix(out), as_matrix(array), self.rate, self._forward_key, 0)
        return out

    def ops(self):
        return [Op(DROPOUT, self._size, self._size, f=(self.rate, 0.0))] if self.rate else []


@LAYERS.register()
class GaussianNoise(Layer):
    """In training, out = x + stddev * normal; the gradient passes unchanged. ``seed``: see `Dropout`."""

    def __init__(self, stddev: float, seed: int | None = None, **options: Unpack[LayerOptions]):
        super().__init__(**options)
        self.stddev = check_float("stddev", stddev, minimum=0)
        self.seed = None if seed is None else check_int("seed", seed)

    def forward(self, x, training=False):
        x = self._checked_input(x)
        if not training or self.stddev == 0:
            return x
        out = np.empty_like(x)
        random.gaussian_noise(as_matrix(out), as_matrix(x), self.stddev, np.uint64(self.key), 0)
        return out

    def backward(self, dout):
        return self._checked_batch("dout", dout, self.output_shape)

    def ops(self):
        return [Op(GAUSSIAN_NOISE, self._size, self._size, f=(self.stddev, 0.0))] if self.stddev else []
