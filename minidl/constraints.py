"""Constraints: rules that a weight is made to fulfil again after each optimizer step."""

import math
from collections.abc import Iterable

import numpy as np

from .kernels import restraints as kernel
from .registry import Configurable, Registry
from .registry import serialize as serialize
from .validation import check_array, check_float, check_int


class Constraint(Configurable):
    """Called with an array of weights it gives the constrained copy."""

    def __call__(self, weight: np.ndarray) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(weight)")


CONSTRAINTS = Registry("constraint", Constraint)


class _Known(Constraint):
    """A constraint that `kernels.restraints.constrain` knows: its kind, and the three numbers that kind reads."""

    kind: int
    numbers: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __call__(self, weight: np.ndarray) -> np.ndarray:
        array = check_array("weight", weight)
        dtype = array.dtype if array.dtype in (np.float32, np.float64) else np.float64
        out = np.array(array, dtype=dtype, order="C")
        kernel.constrain(out.ravel(), *table([(self, 0, out.shape)]))
        return out


def has_kernel(constraint: Constraint | None) -> bool:
    """Whether kernels know it, or there is none: False for those of the user's own classes."""
    return constraint is None or type(constraint) in CONSTRAINTS.classes.values()


def table(entries: Iterable[tuple[Constraint | None, int, tuple[int, ...]]]) -> tuple[np.ndarray, np.ndarray]:
    """Constraints, each with its weight's offset and shape, as `kernels.restraints.constrain` reads them.

    Those that kernels do not know are left out.
    """
    known = [(c, at, shape) for c, at, shape in entries if isinstance(c, _Known) and has_kernel(c)]
    places = [(c.kind, at, shape[0], math.prod(shape[1:])) for c, at, shape in known]
    numbers = [c.numbers for c, *_ in known]
    return np.array(places, np.int64).reshape(-1, 4), np.array(numbers, np.float64).reshape(-1, 3)


class _Norms(_Known):
    """Moves the norm of each column into an interval; its numbers are the lowest norm, the highest, the rate."""

    kind = kernel.NORMS

    def __init__(self, axis: int = 0):
        self.axis = check_int("axis", axis, minimum=0, maximum=0)


@CONSTRAINTS.register()
class MaxNorm(_Norms):
    """Each unit's incoming weights, a column of ``weight (in, out)``, have a norm of at most ``max_value``.

    ``w *= min(norm, max_value) / (1e-7 + norm)``. ``axis`` is the axis that is summed over; it must be 0.
    """

    def __init__(self, max_value: float = 2.0, axis: int = 0):
        super().__init__(axis)
        self.max_value = check_float("max_value", max_value, above=0)

    @property
    def numbers(self) -> tuple[float, float, float]:  # type: ignore[override]
        return 0.0, self.max_value, 1.0


@CONSTRAINTS.register()
class UnitNorm(_Norms):
    """Each unit's incoming weights, a column of ``weight (in, out)``, have norm 1: ``w /= 1e-7 + norm``.

    ``axis`` is the axis that is summed over; it must be 0.
    """

    numbers = (1.0, 1.0, 1.0)


@CONSTRAINTS.register()
class MinMaxNorm(_Norms):
    """Each unit's incoming weights, a column of ``weight (in, out)``, have a norm in [min_value, max_value].

    ``w *= (rate * clip(norm, min_value, max_value) + (1 - rate) * norm) / (1e-7 + norm)``: ``rate`` 1 enforces it,
    a smaller one moves towards it at each step. ``axis`` is the axis that is summed over; it must be 0.
    """

    def __init__(self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: int = 0):
        super().__init__(axis)
        self.min_value = check_float("min_value", min_value, minimum=0)
        self.max_value = check_float("max_value", max_value, minimum=self.min_value)
        self.rate = check_float("rate", rate, minimum=0, maximum=1)

    @property
    def numbers(self) -> tuple[float, float, float]:  # type: ignore[override]
        return self.min_value, self.max_value, self.rate


@CONSTRAINTS.register()
class NonNeg(_Known):
    """No weight is negative: ``w = max(w, 0)``."""

    kind = kernel.NOT_NEGATIVE


max_norm, unit_norm, min_max_norm, non_neg = MaxNorm, UnitNorm, MinMaxNorm, NonNeg
get, deserialize = CONSTRAINTS.get, CONSTRAINTS.deserialize
