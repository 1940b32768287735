"""Weight gradients and the update of the parameters, the last part of a step.

dW = x^T dout sums over all rows of the batch, so here the threads partition the weights, not the rows. A thread
computes the gradient of a small block of its weights, updates the block at once while that gradient is still in its
own cache, and goes on to the next block. The gradient of the whole model is stored only if something needs all of it
at once: penalties, clipping, constraints (`Restraints`). Each element of dW is one chain of multiply-adds over the
rows of the batch, in order, so its bits do not depend on who computes it.
"""

from typing import NamedTuple

import numpy as np

from .barrier import meet, share
from .jit import jit, smaller
from .matmul import NO_PANELS, Block, by_columns, by_rows, column_sums, from_zero, product, starting_at
from .ops import DENSE
from .program import BIAS, IN, IN_AT, KIND, OUT, OUT_AT, TRAINABLE, UPDATE_ROWS, WEIGHT
from .simd import NextRows, Shape, matmul_prefetching_panel
from .target import PANEL_BYTES, TILE_ROWS
from .updates import add_regularizer, clip_by_global_norm, clip_by_norm, clip_by_value, max_norm, update


class Restraints(NamedTuple):
    """What needs whole gradients or weights at once: penalties, clipping, constraints."""

    active: bool
    segments: np.ndarray  # int64 (n, 2): offset and size of each parameter that learns
    penalties: np.ndarray  # float64 (n, 2): l1, l2
    clip_value: float  # 0: none, for all three
    clip_norm: float
    clip_global_norm: float
    max_norm_segments: np.ndarray  # int64 (n, 3): offset, rows, columns
    max_norm_limits: np.ndarray  # float64 (n,)


class UpdateState(NamedTuple):
    """An optimizer as data: see `updates`."""

    kind: int
    hyper: np.ndarray
    slot0: np.ndarray
    slot1: np.ndarray
    slot2: np.ndarray
    learning_rates: np.ndarray  # float64 (steps,)
    iterations: int  # steps taken before this slice
    restraints: Restraints


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
        matmul_prefetching_panel(out, x_transposed, dout, panel, from_zero(dweight), next_rows)
    if done < columns:
        rest, shape = starting_at(out, 0, done), Shape(features, rows, columns - done)
        product(rest, x_transposed, starting_at(dout, 0, done), NO_PANELS, shape, from_zero(dweight), scratch)


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
    update(state.kind, program.params[at:end], slot0, slot1, slot2, grads, scalars)


@jit(inline=True)
def restrain(team, program, state, scalars):
    """Penalties and clipping on all gradients, then the update, then constraints.

    Returns the penalty on thread 0, and 0 on the others.
    """
    penalty, restraints = 0.0, state.restraints
    meet(team)  # all gradients are there
    if team.thread == 0:
        penalty = _add_penalties_and_clip(restraints, program.params, program.grads)
    meet(team)
    for index in range(restraints.segments.shape[0]):
        low, high = share(restraints.segments[index, 1], team, 64)
        at = restraints.segments[index, 0] + low
        _update_range(program, state, at, high - low, program.grads[at : at + high - low], scalars)
    meet(team)
    if team.thread == 0:
        max_norm(program.params, restraints.max_norm_segments, restraints.max_norm_limits)
    return penalty


@jit(inline=True)
def _add_penalties_and_clip(restraints, params, grads):
    """Add the regularizers' gradients, then clip; returns the penalty."""
    penalty = add_regularizer(grads, params, restraints.segments, restraints.penalties)
    if restraints.clip_norm > 0.0:
        clip_by_norm(grads, restraints.segments, restraints.clip_norm)
    if restraints.clip_global_norm > 0.0:
        clip_by_global_norm(grads, restraints.clip_global_norm)
    if restraints.clip_value > 0.0:
        clip_by_value(grads, restraints.clip_value)
    return penalty
