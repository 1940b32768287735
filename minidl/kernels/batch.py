"""Partitions the rows of a batch among the threads, and gathers them from the data."""

from typing import NamedTuple

import numpy as np
from numba import typeof
from numba.core import types

from .barrier import Team, share
from .emit import smaller
from .jit import jit
from .program import (
    EPOCH,
    FLOAT32,
    FLOAT64,
    IN,
    NO_ROWS,
    PLACE,
    ROWS,
    START,
    STEP,
    UINT8,
    WHOLE,
    Buffers,
    Data,
    LossTable,
    Moment,
    Program,
    UpdateState,
    sample_arguments,
)
from .reductions import batch_factor
from .reference import Reference
from .simd import Matrix, NextRows, copy_bytes, part_of, read_float32, read_float64, rows_at
from .units import Units, array

_MOST_PREFETCHED = 1 << 18
"""Bytes of the next batch that are prefetched during an update. More would push the weights out of the cache."""


class Run(NamedTuple):
    """The arguments of `network.train` that stay the same from step to step, each by `reference`."""

    team: Team
    program: Program
    buffers: Buffers
    data: Data
    table: LossTable
    state: UpdateState


class Partition(NamedTuple):
    """The rows of one batch as one thread sees them."""

    step: int  # counted from the slice's first
    epoch: int  # counted from the slice's first
    start: int  # where the batch begins in the order
    rows: int  # rows of the batch
    place: int  # where these stand in the whole batch, and how many rows that has, see `program.PLACE`
    whole: int
    begin: int  # rows begin..end are worked on in this call (see `Part`)
    end: int
    low: int  # rows low..high of them are this thread's
    high: int
    copy: int  # which of the buffers' inputs is this thread's
    gathers_all: bool  # whether this thread gathers the inputs of all rows begin..end for itself
    moment: Moment


def step_arguments(real) -> tuple:
    """The types of a reference to `Run`, and of one to `Partition`."""
    *given, moment, _ = sample_arguments(np.dtype(str(real)))
    run = types.BaseTuple.from_types([Reference(typeof(one)) for one in given], Run)
    return Reference(run), Reference(typeof(Partition(*[0] * 11, False, moment)))


@jit
def partition(run, part, step, moment):
    """This thread's `Partition` of the batch of step ``step``; ``moment`` is that of step 0."""
    team, data = run.team, run.data
    batch = data.batches[step]
    epoch, start, rows = batch[EPOCH], batch[START], batch[ROWS]
    begin, end = smaller(part.first_row, rows), smaller(part.last_row, rows)
    low, high = share(end - begin, team, 4)
    # Each thread gathers all rows for itself only in whole steps. In a step of several calls the number of threads may
    # change from call to call, and a thread might then lack inputs that it needs for dW.
    is_whole = part.first_row == 0 and part.learns
    gathers_all = team.threads > 1 and run.buffers.inputs.shape[0] > 1 and is_whole
    now = Moment(moment.seed, moment.epoch + epoch, moment.step + batch[STEP])
    copy = team.thread if gathers_all else 0
    place, whole = batch[PLACE], batch[WHOLE]
    return Partition(
        step, epoch, start, rows, place, whole, begin, end, begin + low, begin + high, copy, gathers_all, now
    )


@jit
def gather(out, rows, order, first, low, high):
    """out[i] = rows[order[first + i]] for i in low..high, converted; an empty order is the identity."""
    width, row_bytes = out.shape[1], out.shape[1] * out.itemsize
    is_copied = rows.code == (FLOAT32 if out.itemsize == 4 else FLOAT64)
    for i in range(low, high):
        row = order[first + i] if order.size else first + i
        at = row * rows.stride
        if is_copied:
            copy_bytes(out, i * width, rows.data, at, row_bytes)
            continue
        target = part_of(out, i * width, width)
        if rows.code == FLOAT32:
            for j in range(width):
                target[j] = read_float32(rows.data, at + 4 * j)
        elif rows.code == FLOAT64:
            for j in range(width):
                target[j] = read_float64(rows.data, at + 8 * j)
        elif rows.code == UINT8:
            for j in range(width):
                target[j] = rows.data[at + j]


def _gather_arguments(real):
    rows, order = Reference(typeof(NO_ROWS)), array(types.int64)
    return array(real, 2), rows, order, *[types.int64] * 3


GATHER = Units("gather", {"rows": gather}, _gather_arguments)
call_gather = GATHER.caller


def gather_batch(run, mine):
    """The inputs, labels, targets, teacher's logits and weights of this thread's rows, ``mine``."""
    buffers, data, in_size, rows = run.buffers, run.data, run.program.ops[0, IN], run.program.gather
    inputs = buffers.inputs[mine.copy]
    first, last = (mine.begin, mine.end) if mine.gathers_all else (mine.low, mine.high)
    call_gather(
        rows, rows_at(inputs, 0, in_size, 0, mine.rows), data.x, data.x_order, mine.start, first, last
    )
    if data.targets.data.size:
        call_gather(rows, buffers.targets, data.targets, data.order, mine.start, mine.low, mine.high)
    if data.teacher.data.size:
        call_gather(rows, buffers.teacher, data.teacher, data.order, mine.start, mine.low, mine.high)
    factor = batch_factor(
        data.divisor, data.ignored, data.labels, data.sample_weight, data.order, mine.start, mine.rows
    )
    for i in range(mine.low, mine.high):
        row = data.order[mine.start + i]
        if data.labels.size:
            buffers.labels[i] = data.labels[row]
        weight = data.sample_weight[row] if data.sample_weight.size else 1.0
        buffers.row_scale[i] = weight * factor / mine.whole


@jit
def rows_to_prefetch(team, data, in_size, mine):
    """The next batch as `NextRows`. ``first`` is -1, and nothing is prefetched, unless this thread will gather all
    of its rows, they are as many as this batch has, and they fit the cache beside the weights."""
    reads_all = mine.gathers_all or team.threads == 1
    fits = mine.start + 2 * mine.rows <= data.order.size and mine.rows * data.x.stride <= _MOST_PREFETCHED
    first = mine.start + mine.rows if reads_all and fits else np.int64(-1)
    stored = Matrix(data.x.data, np.int64(0), data.x.stride // in_size, data.x.stride)
    return NextRows(stored, data.x_order, first)
