"""The compiled training loop: many steps a call, no Python in between.

The model is data to it: a table of primitive operations (`ops.Op`), a flat parameter vector, and one
buffer that holds every operation's output. So it is compiled once per dtype, whatever the architecture. A
step is gather -> forward -> loss -> backward -> update, and calls the same kernels, in the same order, as
the layers do from Python: both end with the same bits.

Among threads, rows of the batch are split: each thread takes its rows through the whole network, until the
weight gradients, which need all rows. There the weights are split instead, and each thread updates what it owns
at once, while its gradient is still in a cache of its own. Wide layers split their columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .activations import LINEAR, NEEDS_INPUT, activation_backward, activation_forward
from .elementwise import copy, rescale
from .jit import jit, larger, smaller
from .losses import Batch, loss_rows, sum_of_rows
from .matmul import column_sums, product, scratch_size, store_panels
from .metrics import metric_rows
from .ops import ACTIVATION, DENSE, DROPOUT, GAUSSIAN_NOISE, RANDOM_TRANSLATION
from .random import LAYER, Image, Reach, dropout, gaussian_noise, make_key, translate
from .simd import (
    FROM_BIAS,
    FROM_ZERO,
    PANEL_BYTES,
    TILE_ROWS,
    matmul_asking_panel,
    read_float32,
    read_float64,
    reals_at,
)
from .threads import flush_denormals, meet, restore_denormals, share, start_together
from .updates import (
    add_regularizer,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    max_norm,
    step_scalars,
    update,
)
from .vectors import lanes, load, splat, total

# Columns of the table of operations.
KIND, IN, OUT, WEIGHT, BIAS, CODE, LAYER_INDEX, I0, I1, I2, I3, I4, IN_AT, OUT_AT = range(14)

# How stored numbers are coded; every other dtype is converted before it gets here.
UINT8, FLOAT32, FLOAT64 = 0, 1, 2
CODES_OF_DTYPES = {np.dtype(np.uint8): UINT8, np.dtype(np.float32): FLOAT32, np.dtype(np.float64): FLOAT64}

WIDE = 256
"""From this many columns on, threads share a product by columns: each packs only the panels it uses."""
UPDATE_ROWS, UPDATE_PANELS = 16 * TILE_ROWS, 4
"""Of so many rows and panels of a weight, 96 KB, the gradient is computed, used and forgotten together. Reading it
from the second-level cache costs nothing beside Adam's divisions; smaller parts would, for a product to begin."""
_MOST_ASKED = 1 << 18
"""Bytes of the next batch that are asked for while this one is learnt from: more would push the weights out."""


class Rows(NamedTuple):
    """A matrix in its stored dtype, read row by row: the bytes, bytes a row, and the code of the dtype."""

    data: np.ndarray  # uint8, 1-D, read-only
    stride: int
    code: int


class Program(NamedTuple):
    """A model as data."""

    ops: np.ndarray  # int64 (n, 14)
    settings: np.ndarray  # float64 (n, 2)
    params: np.ndarray
    grads: np.ndarray
    in_panels: bool  # whether weights are stored by `panel_order`
    out_at: int  # where the last operation's output stands in a buffer
    out_size: int
    final: int  # activation that turns the last output into predictions, for metrics


class Buffers(NamedTuple):
    """Everything a step writes besides parameters; allocated once a fit."""

    inputs: np.ndarray  # (threads, batch * input size), or (1, ...): all threads share a batch
    values: np.ndarray  # outputs of all operations, (operations, batch, size) one after the other
    slopes: np.ndarray  # their gradients, in the same places
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


class Data(NamedTuple):
    """What one slice of training reads."""

    x: Rows
    x_order: np.ndarray  # int64: rows of x, one after the other
    order: np.ndarray  # int64: rows of all else
    labels: np.ndarray  # int64 (N,) or (0,)
    targets: Rows
    teacher: Rows
    sample_weight: np.ndarray  # float64 (N,) or (0,)
    batch_size: int


