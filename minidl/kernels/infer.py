"""Predictions: the forward pass of the compiled loop, without what training adds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .activations import LINEAR
from .barrier import Team, meet, share, start_together
from .batch import FLOAT32, FLOAT64, Partition, gather
from .denormals import flush_denormals, restore_denormals
from .elementwise import copy
from .finite import has_nonfinite
from .jit import jit, smaller
from .ops import DENSE
from .passes import Moment, forward, rows_at
from .program import IN, KIND, OUT, OUT_AT, Program
from .simd import reals_at


class Inference(NamedTuple):
    """What predictions need of a model: see `program.Plan`."""

    ops: np.ndarray
    settings: np.ndarray
    params: np.ndarray


class Space(NamedTuple):
    """What predictions write, for chunks of rows; the first three are (threads, n)."""

    values: np.ndarray
    scratch: np.ndarray
    inputs: np.ndarray
    nonfinite: np.ndarray  # int64 (threads,): chunks with a NaN or an infinity


@jit
def infer_rows(ops, settings, params, values, scratch, source, rows, out):
    """out (rows, out_size) = the operations applied to ``rows`` rows of flat ``source``, on this thread alone.

    Returns True only if all inputs are finite. If the first operation is dense, its outputs are looked at instead,
    which are fewer: an input that is not finite makes each of them so (and so does an overflow). The arguments are
    plain arrays: Numba takes longer to unpack a NamedTuple than a small net takes for a row.
    """
    mode = flush_denormals()
    count, zero, one = ops.shape[0], np.int64(0), np.int64(1)
    team, mine = Team(zero, one, ops.reshape(-1)), Partition(zero, rows, zero, rows, zero, rows, True)
    out_at, moment = ops[count - 1, OUT_AT] if count else zero, Moment(zero, zero, zero)
    results, dense_first = source, count > 0 and ops[0, KIND] == DENSE
    finite = dense_first or not has_nonfinite(source, rows * (ops[0, IN] if count else out.shape[1]))
    for index in range(count):
        program = Program(
            ops[index : index + 1], settings[index : index + 1], params, params, False, out_at, out.shape[1], LINEAR
        )  # fmt: skip
        forward(team, program, mine, results, values, scratch, moment)
        results = values
        if index == 0 and dense_first:
            finite = not has_nonfinite(values[ops[0, OUT_AT] :], rows * ops[0, OUT])
    copy(out, rows_at(results, out_at, out.shape[1], 0, rows))
    restore_denormals(mode)
    return finite


@jit
def infer(team, model, space, x, chunk, out):
    """`infer_rows` for all rows of ``x`` (`Rows`), ``chunk`` rows at a time, on several threads.

    ``model`` is an `Inference`, ``space`` a `Space`. Rows that are already of the model's dtype are read in place.
    """
    start_together(team)
    ops, thread = model.ops, team.thread
    identity = ops.reshape(-1)[:0]
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
            gather(source[: rows * in_size].reshape(rows, in_size), x, identity, start, 0, rows)
        finite = infer_rows(
            ops, model.settings, model.params, space.values[thread], space.scratch[thread], source, rows,
            out[start : start + rows],
        )  # fmt: skip
        space.nonfinite[thread] += not finite
    meet(team)
