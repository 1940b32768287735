"""Forward and backward through all operations of a program, for the rows of one batch.

A thread takes its own rows through one operation after the other, and needs no other thread. Batch normalisation needs
the moments of each column, so there a thread takes its own columns of all rows. At some dense layers, too: at wide
ones, and where panels divide among the threads (`_shares_columns`). Then each packs only the part of the weight
that it uses. The threads meet before and after, because each reads what the others wrote. An output is one chain of
multiply-adds over its row and column, in order, so its bits do not depend on who computes it.
"""

import numpy as np

from .activations import call_backward, call_forward
from .barrier import meet, share
from .emit import larger
from .jit import jit
from .matmul import NO_PANELS, Block, Panels, by_columns, by_rows, call_product, from_zero, starting_at
from .operations import call_operation
from .program import (
    ACTIVATION,
    BACKWARD,
    BIAS,
    DENSE,
    FORWARD,
    IN,
    IN_AT,
    KIND,
    OUT,
    OUT_AT,
    SEEN_AT,
    STEP_BACKWARD,
    STEP_FORWARD,
    TRAINABLE,
    WEIGHT,
)
from .simd import FROM_BIAS, FROM_ZERO, Shape, Start, rows_at
from .target import PANEL_BYTES

WIDE = 256
"""From this many columns on, threads share a dense layer by columns."""


@jit(inline=True)
def dense_block(params, in_panels, op, out, x, block, scratch):
    """A `Block` of a dense layer's out = x weight + bias; ``out`` and ``x`` are whole buffers."""
    k, n = op[IN], op[OUT]
    panels, weight = Panels(k, block.left), by_rows(params, op[WEIGHT], n)
    if not in_panels:
        panels, weight = NO_PANELS, starting_at(weight, 0, block.left)
    mode = np.int64(FROM_BIAS if op[BIAS] >= 0 else FROM_ZERO)
    call_product(
        op[FORWARD],
        starting_at(by_rows(out, op[OUT_AT], n), block.top, block.left),
        starting_at(by_rows(x, op[IN_AT], k), block.top, 0),
        weight,
        panels,
        Shape(block.bottom - block.top, k, block.right - block.left),
        Start(mode, params, larger(op[BIAS], 0) + block.left),
        scratch,
    )


@jit(inline=True)
def _dense_block_backward(program, op, dvalues, block, scratch):
    """A `Block` of dx = dout weight^T, both in ``dvalues``."""
    k, n, params = op[OUT], op[IN], program.params
    panels, weight = Panels(n, block.left), by_columns(params, op[WEIGHT], np.int64(0))
    if not program.in_panels:
        panels, weight = NO_PANELS, starting_at(by_columns(params, op[WEIGHT], k), 0, block.left)
    call_product(
        op[BACKWARD],
        starting_at(by_rows(dvalues, op[IN_AT], n), block.top, block.left),
        starting_at(by_rows(dvalues, op[OUT_AT], k), block.top, 0),
        weight,
        panels,
        Shape(block.bottom - block.top, k, block.right - block.left),
        from_zero(dvalues),
        scratch,
    )


@jit
def _shares_columns(team, program, op, rows):
    """Whether the threads share a dense layer's columns, not the rows of the batch.

    They do for a wide layer, and for a layer with at least as many columns as the batch has rows if each thread's
    columns are whole panels: then a thread reads the panels that it has just updated, which are in its own cache.
    """
    columns, width = op[OUT], PANEL_BYTES // program.params.itemsize
    has_own_panels = program.in_panels and columns % (team.threads * width) == 0
    return team.threads > 1 and (columns >= WIDE or (has_own_panels and columns >= rows))


def forward(run, mine):
    """All operations on a batch, of which ``mine`` is this thread's `Partition`."""
    team, program, buffers = run.team, run.program, run.buffers
    inputs, values, scratch = buffers.inputs[mine.copy], buffers.values, buffers.scratch[team.thread]
    for index in range(program.ops.shape[0]):
        op = program.ops[index]
        source = inputs if index == 0 else values
        if op[KIND] == DENSE:
            shares_columns = _shares_columns(team, program, op, mine.end - mine.begin)
            block = Block(mine.low, mine.high, 0, op[OUT])
            if shares_columns:
                first, last = share(op[OUT], team, PANEL_BYTES // values.itemsize)
                block = Block(mine.begin, mine.end, first, last)
                if index or not mine.gathers_all:  # other threads wrote some of the rows
                    meet(team)
            dense_block(program.params, program.in_panels, op, values, source, block, scratch)
            if shares_columns:
                meet(team)
        elif op[KIND] == ACTIVATION:
            out = rows_at(values, op[OUT_AT], op[OUT], mine.low, mine.high)
            x = rows_at(source, op[IN_AT], op[IN], mine.low, mine.high)
            call_forward(op[FORWARD], out, x, program.settings[index, 0])
        else:
            call_operation(op[STEP_FORWARD], run, mine, index)


def backward(run, mine):
    """The gradients of all operations' outputs, from the last to the first whose parameters learn."""
    team, program, buffers = run.team, run.program, run.buffers
    values, dvalues, scratch = buffers.values, buffers.dvalues, buffers.scratch[team.thread]
    first, count = 0, program.ops.shape[0]
    while first < count and not program.ops[first, TRAINABLE]:
        first += 1
    for index in range(count - 1, first, -1):
        op = program.ops[index]
        if op[KIND] == DENSE:
            shares_columns = team.threads > 1 and op[IN] >= WIDE
            block = Block(mine.low, mine.high, 0, op[IN])
            if shares_columns:
                first, last = share(op[IN], team, 64)
                block = Block(mine.begin, mine.end, first, last)
                meet(team)
            _dense_block_backward(program, op, dvalues, block, scratch)
            if shares_columns:
                meet(team)
        elif op[KIND] == ACTIVATION:
            dx = rows_at(dvalues, op[IN_AT], op[IN], mine.low, mine.high)
            dout = rows_at(dvalues, op[OUT_AT], op[OUT], mine.low, mine.high)
            seen = rows_at(values, op[SEEN_AT], op[OUT], mine.low, mine.high)
            call_backward(op[BACKWARD], dx, dout, seen, program.settings[index, 0])
        else:
            call_operation(op[STEP_BACKWARD], run, mine, index)