class Objective(NamedTuple):
    """Loss and metrics, and where their values go."""

    kind: int
    hyper: np.ndarray
    metric_kinds: np.ndarray  # int64 (metrics,)
    metric_ks: np.ndarray
    losses: np.ndarray  # float64 (steps,): mean over the batch, penalties included
    metrics: np.ndarray  # float64 (metrics,): sums over samples, added to


class Optimizer(NamedTuple):
    """An optimizer as data: see `updates`."""

    kind: int
    hyper: np.ndarray
    slot0: np.ndarray
    slot1: np.ndarray
    slot2: np.ndarray
    learning_rates: np.ndarray  # float64 (steps,)
    iterations: int  # steps taken before this slice


class Rules(NamedTuple):
    """What needs whole gradients or weights at once: penalties, clipping, constraints."""

    active: bool
    segments: np.ndarray  # int64 (n, 2): offset and size of each parameter
    penalties: np.ndarray  # float64 (n, 2): l1, l2
    clip_value: float  # 0: none, for all three
    clip_norm: float
    clip_global_norm: float
    max_norm_segments: np.ndarray  # int64 (n, 3): offset, rows, columns
    max_norm_limits: np.ndarray  # float64 (n,)


class Moment(NamedTuple):
    """Names the random draws of a step."""

    seed: int
    epoch: int
    first_step: int


@jit
def gather(out, rows, order, first, low, high):
    """out[i] = rows[order[first + i]] for i in low..high, converted; an empty order is the identity."""
    width = out.shape[1]
    for i in range(low, high):
        row = order[first + i] if order.size else first + i
        at = row * rows.stride
        target = out[i]
        if rows.code == FLOAT32:
            for j in range(width):
                target[j] = read_float32(rows.data, at + 4 * j)
        elif rows.code == FLOAT64:
            for j in range(width):
                target[j] = read_float64(rows.data, at + 8 * j)
        else:
            for j in range(width):
                target[j] = rows.data[at + j]


@jit(inline=True)
def _rows(buffer, at, size, low, high):
    """Rows low..high of the (batch, size) matrix that starts at ``at``."""
    return buffer[at + low * size : at + high * size].reshape(high - low, size)


@jit(inline=True)
def _dense(program, op, source, values, low, high, first, last, scratch):
    """Rows low..high, columns first..last of one dense layer's output."""
    params, one = program.params, np.int64(1)
    bias_at = op[BIAS]
    mode = FROM_BIAS if bias_at >= 0 else FROM_ZERO
    rows, k, n = high - low, op[IN], op[OUT]
    panel_rows, weight_at = (k, op[WEIGHT]) if program.in_panels else (np.int64(0), op[WEIGHT] + first)
    product(
        values, op[OUT_AT] + low * n + first, n, source, op[IN_AT] + low * k, k, one,
        params, weight_at, n, one, rows, k, last - first, mode, params, larger(bias_at, 0) + first, scratch,
        panel_rows, first,
    )  # fmt: skip


@jit(inline=True)
def _dense_input_gradient(program, op, slopes, low, high, first, last, scratch):
    """dx = dout weight^T for rows low..high, columns first..last of dx."""
    rows, k, n, one = high - low, op[OUT], op[IN], np.int64(1)
    panel_rows, weight_at, stride = np.int64(0), op[WEIGHT] + first * k, k
    if program.in_panels:
        panel_rows, weight_at, stride = n, op[WEIGHT], np.int64(0)
    product(
        slopes, op[IN_AT] + low * n + first, n, slopes, op[OUT_AT] + low * k, k, one,
        program.params, weight_at, one, stride, rows, k, last - first, np.int64(FROM_ZERO), slopes, one,
        scratch, panel_rows, first,
    )  # fmt: skip


