"""Sub, Add, Mul and Div by constants, as layers that bring inputs into a range."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...layers import Layer, Normalization, Rescaling

_LARGEST_SCALE = 1e7
"""`Normalization` divides by no less than 1e-7."""


class Affine(NamedTuple):
    """(x - center) * scale + offset, by numbers or arrays that fit a sample."""

    center: np.ndarray
    scale: np.ndarray
    offset: np.ndarray

    def then(self, other: Affine) -> Affine | None:
        """Both in one, if that changes no number: only what stands in another order would."""
        if not np.any(self.offset) and not np.any(other.center) and np.all(self.scale == 1):
            return Affine(self.center, other.scale, other.offset)
        if not np.any(self.offset) and not np.any(other.offset) and np.all(other.scale == 1):
            return Affine(self.center, self.scale, -other.center)
        return None

    def layers(self) -> list[Layer]:
        """One `Rescaling` if there is no center, else a `Normalization` and what it cannot say."""
        center, scale, offset = map(_plain, self)
        if not np.any(center):
            return [Rescaling(scale, offset)]
        if np.all(self.scale == 1):
            return [Rescaling(1.0, -self.center)]
        if np.min(scale) > 0 and np.max(scale) <= _LARGEST_SCALE:
            mean, variance = np.broadcast_arrays(center, np.square(1 / self.scale))
            axes = tuple(range(-mean.ndim, 0))
            found: list[Layer] = [Normalization(axes or None, mean=_plain(mean), variance=_plain(variance))]
            return found + ([Rescaling(1.0, offset)] if np.any(offset) else [])
        return [Rescaling(1.0, -self.center), Rescaling(scale, offset)]


def shift(center: np.ndarray) -> Affine:
    """x - center."""
    return Affine(center, np.float64(1), np.float64(0))


def scaling(scale: np.ndarray) -> Affine:
    """x * scale."""
    return Affine(np.float64(0), scale, np.float64(0))


def _plain(numbers: np.ndarray) -> float | np.ndarray:
    return float(numbers) if np.ndim(numbers) == 0 else np.array(numbers)
