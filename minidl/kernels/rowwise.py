"""The operations other than dense layers and activations: two functions of some rows and a line of a table for each.

The one writes out from x, the other dx from dout. ``i`` and ``f`` are the numbers of a `program.Op`. Random operations
draw by ``key`` and by the row's number in its batch, of which the first is ``first_row``.
"""

import numpy as np
from numba.core import types

from .jit import jit
from .random import Image, Reach, dropout, gaussian_noise, translate
from .simd import copy
from .units import Units, array


def _dropout(out, x, i, f, key, first_row):
    dropout(out, x, f[0], key, first_row)


def _gaussian_noise(out, x, i, f, key, first_row):
    gaussian_noise(out, x, f[0], key, first_row)


def _gaussian_noise_backward(dx, dout, i, f, key, first_row):
    copy(dx, dout)


def _translation(out, x, i, f, key, first_row):
    image, reach = Image(i[0], i[1], i[2]), Reach(i[3], i[4], i[5], i[6])
    translate(out, x, image, reach, f[0], key, first_row, np.int64(1))


def _translation_backward(dx, dout, i, f, key, first_row):
    image, reach = Image(i[0], i[1], i[2]), Reach(i[3], i[4], i[5], i[6])
    translate(dx, dout, image, reach, 0.0, key, first_row, np.int64(-1))


@jit
def rescale(out, x, scale, offset):
    """out = x * scale + offset. May run in place. Backward: ``rescale(dx, dout, scale, 0.0)``."""
    a, b = x.dtype.type(scale), x.dtype.type(offset)
    flat_out, flat_x = out.reshape(out.size), x.reshape(x.size)
    for i in range(flat_out.size):
        flat_out[i] = flat_x[i] * a + b


@jit
def rescale_columns(out, x, center, scale, offset):
    """out = (x - center) * scale + offset, where each column has numbers of its own. May run in place."""
    real = x.dtype.type
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - real(center[j])) * real(scale[j]) + real(offset[j])


@jit
def rescale_columns_backward(dx, dout, scale):
    """dx = dout * scale."""
    for i in range(dout.shape[0]):
        for j in range(dout.shape[1]):
            dx[i, j] = dout[i, j] * dout.dtype.type(scale[j])


def _rescaling(out, x, i, f, key, first_row):
    n = i[0]
    if n == 0:
        rescale(out, x, f[0], f[1])
    else:
        rescale_columns(out, x, f[:n], f[n : 2 * n], f[2 * n : 3 * n])


def _rescaling_backward(dx, dout, i, f, key, first_row):
    n = i[0]
    if n == 0:
        rescale(dx, dout, f[0], 0.0)
    else:
        rescale_columns_backward(dx, dout, f[n : 2 * n])


_ROWWISE = {
    "DROPOUT": (_dropout, _dropout),
    "GAUSSIAN_NOISE": (_gaussian_noise, _gaussian_noise_backward),
    "RANDOM_TRANSLATION": (_translation, _translation_backward),
    "RESCALING": (_rescaling, _rescaling_backward),
}


def _arguments(real):
    rows = array(real, 2)
    return rows, rows, array(types.int64), array(types.float64), types.uint64, types.int64


FORWARD, BACKWARD = (
    Units(
        f"rowwise{direction}",
        {name: functions[direction] for name, functions in _ROWWISE.items()},
        _arguments,
    )
    for direction in (0, 1)
)
call_rowwise = FORWARD.caller
