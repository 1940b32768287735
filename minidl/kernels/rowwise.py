"""The operations that work on each row by itself: one function and one line of a table for each kind.

A function serves both directions, FORWARD: out from x, and BACKWARD: dx from dout. It writes ``to`` from ``source``;
an operation whose gradient depends on more than dout also gets ``out`` and ``x``.
"""

from typing import NamedTuple

import numpy as np

from .activations import activation_backward, activation_forward
from .choose import choose
from .jit import copy, jit
from .program import (
    ACTIVATION,
    CHANNELS,
    CODE,
    DROPOUT,
    GAUSSIAN_NOISE,
    HEIGHT,
    HIGH_DX,
    HIGH_DY,
    LOW_DX,
    LOW_DY,
    RANDOM_TRANSLATION,
    RESCALING,
    WIDTH,
)
from .random import Image, Reach, dropout, gaussian_noise, translate

FORWARD, BACKWARD = np.int64(1), np.int64(-1)


class RowwiseOp(NamedTuple):
    """An operation's rows of the program, and what its random draws depend on."""

    op: np.ndarray
    setting: np.ndarray
    key: np.uint64
    first_row: int  # where the rows at hand begin in their batch


def _activation(direction, to, source, out, x, at):
    if direction == FORWARD:
        activation_forward(to, source, at.op[CODE], at.setting[0])
    else:
        activation_backward(to, source, out, x, at.op[CODE], at.setting[0])


def _dropout(direction, to, source, out, x, at):
    dropout(to, source, at.setting[0], at.key, at.first_row)


def _gaussian_noise(direction, to, source, out, x, at):
    if direction == FORWARD:
        gaussian_noise(to, source, at.setting[0], at.key, at.first_row)
    else:
        copy(to, source)


def _random_translation(direction, to, source, out, x, at):
    op, fill_value = at.op, at.setting[0] if direction == FORWARD else 0.0
    image = Image(op[HEIGHT], op[WIDTH], op[CHANNELS])
    reach = Reach(op[LOW_DY], op[HIGH_DY], op[LOW_DX], op[HIGH_DX])
    translate(to, source, image, reach, fill_value, at.key, at.first_row, direction)


@jit
def rescale(out, x, scale, offset):
    """out = x * scale + offset. May run in place. Backward: ``rescale(dx, dout, scale, 0.0)``."""
    a, b = x.dtype.type(scale), x.dtype.type(offset)
    flat_out, flat_x = out.reshape(out.size), x.reshape(x.size)
    # Two loops: LLVM does not vectorise one whose input and output may overlap in part.
    if out is x:
        for i in range(flat_out.size):
            flat_out[i] = flat_out[i] * a + b
    else:
        for i in range(flat_out.size):
            flat_out[i] = flat_x[i] * a + b


def _rescaling(direction, to, source, out, x, at):
    rescale(to, source, at.setting[0], at.setting[1] if direction == FORWARD else 0.0)


_IN_PREDICTIONS = {ACTIVATION: _activation, RESCALING: _rescaling}
_ONLY_IN_TRAINING = {
    DROPOUT: _dropout,
    GAUSSIAN_NOISE: _gaussian_noise,
    RANDOM_TRANSLATION: _random_translation,
}

rowwise = choose({**_IN_PREDICTIONS, **_ONLY_IN_TRAINING})
"""rowwise(kind, direction, to, source, out, x, at): one operation on some rows; ``at`` is a `RowwiseOp`."""

rowwise_in_predictions = choose(_IN_PREDICTIONS)
"""The same for the kinds that predictions consist of: fewer to compile before a first `predict`."""
