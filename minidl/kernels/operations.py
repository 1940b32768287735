"""The operations that are neither a dense layer nor an activation, as a step runs them.

Each is a unit: a model without such operations compiles none of this.
"""

import numpy as np
from numba.core import types

from .barrier import meet, share
from .batch import step_arguments
from .emit import larger
from .featurewise import call_featurewise, call_featurewise_backward, call_gradients
from .jit import jit
from .matmul import Block
from .program import (
    AVERAGES,
    AVERAGES_AT,
    BACKWARD,
    BIAS,
    FIRST_I,
    FORWARD,
    GRADIENTS,
    IN,
    IN_AT,
    KEPT,
    KEPT_AT,
    KIND,
    LAYER_INDEX,
    MOVING_NORMALIZATION,
    OF_BATCH,
    OUT,
    OUT_AT,
    SEED,
    WEIGHT,
)
from .random import LAYER, make_key
from .rowwise import call_rowwise
from .simd import part_of, rows_at
from .units import Units, array
from .updates import update_range


@jit(inline=True)
def _inputs(run, mine, index):
    """The buffer that operation ``index`` reads."""
    return run.buffers.inputs[mine.copy] if index == 0 else run.buffers.values


@jit(inline=True)
def _features_of(params, at, first, last):
    """The entries first..last of a parameter that begins at ``at``; none if that is -1."""
    return part_of(params, larger(at, 0) + first, last - first if at >= 0 else 0)


@jit(inline=True)
def _kept_of(op, params, values):
    """What a featurewise operation keeps of a batch, or the moving averages in its place."""
    is_moving = op[KIND] == MOVING_NORMALIZATION
    memory = params if is_moving else values
    at, size = (op[AVERAGES_AT], op[AVERAGES]) if is_moving else (op[KEPT_AT], op[KEPT])
    return part_of(memory, at, size)


@jit
def _forward_block(op, f, params, values, source, rows, block):
    """A `Block` of a featurewise operation's output; ``values`` and ``source`` are whole buffers."""
    call_featurewise(
        op[FORWARD],
        rows_at(values, op[OUT_AT], op[OUT], 0, rows),
        rows_at(source, op[IN_AT], op[IN], 0, rows),
        _features_of(params, op[WEIGHT], 0, op[OUT]),
        _features_of(params, op[BIAS], 0, op[OUT]),
        _kept_of(op, params, values),
        f,
        block,
    )


@jit
def _own_block(team, op, mine):
    """What this thread takes of a featurewise operation: its columns of all rows, or its rows."""
    if op[OF_BATCH]:
        first, last = share(op[OUT], team, 16)
        return Block(mine.begin, mine.end, first, last)
    return Block(mine.low, mine.high, np.int64(0), op[OUT])


def _features_forward(run, mine, index):
    team, program, op = run.team, run.program, run.program.ops[index]
    if op[OF_BATCH]:
        meet(team)
    values, source, block = run.buffers.values, _inputs(run, mine, index), _own_block(team, op, mine)
    _forward_block(op, program.settings[index], program.params, values, source, mine.rows, block)
    if op[OF_BATCH]:
        meet(team)


def _features_backward(run, mine, index):
    team, program, op = run.team, run.program, run.program.ops[index]
    values, dvalues = run.buffers.values, run.buffers.dvalues
    if op[OF_BATCH]:
        meet(team)
    call_featurewise_backward(
        op[BACKWARD],
        rows_at(dvalues, op[IN_AT], op[IN], 0, mine.rows),
        rows_at(dvalues, op[OUT_AT], op[OUT], 0, mine.rows),
        rows_at(values, op[IN_AT], op[IN], 0, mine.rows),
        _features_of(program.params, op[WEIGHT], 0, op[OUT]),
        _kept_of(op, program.params, values),
        program.settings[index],
        _own_block(team, op, mine),
    )
    if op[OF_BATCH]:
        meet(team)


def _features_learn(run, mine, index):
    """Compute the gradients of this thread's features, update their parameters, and move their averages."""
    team, program, buffers, state = run.team, run.program, run.buffers, run.state
    op, params, grads = program.ops[index], program.params, program.grads
    inputs = _inputs(run, mine, index)
    first, last = share(op[OUT], team, 16)
    if first == last:
        return
    dweight, dbias = _features_of(grads, op[WEIGHT], first, last), _features_of(grads, op[BIAS], first, last)
    call_gradients(
        op[GRADIENTS],
        dweight,
        dbias,
        part_of(params, op[AVERAGES_AT], op[AVERAGES]),
        rows_at(buffers.dvalues, op[OUT_AT], op[OUT], 0, mine.rows),
        rows_at(inputs, op[IN_AT], op[IN], 0, mine.rows),
        _kept_of(op, params, buffers.values),
        program.settings[index],
        Block(np.int64(0), mine.rows, first, last),
    )
    if not state.restraints.active:
        scalars = buffers.scalars[team.thread]
        update_range(program, state, larger(op[WEIGHT], 0) + first, dweight.size, dweight, scalars)
        update_range(program, state, larger(op[BIAS], 0) + first, dbias.size, dbias, scalars)


@jit
def _call_rowwise(unit, to, source, program, index, mine):
    op = program.ops[index]
    moment = mine.moment
    seed = op[SEED] if op[SEED] >= 0 else moment.seed
    key = make_key(seed, LAYER + op[LAYER_INDEX], moment.epoch, moment.step)
    call_rowwise(unit, to, source, op[FIRST_I:IN_AT], program.settings[index], key, mine.place + mine.low)


def _rows_forward(run, mine, index):
    op, values = run.program.ops[index], run.buffers.values
    out = rows_at(values, op[OUT_AT], op[OUT], mine.low, mine.high)
    x = rows_at(_inputs(run, mine, index), op[IN_AT], op[IN], mine.low, mine.high)
    _call_rowwise(op[FORWARD], out, x, run.program, index, mine)


def _rows_backward(run, mine, index):
    op, dvalues = run.program.ops[index], run.buffers.dvalues
    dx = rows_at(dvalues, op[IN_AT], op[IN], mine.low, mine.high)
    dout = rows_at(dvalues, op[OUT_AT], op[OUT], mine.low, mine.high)
    _call_rowwise(op[BACKWARD], dx, dout, run.program, index, mine)


def _step_arguments(real):
    return *step_arguments(real), types.int64


def _block_arguments(real):
    block = types.BaseTuple.from_types((types.int64,) * 4, Block)
    return array(types.int64), array(types.float64), *[array(real)] * 3, types.int64, block


_FUNCTIONS = _features_forward, _features_backward, _features_learn, _rows_forward, _rows_backward
OPERATIONS = Units("operation", {each.__name__[1:]: each for each in _FUNCTIONS}, _step_arguments)
FEATURES = Units("features", {"forward_block": _forward_block}, _block_arguments)
call_operation, call_features = OPERATIONS.caller, FEATURES.caller
