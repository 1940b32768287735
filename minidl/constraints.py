"""Constraints: rules that a weight is made to fulfil again after each optimizer step."""

import math

import numpy as np

from .kernels import updates as kernel
from .registry import Configurable, Registry
from .registry import serialize as serialize
from .validation import check_array, check_float, check_int


class Constraint(Configurable):
    """Called with an array of weights it gives the constrained copy."""

    def __call__(self, weight: np.ndarray) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(weight)")


CONSTRAINTS = Registry("constraint", Constraint)


@CONSTRAINTS.register()
class MaxNorm(Constraint):
    """Each unit's incoming weights, a column of ``weight (in, out)``, have a norm of at most ``max_value``.

    ``w *= min(norm, max_value) / (1e-7 + norm)``. ``axis`` is the axis that is summed over; it must be 0.
    """

    def __init__(self, max_value: float = 2.0, axis: int = 0):
        self.max_value = check_float("max_value", max_value, above=0)
        self.axis = check_int("axis", axis, minimum=0, maximum=0)

    @staticmethod
    def segment(offset: int, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """(offset, rows, columns): where a weight lies, in the form that ``kernels.updates.max_norm`` reads."""
        return offset, shape[0], math.prod(shape[1:])

    def __call__(self, weight: np.ndarray) -> np.ndarray:
        array = check_array("weight", weight)
        dtype = array.dtype if array.dtype in (np.float32, np.float64) else np.float64
        out = np.array(array, dtype=dtype, order="C")
        kernel.max_norm(out.ravel(), np.array([self.segment(0, out.shape)]), np.array([self.max_value]))
        return out


max_norm = MaxNorm
get, deserialize = CONSTRAINTS.get, CONSTRAINTS.deserialize
