"""Activations: by name as `Dense` and `Activation` use them, and as functions ``minidl.activations.relu(x)``.

The formulas, the derivatives and the table of names are in ``kernels/activations.py``; ``NAMES`` lists them. There is a
function of each name and alias. A function takes numbers of any shape; float32 gives float32, any other dtype gives
float64, as with `minidl.softmax`. Given to a layer, it stands for its name: its further arguments have their defaults.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .kernels.activations import ACTIVATIONS, CODES, activation_backward, activation_forward
from .kernels.program import ACTIVATION, Op
from .validation import check_array, check_bool, check_float, check_int, describe, shorten, unknown_name

NAMES = tuple(ACTIVATIONS)

_NAME_OF_ALIAS = {alias: name for name, row in ACTIVATIONS.items() for alias in row.aliases}
_FUNCTIONS: list[tuple[Callable, str]] = []
_RULE = "activation must be a name (str), a function of minidl.activations or None"


def _name_of(identifier) -> str:
    """The name meant by a name, an alias, a function of this module or None."""
    if identifier is None:
        return "linear"
    if callable(identifier) and not isinstance(identifier, type):
        found = next((name for function, name in _FUNCTIONS if function is identifier), None)
        if found is None:
            called = shorten(getattr(identifier, "__name__", type(identifier).__name__))
            raise TypeError(
                f"{_RULE}, got the function {called}, whose derivative is not known: write a Layer with its forward "
                "and backward, see minidl.layers"
            )
        return found
    if not isinstance(identifier, str):
        raise TypeError(f"{_RULE}, got {describe(identifier)}")
    name = _NAME_OF_ALIAS.get(identifier, identifier)
    if name not in ACTIVATIONS:
        raise unknown_name("activation", identifier, NAMES)
    return name


class ActivationFunction:
    """One activation with its slope: leaky_relu's ``negative_slope``, elu's ``alpha``.

    Parameters
    ----------
    name : a name of ``NAMES``, an alias ("swish") or a function of this module; None is "linear". Raises ValueError
        for another name, with the nearest known one, and TypeError for anything else.
    slope : float; by default what Keras means by the name: 0.2 for leaky_relu, 1 for elu.
    """

    def __init__(self, name: str | Callable | None, slope: float | None = None):
        name = _name_of(name)
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


# ---- the functions


def _apply(name: str, x, slope: float | None = None, axis: int = -1) -> np.ndarray:
    """The activation of that name of ``x``; ``axis`` is the one that softmax sums over."""
    out = np.array(np.moveaxis(_as_numbers(x), axis, -1), order="C")
    if out.size:
        rows = out.reshape(-1, out.shape[-1])
        out = ActivationFunction(name, slope).forward(rows).reshape(out.shape)
    out = np.ascontiguousarray(np.moveaxis(out, -1, axis))
    return out[0] if np.isscalar(x) else out


def _as_numbers(x) -> np.ndarray:
    array = check_array("x", [x] if np.isscalar(x) else x, allow_empty=True)
    single = array.dtype.newbyteorder("=") == np.float32
    return np.asarray(array, np.float32 if single else np.float64)


def relu(
    x, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> np.ndarray:
    """x where x > threshold, at most max_value; else ``negative_slope * (x - threshold)``."""
    negative_slope = check_float("negative_slope", negative_slope, minimum=0)
    threshold = check_float("threshold", threshold, minimum=0)
    if max_value is not None:
        max_value = check_float("max_value", max_value, minimum=0)
    if max_value is None and threshold == 0:
        return _apply("leaky_relu", x, negative_slope) if negative_slope else _apply("relu", x)
    out = clipped_relu(_as_numbers(x), negative_slope, max_value, threshold)
    return out[0] if np.isscalar(x) else out


def clipped_relu(
    x: np.ndarray, negative_slope: float, max_value: float | None, threshold: float
) -> np.ndarray:
    """`relu` of float32 or float64 ``x`` in NumPy, with all of its arguments."""
    real = x.dtype.type
    above = x if max_value is None else np.minimum(x, real(max_value))
    # a NaN compares as false, so it takes the upper branch and stays NaN
    return np.where(x <= real(threshold), real(negative_slope) * (x - real(threshold)), above)


def leaky_relu(x, negative_slope: float = 0.2) -> np.ndarray:
    """x where x > 0, else ``negative_slope * x``."""
    return _apply("leaky_relu", x, check_float("negative_slope", negative_slope, minimum=0))


def elu(x, alpha: float = 1.0) -> np.ndarray:
    """x where x > 0, else ``alpha * (exp(x) - 1)``."""
    return _apply("elu", x, check_float("alpha", alpha, minimum=0))


def gelu(x, approximate: bool = False) -> np.ndarray:
    """``x * (1 + erf(x / sqrt(2))) / 2``; approximately ``x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2``.

    In a layer the approximate form is the activation "gelu_tanh".
    """
    return _apply("gelu_tanh" if check_bool("approximate", approximate) else "gelu", x)


def softmax(x, axis: int = -1) -> np.ndarray:
    """``exp(x_i) / sum_j exp(x_j)`` along ``axis``. At a temperature: `minidl.softmax`."""
    axes = max(np.ndim(x), 1)
    return _apply("softmax", x, axis=check_int("axis", axis, minimum=-axes, maximum=axes - 1))


def _function_of(name: str) -> Callable:
    def function(x):
        return _apply(name, x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        f"The activation {name!r} of each number of ``x``: `minidl.kernels.activations` has its formula."
    )
    return function


for _name, _row in ACTIVATIONS.items():
    _made = globals().setdefault(_name, _function_of(_name))
    _FUNCTIONS.append((_made, _name))
    globals().update((alias, _made) for alias in _row.aliases)
if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., np.ndarray]: ...


def get(identifier: str | Callable | None) -> Callable[..., np.ndarray]:
    """The function of a name ("relu"), or itself; None gives `linear`. Errors as of `ActivationFunction`."""
    return globals()[_name_of(identifier)]


def serialize(activation: Callable) -> str:
    """The name of a function of this module, by which a saved layer has it."""
    return _name_of(activation)


deserialize = get
