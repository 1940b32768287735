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

from .activations import call_forward
from .barrier import meet, start_together
from .batch import gather_batch, partition, rows_to_prefetch
from .jit import jit
from .learning import learn, restrain
from .losses import call_loss, sum_of_rows
from .metrics import call_metric
from .passes import backward, forward, rows_at
from .processor import atomic_load, atomic_store, clock, flush_denormals, restore_denormals
from .program import DONE, END, IN, NANOSECONDS, OUT, OUT_AT, Moment
from .updates import call_scalars


@jit
def train(team, program, buffers, data, table, state, moment, part):
    """Steps of training on consecutive batches of ``data.order``, of one or more epochs, from step ``DONE`` on.

    ``moment`` is that of step 0. ``part`` is all rows of each batch, or a part of one long step. On a busy machine a
    step may take a hundred times as long as the last, so the caller tells how long to go on, not how many steps.
    """
    start_together(team)
    mode = flush_denormals()
    step, stop = table.progress[DONE], clock() + table.progress[NANOSECONDS]
    scratch, scalars = buffers.scratch[team.thread], buffers.scalars[team.thread]
    # Each thread gathers all rows for itself only in whole steps. In a step of several calls the number of threads may
    # change from call to call, and a thread might then lack inputs that it needs for dW.
    is_whole = part.first_row == 0 and part.learns
    gathers_all = team.threads > 1 and buffers.inputs.shape[0] > 1 and is_whole
    inputs, in_size = buffers.inputs[team.thread if gathers_all else 0], program.ops[0, IN]
    while step < atomic_load(table.progress, END):
        mine = partition(team, data, part, step, gathers_all)
        now = Moment(moment.seed, moment.epoch + mine.epoch, moment.step + mine.step)
        gather_batch(buffers, inputs, in_size, data, mine)
        forward(team, program, mine, inputs, buffers.values, scratch, now)
        _loss_and_metrics(program, buffers, table, mine)
        backward(team, program, mine, buffers.values, buffers.dvalues, scratch, now)
        meet(team)  # the gradients of all rows are there
        if part.learns:
            rate, count = state.learning_rates[step], state.iterations + step + 1
            call_scalars(state.fill_scalars, scalars, state.hyper, rate, count)
            if team.thread == 0:
                _add_up(buffers, table, step, mine)
            next_rows = rows_to_prefetch(team, data, in_size, mine)
            learn(team, program, buffers, inputs, mine.rows, next_rows, state)
            if state.restraints.active:
                penalty = restrain(team, program, state, scalars)
                if team.thread == 0:
                    table.losses[step] += penalty
            if team.thread == 0 and clock() > stop:
                atomic_store(table.progress, END, step + 1)  # which all threads see after the barrier
            meet(team)  # the parameters of the next step are there
        step += 1
    restore_denormals(mode)
    if team.thread == 0 and part.learns:
        table.progress[DONE] = step
    meet(team)


@jit(inline=True)
def _loss_and_metrics(program, buffers, table, mine):
    """Loss, its gradient and metrics of this thread's rows."""
    low, high = mine.low, mine.high
    last = program.ops[program.ops.shape[0] - 1]
    logits = rows_at(buffers.values, last[OUT_AT], last[OUT], low, high)
    dlogits = rows_at(buffers.dvalues, last[OUT_AT], last[OUT], low, high)
    # a slice of an empty buffer is empty
    labels, targets = buffers.labels[low:high], buffers.targets[low:high]
    call_loss(
        table.loss, buffers.row_loss[low:high], dlogits, logits, labels, targets, buffers.teacher[low:high],
        buffers.row_scale[low:high], table.hyper,
    )  # fmt: skip
    if table.metric_units.size:
        predictions = logits
        if buffers.predictions.size:
            predictions = buffers.predictions[low:high]
            call_forward(program.final, predictions, logits, 0.0)
        for m in range(table.metric_units.size):
            row_value = buffers.row_metric[m, low:high]
            call_metric(table.metric_units[m], row_value, predictions, labels, targets, table.metric_ks[m])


@jit(inline=True)
def _add_up(buffers, table, step, mine):
    """The loss and metrics of a whole batch, from those of its rows, in order."""
    table.losses[step] = sum_of_rows(buffers.row_loss[: mine.rows])
    for m in range(table.metric_units.size):
        for i in range(mine.rows):
            table.metrics[mine.epoch, m] += buffers.row_metric[m, i]
