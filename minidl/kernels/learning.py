"""Weight gradients and the update of the parameters, the last part of a step.

dW = x^T dout sums over all rows of the batch, so here the threads partition the weights, not the rows. A thread
computes the gradient of a small block of its weights, updates the block at once while that gradient is still in its
own cache, and goes on to the next block. The gradient of the whole model is stored only if something needs all of it
at once: penalties, clipping, constraints (`Restraints`). Each element of dW is one chain of multiply-adds over the
rows of the batch, in order, so its bits do not depend on who computes it.
"""

import numpy as np

from .barrier import meet, share
from .jit import jit, smaller
from .matmul import (
    NO_PANELS,
    Block,
    by_columns,
    by_rows,
    call_prefetching,
    call_product,
    column_sums,
    from_zero,
    starting_at,
)
from .program import (
    BIAS,
    DENSE,
    FORWARD,
    IN,
    IN_AT,
    KIND,
    OUT,
    OUT_AT,
    PREFETCHING,
    TRAINABLE,
    UPDATE_ROWS,
    WEIGHT,
)
from .simd import NextRows, Shape
from .target import PANEL_BYTES, TILE_ROWS
from .updates import PENALTY, call_bound, call_penalize, call_update


@jit(inline=True)
def learn(team, program, buffers, inputs, rows, next_rows, state):
    """This thread's share of dW and db: each part is used at once, or kept in ``program.grads`` for `restrain`."""
    for index in range(program.ops.shape[0]):
        if program.ops[index, KIND] == DENSE and program.ops[index, TRAINABLE]:
            _learn_weight(team, program, buffers, inputs, index, rows, next_rows, state)
            if program.ops[index, BIAS] >= 0:
                _learn_bias(team, program, buffers, index, rows, state)


@jit(inline=True)
def _learn_weight(team, program, buffers, inputs, index, rows, next_rows, state):
    """Block by block: dW, then the update, unless `restrain` makes it later.

    The first panel of the first layer also prefetches ``next_rows``.
    """
    scratch, tile, op = buffers.scratch[team.thread], buffers.tile[team.thread], program.ops[index]
    x, k, n = inputs if index == 0 else buffers.values, op[IN], op[OUT]
    width = smaller(PANEL_BYTES // tile.itemsize, n) if program.in_panels else n
    height = smaller(tile.size // (width * TILE_ROWS) * TILE_ROWS, UPDATE_ROWS)
    # The rows of all panels, one panel after the other. A thread owns one stretch of them, whole panels if they
    # can be divided among the threads.
    panels = (n + width - 1) // width
    first, last = share(panels * k, team, k if panels % team.threads == 0 else np.int64(TILE_ROWS))
    prefetch_end = first + k if index == 0 else first
    while first < last:
        top, left = first % k, first // k * width
        bottom = smaller(smaller(top + height, k), top + last - first)
        right = smaller(left + width, n)
        at, size = op[WEIGHT] + left * k + top * (right - left), (bottom - top) * (right - left)
        dweight = tile[:size] if not state.restraints.active else program.grads[at : at + size]
        prefetch_from = next_rows.first if first < prefetch_end else np.int64(-1)
        features = NextRows(starting_at(next_rows.stored, top, 0), next_rows.order, prefetch_from)
        block = Block(top, bottom, left, right)
        _weight_gradient(dweight, op, block, rows, x, buffers.dvalues, scratch, features)
        if not state.restraints.active:
            _update_range(program, state, at, size, dweight, buffers.scalars[team.thread])
        first += bottom - top


@jit(inline=True)
def _weight_gradient(dweight, op, block, rows, x, dvalues, scratch, next_rows):
    """A `Block` of dW = x^T dout, stored without gaps.

    Its first panel also prefetches ``next_rows``, the block's features of the next batch (if ``first`` is not -1).
    """
    features, columns, done = block.bottom - block.top, block.right - block.left, np.int64(0)
    x_transposed = starting_at(by_columns(x, op[IN_AT], op[IN]), block.top, 0)
    dout = starting_at(by_rows(dvalues, op[OUT_AT], op[OUT]), 0, block.left)
    out = by_rows(dweight, np.int64(0), columns)
    if next_rows.first >= 0:
        done = smaller(PANEL_BYTES // dweight.itemsize, columns)
        panel = Shape(features, rows, done)
        zero = from_zero(dweight)
        call_prefetching(op[PREFETCHING], out, x_transposed, dout, panel, zero, next_rows)
    if done < columns:
        rest, shape = starting_at(out, 0, done), Shape(features, rows, columns - done)
        call_product(
            op[FORWARD],
            rest,
            x_transposed,
            starting_at(dout, 0, done),
            NO_PANELS,
            shape,
            from_zero(dweight),
            scratch,
        )


@jit(inline=True)
def _learn_bias(team, program, buffers, index, rows, state):
    """db, the sum of dout's rows, then the update."""
    op = program.ops[index]
    first, last = share(op[OUT], team, 16)
    at, size = op[BIAS] + first, last - first
    if size > 0:
        tile = buffers.tile[team.thread]
        dbias = tile[:size] if not state.restraints.active else program.grads[at : at + size]
        column_sums(dbias, by_rows(buffers.dvalues, op[OUT_AT] + first, op[OUT]), rows, size)
        if not state.restraints.active:
            _update_range(program, state, at, size, dbias, buffers.scalars[team.thread])


@jit(inline=True)
def _update_range(program, state, at, size, grads, scalars):
    """One optimizer step for the parameters at..at+size, whose gradients are ``grads``."""
    end = at + size
    slot0, slot1, slot2 = state.slot0[at:end], state.slot1[at:end], state.slot2[at:end]
    call_update(state.update, program.params[at:end], slot0, slot1, slot2, grads, scalars)


@jit(inline=True)
def restrain(team, program, state, scalars):
    """Penalties and clipping on all gradients, then the update, then constraints.

    Returns the penalty on thread 0, and 0 on the others.
    """
    penalty, restraints, params, grads = 0.0, state.restraints, program.params, program.grads
    meet(team)  # all gradients are there
    if team.thread == 0:
        segments, clips = restraints.segments, restraints.clips
        call_penalize(restraints.penalize, grads, params, segments, restraints.penalties, clips, scalars)
        penalty = scalars[PENALTY]
    meet(team)
    for index in range(restraints.segments.shape[0]):
        low, high = share(restraints.segments[index, 1], team, 64)
        at = restraints.segments[index, 0] + low
        _update_range(program, state, at, high - low, grads[at : at + high - low], scalars)
    meet(team)
    if team.thread == 0:
        call_bound(restraints.bound, params, restraints.max_norm_segments, restraints.max_norm_limits)
    return penalty
