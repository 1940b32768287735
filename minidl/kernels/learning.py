"""Weight gradients and the update of the parameters, the last part of a step.

dW = x^T dout sums over all rows of the batch, so here the threads partition the weights, not the rows. A thread
computes the gradient of a small block of its weights, updates the block at once while that gradient is still in its
own cache, and goes on to the next block. The gradient of the whole model is stored only if something needs all of it
at once, or is rare: `Restraints`. Each element of dW is one chain of multiply-adds over the
rows of the batch, in order, so its bits do not depend on who computes it.
"""

import numpy as np

from .barrier import meet, share
from .batch import rows_to_prefetch
from .emit import smaller
from .exchange import exchange
from .jit import jit
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
from .operations import call_operation
from .program import (
    BIAS,
    FORWARD,
    IN,
    IN_AT,
    OUT,
    OUT_AT,
    PREFETCHING,
    STEP_LEARN,
    TRAINABLE,
    UPDATE_ROWS,
    WEIGHT,
)
from .reductions import penalty_factor
from .restraints import call_average, call_constrain, call_penalize
from .rows import sum_of_rows
from .simd import NextRows, Shape, part_of
from .target import PANEL_BYTES, TILE_ROWS
from .updates import PENALTY, call_scalars, update_range


def learn(run, mine):
    """Compute the batch's loss and this thread's share of dW and db. Update by them, or leave that to `restrain`."""
    team, program, buffers, table, state = run.team, run.program, run.buffers, run.table, run.state
    rate, count = state.learning_rates[mine.step], (state.batches + mine.step) // state.restraints.steps + 1
    call_scalars(state.fill_scalars, buffers.scalars[team.thread], state.hyper, rate, count)
    if team.thread == 0:
        _add_up(buffers, table, mine)
    next_rows = rows_to_prefetch(team, run.data, program.ops[0, IN], mine)
    for index in range(program.ops.shape[0]):
        if program.ops[index, STEP_LEARN]:
            call_operation(program.ops[index, STEP_LEARN], run, mine, index)
        elif program.ops[index, TRAINABLE]:
            _learn_weight(run, mine, index, next_rows)
            if program.ops[index, BIAS] >= 0:
                _learn_bias(run, mine, index)


@jit
def _add_up(buffers, table, mine):
    """The loss and metrics of a whole batch, from those of its rows, in order."""
    table.losses[mine.step] = sum_of_rows(part_of(buffers.row_loss, 0, mine.rows))
    for m in range(table.metric_units.size):
        for i in range(mine.rows):
            table.metrics[mine.epoch, m] += buffers.row_metric[m, i]


@jit
def _learn_weight(run, mine, index, next_rows):
    """Compute dW block by block, and update each block at once, unless `restrain` does so later.

    The first panel of the first layer also prefetches ``next_rows``.
    """
    team, program, buffers, state, rows = run.team, run.program, run.buffers, run.state, mine.rows
    scratch, tile, op = buffers.scratch[team.thread], buffers.tile[team.thread], program.ops[index]
    x, k, n = buffers.inputs[mine.copy] if index == 0 else buffers.values, op[IN], op[OUT]
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
        dweight = part_of(tile, 0, size) if not state.restraints.active else part_of(program.grads, at, size)
        prefetch_from = next_rows.first if first < prefetch_end else np.int64(-1)
        features = NextRows(starting_at(next_rows.stored, top, 0), next_rows.order, prefetch_from)
        block = Block(top, bottom, left, right)
        _weight_gradient(dweight, op, block, rows, x, buffers.dvalues, scratch, features)
        if not state.restraints.active:
            update_range(program, state, at, size, dweight, buffers.scalars[team.thread])
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
        dout, zero = starting_at(dout, 0, done), from_zero(dweight)
        call_product(op[FORWARD], rest, x_transposed, dout, NO_PANELS, shape, zero, scratch)


@jit
def _learn_bias(run, mine, index):
    """Compute db, the sum of dout's rows, and update the bias."""
    team, program, buffers, state = run.team, run.program, run.buffers, run.state
    op = program.ops[index]
    first, last = share(op[OUT], team, 16)
    at, size = op[BIAS] + first, last - first
    if size > 0:
        tile = buffers.tile[team.thread]
        dbias = part_of(tile, 0, size) if not state.restraints.active else part_of(program.grads, at, size)
        column_sums(dbias, by_rows(buffers.dvalues, op[OUT_AT] + first, op[OUT]), mine.rows, size)
        if not state.restraints.active:
            update_range(program, state, at, size, dbias, buffers.scalars[team.thread])


def restrain(run, mine):
    """Penalties, accumulation and clipping on all gradients, then the update, the average, constraints.

    Before that the gradients become the sums of those of all processes, where several train together. The penalty is
    added to the loss. There is an update with the last batch of ``steps`` only; the rest is done always.
    """
    team, program, data, state = run.team, run.program, run.data, run.state
    params, grads, restraints = program.params, program.grads, state.restraints
    scalars, average = run.buffers.scalars[team.thread], restraints.average
    updates, place = divmod(state.batches + mine.step, restraints.steps)
    steps = restraints.steps if place == restraints.steps - 1 else np.int64(0)
    meet(team)  # until all gradients are complete
    if team.thread == 0:
        if restraints.exchange:
            exchange(restraints.exchange, mine.step)
        segments, clips = restraints.segments, restraints.clips
        penalties, accumulated = restraints.penalties, restraints.accumulated
        of_batch = (
            data.divisor,
            data.ignored,
            data.labels,
            data.sample_weight,
            data.order,
            mine.start,
            mine.rows,
        )
        scalars[PENALTY] = penalty_factor(data.penalty_rows, *of_batch)
        call_penalize(
            restraints.penalize, grads, params, segments, penalties, accumulated, steps, clips, scalars
        )
        run.table.losses[mine.step] += scalars[PENALTY]
    meet(team)
    for index in range(restraints.segments.shape[0]):
        low, high = share(restraints.segments[index, 1], team, 64)
        at = restraints.segments[index, 0] + low
        if steps > 0:
            update_range(program, state, at, high - low, part_of(grads, at, high - low), scalars)
        if average.size > 0:
            mine_of = part_of(average, at, high - low), part_of(params, at, high - low)
            call_average(restraints.move_average, *mine_of, restraints.averaging, updates)
    meet(team)
    if team.thread == 0:
        call_constrain(restraints.constrain, params, restraints.places, restraints.numbers)