@jit(inline=True)
def _forward_rows(op, setting, out, x, key, first_row):
    """One elementwise operation on some rows."""
    kind = op[KIND]
    if kind == ACTIVATION:
        activation_forward(out, x, op[CODE], setting[0])
    elif kind == DROPOUT:
        dropout(out, x, setting[0], key, first_row)
    elif kind == GAUSSIAN_NOISE:
        gaussian_noise(out, x, setting[0], key, first_row)
    elif kind == RANDOM_TRANSLATION:
        image, reach = Image(op[I0], op[I1], op[I2]), Reach(-op[I3], op[I3], -op[I4], op[I4])
        translate(out, x, image, reach, setting[0], key, first_row, np.int64(1))
    else:
        rescale(out, x, setting[0], setting[1])


@jit(inline=True)
def _backward_rows(op, setting, dx, dout, out, x, key, first_row):
    """The gradient of `_forward_rows`."""
    kind = op[KIND]
    if kind == ACTIVATION:
        activation_backward(dx, dout, out, x, op[CODE], setting[0])
    elif kind == DROPOUT:
        dropout(dx, dout, setting[0], key, first_row)
    elif kind == GAUSSIAN_NOISE:
        copy(dx, dout)
    elif kind == RANDOM_TRANSLATION:
        image, reach = Image(op[I0], op[I1], op[I2]), Reach(-op[I3], op[I3], -op[I4], op[I4])
        translate(dx, dout, image, reach, 0.0, key, first_row, np.int64(-1))
    else:
        rescale(dx, dout, setting[0], 0.0)


@jit(inline=True)
def _splits_columns(program, op, rows, threads):
    """Whether threads share a layer's columns, not the batch's rows: a wide layer's, and those whose weights are
    more than the rows they meet, if each can go on with the panels that it has just updated."""
    columns, width = op[OUT], PANEL_BYTES // program.params.itemsize
    return columns >= WIDE or (program.in_panels and columns >= rows and columns % (threads * width) == 0)


