"""A model as data for the compiled loop: a table of its operations, and the memory that a run of them writes to."""

from typing import NamedTuple

import numpy as np

from .activations import NEEDS_INPUT
from .elementwise import copy
from .jit import jit
from .matmul import scratch_size, store_panels
from .ops import ACTIVATION, DENSE
from .target import ALIGNMENT, PANEL_BYTES, TILE_ROWS, aligned_zeros

# Columns of the table: an `Op`, whose seven integers are a translation's, with where its input and output lie.
KIND, IN, OUT, WEIGHT, BIAS, CODE, LAYER_INDEX = range(7)
HEIGHT, WIDTH, CHANNELS, LOW_DY, HIGH_DY, LOW_DX, HIGH_DX = range(7, 14)
IN_AT, OUT_AT, TRAINABLE, SEED, COLUMNS = range(14, 19)

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
    final: int  # activation that turns the last output into predictions, for metrics


class Plan(NamedTuple):
    """The operations of a model and where their outputs lie in a buffer of ``batch`` rows."""

    ops: np.ndarray
    settings: np.ndarray
    size: int  # elements of the buffer


def plan(ops, batch: int) -> Plan:
    """Lay out the outputs of ``ops`` one after the other; an activation overwrites a dense output where it may."""
    table = np.zeros((len(ops), COLUMNS), np.int64)
    settings = np.zeros((len(ops), 2), np.float64)
    at, end = 0, 0
    for index, op in enumerate(ops):
        after_dense = index > 0 and ops[index - 1].kind == DENSE
        in_place = op.kind == ACTIVATION and op.activation not in NEEDS_INPUT and after_dense
        in_at, at = at, at if in_place else end
        if not in_place:
            end += _aligned(batch * op.out_size)
        table[index] = (
            op.kind, op.in_size, op.out_size, op.weight, op.bias, op.activation, op.layer, *op.i, in_at, at,
            op.trainable, op.seed,
        )  # fmt: skip
        settings[index] = op.f
    return Plan(table, settings, end)


def _aligned(count: int) -> int:
    return -(-count // 16) * 16


@jit
def panel_order(panels, rows, ops, back):
    """All parameters from the order of their layers' matrices into panels, or ``back``."""
    target, source = (rows, panels) if back else (panels, rows)
    copy(target.reshape(1, -1), source.reshape(1, -1))
    for index in range(ops.shape[0]):
        if ops[index, KIND] == DENSE:
            store_panels(panels, rows, ops[index, WEIGHT], ops[index, IN], ops[index, OUT], back)


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


class Buffers(NamedTuple):
    """Everything a step writes besides parameters; allocated once for each fit."""

    inputs: np.ndarray  # (threads, batch * input size) if each thread gathers for itself, or (1, ...) for all
    values: np.ndarray  # outputs of all operations, (operations, batch, size) one after the other
    dvalues: np.ndarray  # their gradients, in the same places
    scratch: np.ndarray  # (threads, n) for packing
    tile: np.ndarray  # (threads, n) gradient of the weights being updated
    scalars: np.ndarray  # float64 (threads, 8): what a step needs of the optimizer's hyperparameters
    row_loss: np.ndarray  # float64 (batch,)
    row_scale: np.ndarray
    row_metric: np.ndarray  # float64 (metrics, batch)
    labels: np.ndarray  # int64 (batch,) or (0,)
    targets: np.ndarray  # (batch, out) or (0, 0)
    teacher: np.ndarray  # (batch, out) or (0, 0)
    predictions: np.ndarray  # (batch, out) or (0, 0)


class BatchParts(NamedTuple):
    """What a training batch has besides its inputs."""

    metrics: int = 0
    labels: bool = False
    targets: bool = False
    teacher: bool = False
    predictions: bool = False  # metrics need the model's output, and the loss is applied to its logits


def aligned_rows(rows: int, size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros (rows, size or a little more), every row on a cache line."""
    size = -(-size * dtype.itemsize // ALIGNMENT) * ALIGNMENT // dtype.itemsize
    return aligned_zeros(rows * size, dtype).reshape(rows, size)


def training_buffers(
    ops, size: int, batch_size: int, dtype: np.dtype, threads: int, input_copies: int, parts: BatchParts
) -> Buffers:
    """Buffers for steps on ``batch_size`` rows.

    ``size`` is the `Plan`'s. ``input_copies``: how many threads copy the batch for themselves.
    """

    def matrix(wanted: bool) -> np.ndarray:
        return np.zeros((batch_size, ops[-1].out_size) if wanted else (0, 0), dtype)

    in_size = ops[0].in_size
    return Buffers(
        inputs=aligned_rows(input_copies, batch_size * in_size, dtype),
        values=aligned_zeros(size, dtype),
        dvalues=aligned_zeros(size, dtype),
        scratch=aligned_rows(threads, packing_size(ops, batch_size, dtype.itemsize), dtype),
        tile=aligned_rows(threads, tile_size(ops, dtype.itemsize), dtype),
        scalars=aligned_rows(threads, 8, np.dtype(np.float64)),
        row_loss=np.zeros(batch_size),
        row_scale=np.zeros(batch_size),
        row_metric=np.zeros((parts.metrics, batch_size)),
        labels=np.zeros(batch_size if parts.labels else 0, np.int64),
        targets=matrix(parts.targets),
        teacher=matrix(parts.teacher),
        predictions=matrix(parts.predictions),
    )
