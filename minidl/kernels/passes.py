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
from .featurewise import call_featurewise, call_featurewise_backward
from .jit import jit
from .matmul import NO_PANELS, Block, Panels, by_columns, by_rows, call_product, from_zero, starting_at
from .program import (
    ACTIVATION,
    AVERAGES,
    AVERAGES_AT,
    BACKWARD,
    BIAS,
    DENSE,
    FIRST_I,
    FORWARD,
    IN,
    IN_AT,
    IS_FEATUREWISE,
    KEPT,
    KEPT_AT,
    KIND,
    LAYER_INDEX,
    MOVING_NORMALIZATION,
    OF_BATCH,
    OUT,
    OUT_AT,
    SEED,
    SEEN_AT,
    TRAINABLE,
    WEIGHT,
)
from .random import LAYER, make_key
from .rowwise import call_rowwise
from .simd import FROM_BIAS, FROM_ZERO, Shape, Start, part_of, rows_at
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


@jit(inline=True)
def features_of(params, at, first, last):
    """The entries first..last of a parameter that begins at ``at``; none if that is -1."""
    return part_of(params, larger(at, 0) + first, last - first if at >= 0 else 0)


@jit(inline=True)
def kept_of(op, params, values):
    """What a featurewise operation keeps of a batch, or the moving averages in its place."""
    is_moving = op[KIND] == MOVING_NORMALIZATION
    memory = params if is_moving else values
    at, size = (op[AVERAGES_AT], op[AVERAGES]) if is_moving else (op[KEPT_AT], op[KEPT])
    return part_of(memory, at, size)


@jit
def featurewise_forward(op, f, params, values, source, rows, block):
    """A `Block` of a featurewise operation's output; ``values`` and ``source`` are whole buffers."""
    call_featurewise(
        op[FORWARD],
        rows_at(values, op[OUT_AT], op[OUT], 0, rows),
        rows_at(source, op[IN_AT], op[IN], 0, rows),
        features_of(params, op[WEIGHT], 0, op[OUT]),
        features_of(params, op[BIAS], 0, op[OUT]),
        kept_of(op, params, values),
        f,
        block,
    )


@jit
def _featurewise_backward(run, mine, index, block):
    program, values, dvalues, op = (
        run.program,
        run.buffers.values,
        run.buffers.dvalues,
        run.program.ops[index],
    )
    call_featurewise_backward(
        op[BACKWARD],
        rows_at(dvalues, op[IN_AT], op[IN], 0, mine.rows),
        rows_at(dvalues, op[OUT_AT], op[OUT], 0, mine.rows),
        rows_at(values, op[IN_AT], op[IN], 0, mine.rows),
        features_of(program.params, op[WEIGHT], 0, op[OUT]),
        kept_of(op, program.params, values),
        program.settings[index],
        block,
    )


@jit
def _own_block(team, op, mine):
    """What this thread takes of a featurewise operation: its columns of all rows, or its rows."""
    if op[OF_BATCH]:
        first, last = share(op[OUT], team, 16)
        return Block(mine.begin, mine.end, first, last)
    return Block(mine.low, mine.high, np.int64(0), op[OUT])


@jit
def _call_rowwise(unit, to, source, program, index, mine):
    op = program.ops[index]
    moment = mine.moment
    seed = op[SEED] if op[SEED] >= 0 else moment.seed
    key = make_key(seed, LAYER + op[LAYER_INDEX], moment.epoch, moment.step)
    call_rowwise(unit, to, source, op[FIRST_I:IN_AT], program.settings[index], key, mine.place + mine.low)


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
        elif op[IS_FEATUREWISE]:
            if op[OF_BATCH]:
                meet(team)
            block = _own_block(team, op, mine)
            featurewise_forward(op, program.settings[index], program.params, values, source, mine.rows, block)
            if op[OF_BATCH]:
                meet(team)
        else:
            out = rows_at(values, op[OUT_AT], op[OUT], mine.low, mine.high)
            x = rows_at(source, op[IN_AT], op[IN], mine.low, mine.high)
            if op[KIND] == ACTIVATION:
                call_forward(op[FORWARD], out, x, program.settings[index, 0])
            else:
                _call_rowwise(op[FORWARD], out, x, program, index, mine)


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
        elif op[IS_FEATUREWISE]:
            if op[OF_BATCH]:
                meet(team)
            _featurewise_backward(run, mine, index, _own_block(team, op, mine))
            if op[OF_BATCH]:
                meet(team)
        else:
            dx = rows_at(dvalues, op[IN_AT], op[IN], mine.low, mine.high)
            dout = rows_at(dvalues, op[OUT_AT], op[OUT], mine.low, mine.high)
            if op[KIND] == ACTIVATION:
                seen = rows_at(values, op[SEEN_AT], op[OUT], mine.low, mine.high)
                call_backward(op[BACKWARD], dx, dout, seen, program.settings[index, 0])
            else:
                _call_rowwise(op[BACKWARD], dx, dout, program, index, mine)
