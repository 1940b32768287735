"""The operations that have parameters of their own for each feature: a line of a table for each.

Three functions: ``forward`` writes out from x, ``backward`` dx from dout, ``gradients`` sums over the batch and gives
the gradients of the parameters. The first and the second parameter are gamma and beta, or alpha and none. Each works
on a `Block` of whole matrices (B, n). ``kept`` is what forward leaves for the others besides x, ``f`` the numbers of a
`program.Op`. ``averages`` are numbers that move with each step but are no parameters of the loss.
"""

from collections.abc import Callable
from typing import NamedTuple

from numba.core import types

from . import normalization as norm
from .matmul import Block
from .units import Units, array
from .vectors import lanes, load, splat, store, where_le


class Row(NamedTuple):
    """An operation. ``kept`` tells how many numbers a batch of so many rows and columns keeps."""

    forward: Callable
    backward: Callable
    gradients: Callable
    kept: Callable = lambda rows, columns: 0
    of_batch: bool = False
    """Whether a row's result depends on the other rows. Threads then share the columns, not the rows."""


def _prelu(out, x, alpha, none, kept, f, block):
    """x where x > 0, else alpha x."""
    n = x.shape[1]
    for j in range(block.left, block.right, lanes(x)):
        count, slope = block.right - j, load(alpha, j, alpha.size - j, 0.0)
        for i in range(block.top, block.bottom):
            v = load(x, i * n + j, count, 0.0)
            store(out, i * n + j, count, where_le(v, 0.0, v * slope, v))


def _prelu_backward(dx, dout, x, alpha, kept, f, block):
    n = x.shape[1]
    for j in range(block.left, block.right, lanes(x)):
        count, slope = block.right - j, load(alpha, j, alpha.size - j, 0.0)
        for i in range(block.top, block.bottom):
            d = load(dout, i * n + j, count, 0.0)
            store(dx, i * n + j, count, where_le(load(x, i * n + j, count, 0.0), 0.0, d * slope, d))


def _prelu_gradients(dalpha, none, averages, dout, x, kept, f, block):
    """dalpha = sum over the rows of dout x where x <= 0."""
    n = x.shape[1]
    for j in range(block.left, block.right, lanes(x)):
        count, at, sums = block.right - j, j - block.left, splat(x, 0.0)
        for i in range(block.top, block.bottom):
            v = load(x, i * n + j, count, 0.0)
            sums = sums + where_le(v, 0.0, v * load(dout, i * n + j, count, 0.0), 0.0)
        store(dalpha, at, dalpha.size - at, sums)


def _of_columns(rows, columns):
    return 2 * columns


FEATUREWISE = {
    "BATCH_NORMALIZATION": Row(
        norm.batch_forward, norm.batch_backward, norm.batch_gradients, _of_columns, of_batch=True
    ),
    # by the moving averages: in inference, and where the layer is frozen
    "MOVING_NORMALIZATION": Row(
        norm.normalize, norm.normalize_backward, norm.normalize_gradients, _of_columns
    ),
    "LAYER_NORMALIZATION": Row(
        norm.row_forward, norm.row_backward, norm.row_gradients, lambda rows, columns: 2 * rows
    ),
    "PRELU": Row(_prelu, _prelu_backward, _prelu_gradients),
}


def _block():
    return types.BaseTuple.from_types((types.int64,) * 4, Block)


def _forward_arguments(real):
    rows, vector = array(real, 2), array(real)
    return rows, rows, vector, vector, vector, array(types.float64), _block()


def _backward_arguments(real):
    rows, vector = array(real, 2), array(real)
    return rows, rows, rows, vector, vector, array(types.float64), _block()


def _gradients_arguments(real):
    rows, vector = array(real, 2), array(real)
    return vector, vector, vector, rows, rows, vector, array(types.float64), _block()


def _units(part, arguments):
    return Units(
        f"featurewise.{part}", {name: getattr(row, part) for name, row in FEATUREWISE.items()}, arguments
    )


FORWARD = _units("forward", _forward_arguments)
BACKWARD = _units("backward", _backward_arguments)
GRADIENTS = _units("gradients", _gradients_arguments)
call_featurewise, call_featurewise_backward, call_gradients = (
    FORWARD.caller,
    BACKWARD.caller,
    GRADIENTS.caller,
)
