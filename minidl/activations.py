"""Activations by name, as `Dense` and `Activation` use them.

The formulas, the derivatives and the table of names are in ``kernels/activations.py``; ``NAMES`` lists them.
"""

import numpy as np

from .kernels.activations import ACTIVATIONS, CODES, activation_backward, activation_forward
from .kernels.program import ACTIVATION, Op
from .validation import describe, unknown_name

NAMES = tuple(ACTIVATIONS)

_NAME_OF_ALIAS = {alias: name for name, row in ACTIVATIONS.items() for alias in row.aliases}


class ActivationFunction:
    """One activation with its slope: leaky_relu's ``negative_slope``, elu's ``alpha``.

    Parameters
    ----------
    name : a name of ``NAMES`` or an alias ("swish"); None is "linear". Raises ValueError for another name, with
        the nearest known one, and TypeError for anything else.
    slope : float; by default what Keras means by the name: 0.2 for leaky_relu, 1 for elu.
    """

    def __init__(self, name: str | None, slope: float | None = None):
        if name is None:
            name = "linear"
        if not isinstance(name, str):
            raise TypeError(f"activation must be a name (str) or None, got {describe(name)}")
        name = _NAME_OF_ALIAS.get(name, name)
        if name not in ACTIVATIONS:
            raise unknown_name("activation", name, NAMES)
        row = ACTIVATIONS[name]
        self.name = name
        self.code = CODES[name]
        self.slope = row.slope if slope is None else slope
        self.needs_input = row.needs_input
        self.is_linear = name == "linear"

    def forward(self, x: np.ndarray, overwrite: bool = False) -> np.ndarray:
        """``out = f(x)`` of a matrix (B, D).

        With ``overwrite`` the result takes the place of ``x``, unless the backward needs ``x``.
        """
        if self.is_linear:
            return x
        out = x if overwrite and not self.needs_input else np.empty_like(x)
        activation_forward(out, x, self.code, self.slope)
        return out

    def backward(self, dout: np.ndarray, out: np.ndarray, x: np.ndarray) -> np.ndarray:
        """``dx = dout * f'(x)``. ``x`` is read only where ``f'`` does not follow from ``out``."""
        if self.is_linear:
            return dout
        dx = np.empty_like(dout)
        activation_backward(dx, dout, out, x, self.code, self.slope)
        return dx

    def ops(self, size: int) -> list[Op]:
        """The operation for the compiled loop, on rows of ``size`` numbers; none for linear."""
        if self.is_linear:
            return []
        return [Op(ACTIVATION, size, size, activation=self.code, f=(self.slope, 0.0))]
