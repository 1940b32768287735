"""The compiled training loop: many steps in one call, no Python in between.

A step is gather -> forward -> loss -> backward -> update, and `train` below reads so. It calls the same kernels in
the same order as the layers do from Python: both end with the same bits. The model is data to it (`program`): a
table of operations, a flat parameter vector, and one buffer that holds every operation's output. So the loop is
compiled once for each dtype, whatever the architecture.

Threads share a step in two ways. Up to the loss's gradient and back through the layers, each takes its own rows of
the batch; at wide dense layers it takes its own columns of all rows (`passes`). The weight gradients sum over all rows,
so there each thread takes its own part of the weights, and updates it at once (`learning`). Between the two all
threads meet.
"""

from typing import NamedTuple

import numpy as np

from .activations import activation_forward
from .barrier import meet, start_together
from .batch import (
    CODES_OF_DTYPES,
    NO_ROWS,
    Data,
    Part,
    Rows,
    gather,
    gather_batch,
    partition,
    rows_of,
    rows_to_prefetch,
)
from .infer import Inference, Space, infer, infer_rows, search_nonfinite
from .jit import jit
from .learning import Restraints, UpdateState, learn, restrain
from .losses import Batch, loss_rows, sum_of_rows
from .metrics import metric_rows
from .passes import Moment, backward, forward, rows_at
from .processor import flush_denormals, restore_denormals
from .program import IN, OUT, OUT_AT, Plan, Program, packing_size, panel_order, plan
from .updates import step_scalars

__all__ = [
    "CODES_OF_DTYPES", "NO_ROWS", "Data", "Inference", "LossTable", "Moment", "Part", "Plan",
    "Program", "Restraints", "Rows", "Space", "UpdateState", "gather", "infer", "infer_rows", "packing_size",
    "panel_order", "plan", "rows_of", "search_nonfinite", "train",
]  # fmt: skip


class LossTable(NamedTuple):
    """Loss and metrics as data, and where their values go."""

    kind: int
    hyper: np.ndarray
    metric_kinds: np.ndarray  # int64 (metrics,)
    metric_ks: np.ndarray
    losses: np.ndarray  # float64 (steps,): mean over the batch, penalties included
    metrics: np.ndarray  # float64 (epochs, metrics): sums over samples, added to


@jit
def train(team, program, buffers, data, table, state, moment, part):
    """``len(learning_rates)`` steps of training on consecutive batches of ``data.order``, of one or more epochs.

    ``moment`` is that of the first step. ``part`` is all rows of each batch, or a part of one long step.
    """
    start_together(team)
    mode = flush_denormals()
    scratch, scalars = buffers.scratch[team.thread], buffers.scalars[team.thread]
    # Each thread gathers all rows for itself only in whole steps. In a step of several calls the number of threads may
    # change from call to call, and a thread might then lack inputs that it needs for dW.
    is_whole = part.first_row == 0 and part.learns
    gathers_all = team.threads > 1 and buffers.inputs.shape[0] > 1 and is_whole
    inputs, in_size = buffers.inputs[team.thread if gathers_all else 0], program.ops[0, IN]
    for step in range(state.learning_rates.size):
        mine = partition(team, data, part, step, gathers_all)
        now = Moment(moment.seed, moment.epoch + mine.epoch, moment.step + mine.step)
        gather_batch(buffers, inputs, in_size, data, mine)
        forward(team, program, mine, inputs, buffers.values, scratch, now)
        _loss_and_metrics(program, buffers, table, mine)
        backward(team, program, mine, buffers.values, buffers.dvalues, scratch, now)
        meet(team)  # the gradients of all rows are there
        if part.learns:
            rate, count = state.learning_rates[step], state.iterations + step + 1
            step_scalars(scalars, state.kind, state.hyper, rate, count)
            if team.thread == 0:
                _add_up(buffers, table, step, mine)
            next_rows = rows_to_prefetch(team, data, in_size, mine)
            learn(team, program, buffers, inputs, mine.rows, next_rows, state)
            if state.restraints.active:
                penalty = restrain(team, program, state, scalars)
                if team.thread == 0:
                    table.losses[step] += penalty
            meet(team)  # the parameters of the next step are there
    restore_denormals(mode)
    meet(team)


@jit(inline=True)
def _loss_and_metrics(program, buffers, table, mine):
    """Loss, its gradient and metrics of this thread's rows."""
    low, high = mine.low, mine.high
    last = program.ops[program.ops.shape[0] - 1]
    logits = rows_at(buffers.values, last[OUT_AT], last[OUT], low, high)
    dlogits = rows_at(buffers.dvalues, last[OUT_AT], last[OUT], low, high)
    labels, targets = (
        buffers.labels[low:high],
        buffers.targets[low:high],
    )  # a slice of an empty buffer is empty
    batch = Batch(logits, labels, targets, buffers.teacher[low:high], buffers.row_scale[low:high])
    loss_rows(table.kind, buffers.row_loss[low:high], dlogits, batch, table.hyper)
    if table.metric_kinds.size:
        predictions = logits
        if buffers.predictions.size:
            predictions = buffers.predictions[low:high]
            activation_forward(predictions, logits, program.final, 0.0)
        for m in range(table.metric_kinds.size):
            row_value = buffers.row_metric[m, low:high]
            metric_rows(table.metric_kinds[m], row_value, predictions, labels, targets, table.metric_ks[m])


@jit(inline=True)
def _add_up(buffers, table, step, mine):
    """The loss and metrics of a whole batch, from those of its rows, in order."""
    table.losses[step] = sum_of_rows(buffers.row_loss[: mine.rows])
    for m in range(table.metric_kinds.size):
        for i in range(mine.rows):
            table.metrics[mine.epoch, m] += buffers.row_metric[m, i]
