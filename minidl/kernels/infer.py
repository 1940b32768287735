"""Predictions: the same kernels as in the forward pass of training, without batches, draws and gradients."""

import functools

import numba
import numpy as np
from numba.core import types

from .activations import call_forward
from .barrier import ALONE, meet, share, start_together
from .batch import call_gather
from .emit import smaller
from .jit import jit
from .matmul import Block
from .operations import call_features
from .passes import dense_block
from .processor import flush_denormals, restore_denormals
from .program import (
    ACTIVATION,
    DENSE,
    FIRST_I,
    FLOAT32,
    FLOAT64,
    FORWARD,
    IN,
    IN_AT,
    IS_FEATUREWISE,
    KIND,
    OUT,
    OUT_AT,
    STEP_FORWARD,
)
from .reference import reference
from .rowwise import call_rowwise
from .simd import copy, part_of, reals_at, rows_at
from .units import Units, array
from .vectors import lanes, load, splat, total


@jit
def has_nonfinite(x, size):
    """Whether one of x[:size] is NaN or infinite: v - v is 0 for any other v."""
    width = lanes(x)
    bad, also_bad = splat(x, 0.0), splat(x, 0.0)  # two sums: an addition takes longer than to load a vector
    for at in range(0, size, 2 * width):
        part, next_part = load(x, at, size - at, 0.0), load(x, at + width, size - at - width, 0.0)
        bad, also_bad = bad + (part - part), also_bad + (next_part - next_part)
    one = total(bad + also_bad)
    return one != one


@jit
def search_nonfinite(team, x, found):
    """found[thread] = `has_nonfinite` of this thread's share of a flat x."""
    start_together(team)
    low, high = share(x.size, team, lanes(x))
    found[team.thread] = has_nonfinite(part_of(x, low, high - low), high - low)
    meet(team)


@functools.cache
def search_kinds(dtype: np.dtype) -> tuple:
    """The types of the arguments of `search_nonfinite` for a vector that can be written to."""
    return tuple(map(numba.typeof, (ALONE, np.zeros(1, dtype), np.zeros(1, np.int64))))


def _infer_rows(ops, settings, params, values, scratch, source, rows, out):
    """out (rows, out_size) = the operations applied to ``rows`` rows of flat ``source``, on this thread alone.

    Returns True only if all inputs are finite. If the first operation is dense, its outputs are looked at instead,
    which are fewer: an input that is not finite makes each of them so (and so does an overflow). The arguments are
    plain arrays: Numba takes longer to unpack a NamedTuple than a small net takes for a row.
    """
    mode = flush_denormals()
    count, key = ops.shape[0], np.uint64(0)
    results, size, at = source, out.shape[1], np.int64(0)
    dense_first = count > 0 and ops[0, KIND] == DENSE
    finite = dense_first or not has_nonfinite(source, rows * (ops[0, IN] if count else size))
    for index in range(count):
        op = ops[index]
        if op[KIND] == DENSE:
            dense_block(params, False, op, values, results, Block(0, rows, 0, op[OUT]), scratch)
        elif op[IS_FEATUREWISE]:
            block = Block(np.int64(0), rows, np.int64(0), op[OUT])
            call_features(op[STEP_FORWARD], op, settings[index], params, values, results, rows, block)
        else:
            to = rows_at(values, op[OUT_AT], op[OUT], 0, rows)
            x = rows_at(results, op[IN_AT], op[IN], 0, rows)
            if op[KIND] == ACTIVATION:
                call_forward(op[FORWARD], to, x, settings[index, 0])
            else:
                call_rowwise(op[FORWARD], to, x, op[FIRST_I:IN_AT], settings[index], key, 0)
        results, at = values, op[OUT_AT]
        if index == 0 and dense_first:
            finite = not has_nonfinite(part_of(values, at, rows * op[OUT]), rows * op[OUT])
    copy(out, rows_at(results, at, size, 0, rows))
    restore_denormals(mode)
    return finite


def _row_arguments(real):
    vector, table, numbers = array(real), array(types.int64, 2), array(types.float64, 2)
    return table, numbers, *[vector] * 4, types.int64, array(real, 2)


ROWS = Units("infer", {"rows": _infer_rows}, _row_arguments, has_entry=True, result=types.boolean)
infer_rows, call_rows = ROWS["rows"], ROWS.caller


@jit
def infer(team, model, space, x, chunk, out):
    """`infer_rows` for all rows of ``x`` (`Rows`), ``chunk`` rows at a time, on several threads.

    ``model`` is an `Inference`, ``space`` a `Space`. Rows that are already of the model's dtype are read in place.
    """
    start_together(team)
    ops, thread = model.ops, team.thread
    identity, stored = part_of(ops, 0, 0), reference(x)
    in_size = ops[0, IN] if ops.shape[0] else out.shape[1]
    in_place = x.code == (FLOAT32 if out.itemsize == 4 else FLOAT64)
    space.nonfinite[thread] = 0
    first, last = share(out.shape[0], team, 4)
    for start in range(first, last, chunk):
        rows = smaller(chunk, last - start)
        if in_place:
            source = reals_at(x.data, start * x.stride, out)
        else:
            source = space.inputs[thread]
            inputs = rows_at(source, 0, in_size, 0, rows)
            call_gather(model.gather, inputs, stored, identity, start, 0, rows)
        values, scratch = space.values[thread], space.scratch[thread]
        answers = rows_at(out, 0, out.shape[1], start, start + rows)
        finite = call_rows(
            model.rows, ops, model.settings, model.params, values, scratch, source, rows, answers
        )
        space.nonfinite[thread] += not finite
    meet(team)
