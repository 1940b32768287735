"""A model as data for the compiled loop: a table of its operations, and where each output lies in one buffer."""

from typing import NamedTuple

import numpy as np

from .activations import NEEDS_INPUT
from .elementwise import copy
from .jit import jit
from .matmul import scratch_size, store_panels
from .ops import ACTIVATION, DENSE
from .target import PANEL_BYTES, TILE_ROWS

# Columns of the table: an `Op`, whose seven integers are a translation's, then where its input and output lie.
KIND, IN, OUT, WEIGHT, BIAS, CODE, LAYER_INDEX = range(7)
HEIGHT, WIDTH, CHANNELS, LOW_DY, HIGH_DY, LOW_DX, HIGH_DX = range(7, 14)
IN_AT, OUT_AT, COLUMNS = range(14, 17)

UPDATE_ROWS, UPDATE_PANELS = 16 * TILE_ROWS, 4
"""Rows and panels of a weight whose gradient is computed, used and forgotten together: 96 KB. The update reads it
from the second-level cache, which costs nothing beside Adam's divisions. Smaller parts would make more products, and
each takes time to begin."""


class Program(NamedTuple):
    """A model in training."""

    ops: np.ndarray  # int64 (n, COLUMNS)
    settings: np.ndarray  # float64 (n, 2): the numbers of `Op.f`
    params: np.ndarray
    grads: np.ndarray
    in_panels: bool  # whether weights are stored by `panel_order`
    out_at: int  # where the last operation's output lies in a buffer
    out_size: int
    final: int  # activation that turns the last output into predictions, for metrics


class Plan(NamedTuple):
    """The operations of a model and where their outputs lie in a buffer of ``batch`` rows."""

    ops: np.ndarray
    settings: np.ndarray
    out_at: int
    out_size: int
    size: int  # elements of the buffer


def plan(ops, in_size: int, batch: int) -> Plan:
    """Lay out the outputs of ``ops`` one after the other; an activation overwrites a dense output where it may."""
    table = np.zeros((len(ops), COLUMNS), np.int64)
    settings = np.zeros((len(ops), 2), np.float64)
    at, size, end = 0, in_size, 0
    for index, op in enumerate(ops):
        in_place = (
            op.kind == ACTIVATION
            and op.activation not in NEEDS_INPUT
            and index
            and ops[index - 1].kind == DENSE
        )
        out_at = at if in_place else end
        if not in_place:
            end += _aligned(batch * op.out_size)
        table[index] = (
            op.kind, op.in_size, op.out_size, op.weight, op.bias, op.activation, op.layer, *op.i, at, out_at,
        )  # fmt: skip
        settings[index] = op.f
        at, size = out_at, op.out_size
    return Plan(table, settings, at, size, end)


def _aligned(count: int) -> int:
    return -(-count // 16) * 16


def packing_size(ops, batch: int, itemsize: int) -> int:
    """Elements of scratch that any product of ``ops`` needs for packing."""
    sizes = [scratch_size(1, 1, itemsize)]
    for op in ops:
        if op.kind == DENSE:
            sizes += [
                scratch_size(batch, op.in_size, itemsize),
                scratch_size(batch, op.out_size, itemsize),
                scratch_size(UPDATE_ROWS, batch, itemsize),
            ]
    return max(sizes)


def tile_size(ops, itemsize: int) -> int:
    """Elements of the gradient of the weights that are updated together."""
    part = UPDATE_ROWS * UPDATE_PANELS * (PANEL_BYTES // itemsize)
    return max([part, *(TILE_ROWS * op.out_size for op in ops if op.kind == DENSE)])


@jit
def panel_order(panels, rows, ops, back):
    """All parameters from the order of their layers' matrices into panels, or ``back``."""
    target, source = (rows, panels) if back else (panels, rows)
    copy(target.reshape(1, -1), source.reshape(1, -1))
    for index in range(ops.shape[0]):
        if ops[index, KIND] == DENSE:
            store_panels(panels, rows, ops[index, WEIGHT], ops[index, IN], ops[index, OUT], back)