@jit(inline=True)
def forward(
    thread, threads, sync, program, inputs, whole, values, scratch, begin, end, low, high, seed, epoch, step
):  # fmt: skip
    """All operations on rows begin..end, of which low..high are this thread's.

    The first reads ``inputs``, of which this thread has read the ``whole``, or its rows.
    """
    zero = np.int64(0)  # a literal would be a type of its own, and compile the callees once more
    for index in range(program.ops.shape[0]):
        op = program.ops[index]
        source = inputs if index == 0 else values
        if op[KIND] == DENSE:
            if threads > 1 and _splits_columns(program, op, end - begin, threads):
                first, last = share(op[OUT], thread, threads, PANEL_BYTES // values.itemsize)
                if index or not whole:
                    meet(sync, threads)
                _dense(program, op, source, values, begin, end, first, last, scratch)
                meet(sync, threads)
            else:
                _dense(program, op, source, values, low, high, zero, op[OUT], scratch)
        else:
            out = _rows(values, op[OUT_AT], op[OUT], low, high)
            x = _rows(source, op[IN_AT], op[IN], low, high)
            key = make_key(seed, LAYER + op[LAYER_INDEX], epoch, step)
            _forward_rows(op, program.settings[index], out, x, key, low)


@jit(inline=True)
def backward(thread, threads, sync, program, buffers, scratch, begin, end, low, high, seed, epoch, step):
    """The gradients of all operations' outputs, from the last to the first that has parameters."""
    values, slopes, zero = buffers.values, buffers.slopes, np.int64(0)
    first_dense = 0
    while first_dense < program.ops.shape[0] and program.ops[first_dense, KIND] != DENSE:
        first_dense += 1
    for index in range(program.ops.shape[0] - 1, first_dense, -1):
        op = program.ops[index]
        if op[KIND] == DENSE:
            if threads > 1 and op[IN] >= WIDE:
                first, last = share(op[IN], thread, threads, 64)
                meet(sync, threads)
                _dense_input_gradient(program, op, slopes, begin, end, first, last, scratch)
                meet(sync, threads)
            else:
                _dense_input_gradient(program, op, slopes, low, high, zero, op[IN], scratch)
        else:
            dx = _rows(slopes, op[IN_AT], op[IN], low, high)
            dout = _rows(slopes, op[OUT_AT], op[OUT], low, high)
            out = _rows(values, op[OUT_AT], op[OUT], low, high)
            x = _rows(values, op[IN_AT], op[IN], low, high)
            key = make_key(seed, LAYER + op[LAYER_INDEX], epoch, step)
            _backward_rows(op, program.settings[index], dx, dout, out, x, key, low)


@jit(inline=True)
def _weight_gradient(out, op, source, slopes, rows, low, high, first, last, scratch, data, coming):
    """Rows low..high, columns first..last of x^T dout.

    The first of its panels asks for what `gather` will read of the same features of the next batch, which begins at
    ``coming`` (-1: nothing is asked for).
    """
    k, n, one, zero = op[IN], op[OUT], np.int64(1), np.int64(0)
    width, done = last - first, zero
    if coming >= 0:
        done, item = smaller(PANEL_BYTES // out.itemsize, width), data.x.stride // k
        matmul_asking_panel(
            out, zero, width, source, op[IN_AT] + low, one, k, slopes, op[OUT_AT] + first, n, rows, high - low, done,
            data.x.data, low * item, item, data.x.stride, data.x_order, coming,
        )  # fmt: skip
    if done < width:
        product(
            out, done, width, source, op[IN_AT] + low, one, k, slopes, op[OUT_AT] + first + done, n, one,
            high - low, rows, width - done, np.int64(FROM_ZERO), out, zero, scratch, zero, zero,
        )  # fmt: skip


@jit(inline=True)
def _update_range(program, optimizer, at, size, grads, scalars):
    update(
        optimizer.kind,
        program.params[at : at + size],
        optimizer.slot0[at : at + size],
        optimizer.slot1[at : at + size],
        optimizer.slot2[at : at + size],
        grads,
        scalars,
    )


@jit(inline=True)
def _learn(thread, threads, program, buffers, inputs, data, coming, optimizer, rows, scalars, updates):
    """This thread's share of the parameter gradients, each used at once (``updates``) or kept in ``grads``.

    Meanwhile the batch that begins at ``coming`` is asked for (-1: none).
    """
    scratch, tile = buffers.scratch[thread], buffers.tile[thread]
    for index in range(program.ops.shape[0]):
        op = program.ops[index]
        if op[KIND] != DENSE:
            continue
        source = inputs if index == 0 else buffers.values
        k, n = op[IN], op[OUT]
        width = smaller(PANEL_BYTES // tile.itemsize, n) if program.in_panels else n
        height = smaller(tile.size // (width * TILE_ROWS) * TILE_ROWS, UPDATE_ROWS)
        # all panels' rows, one panel after the other: each thread owns one stretch of them, in whole panels if it can
        panels = (n + width - 1) // width
        unit = k if panels % threads == 0 else np.int64(TILE_ROWS)
        first, last = share(panels * k, thread, threads, unit)
        asking_ends = first + k if index == 0 else first
        while first < last:
            panel, low = first // k, first % k
            high = smaller(smaller(low + height, k), low + last - first)
            left = panel * width
            right = smaller(left + width, n)
            at, size = op[WEIGHT] + left * k + low * (right - left), (high - low) * (right - left)
            grads = tile[:size] if updates else program.grads[at : at + size]
            _weight_gradient(
                grads, op, source, buffers.slopes, rows, low, high, left, right, scratch,
                data, coming if first < asking_ends else np.int64(-1),
            )  # fmt: skip
            if updates:
                _update_range(program, optimizer, at, size, grads, scalars)
            first += high - low
        if op[BIAS] >= 0:
            first, last = share(n, thread, threads, 16)
            at, size = op[BIAS] + first, last - first
            if size > 0:
                grads = tile[:size] if updates else program.grads[at : at + size]
                column_sums(grads, buffers.slopes, op[OUT_AT] + first, n, rows, size)
                if updates:
                    _update_range(program, optimizer, at, size, grads, scalars)


@jit(inline=True)
def apply_penalties_and_clipping(rules, params, grads):
    """Adds the regularizers' gradients, clips; returns the penalty."""
    penalty = add_regularizer(grads, params, rules.segments, rules.penalties)
    if rules.clip_norm > 0.0:
        clip_by_norm(grads, rules.segments, rules.clip_norm)
    if rules.clip_global_norm > 0.0:
        clip_by_global_norm(grads, rules.clip_global_norm)
    if rules.clip_value > 0.0:
        clip_by_value(grads, rules.clip_value)
    return penalty


@jit(inline=True)
def _gather_batch(program, buffers, inputs, data, start, rows, first, last, low, high):
    """Rows first..last of the inputs, low..high of all else."""
    in_size = program.ops[0, IN]
    gather(inputs[: rows * in_size].reshape(rows, in_size), data.x, data.x_order, start, first, last)
    if data.targets.data.size:
        gather(buffers.targets, data.targets, data.order, start, low, high)
    if data.teacher.data.size:
        gather(buffers.teacher, data.teacher, data.order, start, low, high)
    for i in range(low, high):
        row = data.order[start + i]
        if data.labels.size:
            buffers.labels[i] = data.labels[row]
        weight = data.sample_weight[row] if data.sample_weight.size else 1.0
        buffers.row_scale[i] = weight / rows


@jit(inline=True)
def _matrix_part(matrix, low, high):
    return matrix[low:high] if matrix.size else matrix


@jit(inline=True)
def _loss_and_metrics(program, buffers, objective, low, high):
    logits = _rows(buffers.values, program.out_at, program.out_size, low, high)
    dlogits = _rows(buffers.slopes, program.out_at, program.out_size, low, high)
    labels = buffers.labels[low:high] if buffers.labels.size else buffers.labels
    targets = _matrix_part(buffers.targets, low, high)
    teacher = _matrix_part(buffers.teacher, low, high)
    batch = Batch(logits, labels, targets, teacher, buffers.row_scale[low:high])
    loss_rows(objective.kind, buffers.row_loss[low:high], dlogits, batch, objective.hyper)
    if objective.metric_kinds.size == 0:
        return
    predictions = logits
    if buffers.predictions.size:
        predictions = buffers.predictions[low:high]
        activation_forward(predictions, logits, program.final, 0.0)
    for m in range(objective.metric_kinds.size):
        values = buffers.row_metric[m, low:high]
        metric_rows(objective.metric_kinds[m], values, predictions, labels, targets, objective.metric_ks[m])


@jit
def train(
    thread, threads, sync, program, buffers, data, objective, optimizer, rules, moment, first_row, last_row, learns
):  # fmt: skip
    """``len(learning_rates)`` steps of training on consecutive batches of ``data.order``.

    A long step comes in several calls, each on rows first_row..last_row of its batch; only the last ``learns``.
    """
    start_together(thread, sync, threads)
    mode = flush_denormals()
    scratch = buffers.scratch[thread]
    # not a step in parts: each part might find another number of threads free, and they other rows
    whole = threads > 1 and buffers.inputs.shape[0] > 1 and first_row == 0 and learns
    inputs = buffers.inputs[thread if whole else 0]
    scalars = buffers.scalars[thread]
    for step in range(optimizer.learning_rates.size):
        start = step * data.batch_size
        rows = smaller(data.batch_size, data.order.size - start)
        begin, end = smaller(first_row, rows), smaller(last_row, rows)
        low, high = share(end - begin, thread, threads, 4)
        low, high = begin + low, begin + high
        here = moment.first_step + step
        first, last = (begin, end) if whole else (low, high)
        _gather_batch(program, buffers, inputs, data, start, rows, first, last, low, high)
        forward(
            thread, threads, sync, program, inputs, whole, buffers.values, scratch, begin, end, low, high,
            moment.seed, moment.epoch, here,
        )  # fmt: skip
        _loss_and_metrics(program, buffers, objective, low, high)
        backward(
            thread, threads, sync, program, buffers, scratch, begin, end, low, high,
            moment.seed, moment.epoch, here,
        )  # fmt: skip
        meet(sync, threads)
        if not learns:
            continue

        step_scalars(
            scalars,
            optimizer.kind,
            optimizer.hyper,
            optimizer.learning_rates[step],
            optimizer.iterations + step + 1,
        )
        if thread == 0:
            objective.losses[step] = sum_of_rows(buffers.row_loss[:rows])
            for m in range(objective.metrics.size):
                for i in range(rows):
                    objective.metrics[m] += buffers.row_metric[m, i]
        # as large a batch as this one, of which this thread will read all rows
        asks = (whole or threads == 1) and start + 2 * rows <= data.order.size and rows * data.x.stride <= _MOST_ASKED
        coming = start + rows if asks else np.int64(-1)
        _learn(
            thread, threads, program, buffers, inputs, data, coming, optimizer, rows, scalars, not rules.active
        )  # fmt: skip
        if rules.active:
            meet(sync, threads)
            if thread == 0:
                objective.losses[step] += apply_penalties_and_clipping(rules, program.params, program.grads)
            meet(sync, threads)
            low, high = share(program.params.size, thread, threads, 64)
            _update_range(program, optimizer, low, high - low, program.grads[low:high], scalars)
            meet(sync, threads)
            if thread == 0:
                max_norm(program.params, rules.max_norm_segments, rules.max_norm_limits)
        meet(sync, threads)
    restore_denormals(mode)
    meet(sync, threads)


@jit
def panel_order(panels, rows, ops, back):
    """All parameters from the order of their layers' matrices into panels, or ``back``."""
    target, source = (rows, panels) if back else (panels, rows)
    copy(target.reshape(1, -1), source.reshape(1, -1))
    for index in range(ops.shape[0]):
        if ops[index, KIND] == DENSE:
            store_panels(panels, rows, ops[index, WEIGHT], ops[index, IN], ops[index, OUT], back)


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
def search_nonfinite(thread, threads, sync, x, found):
    """found[thread] = `has_nonfinite` of this thread's share of a flat x."""
    start_together(thread, sync, threads)
    low, high = share(x.size, thread, threads, lanes(x))
    found[thread] = has_nonfinite(x[low:high], high - low)
    meet(sync, threads)


@jit
def infer_rows(ops, settings, params, out_at, values, scratch, source, rows, out):
    """out (rows, out_size) = the operations applied to ``rows`` rows of flat ``source``, on this thread alone.

    Returns True only if all rows are finite; of a dense layer's inputs its outputs tell, which are fewer: what is
    not finite makes each of them so (and an overflow, too). Plain arrays and no `Program`: to unpack one takes
    Numba longer than a small net takes for a row.
    """
    mode = flush_denormals()
    count, nowhere, zero, one = ops.shape[0], ops.reshape(-1), np.int64(0), np.int64(1)
    results, dense_first = source, count > 0 and ops[0, KIND] == DENSE
    finite = dense_first or not has_nonfinite(source, rows * (ops[0, IN] if count else out.shape[1]))
    for index in range(count):
        program = Program(
            ops[index : index + 1], settings[index : index + 1], params, params, False, out_at, out.shape[1], LINEAR
        )  # fmt: skip
        forward(
            zero, one, nowhere, program, results, True, values, scratch, zero, rows, zero, rows, zero, zero, zero
        )  # fmt: skip
        results = values
        if index == 0 and dense_first:
            finite = not has_nonfinite(values[ops[0, OUT_AT] :], rows * ops[0, OUT])
    copy(out, _rows(results, out_at, out.shape[1], 0, rows))
    restore_denormals(mode)
    return finite


@jit
def infer(
    thread, threads, sync, ops, settings, params, out_at, values, scratch, inputs, nonfinite, chunk,
    octets, stride, code, out,
):  # fmt: skip
    """`infer_rows` for all rows of a `Rows` (octets, stride, code), in chunks, on several threads.

    inputs, values, scratch are (threads, n) for chunks of ``chunk`` rows; nonfinite (threads,) counts the
    chunks with a NaN or inf. Rows already of the model's dtype are read where they are.
    """
    start_together(thread, sync, threads)
    none = ops.reshape(-1)[:0]
    in_size = ops[0, IN] if ops.shape[0] else out.shape[1]
    in_place = code == (FLOAT32 if out.itemsize == 4 else FLOAT64)
    nonfinite[thread] = 0
    first, last = share(out.shape[0], thread, threads, 4)
    for start in range(first, last, chunk):
        rows = smaller(chunk, last - start)
        if in_place:
            source = reals_at(octets, start * stride, out)
        else:
            source = inputs[thread]
            part = source[: rows * in_size].reshape(rows, in_size)
            gather(part, Rows(octets, stride, code), none, start, 0, rows)
        finite = infer_rows(
            ops, settings, params, out_at, values[thread], scratch[thread], source, rows, out[start : start + rows]
        )
        nonfinite[thread] += not finite
    meet(sync, threads)


class Plan(NamedTuple):
    """The operations of a model and where their outputs stand in a buffer of ``batch`` rows."""

    ops: np.ndarray
    settings: np.ndarray
    out_at: int
    out_size: int
    size: int  # elements of the buffer


def plan(ops, in_size: int, batch: int) -> Plan:
    """Lay out the outputs of ``ops`` one after the other; an activation overwrites a dense output where it may."""
    table = np.zeros((len(ops), 14), np.int64)
    settings = np.zeros((len(ops), 2), np.float64)
    at, size, end = 0, in_size, 0
    for index, op in enumerate(ops):
        in_place = (
            op.kind == ACTIVATION
            and op.activation not in NEEDS_INPUT
            and index
            and ops[index - 1].kind == DENSE
        )
        out_at = at if in_place else end
        if not in_place:
            end += _aligned(batch * op.out_size)
        table[index] = (
            op.kind, op.in_size, op.out_size, op.weight, op.bias, op.activation, op.layer, *op.i, at, out_at,
        )  # fmt: skip
        settings[index] = op.f
        at, size = out_at, op.out_size
    return Plan(table, settings, at, size, end)


def _aligned(count: int) -> int:
    return -(-count // 16) * 16


def packing_size(ops, batch: int, itemsize: int) -> int:
    """Elements of scratch any product of ``ops`` needs for packing."""
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


def octets_of(array: np.ndarray) -> tuple[np.ndarray, int, int]:
    """``array`` (N, ...), contiguous rows of a dtype in CODES_OF_DTYPES, as the fields of `Rows`; nothing is copied."""
    data = np.ndarray(array.nbytes, np.uint8, array)
    data.setflags(write=False)  # whether the array is or not, so that the kernels see one type
    return data, array.nbytes // (len(array) or 1), CODES_OF_DTYPES[array.dtype]


def rows_of(array: np.ndarray) -> Rows:
    """`octets_of` by name."""
    return Rows(*octets_of(array))


NO_ROWS = rows_of(np.empty((0, 1), np.float32))

__all__ = [
    "LINEAR", "NO_ROWS", "Buffers", "Data", "Moment", "Objective", "Optimizer", "Plan", "Program", "Rows", "Rules",
    "infer", "infer_rows", "octets_of", "packing_size", "panel_order", "plan", "rows_of", "tile_size", "train",
]  # fmt: skip
